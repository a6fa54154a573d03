"""Azure Blob Storage under the trial of conditional PUT, by Azure's own client.

Source: Azure Storage REST reference, "Specifying conditional headers".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cfray.runtime import azure
from cfray.runtime.credentials import name_variables
from cfray.runtime.sdk import import_sdk
from cfray.target.probed_store import REFUSALS, Place


class AzureStore:
    """Blobs in a container of the account that the environment names."""

    def __init__(self, location: str, folder: str) -> None:
        """Open a client, which sends nothing yet.

        Raises:
            ConfigError: the environment names no account, or Azure's client is not installed.
        """
        self._place = Place(
            location, folder, azure.ENDPOINT, name_variables(location), container="container"
        )
        self._core = import_sdk("azure.core", "azure")
        self._errors = import_sdk("azure.core.exceptions", "azure")
        client = azure.open_client(azure.read_account(), retries=0)
        self._container: Any = client.get_container_client(self._place.bucket)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Turn the client's errors into errors of ours."""
        try:
            yield
        except self._errors.AzureError as error:
            status = int(getattr(error, "status_code", None) or 0)
            raise self._place.explain(status, azure.describe_azure_error(error)) from None

    def _blob(self, name: str) -> Any:
        return self._container.get_blob_client(self._place.prefix + name)

    def put(self, name: str, body: bytes) -> str:
        """Write a blob; give its ETag."""
        return str(self._blob(name).upload_blob(body, overwrite=True)["etag"])

    def put_if_unchanged(self, name: str, body: bytes, tag: str) -> int:
        """Write with ``If-Match``."""
        condition = self._core.MatchConditions.IfNotModified
        return self._put_if(name, body, overwrite=True, etag=tag, match_condition=condition)

    def put_if_absent(self, name: str, body: bytes) -> int:
        """Write with ``If-None-Match: *``."""
        return self._put_if(name, body, overwrite=False)

    def _put_if(self, name: str, body: bytes, **condition: Any) -> int:
        try:
            self._blob(name).upload_blob(body, **condition)
        except self._errors.HttpResponseError as error:
            status = int(error.status_code or 0)
            if status in REFUSALS:
                return status
            raise
        return 200

    def read(self, name: str) -> bytes:
        """Read a blob."""
        return bytes(self._blob(name).download_blob().readall())

    def delete(self, name: str) -> None:
        """Delete a blob."""
        try:
            self._blob(name).delete_blob()
        except self._errors.ResourceNotFoundError:
            return
