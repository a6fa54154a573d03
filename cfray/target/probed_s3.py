"""S3 under the trial of conditional PUT, by boto3.

Source: Amazon S3 User Guide, "Conditional writes".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cfray.errors import ConfigError
from cfray.runtime.error_text import describe_error
from cfray.runtime.filesystems import s3_endpoint, s3_region
from cfray.target.probed_store import CONNECT_TIMEOUT, RACERS, REFUSALS, TIMEOUT, Place

_VARIABLES = (
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary keys) and "
    "AWS_REGION"
)


class S3Store:
    """Objects in a bucket of S3."""

    def __init__(self, location: str, folder: str) -> None:
        """Open a client, which sends nothing yet.

        Raises:
            ConfigError: the environment names no such store.
        """
        import boto3
        from botocore.config import Config

        self._place = Place(location, folder, "AWS_ENDPOINT_URL", _VARIABLES)
        config = Config(
            # Lance addresses a bucket by path, too
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=TIMEOUT,
            max_pool_connections=RACERS,
        )
        with self.explaining():
            self._client: Any = boto3.session.Session().client(
                "s3",
                endpoint_url=s3_endpoint() or None,
                region_name=s3_region() or None,
                config=config,
            )

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Turn boto3's errors into errors of ours."""
        from botocore import exceptions as boto

        try:
            yield
        except boto.ClientError as error:
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            code = error.response.get("Error", {}).get("Code", "")
            raise self._place.explain(status, str(code)) from error
        except (boto.ConnectionError, boto.HTTPClientError) as error:
            raise self._place.explain(0, str(error)) from error
        except (boto.BotoCoreError, ValueError) as error:
            raise ConfigError(
                f"cannot address the store of {self._place.location}: {describe_error(error)}",
                f"set {_VARIABLES}, and AWS_ENDPOINT_URL for a store that is not Amazon's",
            ) from error

    def put(self, name: str, body: bytes, **condition: str) -> str:
        """Write an object; give its ETag."""
        answer = self._client.put_object(
            Bucket=self._place.bucket, Key=self._place.prefix + name, Body=body, **condition
        )
        return str(answer["ETag"])

    def put_if_unchanged(self, name: str, body: bytes, tag: str) -> int:
        """Write with ``If-Match``."""
        return self._put_if(name, body, IfMatch=tag)

    def put_if_absent(self, name: str, body: bytes) -> int:
        """Write with ``If-None-Match: *``."""
        return self._put_if(name, body, IfNoneMatch="*")

    def _put_if(self, name: str, body: bytes, **condition: str) -> int:
        try:
            self.put(name, body, **condition)
        except self._client.exceptions.ClientError as error:
            status = int(error.response["ResponseMetadata"]["HTTPStatusCode"])
            if status in REFUSALS:
                return status
            raise
        return 200

    def read(self, name: str) -> bytes:
        """Read an object."""
        answer = self._client.get_object(Bucket=self._place.bucket, Key=self._place.prefix + name)
        return bytes(answer["Body"].read())

    def delete(self, name: str) -> None:
        """Delete an object."""
        self._client.delete_object(Bucket=self._place.bucket, Key=self._place.prefix + name)
