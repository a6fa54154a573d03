"""The object stores of other clouds than Amazon's, as a test sees them: variables and places."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.testbeds import azurite, fake_gcs
from tests.testbeds.server import Server

#: The stores, by the name of their server.
NAMES = ("azurite", "gcs")
#: Beginnings of the variables by which a user names an account, a key or an endpoint.
VARIABLES = ("AZURE_", "GOOGLE_", "STORAGE_EMULATOR_HOST")
BUCKET = "corpus"


@dataclass(frozen=True, slots=True)
class Cloud:
    """A store of one of the clouds.

    Attributes:
        server: that stands in for it.
        scheme: of its URIs.
        container: what it calls a bucket.
        checks_keys: whether a wrong key is refused.
    """

    server: Server = field(repr=False)
    scheme: str
    container: str
    checks_keys: bool

    @property
    def env(self) -> Mapping[str, str]:
        """Give the variables that a user sets."""
        return self.server.env

    def set_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Set the variables that a user sets, and clear any other of these clouds."""
        for name in [name for name in os.environ if name.startswith(VARIABLES)]:
            monkeypatch.delenv(name)
        for name, value in self.env.items():
            monkeypatch.setenv(name, value)

    def place(self) -> str:
        """Give the URI of an empty place, with a space in its name, without a trailing slash."""
        return f"{self.scheme}://{BUCKET}/a%20folder/{uuid.uuid4().hex[:8]}"

    def names(self, uri: str) -> list[str]:
        """List what lies under a URI, as the store names it below that."""
        prefix = self._key(uri)
        if self.scheme == "gs":
            found = fake_gcs.names(self.server.endpoint, BUCKET, prefix)
        else:
            found = list(self._container().list_blob_names(name_starts_with=prefix))
        return sorted(name.removeprefix(f"{prefix}/") for name in found)

    def read(self, uri: str) -> bytes:
        """Read an object."""
        if self.scheme == "gs":
            return fake_gcs.read(self.server.endpoint, BUCKET, self._key(uri))
        return self._container().download_blob(self._key(uri)).readall()

    def _key(self, uri: str) -> str:
        return unquote(uri.removeprefix(f"{self.scheme}://{BUCKET}/"))

    def _container(self) -> Any:
        return azurite.client(self.server).get_container_client(BUCKET)


@contextmanager
def cloud(name: str, folder: Path) -> Iterator[Cloud]:
    """Start a store by name; it has one bucket."""
    if name == "azurite":
        with azurite.start(folder) as server:
            azurite.client(server).create_container(BUCKET)
            yield Cloud(server, "az", "container", checks_keys=True)
    else:
        with fake_gcs.start(folder) as server:
            fake_gcs.make_bucket(server.endpoint, BUCKET)
            yield Cloud(server, "gs", "bucket", checks_keys=False)
