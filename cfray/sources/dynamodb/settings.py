"""The settings of a DynamoDB source: what its section of the job file may say.

The client, the plan and the reader take these settings and never the source itself, so
that the source can import all of them.  Nothing is opened here.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from cfray.errors import SourceError
from cfray.runtime.credentials import Secret
from cfray.runtime.models import Strict
from cfray.sources.dynamodb import errors
from cfray.sources.remote import RemoteSource

#: Hosts of the service, which name its region.
_SERVICE_HOST = re.compile(r"(?:[0-9]+\.ddb|dynamodb|dynamodb-fips)\.([a-z0-9-]+)\.amazonaws\.com")
#: The region that requests to an emulator are signed for.
_ANY_REGION = "us-east-1"
#: Segments of a scan at most, by its API reference: "TotalSegments".
_MAX_SEGMENTS = 1_000_000

#: Number types of vectors that are packed into bytes.
VectorNumber = Literal["float32", "float64", "float16"]


class VectorAttribute(Strict):
    """An attribute that holds vectors: lists of numbers, or bytes of packed numbers.

    Bytes say neither what they are nor how many: ``dtype`` and ``dimension`` must be declared.
    """

    #: Number type of packed bytes; of a list of numbers the width that they are read in, which is
    #: float32 where nothing is declared.
    dtype: VectorNumber | None = None
    #: Order of the bytes of each packed number; Java's ByteBuffer writes ``big``.
    byte_order: Literal["little", "big"] = "little"
    #: Numbers of each vector; default: whatever each item has.
    dimension: int | None = Field(default=None, ge=1)
    #: Whether an item may lack the vector.  If not, such an item is rejected.
    optional: bool = False


class DynamoDBSettings(RemoteSource):
    """Where the items are, which of them to read, and how."""

    unfingerprinted: ClassVar[frozenset[str]] = RemoteSource.unfingerprinted | {
        "read_capacity",
        "count_items",
        "profile",
    }

    kind: Literal["dynamodb"] = "dynamodb"
    #: Region of the service, in place of ``url``.
    region: str | None = Field(default=None, pattern=r"^[a-z0-9-]+$")
    #: ``ACCESS_KEY_ID:SECRET_ACCESS_KEY`` or ``ACCESS_KEY_ID:SECRET_ACCESS_KEY:SESSION_TOKEN``;
    #: default: what AWS's own client finds (environment, profile, role).
    api_key: Secret | None = None
    #: Profile of AWS's configuration files that holds the credential.
    profile: str | None = Field(default=None, min_length=1)
    #: Segments that a table is cut into; default: by the table's size and ``shard_bytes``.
    segments: int | None = Field(default=None, ge=1, le=_MAX_SEGMENTS)
    #: Whether a page shows every write before it; costs twice the capacity.
    consistent_read: bool = True
    #: Read capacity units a second that all workers together may consume; default: no limit but
    #: the pauses that DynamoDB's throttling asks for.
    read_capacity: float | None = Field(default=None, gt=0)
    #: Whether the items are counted again after the copy, which costs as much capacity as reading.
    count_items: bool = True
    #: Attributes that hold vectors; each becomes ``vectors.<name>``.
    vectors: dict[str, VectorAttribute] = Field(default_factory=dict)
    #: Names of the key attributes: the partition key, then the sort key.  An export does not say
    #: them; a live table does.
    key: list[str] | None = Field(default=None, min_length=1, max_length=2)

    @model_validator(mode="before")
    @classmethod
    def _address_of_region(cls, data: Any) -> Any:
        if not isinstance(data, dict) or {"url", "uri"} & data.keys():
            return data
        region = data.get("region")
        if not isinstance(region, str):
            return data
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        return {"url": f"https://dynamodb.{region}.{suffix}", **data}

    @model_validator(mode="after")
    def _packed_vectors_have_a_width(self) -> Self:
        for name, attribute in self.vectors.items():
            if attribute.dtype and not attribute.dimension:
                raise ValueError(
                    f"vectors.{name} declares a dtype: declare its dimension, too, for bytes of "
                    "another length would pass as vectors"
                )
        return self

    @model_validator(mode="after")
    def _has_one_budget(self) -> Self:
        if self.read_capacity and self.requests_per_second:
            raise ValueError(
                "give either read_capacity or requests_per_second: a run has one budget"
            )
        return self

    @property
    def request_rate(self) -> float | None:
        """Give the budget of a second: capacity units where the job file limits these."""
        return self.read_capacity or self.requests_per_second

    @property
    def signing_region(self) -> str:
        """Give the region that requests are signed for."""
        match = _SERVICE_HOST.match(urlsplit(self.url or "").hostname or "")
        return self.region or (match[1] if match else _ANY_REGION)

    def read_credential(self) -> list[str]:
        """Read the access key's id, the secret access key and, if there is one, the session token.

        Returns:
            Nothing where AWS's own client is to find a credential.

        Raises:
            SourceError: what ``api_key`` names cannot be read, or is not of this form.
        """
        secret = self.read_secret()
        if secret is None:
            return []
        fields = secret.split(":")
        if len(fields) not in (2, 3) or not all(fields):
            raise SourceError(
                "what source.api_key names is no ACCESS_KEY_ID:SECRET_ACCESS_KEY",
                "write the access key's id, a colon and the secret access key; behind another "
                "colon the session token, where there is one; or leave api_key out",
            )
        return fields

    def remove_secret(self, error: SourceError) -> SourceError:
        """Take the secret access key and the session token out of an error's text."""
        super().remove_secret(error)
        secret = self.read_secret()
        for field in (secret or "").split(":")[1:]:
            if field and field in error.what:
                error.what = error.what.replace(field, "***")
                error.args = (error.what, *error.args[1:])
        return error

    def classify_error(self, error: Exception) -> SourceError | None:
        """Say what an error of AWS's client means; None where it is a fault of ours."""
        return errors.classify_error(error, self.address)

    @property
    def is_encrypted(self) -> bool:
        """Tell whether the service is addressed over TLS."""
        return str(self.url).startswith("https://")
