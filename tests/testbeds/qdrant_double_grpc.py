"""The gRPC half of the Qdrant double: it serves the collections of the REST half.

It reads and writes the official client's protos, and converts them with the client's conversions:
it must not hold state.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from qdrant_client import grpc as q
from qdrant_client import models as m
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc, grpc_to_payload
from qdrant_client.grpc.collections_service_pb2_grpc import (
    CollectionsServicer,
    add_CollectionsServicer_to_server,
)
from qdrant_client.grpc.points_service_pb2_grpc import PointsServicer, add_PointsServicer_to_server

from tests.testbeds.qdrant_engine import Exists, NotFound, Store
from tests.testbeds.qdrant_terms import Id, Refused, key_refusal

OPTIONS = (
    # Otherwise gRPC silently accepts a second server on the same port.
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)
CODES = {
    Refused: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Exists: grpc.StatusCode.ALREADY_EXISTS,
}
# An older server sees a slice as a condition without content.
SLICE_UNKNOWN = "Malformed Condition type"


def serve(store: Store, port: int, api_key: str) -> grpc.Server:
    """Start a gRPC server for the store on a loopback port."""
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[_KeyCheck(api_key)], options=OPTIONS)
    add_CollectionsServicer_to_server(_Collections(store), server)
    add_PointsServicer_to_server(_Points(store), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


class _KeyCheck(grpc.ServerInterceptor):
    """Refuses requests without the key, and converts refusals to gRPC errors."""

    def __init__(self, api_key: str) -> None:
        self.api_key = api_key

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: Any
    ) -> Any:
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        metadata = dict(handler_call_details.invocation_metadata)
        refusal = (
            key_refusal(metadata.get("api-key"), metadata.get("authorization"), self.api_key)
            if self.api_key
            else None
        )

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            if refusal:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, refusal)
            try:
                return handler.unary_unary(request, context)
            except Refused as error:
                text = SLICE_UNKNOWN if str(error).startswith("Format error") else str(error)
                context.abort(CODES[type(error)], text)
            except (ValueError, TypeError, KeyError) as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Wrong input: {error}")

        return grpc.unary_unary_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )


class _Collections(CollectionsServicer):
    def __init__(self, store: Store) -> None:
        self.store = store

    def List(self, request: Any, context: Any) -> Any:
        return q.ListCollectionsResponse(
            collections=[q.CollectionDescription(name=name) for name in self.store.collections]
        )

    def CollectionExists(self, request: Any, context: Any) -> Any:
        return q.CollectionExistsResponse(
            result=q.CollectionExists(exists=request.collection_name in self.store.collections)
        )

    def Get(self, request: Any, context: Any) -> Any:
        return q.GetCollectionInfoResponse(
            result=RestToGrpc.convert_collection_info(
                self.store.get(request.collection_name).info()
            )
        )

    def Create(self, request: Any, context: Any) -> Any:
        settings = _read_fields(
            request,
            vectors_config=GrpcToRest.convert_vectors_config,
            sparse_vectors_config=GrpcToRest.convert_sparse_vector_config,
            hnsw_config=GrpcToRest.convert_hnsw_config_diff,
            optimizers_config=GrpcToRest.convert_optimizers_config_diff,
            wal_config=GrpcToRest.convert_wal_config_diff,
            quantization_config=GrpcToRest.convert_quantization_config,
            strict_mode_config=GrpcToRest.convert_strict_mode_config,
            sharding_method=GrpcToRest.convert_sharding_method,
            shard_number=int,
            replication_factor=int,
            on_disk_payload=bool,
        )
        renamed = {
            {"vectors_config": "vectors", "sparse_vectors_config": "sparse_vectors"}.get(
                name, name
            ): setting
            for name, setting in settings.items()
        }
        metadata = grpc_to_payload(request.metadata) if request.metadata else None
        self.store.create(request.collection_name, m.CreateCollection(**renamed, metadata=metadata))
        return q.CollectionOperationResponse(result=True)

    def Delete(self, request: Any, context: Any) -> Any:
        return q.CollectionOperationResponse(result=self.store.delete(request.collection_name))

    def CreateShardKey(self, request: Any, context: Any) -> Any:
        self.store.get(request.collection_name).create_shard_key(
            GrpcToRest.convert_shard_key(request.request.shard_key)
        )
        return q.CreateShardKeyResponse(result=True)

    def ListShardKeys(self, request: Any, context: Any) -> Any:
        collection = self.store.get(request.collection_name)
        answer = q.ListShardKeysResponse()
        for key in collection.shards if collection.has_shard_keys else ():
            answer.shard_keys.add().key.CopyFrom(RestToGrpc.convert_shard_key(key))
        return answer


class _Points(PointsServicer):
    def __init__(self, store: Store) -> None:
        self.store = store

    def Upsert(self, request: Any, context: Any) -> Any:
        if request.HasField("update_filter") or request.HasField("update_mode"):
            raise Refused("the double does not do update_filter and update_mode")
        points = [
            (
                _id(point.id),
                GrpcToRest.convert_vectors(point.vectors) if point.HasField("vectors") else {},
                grpc_to_payload(point.payload),
            )
            for point in request.points
        ]
        self.store.get(request.collection_name).upsert(points, _read_selection(request)["selector"])
        return _completed()

    def Delete(self, request: Any, context: Any) -> Any:
        chosen = GrpcToRest.convert_points_selector(request.points)
        ids, where = (
            (chosen.points, None) if isinstance(chosen, m.PointIdsList) else (None, chosen.filter)
        )
        self.store.get(request.collection_name).delete(
            ids, where, _read_selection(request)["selector"]
        )
        return _completed()

    def CreateFieldIndex(self, request: Any, context: Any) -> Any:
        kind = q.FieldType.Name(request.field_type).removeprefix("FieldType").lower()
        self.store.get(request.collection_name).create_index(request.field_name, kind)
        return _completed()

    def Scroll(self, request: Any, context: Any) -> Any:
        if request.HasField("order_by"):
            raise Refused("the double does not do order_by")
        where, offset = _where(request), _id(request.offset) if request.HasField("offset") else None
        collection = self.store.get(request.collection_name)
        points, next_id = collection.scroll(
            where=where, limit=request.limit or 10, offset=offset, **_read_selection(request)
        )
        answer = q.ScrollResponse(result=[q.RetrievedPoint(**_point(point)) for point in points])
        if next_id is not None:
            answer.next_page_offset.CopyFrom(RestToGrpc.convert_extended_point_id(next_id))
        return answer

    def Get(self, request: Any, context: Any) -> Any:
        points = self.store.get(request.collection_name).retrieve(
            [_id(point_id) for point_id in request.ids], **_read_selection(request)
        )
        return q.GetResponse(result=[q.RetrievedPoint(**_point(point)) for point in points])

    def Count(self, request: Any, context: Any) -> Any:
        count = self.store.get(request.collection_name).count(
            _where(request), _read_selection(request)["selector"]
        )
        return q.CountResponse(result=q.CountResult(count=count))

    def Query(self, request: Any, context: Any) -> Any:
        if request.prefetch or request.HasField("score_threshold"):
            raise Refused("the double does not do prefetch and score_threshold")
        query = GrpcToRest.convert_query(request.query) if request.HasField("query") else None
        query = query.nearest if isinstance(query, m.NearestQuery) else query
        using = request.using if request.HasField("using") else None
        collection = self.store.get(request.collection_name)
        points = collection.query(
            query,
            using=using,
            where=_where(request),
            limit=request.limit or 10,
            **_read_selection(request),
        )
        return q.QueryResponse(
            result=[
                q.ScoredPoint(**_point(point), score=point["score"], version=point["version"])
                for point in points
            ]
        )


def _read_fields(message: Any, **readers: Callable[[Any], Any]) -> dict[str, Any]:
    return {
        name: read(getattr(message, name))
        for name, read in readers.items()
        if message.HasField(name)
    }


def _where(request: Any) -> m.Filter | None:
    if not request.HasField("filter"):
        return None
    return GrpcToRest.convert_filter(request.filter)


def _read_selection(request: Any) -> dict[str, Any]:
    fields = request.DESCRIPTOR.fields_by_name
    readers = {
        "with_payload": GrpcToRest.convert_with_payload_selector,
        "with_vectors": GrpcToRest.convert_with_vectors_selector,
        "shard_key_selector": GrpcToRest.convert_shard_key_selector,
    }
    fields_read = _read_fields(
        request, **{name: read for name, read in readers.items() if name in fields}
    )
    shard = fields_read.get("shard_key_selector")
    return {
        "payload": fields_read.get("with_payload", False),
        "vectors": fields_read.get("with_vectors", False),
        "selector": shard.model_dump() if isinstance(shard, m.ShardKeyWithFallback) else shard,
    }


def _id(message: Any) -> Id:
    return message.num if message.HasField("num") else message.uuid


def _completed() -> Any:
    return q.PointsOperationResponse(
        result=q.UpdateResult(operation_id=0, status=q.UpdateStatus.Completed)
    )


def _point(point: dict[str, Any]) -> dict[str, Any]:
    vector = point["vector"]
    fields = {
        "id": RestToGrpc.convert_extended_point_id(point["id"]),
        "payload": RestToGrpc.convert_payload(_in_int64(point["payload"] or {})),
    }
    if vector is not None:
        plain_vector = (
            {name: _vector(named_vector) for name, named_vector in vector.items()}
            if isinstance(vector, dict)
            else _vector(vector)
        )
        fields["vectors"] = RestToGrpc.convert_vector_struct_output(plain_vector)
    if "shard_key" in point:
        fields["shard_key"] = RestToGrpc.convert_shard_key(point["shard_key"])
    return fields


def _vector(vector: Any) -> Any:
    return m.SparseVector.model_construct(**vector) if isinstance(vector, dict) else vector.tolist()


def _in_int64(payload: Any) -> Any:
    """Convert integers beyond int64 to floats: the protos have no other field for them."""
    if isinstance(payload, dict):
        return {key: _in_int64(value) for key, value in payload.items()}
    if isinstance(payload, list):
        return [_in_int64(value) for value in payload]
    return (
        float(payload)
        if isinstance(payload, int) and abs(payload) > 2**63 - 1 and payload != -(2**63)
        else payload
    )
