"""Qdrant collections on the vendor's own engine, PyPI ``qdrant-edge-py``.

The double puts a wire before them.

The engine's, not ours: storage, normalisation and rounding of vectors, payloads, scroll order,
filters and slices (its SliceCondition, though its stubs do not name it), nearest and random
queries. Ours: what a server does around its shards - merging several by id (one point for an id
that lies in two, as the server does), the parameters that get_collection tells, and the checks of
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
    in_order,
    name_of,
    plain,
    selected,
    to_config,
    to_engine,
    to_filter,
    told,
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
"""What a server reports where a collection was created without these."""

Point = tuple[Id, Any, dict[str, Any] | None]


class NotFound(Refused):
    """What a request names does not exist."""

    status = 404


class Exists(Refused):
    """A collection of that name is there already."""

    status = 409


class Store:
    """All collections of a server."""

    def __init__(self, folder: Path, *, knows_slices: bool) -> None:
        self.folder, self.knows_slices = folder, knows_slices
        self.collections: dict[str, Collection] = {}

    def create(self, name: str, wanted: m.CreateCollection) -> None:
        if name in self.collections:
            raise Exists(f"Wrong input: Collection `{name}` already exists!")
        self.collections[name] = Collection(self.folder, wanted, self.knows_slices)

    def get(self, name: str) -> Collection:
        if name not in self.collections:
            raise NotFound(f"Not found: Collection `{name}` doesn't exist!")
        return self.collections[name]

    def delete(self, name: str) -> bool:
        gone = self.collections.pop(name, None)
        if gone:
            gone.close()
        return gone is not None


class Collection:
    """One collection: a shard of the engine for each shard key, or one for all points."""

    def __init__(self, folder: Path, wanted: m.CreateCollection, knows_slices: bool) -> None:
        self.wanted, self.knows_slices = wanted, knows_slices
        self.config = to_config(wanted)
        self.lock = threading.RLock()
        self.shards: dict[Any, edge.EdgeShard] = {}
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        if not self.is_custom:
            self._add(None)

    @property
    def is_custom(self) -> bool:
        return self.wanted.sharding_method == m.ShardingMethod.CUSTOM

    def close(self) -> None:
        with self.lock:
            for shard in self.shards.values():
                shard.close()
            shutil.rmtree(self.folder)

    def _add(self, key: Any) -> None:
        self.shards[key] = edge.EdgeShard.create(tempfile.mkdtemp(dir=self.folder), self.config)

    def create_shard_key(self, key: Any) -> None:
        with self.lock:
            if not self.is_custom:
                raise Refused("Bad request: Shard Key cannot be created with Auto sharding method")
            if key in self.shards:
                raise Refused(f"Bad request: Sharding key {key} already exists")
            self._add(key)

    def delete_shard_key(self, key: Any) -> None:
        with self.lock:
            self._chosen(key)[key].close()
            del self.shards[key]

    def _chosen(self, selector: Any) -> dict[Any, edge.EdgeShard]:
        """Give the shards of a selector: none, a key, a list of keys, or a key with a fallback."""
        if selector is None:
            return self.shards
        selector = selector.get("target", selector) if isinstance(selector, dict) else selector
        keys = selector if isinstance(selector, list) else [selector]
        if missing := [key for key in keys if key not in self.shards]:
            raise NotFound(f"Not found: Shard key {missing[0]} not found")
        return {key: self.shards[key] for key in keys}

    def upsert(self, points: Iterable[Point], selector: Any = None) -> None:
        if self.is_custom and selector is None:
            raise Refused("Bad request: Shard key not specified")
        ready = [
            told(lambda: edge.Point(number, to_engine(vector), payload or {}))
            for number, vector, payload in points
        ]
        with self.lock:
            for shard in self._chosen(selector).values():
                told(lambda: shard.update(edge.UpdateOperation.upsert_points(ready)))

    def delete(self, ids: list[Id] | None, where: m.Filter | None, selector: Any = None) -> None:
        with self.lock:
            change = (
                edge.UpdateOperation.delete_points(ids or [])
                if where is None
                else edge.UpdateOperation.delete_points_byto_filter(self.filter(where))
            )
            for shard in self._chosen(selector).values():
                told(lambda: shard.update(change))

    def index(self, field: str, schema: Any) -> None:
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
        """Give a page in the order of ids, and the id that the next page begins with."""
        self.check_limit(limit)
        wanted = edge.ScrollRequest(
            offset, limit + 1, self.filter(where), selected(payload), vectors
        )
        with self.lock:
            found = [
                (record, key)
                for key, shard in self._chosen(selector).items()
                for record in told(lambda: shard.scroll(wanted))[0]
            ]
        once = {record.id: (record, key) for record, key in reversed(found)}
        page = [once[number] for number in sorted(once, key=in_order)]
        return [plain(*one) for one in page[:limit]], wire_id(page[limit][0].id) if len(
            page
        ) > limit else None

    def retrieve(
        self, ids: list[Id], *, payload: Any, vectors: Any, selector: Any = None
    ) -> list[dict[str, Any]]:
        with self.lock:
            chosen = self._chosen(selector).items()
            found = [
                (record, key)
                for key, shard in chosen
                for record in told(lambda: shard.retrieve(ids, selected(payload), vectors))
            ]
        return [plain(*one) for one in {record.id: (record, key) for record, key in found}.values()]

    def count(self, where: m.Filter | None, selector: Any = None) -> int:
        wanted = edge.CountRequest(exact=True, filter=self.filter(where))
        with self.lock:
            return sum(shard.count(wanted) for shard in self._chosen(selector).values())

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
        """Give the nearest points of a vector, or a random sample.

        With no query the first points by id.
        """
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
        asked = edge.Sample.Random if random else edge.Query.Nearest(to_engine(query), using)
        wanted = edge.QueryRequest(
            limit=limit,
            query=asked,
            filter=self.filter(where),
            with_payload=selected(payload),
            with_vector=vectors,
        )
        with self.lock:
            found = [
                (point, key)
                for key, shard in self._chosen(selector).items()
                for point in told(lambda: shard.query(wanted))
            ]
        nearest_is_smallest = not random and self._distance(using) in {
            m.Distance.EUCLID,
            m.Distance.MANHATTAN,
        }
        found.sort(key=lambda one: one[0].score, reverse=not nearest_is_smallest)
        return [
            {**plain(point, key), "version": point.version, "score": point.score}
            for point, key in found[:limit]
        ]

    def _distance(self, using: str | None) -> m.Distance | None:
        vectors = self.wanted.vectors
        params = vectors.get(using or "") if isinstance(vectors, dict) else vectors
        return params.distance if params else None

    def info(self) -> m.CollectionInfo:
        wanted = self.wanted
        with self.lock:
            infos = [shard.info() for shard in self.shards.values()]
        schema: dict[str, m.PayloadIndexInfo] = {}
        for name, field in [pair for info in infos for pair in info.payload_schema.items()]:
            points = field.points + (schema[name].points if name in schema else 0)
            schema[name] = m.PayloadIndexInfo(
                data_type=name_of(field.data_type).lower(), points=points
            )
        params = wanted.model_dump(
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
                hnsw_config=m.HnswConfig(**HNSW | given(wanted.hnsw_config)),
                optimizer_config=m.OptimizersConfig(**OPTIMIZERS | given(wanted.optimizers_config)),
                wal_config=m.WalConfig(**WAL | given(wanted.wal_config)),
                quantization_config=wanted.quantization_config,
                metadata=wanted.metadata,
            ),
            payload_schema=schema,
        )

    def check_limit(self, limit: int) -> None:
        strict = self.wanted.strict_mode_config
        most = strict.max_query_limit if strict and strict.enabled else None
        if most is not None and limit > most:
            help_text = f'Reduce the "limit" parameter to or below {most}.'
            raise Refused(
                f'Forbidden: Limit exceeded {limit} > {most} for "limit". Help: {help_text}'
            )

    def filter(self, where: m.Filter | None) -> edge.Filter | None:
        return (
            None
            if where is None
            else told(lambda: to_filter(where, knows_slices=self.knows_slices))
        )


def given(part: Any) -> dict[str, Any]:
    return part.model_dump(exclude_none=True) if part else {}
