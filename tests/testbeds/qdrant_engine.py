"""Qdrant collections on the vendor's engine, the package ``qdrant-edge-py``, without a wire.

The engine stores, normalises and rounds vectors, stores payloads, orders a scroll, applies filters
and slices (its stubs do not name SliceCondition), and answers nearest and random queries. This
module does what a server does around its shards: it merges several shards by id (a server returns
one point for an id that lies in two shards), reports the parameters of a collection, and checks
shard keys, sparse vectors and strict mode's ``max_query_limit``.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from qdrant_client import models as m

from tests.testbeds.qdrant_terms import (
    Id,
    Refused,
    call_engine,
    member_name,
    sort_key,
    to_config,
    to_engine,
    to_filter,
    to_payload_selector,
    to_vector_operation,
    to_wire,
    wire_id,
)

HNSW = {
    "m": 16,
    "ef_construct": 100,
    "full_scan_threshold": 10_000,
    "max_indexing_threads": 0,
    "on_disk": False,
}
OPTIMIZERS = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "flush_interval_sec": 5,
}
WAL = {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1}
"""The parameters that a server reports for a collection that was created without them."""

Point = tuple[Id, Any, dict[str, Any] | None]


class NotFound(Refused):
    """A refusal of a request that names something which does not exist."""

    status = 404


class Exists(Refused):
    """A refusal to create a collection whose name another collection has."""

    status = 409


class Store:
    """All collections of a server."""

    def __init__(self, folder: Path, *, knows_slices: bool) -> None:
        self.folder, self.knows_slices = folder, knows_slices
        self.collections: dict[str, Collection] = {}
        self.aliases: dict[str, str] = {}

    def create(self, name: str, request: m.CreateCollection) -> None:
        if name in self.collections:
            raise Exists(f"Wrong input: Collection `{name}` already exists!")
        self.collections[name] = Collection(self.folder, request, self.knows_slices)

    def get(self, name: str) -> Collection:
        """Return the collection of a name or of an alias."""
        name = self.aliases.get(name, name)
        if name not in self.collections:
            raise NotFound(f"Not found: Collection `{name}` doesn't exist!")
        return self.collections[name]

    def change_alias(self, verb: str, action: dict[str, str]) -> None:
        """Create, rename or delete an alias, as one action of a request says."""
        match verb:
            case "create_alias":
                self.get(action["collection_name"])
                self.aliases[action["alias_name"]] = action["collection_name"]
            case "rename_alias":
                self.aliases[action["new_alias_name"]] = self.aliases.pop(action["old_alias_name"])
            case "delete_alias":
                del self.aliases[action["alias_name"]]
            case _:
                raise Refused(f"the double does not know the action {verb}")

    def delete(self, name: str) -> bool:
        collection = self.collections.pop(name, None)
        self.aliases = {alias: of for alias, of in self.aliases.items() if of != name}
        if collection:
            collection.close()
        return collection is not None


class Collection:
    """One collection: a shard of the engine for each shard key, or one for all points."""

    def __init__(self, folder: Path, request: m.CreateCollection, knows_slices: bool) -> None:
        self.request, self.knows_slices = request, knows_slices
        self.config = to_config(request)
        self.lock = threading.RLock()
        self.shards: dict[Any, edge.EdgeShard] = {}
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        if not self.has_shard_keys:
            self._add_shard(None)

    @property
    def has_shard_keys(self) -> bool:
        return self.request.sharding_method == m.ShardingMethod.CUSTOM

    def close(self) -> None:
        with self.lock:
            for shard in self.shards.values():
                shard.close()
            shutil.rmtree(self.folder)

    def _add_shard(self, key: Any) -> None:
        self.shards[key] = edge.EdgeShard.create(tempfile.mkdtemp(dir=self.folder), self.config)

    def create_shard_key(self, key: Any) -> None:
        with self.lock:
            if not self.has_shard_keys:
                raise Refused("Bad request: Shard Key cannot be created with Auto sharding method")
            if key in self.shards:
                raise Refused(f"Bad request: Sharding key {key} already exists")
            self._add_shard(key)

    def delete_shard_key(self, key: Any) -> None:
        with self.lock:
            self._select_shards(key)[key].close()
            del self.shards[key]

    def _select_shards(self, selector: Any) -> dict[Any, edge.EdgeShard]:
        """Return the shards that a selector names: a key, a list of keys, or a key with a fallback.

        No selector selects all shards.
        """
        if selector is None:
            return self.shards
        selector = selector.get("target", selector) if isinstance(selector, dict) else selector
        keys = selector if isinstance(selector, list) else [selector]
        if missing := [key for key in keys if key not in self.shards]:
            raise NotFound(f"Not found: Shard key {missing[0]} not found")
        return {key: self.shards[key] for key in keys}

    def upsert(self, points: Iterable[Point], selector: Any = None) -> None:
        if self.has_shard_keys and selector is None:
            raise Refused("Bad request: Shard key not specified")
        engine_points = [
            call_engine(lambda: edge.Point(point_id, to_engine(vector), payload or {}))
            for point_id, vector, payload in points
        ]
        with self.lock:
            for shard in self._select_shards(selector).values():
                call_engine(lambda: shard.update(edge.UpdateOperation.upsert_points(engine_points)))

    def delete(self, ids: list[Id] | None, where: m.Filter | None, selector: Any = None) -> None:
        with self.lock:
            operation = (
                edge.UpdateOperation.delete_points(ids or [])
                if where is None
                else edge.UpdateOperation.delete_points_by_filter(self.filter(where))
            )
            for shard in self._select_shards(selector).values():
                call_engine(lambda: shard.update(operation))

    def add_vector(self, name: str, config: m.VectorNameConfig) -> None:
        """Add a named vector to the collection; its points have none until they are updated."""
        params = (
            {"sparse": m.SparseVectorParams(modifier=config.sparse.modifier)}
            if isinstance(config, m.SparseVectorNameConfig)
            else {"dense": m.VectorParams(**config.dense.model_dump())}
        )
        operation = call_engine(lambda: to_vector_operation(name, **params))
        with self.lock:
            for shard in self.shards.values():
                call_engine(lambda: shard.update(operation))
            vectors = self.request.vectors or {}
            vectors = vectors if isinstance(vectors, dict) else {"": vectors}
            if "dense" in params:
                self.request.vectors = {**vectors, name: params["dense"]}
            else:
                sparse = self.request.sparse_vectors or {}
                self.request.sparse_vectors = {**sparse, name: params["sparse"]}

    def create_index(self, field: str, schema: Any) -> None:
        """Index a payload field in each shard; ``schema`` names its type."""
        kind = schema.get("type") if isinstance(schema, dict) else schema
        with self.lock:
            for shard in self.shards.values():
                shard.update(
                    edge.UpdateOperation.create_field_index(
                        field, getattr(edge.PayloadSchemaType, str(kind).capitalize())
                    )
                )

    def scroll(
        self,
        *,
        where: m.Filter | None,
        limit: int,
        offset: Id | None,
        payload: Any,
        vectors: Any,
        selector: Any = None,
    ) -> tuple[list[dict[str, Any]], Id | None]:
        """Return a page in the order of ids, and the id that the next page begins with."""
        self.check_limit(limit)
        request = edge.ScrollRequest(
            offset, limit + 1, self.filter(where), to_payload_selector(payload), vectors
        )
        with self.lock:
            records = [
                (record, key)
                for key, shard in self._select_shards(selector).items()
                for record in call_engine(lambda: shard.scroll(request))[0]
            ]
        by_id = {record.id: (record, key) for record, key in reversed(records)}
        page = [by_id[point_id] for point_id in sorted(by_id, key=sort_key)]
        next_id = wire_id(page[limit][0].id) if len(page) > limit else None
        return [to_wire(record, key) for record, key in page[:limit]], next_id

    def retrieve(
        self, ids: list[Id], *, payload: Any, vectors: Any, selector: Any = None
    ) -> list[dict[str, Any]]:
        """Return the points that have these ids, once each, in no order."""
        shown_payload = to_payload_selector(payload)
        with self.lock:
            by_id = {
                record.id: (record, key)
                for key, shard in self._select_shards(selector).items()
                for record in call_engine(lambda: shard.retrieve(ids, shown_payload, vectors))
            }
        return [to_wire(record, key) for record, key in by_id.values()]

    def count(self, where: m.Filter | None, selector: Any = None) -> int:
        request = edge.CountRequest(exact=True, filter=self.filter(where))
        with self.lock:
            return sum(shard.count(request) for shard in self._select_shards(selector).values())

    def query(
        self,
        query: Any,
        *,
        using: str | None,
        where: m.Filter | None,
        limit: int,
        payload: Any,
        vectors: Any,
        selector: Any = None,
    ) -> list[dict[str, Any]]:
        """Return the nearest points of a vector, a random sample, or without a query the first."""
        self.check_limit(limit)
        if query is None:
            return self.scroll(
                where=where,
                limit=limit,
                offset=None,
                payload=payload,
                vectors=vectors,
                selector=selector,
            )[0]
        random = isinstance(query, m.SampleQuery)
        engine_query = edge.Sample.Random if random else edge.Query.Nearest(to_engine(query), using)
        request = edge.QueryRequest(
            limit=limit,
            query=engine_query,
            filter=self.filter(where),
            with_payload=to_payload_selector(payload),
            with_vector=vectors,
        )
        with self.lock:
            points = [
                (point, key)
                for key, shard in self._select_shards(selector).items()
                for point in call_engine(lambda: shard.query(request))
            ]
        nearest_is_smallest = not random and self._distance(using) in {
            m.Distance.EUCLID,
            m.Distance.MANHATTAN,
        }
        points.sort(key=lambda pair: pair[0].score, reverse=not nearest_is_smallest)
        return [
            {**to_wire(point, key), "version": point.version, "score": point.score}
            for point, key in points[:limit]
        ]

    def _distance(self, using: str | None) -> m.Distance | None:
        vectors = self.request.vectors
        params = vectors.get(using or "") if isinstance(vectors, dict) else vectors
        return params.distance if params else None

    def info(self) -> m.CollectionInfo:
        request = self.request
        with self.lock:
            infos = [shard.info() for shard in self.shards.values()]
        schema: dict[str, m.PayloadIndexInfo] = {}
        for info in infos:
            for name, field in info.payload_schema.items():
                points = field.points + (schema[name].points if name in schema else 0)
                schema[name] = m.PayloadIndexInfo(
                    data_type=member_name(field.data_type).lower(), points=points
                )
        params = request.model_dump(
            include={
                "vectors",
                "shard_number",
                "sharding_method",
                "replication_factor",
                "on_disk_payload",
                "sparse_vectors",
            },
            exclude_none=True,
        )
        return m.CollectionInfo(
            status=m.CollectionStatus.GREEN,
            optimizer_status=m.OptimizersStatusOneOf.OK,
            indexed_vectors_count=sum(info.indexed_vectors_count for info in infos),
            points_count=sum(info.points_count for info in infos),
            segments_count=sum(info.segments_count for info in infos),
            config=m.CollectionConfig(
                params=m.CollectionParams(**params),
                hnsw_config=m.HnswConfig(**HNSW | explicit_settings(request.hnsw_config)),
                optimizer_config=m.OptimizersConfig(
                    **OPTIMIZERS | explicit_settings(request.optimizers_config)
                ),
                wal_config=m.WalConfig(**WAL | explicit_settings(request.wal_config)),
                quantization_config=request.quantization_config,
                metadata=request.metadata,
            ),
            payload_schema=schema,
        )

    def check_limit(self, limit: int) -> None:
        strict = self.request.strict_mode_config
        max_limit = strict.max_query_limit if strict and strict.enabled else None
        if max_limit is not None and limit > max_limit:
            help_text = f'Reduce the "limit" parameter to or below {max_limit}.'
            raise Refused(
                f'Forbidden: Limit exceeded {limit} > {max_limit} for "limit". Help: {help_text}'
            )

    def filter(self, where: m.Filter | None) -> edge.Filter | None:
        return (
            None
            if where is None
            else call_engine(lambda: to_filter(where, knows_slices=self.knows_slices))
        )


def explicit_settings(settings: Any) -> dict[str, Any]:
    """Return the settings that a request named, without those left to the server."""
    return settings.model_dump(exclude_none=True) if settings else {}
