"""The two wires of a Weaviate server.

REST for its schema and its tenants and gRPC for its records, and tenants that sleep.

Both are the server's own versioned APIs; the messages of the second come with the
vendor's client (``weaviate.proto.v1``).  The client's calls stand back here: they
turn a gRPC status into a text, try again for a minute by themselves, cut instants
to microseconds, and cannot be told whose certificates to trust over REST.

Sources: https://docs.weaviate.io/weaviate/api/rest and https://docs.weaviate.io/weaviate/api/grpc
"""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import orjson

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime.sdk import import_sdk

#: REST's older names of a tenant's states, and the ones everybody else uses.
_STATES = {
    "HOT": "ACTIVE",
    "COLD": "INACTIVE",
    "FROZEN": "OFFLOADED",
    "UNFREEZING": "ONLOADING",
    "FREEZING": "OFFLOADING",
}
#: gRPC codes that may pass; Weaviate answers UNKNOWN to whatever goes wrong inside it.
_PASSING = {
    "UNAVAILABLE",
    "RESOURCE_EXHAUSTED",
    "INTERNAL",
    "DEADLINE_EXCEEDED",
    "ABORTED",
    "CANCELLED",
    "UNKNOWN",
    "DATA_LOSS",
}
_GONE = ("could not find class", "class not found", "tenant not found")
_WRONG = (
    "tenant not active",
    "multi-tenancy",
    "vector lengths",
    "target vectors",
    "multi vectors",
    "no such prop",
    "invalid pagination",
)
#: The gRPC message limit (104,858,000 bytes unless configured) and QUERY_MAXIMUM_RESULTS (10,000).
_TOO_LARGE = ("larger than max", "query maximum results exceeded")
#: Seconds that tenants may take to wake (offloaded ones are fetched from cold storage first), and
#: between two looks.
_WAKING, _BETWEEN = 1_800, 0.2


class Place(NamedTuple):
    """A collection, or one tenant of it (empty where there are none).

    Whether it can be read as it is.
    """

    full: str
    collection: str
    tenant: str
    state: str


class TooLarge(SourceError):
    """The page is larger than the server may send: ask for fewer records."""


@dataclass(frozen=True)
class Wire:
    """An open connection; every request is asked again after a transient error.

    Attributes:
        proto: the client's generated messages.
        call: (method, request) -> the bytes of gRPC's reply.
        send: (REST request) -> the parsed answer.
    """

    address: str
    proto: ModuleType
    call: Callable[[str, Any], bytes]
    send: Callable[[urllib.request.Request], Any]

    def rest(self, path: str, *, method: str = "GET", body: object = None, **query: str) -> Any:
        """Send one REST request; the path is quoted already."""
        url = f"{self.address}/v1{path}" + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        return self.send(urllib.request.Request(url, data, method=method))  # noqa: S310 -- the source's url is http(s)

    def classes(self) -> dict[str, dict[str, Any]]:
        """Give the definition of every collection, by name."""
        return {one["class"]: one for one in self.rest("/schema")["classes"] or []}

    def tenants(self, collection: str) -> dict[str, str]:
        """Give the state of every tenant; asking wakes none."""
        return {
            one["name"]: _state(one) for one in self.rest(f"/schema/{quote(collection)}/tenants")
        }

    def tenant(self, collection: str, name: str) -> str:
        """Give the state of one tenant."""
        return _state(self.rest(f"/schema/{quote(collection)}/tenants/{quote(name)}"))

    def turn(self, collection: str, states: dict[str, str]) -> None:
        """Change the state of tenants; an offloaded one is awake some time later."""
        body = [{"name": name, "activityStatus": state} for name, state in states.items()]
        self.rest(f"/schema/{quote(collection)}/tenants", method="PUT", body=body)

    def aliases(self) -> dict[str, list[str]]:
        """Give the aliases of each collection; servers before 1.32 have none."""
        try:
            found = self.rest("/aliases")["aliases"] or []
        except SourceError as error:
            if error.transient:
                raise
            return {}
        names: dict[str, list[str]] = {}
        for one in found:
            names.setdefault(one["class"], []).append(one["alias"])
        return names

    def count(self, collection: str, tenant: str) -> int:
        """Count the objects of a collection or of an active tenant."""
        wire = self.proto.aggregate_pb2
        reply = self.call(
            "Aggregate",
            wire.AggregateRequest(collection=collection, tenant=tenant, objects_count=True),
        )
        return int(wire.AggregateReply.FromString(reply).single_result.objects_count)


def _state(tenant: dict[str, str]) -> str:
    state = tenant.get("activityStatus", "ACTIVE")
    return _STATES.get(state, state)


@contextmanager
def opened(
    url: str,
    target: str,
    *,
    key: str | None,
    ca_file: str | None,
    timeout: float,
    ask: Callable[[Callable[[], Any]], Any],
) -> Iterator[Wire]:
    """Connect; nothing is sent yet.

    Args:
        url: of REST.
        target: host and port of gRPC, which is encrypted if REST is.
        key: API key.
        ca_file: authority to trust instead of the usual ones.
        timeout: seconds a request.
        ask: sends one request, again after a transient error.
    """
    proto, grpc = import_sdk("weaviate.proto.v1", "weaviate"), import_sdk("grpc", "weaviate")
    secure = urlsplit(url).scheme == "https"
    headers = {"authorization": f"Bearer {key}"} if key else {}
    options = [
        ("grpc.max_receive_message_length", -1),  # the server's own limit holds
        ("grpc.enable_retries", 0),  # ours obey the run's budget
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    if secure:
        try:
            trust, roots = (
                ssl.create_default_context(cafile=ca_file),
                Path(ca_file).read_bytes() if ca_file else None,
            )
        except OSError as error:  # a file that is no certificate is one, too
            raise SourceError(
                f"cannot read the certificates in {ca_file}: {error}", "correct source.ca_file"
            ) from error
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options)
    else:
        trust, channel = None, grpc.insecure_channel(target, options)

    def send(request: urllib.request.Request) -> Any:
        for name, value in {"content-type": "application/json", **headers}.items():
            request.add_header(name, value)
        with urllib.request.urlopen(request, timeout=timeout, context=trust) as answer:  # noqa: S310 -- as above
            return orjson.loads(answer.read() or b"null")

    def call(method: str, request: Any) -> bytes:
        rpc = channel.unary_unary(
            f"/weaviate.v1.Weaviate/{method}", type(request).SerializeToString
        )
        return bytes(rpc(request, timeout=timeout, metadata=tuple(headers.items())))

    try:
        yield Wire(
            url.rstrip("/"),
            proto,
            lambda *args: ask(lambda: call(*args)),
            lambda request: ask(lambda: send(request)),
        )
    finally:
        channel.close()


def readable(places: list[Place], store: str, *, skip: bool) -> tuple[list[Place], list[str]]:
    """List the places that can be read as they are, and name those that are skipped.

    Raises:
        SourceError: tenants are not active, and the job does not say what to do about that.
    """
    asleep = [f"{place.full} ({place.state})" for place in places if place.state != "ACTIVE"]
    if asleep and not skip:
        listed = ", ".join(asleep[:50]) + (
            f" and {len(asleep) - 50} more" if len(asleep) > 50 else ""
        )
        raise SourceError(
            f"{len(asleep)} tenants of {store} are not active: {listed}",
            "write source.inactive_tenants: skip or activate, or name the other tenants in source.collections",
        )
    return [place for place in places if place.state == "ACTIVE"], asleep


@contextmanager
def awake(wire: Wire, places: Callable[[], list[Place]]) -> Iterator[list[str]]:
    """Wake the tenants among some places, name them, and put them back into their state.

    Raises:
        SourceError: one does not wake.
    """
    asleep: dict[str, dict[str, str]] = {}
    for place in places():
        if place.state != "ACTIVE":
            state = {"OFFLOADING": "OFFLOADED", "ONLOADING": "ACTIVE"}.get(place.state, place.state)
            asleep.setdefault(place.collection, {})[place.tenant] = state
    try:
        for collection, states in asleep.items():
            wire.turn(collection, dict.fromkeys(states, "ACTIVE"))
        until = time.monotonic() + _WAKING
        while late := [place.full for place in places() if place.state != "ACTIVE"]:
            if time.monotonic() > until:
                raise SourceError(
                    f"tenants do not wake: {', '.join(late[:20])}",
                    "see the server's log, or write inactive_tenants: skip",
                )
            time.sleep(_BETWEEN)
        yield [
            f"{collection}/{tenant} ({state})"
            for collection, states in asleep.items()
            for tenant, state in states.items()
        ]
    finally:
        for collection, states in asleep.items():
            wire.turn(collection, states)


def judged(error: Exception, place: str) -> SourceError | None:
    """Say what an error of either wire means."""
    if isinstance(error, urllib.error.HTTPError):
        with error:
            return _refused(
                error.code,
                error.read(2_000).decode(errors="replace"),
                error.headers.get("Retry-After"),
                place,
            )
    if isinstance(
        error, OSError | HTTPException | json.JSONDecodeError | UnicodeDecodeError
    ):  # an answer cut short is no JSON
        if isinstance(getattr(error, "reason", error), ssl.SSLCertVerificationError):
            return SourceError(
                f"the certificate of {place} is not trusted: {error}",
                "name the authority that signed it with source.ca_file",
            )
        return _away(f"{place} did not answer: {type(error).__name__}: {error}")
    return (
        _failed(error, place)
        if isinstance(error, import_sdk("grpc", "weaviate").RpcError)
        else None
    )


def _refused(status: int, text: str, pause: str | None, place: str) -> SourceError:
    if status == 401:
        return SourceError(f"{place} does not accept the key (401)", "correct source.api_key")
    if status == 403:
        return SourceError(
            f"{place} forbids it to this key (403): {text}",
            "name a key in source.api_key that may read the collections",
        )
    if status == 404:
        return SourceError(
            f"{place} does not know what was asked for (404) {text}",
            "correct source.url and source.collections",
        )
    if status == 429 or status >= 500:
        return _away(
            f"{place} answered {status}: {text}",
            float(pause) if pause and pause.isdigit() else None,
        )
    return SourceError(
        f"{place} refused a request ({status}): {text}", "correct source.url and source.collections"
    )


def _failed(error: Any, place: str) -> SourceError:
    code, text = str(error.code().name), str(error.details() or "")
    if any(part in text for part in _TOO_LARGE):
        return TooLarge(
            f"{place}: {text}", "raise GRPC_MAX_MESSAGE_SIZE or QUERY_MAXIMUM_RESULTS of the server"
        )
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return SourceError(f"{place} refuses the key ({code}): {text}", "correct source.api_key")
    if any(part in text for part in _GONE):
        return SourceError(
            f"{place}: {text}", "correct source.collections; a collection or a tenant is gone"
        )
    if code not in _PASSING or any(part in text for part in _WRONG):
        return SourceError(
            f"{place} refused a request ({code}): {text}",
            "correct source.collections and source.inactive_tenants",
        )
    pause = dict(error.trailing_metadata() or ()).get("grpc-retry-pushback-ms", "")
    return _away(
        f"{place} did not answer ({code}): {text}",
        int(pause) / 1000 if str(pause).isdigit() else None,
    )


def _away(what: str, pause: float | None = None) -> SourceUnavailable:
    return SourceUnavailable(
        what, "see that the server runs, and that source.url and source.grpc_port are right", pause
    )
