"""Send requests to a Weaviate server: REST for its schema and tenants, gRPC for its objects.

Both are the server's own versioned interfaces; the gRPC messages and httpx come with the
vendor's client (``weaviate.proto.v1``).  The calls of that client are not used: they turn a
gRPC status into a text, repeat failed requests for a minute by themselves, cut dates to
microseconds, and cannot be given a certificate authority for REST.

Sources: https://docs.weaviate.io/weaviate/api/rest and https://docs.weaviate.io/weaviate/api/grpc
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import orjson

from cfray.errors import SourceError
from cfray.runtime.sdk import import_sdk
from cfray.sources.base import Context
from cfray.sources.weaviate.errors import NotFoundError
from cfray.sources.weaviate.settings import WeaviateSettings

if TYPE_CHECKING:
    import grpc
    import httpx

#: REST's older names of a tenant's states, and the names that all else uses.
_STATE_NAMES = {
    "HOT": "ACTIVE",
    "COLD": "INACTIVE",
    "FROZEN": "OFFLOADED",
    "UNFREEZING": "ONLOADING",
    "FREEZING": "OFFLOADING",
}


@dataclass(frozen=True)
class Connection:
    """An open connection; every request is sent again after a transient error.

    Attributes:
        protocol: the modules of generated gRPC messages.
        http: sends the REST requests.
        channel: sends the gRPC requests.
        timeout: seconds that a gRPC request may take.
        metadata: sent with every gRPC request.
        send_request: sends a request, again after a transient error.
    """

    protocol: ModuleType
    http: httpx.Client
    channel: grpc.Channel
    timeout: float
    metadata: tuple[tuple[str, str], ...]
    send_request: Callable[[Callable[[], Any]], Any]

    def call_rest(
        self, path: str, *, method: str = "GET", body: object = None, **query: str
    ) -> Any:
        """Send one REST request, and parse its answer; the path is quoted already."""

        def send() -> Any:
            response = self.http.request(
                method, f"/v1{path}", params=query or None, json=body
            ).raise_for_status()
            return orjson.loads(response.content or b"null")

        return self.send_request(send)

    def call_grpc(self, method: str, request: Any) -> bytes:
        """Call a gRPC method, and give the bytes of its reply."""

        def send() -> bytes:
            call = self.channel.unary_unary(
                f"/weaviate.v1.Weaviate/{method}", type(request).SerializeToString
            )
            return bytes(call(request, timeout=self.timeout, metadata=self.metadata))

        return bytes(self.send_request(send))

    def fetch_definitions(self) -> dict[str, dict[str, Any]]:
        """Give the definition of every collection, by name."""
        definitions = self.call_rest("/schema")["classes"] or []
        return {definition["class"]: definition for definition in definitions}

    def fetch_tenant_states(self, collection: str) -> dict[str, str]:
        """Give the state of every tenant; the request wakes no tenant."""
        tenants = self.call_rest(f"/schema/{quote(collection)}/tenants")
        return {tenant["name"]: _state_of(tenant) for tenant in tenants}

    def fetch_tenant_state(self, collection: str, tenant: str) -> str:
        """Give the state of one tenant."""
        return _state_of(self.call_rest(f"/schema/{quote(collection)}/tenants/{quote(tenant)}"))

    def change_tenant_states(self, collection: str, states: dict[str, str]) -> None:
        """Change the state of tenants; an offloaded tenant is active some time later."""
        body = [{"name": tenant, "activityStatus": state} for tenant, state in states.items()]
        self.call_rest(f"/schema/{quote(collection)}/tenants", method="PUT", body=body)

    def fetch_aliases(self) -> dict[str, list[str]]:
        """Give the aliases of each collection; servers before 1.32 have none."""
        try:
            aliases = self.call_rest("/aliases")["aliases"] or []
        except SourceError as error:
            if error.transient:
                raise
            return {}
        aliases_by_collection: dict[str, list[str]] = {}
        for alias in aliases:
            aliases_by_collection.setdefault(alias["class"], []).append(alias["alias"])
        return aliases_by_collection

    def resolve_alias(self, name: str) -> str | None:
        """Give the collection that an alias stands for; None where the server has no such alias."""
        try:
            answer = self.call_rest(f"/aliases/{quote(name, safe='')}")
        except NotFoundError:  # also of servers before 1.32, which have no aliases
            return None
        # the names "." and ".." lead to another address, whose answer names no class
        collection: str | None = answer.get("class")
        return collection

    def count_objects(self, collection: str, tenant: str) -> int:
        """Count the objects of a collection or of an active tenant."""
        messages = self.protocol.aggregate_pb2
        request = messages.AggregateRequest(
            collection=collection, tenant=tenant, objects_count=True
        )
        reply = messages.AggregateReply.FromString(self.call_grpc("Aggregate", request))
        return int(reply.single_result.objects_count)


def _state_of(tenant: dict[str, str]) -> str:
    state = tenant.get("activityStatus", "ACTIVE")
    return _STATE_NAMES.get(state, state)


@contextmanager
def open_connection(settings: WeaviateSettings, context: Context) -> Iterator[Connection]:
    """Open a connection, and close it at the end; nothing is sent yet.

    gRPC is encrypted if REST is.

    Raises:
        SourceError: the file of certificates cannot be read.
    """
    assert settings.url
    protocol = import_sdk("weaviate.proto.v1", "weaviate")
    httpx = import_sdk("httpx", "weaviate")
    is_encrypted = urlsplit(settings.url).scheme == "https"
    key = settings.read_secret()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with (
        httpx.Client(
            base_url=settings.url.rstrip("/"),
            headers=headers,
            timeout=settings.timeout,
            verify=_trusted_authorities(settings.ca_file) if is_encrypted else False,
            follow_redirects=True,
        ) as http,
        _open_channel(settings, is_encrypted=is_encrypted) as channel,
    ):
        yield Connection(
            protocol,
            http,
            channel,
            settings.timeout,
            tuple(headers.items()),
            lambda action: settings.send_request(action, context),
        )


def _trusted_authorities(ca_file: str | None) -> ssl.SSLContext:
    """Trust the authorities of a file, else the operating system's."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # also raised for a file that holds no certificate
        raise SourceError(
            f"cannot read the certificates in {ca_file}: {error}", "correct source.ca_file"
        ) from error


def _open_channel(settings: WeaviateSettings, *, is_encrypted: bool) -> grpc.Channel:
    grpc = import_sdk("grpc", "weaviate")
    options = [
        # the server's limit holds
        ("grpc.max_receive_message_length", -1),
        # our retries obey the run's budget
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    if not is_encrypted:
        return grpc.insecure_channel(settings.grpc_target, options)
    root_certificates = Path(settings.ca_file).read_bytes() if settings.ca_file else None
    credentials = grpc.ssl_channel_credentials(root_certificates)
    return grpc.secure_channel(settings.grpc_target, credentials, options)
