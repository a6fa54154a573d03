"""Google Cloud Storage under the trial of conditional PUT, over its XML API.

Lance commits over that API; Google's Python client speaks the JSON API, where an emulator may keep
a condition that it ignores here.  So the requests are written out, and google-auth signs them.

Source: Google Cloud Storage documentation, "Request preconditions" and "XML API".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from cfray.errors import ConfigError
from cfray.runtime import gcs
from cfray.runtime.sdk import import_sdk
from cfray.target.probed_store import CONNECT_TIMEOUT, RACERS, REFUSALS, TIMEOUT, Place

_CONDITION, _GENERATION = "x-goog-if-generation-match", "x-goog-generation"
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
#: One object may be written about once in a second.  A request that comes too early is refused with
#: this status and does nothing, so it is sent again, with pauses of 1, 2, 4, ... seconds.
_TOO_EARLY, _TIMES = 429, 5


class GcsStore:
    """Objects in a bucket of Google Cloud Storage."""

    def __init__(self, location: str, folder: str) -> None:
        """Find the credential; nothing is sent to the bucket yet.

        Raises:
            ConfigError: there is no credential, or google-auth is not installed.
        """
        self._place = Place(location, folder, gcs.EMULATOR, gcs.CREDENTIALS)
        self._requests = import_sdk("requests", "gcs")
        self._session: Any = self._open_session()
        self._session.mount("https://", self._adapter())
        self._session.mount("http://", self._adapter())

    def _open_session(self) -> Any:
        if gcs.has_emulator():
            return self._requests.Session()
        auth = import_sdk("google.auth", "gcs")
        transport = import_sdk("google.auth.transport.requests", "gcs")
        try:
            credential, _ = auth.default(scopes=[_SCOPE])
        except auth.exceptions.GoogleAuthError as error:
            raise ConfigError(
                f"there is no credential for {self._place.location} ({type(error).__name__})",
                f"set {gcs.CREDENTIALS} to the file of a service account that may write and delete "
                "there, or run on a machine that has one",
            ) from None
        return transport.AuthorizedSession(credential, refresh_status_codes=())

    def _adapter(self) -> Any:
        retry = import_sdk("urllib3", "gcs").Retry(
            total=_TIMES,
            **dict.fromkeys(("connect", "read", "redirect", "other"), 0),
            status_forcelist=[_TOO_EARLY],
            allowed_methods=None,
            backoff_factor=1,
            raise_on_status=False,
        )
        return self._requests.adapters.HTTPAdapter(pool_maxsize=RACERS, max_retries=retry)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Turn the errors of requests and google-auth into errors of ours."""
        try:
            yield
        except self._requests.HTTPError as error:
            raise self._place.explain(error.response.status_code, error.response.reason) from None
        except (self._requests.RequestException, *self._auth_errors()) as error:
            raise self._place.explain(0, type(error).__name__) from None

    def _auth_errors(self) -> tuple[type[Exception], ...]:
        if gcs.has_emulator():
            return ()
        return (import_sdk("google.auth.exceptions", "gcs").GoogleAuthError,)

    def _send(self, method: str, name: str, **request: Any) -> Any:
        key = quote(self._place.prefix + name)
        url = f"{gcs.read_endpoint()}/{self._place.bucket}/{key}"
        return self._session.request(method, url, timeout=(CONNECT_TIMEOUT, TIMEOUT), **request)

    def put(self, name: str, body: bytes) -> str:
        """Write an object; give its generation."""
        answer = self._send("PUT", name, data=body)
        answer.raise_for_status()
        return str(answer.headers[_GENERATION])

    def put_if_unchanged(self, name: str, body: bytes, tag: str) -> int:
        """Write if the object still has a generation."""
        return self._put_if(name, body, tag)

    def put_if_absent(self, name: str, body: bytes) -> int:
        """Write if the object has no generation."""
        return self._put_if(name, body, "0")

    def _put_if(self, name: str, body: bytes, generation: str) -> int:
        answer = self._send("PUT", name, data=body, headers={_CONDITION: generation})
        if answer.status_code in REFUSALS:
            return int(answer.status_code)
        answer.raise_for_status()
        return 200

    def read(self, name: str) -> bytes:
        """Read an object."""
        answer = self._send("GET", name)
        answer.raise_for_status()
        return bytes(answer.content)

    def delete(self, name: str) -> None:
        """Delete an object."""
        answer = self._send("DELETE", name)
        if answer.status_code != 404:
            answer.raise_for_status()
