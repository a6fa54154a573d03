"""Credentials by name: a job file says where a secret is and never holds it.

A secret is read when it is used, on the machine that uses it.  An address with a
secret in it is refused, because addresses are written into the plan, the ledger and
the report.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, model_validator

from cfray.errors import SourceError

#: Schemes of storage whose URIs may name an account, a container or a user before the ``@``
#: (``abfs://container@account/path``, ``hdfs://user@host/path``, ``gs://anonymous@bucket``).
_NAME_BEFORE_AT = frozenset(
    {"abfs", "abfss", "hdfs", "viewfs", "gs", "gcs", "wasb", "wasbs", "postgresql", "postgres"}
)

#: The environment variables that hold the credential of a storage, by the scheme of its URIs.
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}

#: How the names of query parameters end that carry a secret, without punctuation: API keys,
#: presigned S3 URLs (X-Amz-Signature, AWSAccessKeyId), Azure's shared access signatures (sig).
_SECRET_PARAMETER = re.compile(
    r"(key|keyid|token|secret|password|passwd|pwd|passphrase|credentials?|signature|sig|jwt"
    r"|auth|authorization)$"
)


#: What a shell can export: letters, digits and underscores.  A key put in place of the name is
#: refused by it, for most keys hold something else.
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Secret(BaseModel):
    """Where a credential is: ``{env: NAME}`` or ``{file: PATH}``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: str | None = None
    file: str | None = None

    @model_validator(mode="after")
    def _names_one_place(self) -> Secret:
        if (self.env is None) is (self.file is None):
            raise ValueError("write {env: NAME} or {file: PATH}")
        if self.env is not None and not _VARIABLE_NAME.fullmatch(self.env):
            raise ValueError(
                "env holds something else than the name of an environment variable; "
                "write {env: NAME} or {file: PATH}"
            )
        return self

    def reveal(self) -> str:
        """Read the credential.

        Raises:
            SourceError: the environment variable is not set, or the file cannot be read.
        """
        if self.env is not None:
            if not os.environ.get(self.env):
                raise SourceError(
                    f"the environment variable {self.env}, which the job file names for a "
                    "credential, is not set",
                    f"export {self.env}",
                )
            return os.environ[self.env]
        assert self.file is not None
        try:
            return Path(self.file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(
                f"cannot read the credential file {self.file}: {type(error).__name__}",
                "create it, readable for this user",
            ) from None


def name_variables(text: str) -> str:
    """Name the variables of the storage whose URI is in a text; those of all where none is."""
    for scheme, variables in _VARIABLES.items():
        if f"{scheme}://" in text:
            return variables
    return ", ".join(f"{variables} for {scheme}://" for scheme, variables in _VARIABLES.items())


def check_no_secret_in_url(url: str, remedy: str) -> str:
    """Refuse an address that holds a password, a key or a token.

    Looks at what stands before the ``@`` of the host, also where a slash in the secret ends
    the host early, and at the names of the query's parameters.

    Args:
        url: an address, with or without a scheme.
        remedy: where the credential belongs instead, for example
            ``name it with api_key: {env: NAME} or {file: PATH}``.

    Returns:
        ``url`` as it is, so that a pydantic validator can return it.

    Raises:
        ValueError: the address holds a secret; the message never quotes the address.
    """
    if _has_secret(url):
        raise ValueError(f"the address holds a credential; {remedy}")
    return url


def _has_secret(url: str) -> bool:
    scheme, has_scheme, address = url.partition("://")
    if not has_scheme:
        scheme, address = "", url
    scheme = scheme.lower()
    host, _, behind_host = re.sub(r"[/?#]", "/", address, count=1).partition("/")
    user, at, _ = host.rpartition("@")
    if at and (":" in user or scheme not in _NAME_BEFORE_AT):
        return True
    if not at and ":" in host and "@" in behind_host:
        # Either a port, or a password whose slash ends the host early.  A bucket has no port.
        port = host.rpartition(":")[2]
        if not port.isdigit() or scheme == "s3":
            return True
    return any(
        _names_secret(name) or _holds_secret(value) for name, value in _parameters(address) if value
    )


def _parameters(address: str) -> list[tuple[str, str]]:
    """List the parameters of the query and of the fragment."""
    try:
        parts = urlsplit(f"//{address}")
    except ValueError:  # a bracket that opens no IPv6 address: refused where the address is opened
        return []
    return parse_qsl(parts.query) + parse_qsl(parts.fragment)


def _holds_secret(value: str) -> bool:
    """Tell whether a value is a list of names with values (``AWS_SESSION_TOKEN:x,...``)."""
    pairs = (pair.partition(":") for pair in value.split(","))
    return any(inner and _names_secret(name) for name, _, inner in pairs)


def _names_secret(parameter: str) -> bool:
    return bool(_SECRET_PARAMETER.search(re.sub(r"[^a-z]", "", parameter.lower())))
