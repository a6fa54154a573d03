"""The gRPC calls to Milvus, what each refusal means, and the calls beside reading.

Schema, load state, search.

The calls are the published protocol (milvus-proto), in the classes that pymilvus
generates from it; pymilvus's ``MilvusClient`` is not used.  With the iterator
flags, without which pages are not in order everywhere, it leaves
``consistency_level`` out, so that rows written a moment ago are missed; it
repeats a failed call up to 75 times, or until its time-out, whatever our
throttle says; and it makes a Python float of every number of a vector.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeAlias
from urllib.parse import urlsplit

import numpy as np

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime.sdk import import_sdk
from cfray.sources.milvus.schema import Message, Told, layout, spreads

#: Sends a request, again after a transient error.
Ask: TypeAlias = Callable[[Callable[[], Any]], Any]

#: How servers, gateways and gRPC itself say that an answer is too large.
_TOO_LARGE = ("larger than max", "maxOutputSize", "RST_STREAM", "message size")
#: Server codes that say "later" (milvus, pkg/util/merr/errors.go): not ready, unavailable, out of
#: memory, too many requests, rate and quota, no replica, channel or node just now.
_LATER = {1, 2, 3, 4, 8, 9, 12, 400, 401, 500, 502, 503, 901, 902, 903, 904, 905}
_NOT_LOADED, _NO_COLLECTION, _NO_DATABASE, _NOT_ALLOWED = (
    {101, 102, 103, 201, 202},
    100,
    800,
    {1400, 1401},
)
_LOADING, _LOADED = 2, 3  # common_pb2.LoadState
#: Seconds between two questions whether a collection is loaded, and without progress until it
#: counts as stuck (a choice: as long as Weaviate's tenants may take to wake).
_LOOK_AGAIN, _STUCK = 0.2, 1_800


class Refused(Exception):
    """A reply whose status is an error."""

    def __init__(self, code: int, reason: str, *, again: bool) -> None:
        """Keep the server's words; ``again``: it calls the error retriable."""
        super().__init__(code, reason)
        self.code, self.reason, self.again = code, reason, again


class Connection:
    """One channel to a server; every call goes through ``ask``.

    Which repeats it after a transient error.
    """

    def __init__(
        self,
        url: str,
        metadata: Sequence[tuple[str, str]],
        *,
        timeout: float,
        ca_file: str | None,
        ask: Ask,
    ) -> None:
        """Make the channel; it connects with the first call."""
        self._grpc, self._protocol = (
            import_sdk("grpc", "milvus"),
            import_sdk("pymilvus.grpc_gen.milvus_pb2", "milvus"),
        )
        at = urlsplit(url if "://" in url else f"http://{url}")
        port = at.port or (443 if at.scheme == "https" else 19530)
        host = f"[{at.hostname}]" if ":" in (at.hostname or "") else at.hostname
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.enable_retries", 0),
            ("grpc.max_reconnect_backoff_ms", 5_000),
        ]
        if at.scheme == "https":
            trusted = None
            if ca_file:
                with open(ca_file, "rb") as file:
                    trusted = file.read()
            self._channel = self._grpc.secure_channel(
                f"{host}:{port}", self._grpc.ssl_channel_credentials(trusted), options
            )
        else:
            self._channel = self._grpc.insecure_channel(f"{host}:{port}", options)
        self._stub = import_sdk("pymilvus.grpc_gen.milvus_pb2_grpc", "milvus").MilvusServiceStub(
            self._channel
        )
        self._metadata, self._timeout, self.ask = list(metadata), timeout, ask

    def __enter__(self) -> Self:
        """Give the connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the channel."""
        self._channel.close()

    def call(self, method: str, **fields: object) -> Message:
        """Call a method of the service with a request of these fields."""
        return self.ask(lambda: self.once(method, fields))

    def once(self, method: str, fields: Mapping[str, object]) -> Message:
        """Call it once, with the errors as they are."""
        request = getattr(self._protocol, f"{method}Request")(**fields)
        answer = getattr(self._stub, method)(
            request, timeout=self._timeout, metadata=self._metadata
        )
        status = getattr(answer, "status", answer)
        if status.code or status.error_code:
            raise Refused(status.code or status.error_code, status.reason, again=status.retriable)
        return answer


def now(connection: Connection) -> int | None:
    """Give a timestamp of the server's own clock; None where it hands none out (milvus-lite)."""
    try:
        return int(connection.call("AllocTimestamp").timestamp)
    except SourceError as error:
        if error.transient:
            raise
        return None


def is_too_large(error: Exception) -> bool:
    """Tell whether a failure is about the size of the answer."""
    text = error.reason if isinstance(error, Refused) else str(getattr(error, "details", str)())
    return any(words in text for words in _TOO_LARGE)


def metadata(token: str | None, database: str) -> list[tuple[str, str]]:
    """Give what goes with every call."""
    given = [("dbname", database)]
    return (
        given
        if token is None
        else [*given, ("authorization", base64.b64encode(token.encode()).decode())]
    )


def judge(error: Exception, place: str) -> SourceError | None:
    """Say what an error means; None where it is neither the server's nor gRPC's."""
    if isinstance(error, Refused):
        return _judge_refusal(error, place)
    grpc = import_sdk("grpc", "milvus")
    if not isinstance(error, grpc.RpcError):
        return None
    code, words = error.code(), f"{error.code().name}: {error.details()}"
    if code == grpc.StatusCode.UNAUTHENTICATED:
        return SourceError(
            f"{place} does not accept the credential",
            "set source.api_key to a token: user:password, or an API key",
        )
    if code == grpc.StatusCode.PERMISSION_DENIED:
        return SourceError(
            f"{place} forbids it: {error.details()}",
            "grant the user of source.api_key Query, DescribeCollection, ShowCollections and GetLoadState",
        )
    if code in (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
    ):
        return SourceError(
            f"{place} refused a call: {words}",
            "check that source.url is a Milvus server of 2.3 or later",
        )
    return SourceUnavailable(
        f"{place} did not answer: {words}",
        "check that the server runs and that source.url and source.timeout fit it",
    )


def _judge_refusal(error: Refused, place: str) -> SourceError:
    said = f"{place}: {error.reason} (code {error.code})"
    if error.code == _NO_COLLECTION:
        return SourceError(
            said, "correct source.collections, or do not drop a collection during the run"
        )
    if error.code == _NO_DATABASE:
        return SourceError(said, "correct source.database")
    if error.code in _NOT_LOADED:
        return SourceError(said, "load the collection, or set source.load: load")
    if error.code in _NOT_ALLOWED:
        return SourceError(
            said, "grant the user of source.api_key the right to query, or name another one"
        )
    if error.again or error.code in _LATER:
        return SourceUnavailable(
            said, "wait until the server is ready, or lower source.requests_per_second"
        )
    return SourceError(
        said,
        "see the server's log; if the request is at fault, report it with the server's version",
    )


def told(connection: Connection, name: str) -> Told:
    """Ask for a collection's schema and partitions."""
    described = connection.call("DescribeCollection", collection_name=name)
    partitions: tuple[str | None, ...] = (None,)
    if described.num_partitions > 1 and not spreads(described):
        partitions = tuple(
            sorted(connection.call("ShowPartitions", collection_name=name).partition_names)
        )
    return Told(name, described, layout(described.schema, name), partitions)


def unloaded(connection: Connection, one: Told) -> list[str | None]:
    """List the partitions that cannot be read because they are not loaded."""
    return [part for part in one.partitions if _load_state(connection, one.name, part) != _LOADED]


def _load_state(connection: Connection, name: str, part: str | None) -> int:
    return int(
        connection.call(
            "GetLoadState", collection_name=name, partition_names=[part] if part else []
        ).state
    )


def _progress(connection: Connection, name: str, part: str | None) -> int:
    """Give how much of it is loaded, in percent."""
    return int(
        connection.call(
            "GetLoadingProgress", collection_name=name, partition_names=[part] if part else []
        ).progress
    )


def load(connection: Connection, one: Told, parts: list[str | None]) -> None:
    """Load partitions and wait until they are; all of them: the collection.

    Raises:
        SourceError: the server gave up, or made no progress for half an hour.
    """
    if len(parts) == len(one.partitions):
        connection.call("LoadCollection", collection_name=one.name, replica_number=1)
    else:
        connection.call(
            "LoadPartitions", collection_name=one.name, partition_names=parts, replica_number=1
        )
    for part in parts:
        reached, until = -1, 0.0
        while (state := _load_state(connection, one.name, part)) != _LOADED:
            if state != _LOADING:
                raise SourceError(
                    f"the server stopped loading collection {one.name}",
                    "see the server's log; it may lack memory",
                )
            if (progress := _progress(connection, one.name, part)) != reached:
                reached, until = progress, time.monotonic() + _STUCK
            elif time.monotonic() > until:
                raise SourceError(
                    f"the server has been loading collection {one.name} without progress for {_STUCK} s, at {reached} %",
                    "see the server's log; it may lack memory",
                )
            time.sleep(_LOOK_AGAIN)


def release(connection: Connection, one: Told, parts: list[str | None]) -> None:
    """Undo ``load``."""
    if len(parts) == len(one.partitions):
        connection.call("ReleaseCollection", collection_name=one.name)
    else:
        connection.call("ReleasePartitions", collection_name=one.name, partition_names=parts)


def indexes(connection: Connection, name: str) -> dict[str, dict[str, str]]:
    """Give field -> parameters of its index."""
    described = connection.call("DescribeIndex", collection_name=name).index_descriptions
    return {
        one.field_name: {pair.key: pair.value for pair in one.params if pair.key}
        for one in described
    }


def nearest(connection: Connection, one: Told, vector: list[float], k: int) -> list[str]:
    """Search the only float vector field of the vector's width; give tagged ids, nearest first.

    Raises:
        SourceError: there is none, or more than one.
    """
    from pymilvus.grpc_gen.common_pb2 import (
        ConsistencyLevel,
        KeyValuePair,
        PlaceholderGroup,
        PlaceholderType,
        PlaceholderValue,
    )

    fit = [
        field.name
        for field in one.layout.vectors.values()
        if field.kind == "FloatVector" and field.dimension == len(vector)
    ]
    if len(fit) != 1:
        raise SourceError(
            f"collection {one.name} has {len(fit)} float vector fields of {len(vector)} numbers",
            "compare its search quality by hand",
        )
    asked = PlaceholderValue(
        tag="$0", type=PlaceholderType.FloatVector, values=[np.array(vector, "<f4").tobytes()]
    )
    params = {"anns_field": fit[0], "topk": str(k), "params": "{}", "round_decimal": "-1"}
    found = connection.call(
        "Search",
        collection_name=one.name,
        placeholder_group=PlaceholderGroup(placeholders=[asked]).SerializeToString(),
        dsl_type="BoolExprV1",
        nq=1,
        search_params=[KeyValuePair(key=key, value=value) for key, value in params.items()],
        consistency_level=ConsistencyLevel.Strong,
    ).results.ids
    return [f"i:{key}" for key in found.int_id.data] or [f"s:{key}" for key in found.str_id.data]
