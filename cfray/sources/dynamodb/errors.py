"""What the errors of AWS's client mean: terminal, or transient.

DynamoDB answers most refusals with the status 400: the code beside it says whether the same
request may succeed later.
"""

from __future__ import annotations

from typing import Any

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime.retry_after import retry_after_seconds

#: Codes after which the same request may succeed.  Source: Amazon DynamoDB Developer Guide, "Error
#: handling with DynamoDB", errors with "OK to retry? Yes".
_TRANSIENT = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        "ItemCollectionSizeLimitExceededException",
        "InternalServerError",
        "InternalFailure",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "LimitExceededException",
    }
)
#: Codes of a request whose credential is wrong, missing or expired.
_UNKNOWN_KEY = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "MissingAuthenticationTokenException",
        "MissingAuthenticationToken",
        "IncompleteSignatureException",
        "ExpiredTokenException",
        "ExpiredToken",
        "AuthFailure",
    }
)
_NO_PERMISSION = frozenset({"AccessDeniedException", "AccessDenied"})
#: Errors of the client that say that no usable answer came, by the names of their classes.
_NO_ANSWER = frozenset(
    {
        "BrokenAnswer",
        "ConnectionError",
        "HTTPClientError",
        "ChecksumError",
        "ResponseParserError",
        "IncompleteReadError",
        "ResponseStreamingError",
    }
)
_NO_CREDENTIAL = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "TokenRetrievalError",
        "SSOError",
        "ProfileNotFound",
        "MetadataRetrievalError",
    }
)
_PERMISSIONS = (
    "give the credential that source.api_key names, or that AWS's own client finds, the "
    "permissions dynamodb:DescribeTable and dynamodb:Scan, and dynamodb:ListTables where "
    "source.collections names no table"
)


class BrokenAnswer(Exception):
    """An answer that arrived complete and is no JSON, or does not have the checksum it names."""


class TableNotFound(SourceError):
    """DynamoDB has no such table."""


class NoPermission(SourceError):
    """The credential may not do what was asked."""


def classify_error(error: Exception, address: str) -> SourceError | None:
    """Say what an error of the client means.

    Args:
        error: as the client raised it.
        address: of the store, for the message.

    Returns:
        The error to raise instead, or None where it is a fault of ours.
    """
    from botocore import exceptions as boto

    if isinstance(error, boto.ClientError):
        return _classify_answer(error, address)
    if isinstance(error, boto.SSLError):
        return SourceError(
            f"{address} has no certificate that is trusted: {error}",
            "correct source.url, or name the certificates to trust in source.ca_file",
        )
    if isinstance(error, BrokenAnswer | boto.BotoCoreError | boto.HTTPClientError):
        return _classify_client_error(error, address)
    # a file of certificates that cannot be read
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return SourceError(
            f"the certificates for {address} cannot be loaded: {error}",
            "correct source.ca_file: it names a file of certificates in PEM",
        )
    return None


def _classify_client_error(error: Exception, address: str) -> SourceError:
    """Classify an error that the client raised without a usable answer, by its class."""
    class_names = {kind.__name__ for kind in type(error).__mro__}
    if class_names & _NO_ANSWER:
        return SourceUnavailable(
            f"{address} did not answer: {error}",
            "check source.url and the network, then run the same command again",
        )
    if class_names & _NO_CREDENTIAL:
        return SourceError(
            f"no credential for {address}: {error}",
            "name one with source.api_key, or configure AWS's own client (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, a profile or a role) on the driver and on every worker",
        )
    return SourceError(
        f"cannot send a request to {address}: {error}", "correct the source in the job file"
    )


def _classify_answer(error: Any, address: str) -> SourceError:
    """Classify an answer by its code, and where it has none by its HTTP status."""
    details = error.response.get("Error", {})
    code = str(details.get("Code", ""))
    metadata = error.response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode") or 0)
    operation = getattr(error, "operation_name", "")
    message = f"{address} answered {operation} with {code or status}: {details.get('Message', '')}"
    if code in _TRANSIENT or status in (408, 429) or status >= 500:
        headers = metadata.get("HTTPHeaders", {})
        return SourceUnavailable(
            message,
            "wait, or lower source.read_capacity; then run the same command again",
            retry_after_seconds(headers.get("retry-after")),
        )
    if code == "ResourceNotFoundException":
        return TableNotFound(message, "correct source.collections: there is no such table")
    if code in _UNKNOWN_KEY:
        return SourceError(
            message,
            "correct what source.api_key names, or the credential that AWS's own client finds",
        )
    if code in _NO_PERMISSION:
        return NoPermission(message, _PERMISSIONS)
    return SourceError(message, "correct the source in the job file")
