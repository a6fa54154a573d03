"""Send gRPC calls to Milvus: any call, and those that read a schema, a clock or an index.

The calls are the published protocol (milvus-proto), in the classes that pymilvus generates
from it; pymilvus's ``MilvusClient`` is not used.  With the iterator flags, without which
pages are not in order everywhere, it leaves ``consistency_level`` out, so that rows written a
moment ago are missed; it repeats a failed call up to 75 times, or until its time-out, whatever
our throttle says; and it makes a Python float of every number of a vector.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from cfray.errors import CannotFilter, SourceError
from cfray.runtime.sdk import import_sdk
from cfray.sources.base import Context, FieldEquals
from cfray.sources.milvus.errors import NO_INDEX_CODE, RefusedError
from cfray.sources.milvus.schema import (
    CollectionInfo,
    Message,
    parse_schema,
    partition_key_field,
)
from cfray.sources.milvus.settings import MilvusSettings

if TYPE_CHECKING:
    import grpc

#: Ports of an encrypted server (Zilliz Cloud) and of any other, unless the url names a port.
_TLS_PORT, _PORT = 443, 19530


@dataclass(frozen=True)
class Connection:
    """A channel to a server.

    Attributes:
        protocol: the module of generated messages.
        stub: the generated methods of the service.
        metadata: sent with every call.
        timeout: seconds that a call may take.
        send_request: runs an action, again after a transient error.
    """

    protocol: ModuleType
    stub: Any
    metadata: list[tuple[str, str]]
    timeout: float
    send_request: Callable[[Callable[[], Any]], Any]

    def call(self, method: str, **fields: object) -> Message:
        """Call a method of the service with a request of these fields.

        Raises:
            SourceError: the call failed, and failed again after a transient error.
        """
        return self.send_request(lambda: self.call_once(method, fields))

    def call_once(self, method: str, fields: Mapping[str, object]) -> Message:
        """Call a method once.

        Raises:
            RefusedError: the status of the reply is an error.
            grpc.RpcError: the call failed.
        """
        request = getattr(self.protocol, f"{method}Request")(**fields)
        reply = getattr(self.stub, method)(request, timeout=self.timeout, metadata=self.metadata)
        status = getattr(reply, "status", reply)
        code = status.code or status.error_code
        if code:
            raise RefusedError(code, status.reason, is_retriable=status.retriable)
        return reply


@contextmanager
def open_connection(settings: MilvusSettings, context: Context) -> Iterator[Connection]:
    """Open a channel, and close it at the end; it connects with the first call."""
    protocol = import_sdk("pymilvus.grpc_gen.milvus_pb2", "milvus")
    services = import_sdk("pymilvus.grpc_gen.milvus_pb2_grpc", "milvus")
    metadata = [("dbname", settings.database)]
    token = settings.read_secret()
    if token is not None:
        metadata.append(("authorization", base64.b64encode(token.encode()).decode()))
    with _open_channel(settings) as channel:
        yield Connection(
            protocol,
            services.MilvusServiceStub(channel),
            metadata,
            settings.timeout,
            lambda action: settings.send_request(action, context),
        )


def _open_channel(settings: MilvusSettings) -> grpc.Channel:
    grpc = import_sdk("grpc", "milvus")
    address = settings.split_url
    is_encrypted = address.scheme == "https"
    host = address.hostname or ""
    target = f"[{host}]" if ":" in host else host
    target += f":{address.port or (_TLS_PORT if is_encrypted else _PORT)}"
    options = [
        # the server's limit holds
        ("grpc.max_receive_message_length", -1),
        # our retries obey the run's budget
        ("grpc.enable_retries", 0),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    if not is_encrypted:
        return grpc.insecure_channel(target, options)
    credentials = grpc.ssl_channel_credentials(_read_certificates(settings.ca_file))
    return grpc.secure_channel(target, credentials, options)


def _read_certificates(ca_file: str | None) -> bytes | None:
    try:
        return Path(ca_file).read_bytes() if ca_file else None
    except OSError as error:
        raise SourceError(
            f"cannot read the certificates in {ca_file}: {error}", "correct source.ca_file"
        ) from error


def list_collections(settings: MilvusSettings, connection: Connection) -> list[CollectionInfo]:
    """Ask what the server says of each collection that the job reads."""
    names = list(connection.call("ShowCollections").collection_names)
    list_aliases = partial(_list_aliases, settings, connection, names)
    return [
        fetch_collection(connection, name)
        for name in settings.choose_collections(names, list_aliases)
    ]


def _list_aliases(
    settings: MilvusSettings, connection: Connection, names: Sequence[str]
) -> dict[str, str]:
    """Give alias -> collection, of the names in the job file and of the aliases that are listed.

    A server describes a collection by its alias, too; not every server lists the aliases.
    """
    candidates = set(settings.collections or ()) - set(names)
    with _ignoring_refusals():
        candidates |= set(connection.call("ListAliases").aliases)
    aliases: dict[str, str] = {}
    for candidate in sorted(candidates):
        with _ignoring_refusals():
            description = connection.call("DescribeCollection", collection_name=candidate)
            aliases[candidate] = str(description.schema.name)
    return aliases


@contextmanager
def _ignoring_refusals() -> Iterator[None]:
    """Go on after a call that the server does not know or allow."""
    try:
        yield
    except SourceError as error:
        if error.transient:
            raise


def fetch_collection(connection: Connection, name: str) -> CollectionInfo:
    """Ask for a collection's schema and partitions."""
    description = connection.call("DescribeCollection", collection_name=name)
    partitions: tuple[str | None, ...] = (None,)
    if description.num_partitions > 1 and not partition_key_field(description):
        names = connection.call("ShowPartitions", collection_name=name).partition_names
        partitions = tuple(sorted(names))
    schema = parse_schema(description.schema, name)
    return CollectionInfo(name, description, schema, partitions)


def fetch_timestamp(connection: Connection) -> int | None:
    """Ask for a timestamp of the server's clock; None where it gives none (milvus-lite)."""
    try:
        return int(connection.call("AllocTimestamp").timestamp)
    except SourceError as error:
        if error.transient:
            raise
        return None


def fetch_indexes(connection: Connection, name: str) -> dict[str, dict[str, str]]:
    """Give field -> parameters of its index; no field of a collection need have one."""

    def describe() -> Sequence[Message]:
        try:
            reply = connection.call_once("DescribeIndex", {"collection_name": name})
        except RefusedError as error:
            if error.code != NO_INDEX_CODE:
                raise
            return ()
        return list(reply.index_descriptions)

    return {
        index.field_name: {pair.key: pair.value for pair in index.params if pair.key}
        for index in connection.send_request(describe)
    }


def search_nearest(
    connection: Connection,
    collection: CollectionInfo,
    vector: list[float],
    k: int,
    where: FieldEquals | None = None,
) -> list[str]:
    """Search the only float vector field of the vector's width; give tagged ids, nearest first.

    Raises:
        SourceError: the collection has no such field, or more than one.
        CannotFilter: the condition is on a field within another.
    """
    from pymilvus.grpc_gen import common_pb2

    field = _vector_field(collection, len(vector))
    placeholder = common_pb2.PlaceholderValue(
        tag="$0",
        type=common_pb2.PlaceholderType.FloatVector,
        values=[np.array(vector, "<f4").tobytes()],
    )
    group = common_pb2.PlaceholderGroup(placeholders=[placeholder])
    params = {"anns_field": field, "topk": str(k), "params": "{}", "round_decimal": "-1"}
    if where is not None and len(where.path) > 1:
        raise CannotFilter(
            f"cfray writes no condition of Milvus on {where.name}", "compare such searches by hand"
        )
    condition = {} if where is None else {"dsl": f"{where.name} == {json.dumps(where.text)}"}
    reply = connection.call(
        "Search",
        collection_name=collection.name,
        placeholder_group=group.SerializeToString(),
        dsl_type="BoolExprV1",
        nq=1,
        search_params=[
            common_pb2.KeyValuePair(key=key, value=value) for key, value in params.items()
        ],
        consistency_level=common_pb2.ConsistencyLevel.Strong,
        **condition,
    )
    ids = reply.results.ids
    return [f"i:{key}" for key in ids.int_id.data] or [f"s:{key}" for key in ids.str_id.data]


def _vector_field(collection: CollectionInfo, dimension: int) -> str:
    fields = [
        field.name
        for field in collection.schema.vectors.values()
        if field.kind == "FloatVector" and field.dimension == dimension
    ]
    if len(fields) != 1:
        raise SourceError(
            f"collection {collection.name} has {len(fields)} float vector fields "
            f"of {dimension} numbers",
            "compare its search quality by hand",
        )
    return fields[0]
