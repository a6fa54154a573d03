"""The cursor of one Weaviate collection, or tenant.

A look at it, cuts of it, and a walk through a range.

The cursor takes an id and gives those behind it, ascending; the id need not exist.
Order is checked, a page that is too large is halved, and only an empty page or
the range's own end is the end.

Source: https://docs.weaviate.io/weaviate/manage-objects/read-all-objects
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.sources.remote import PageSize
from cfray.sources.weaviate import types
from cfray.sources.weaviate.client import TooLarge, Wire
from cfray.sources.weaviate.schema import Declared, asked_for

#: Records a page asks for at most: above, pages are no faster (measured with 384 dimensions).
_MOST = 2_000
#: Bytes a page aims at, at most: the server sends no message above 104,858,000 bytes.
_AIM = 32 * 1024 * 1024
#: Ids that one look at the density asks for, and looks that a plan may take (about 1.5 ms each).
_LOOK, _LOOKS = 32, 2_000
#: How often a page is asked for again because of writes in between.
_AGAIN = 10
#: Records of a sample, in each of four places.
_SAMPLE = 8


@dataclass(frozen=True)
class Page:
    """Objects as the wire has them, and the references of each where the collection has any."""

    objects: list[Any]
    references: list[dict[str, Any]] | None


@dataclass(frozen=True)
class Cursor:
    """Where to read.

    Attributes:
        tenant: empty where the collection has none.
        level: consistency level; empty for the server's own.
    """

    wire: Wire
    declared: Declared
    tenant: str
    level: str

    def page(self, after: str, limit: int, *, whole: bool) -> tuple[list[Any], int]:
        """Give the objects behind an id (their ids only, unless ``whole``).

        The bytes they took.
        """
        wire = self.wire.proto.search_get_pb2
        metadata = wire.MetadataRequest(
            uuid=True, vector=whole, creation_time_unix=whole, last_update_time_unix=whole
        )
        properties = (
            asked_for(self.declared, self.wire.proto) if whole else wire.PropertiesRequest()
        )
        request = wire.SearchRequest(
            collection=self.declared.name, tenant=self.tenant, limit=limit, after=after, metadata=metadata, properties=properties,
            consistency_level=f"CONSISTENCY_LEVEL_{self.level}" if self.level else None,
            uses_123_api=True, uses_125_api=True, uses_127_api=True,
        )  # fmt: skip
        reply = self.wire.call("Search", request)
        return list(wire.SearchReply.FromString(reply).results), len(reply)

    def following(self, number: int, limit: int) -> list[int]:
        """Give the next ids behind a number."""
        found, _ = self.page(id_of(number), limit, whole=False)
        return [int.from_bytes(one.metadata.id_as_bytes, "big") for one in found]

    def nearest(self, vector: bytes, k: int) -> list[str]:
        """Give the tagged ids of the objects that the index finds nearest, nearest first."""
        index = min(
            ((name, one.wire) for name, one in self.declared.vectors.items() if not one.multi),
            default=None,
        )
        if index is None:
            raise SourceError(
                f"{self.declared.name} has no vector index that one vector can ask",
                "compare with a collection that has one",
            )
        proto = self.wire.proto
        vectors = [proto.base_pb2.Vectors(vector_bytes=vector, type="VECTOR_TYPE_SINGLE_FP32")]
        targets = proto.base_search_pb2.Targets(target_vectors=[index[1]]) if index[1] else None
        near = proto.base_search_pb2.NearVector(vectors=vectors, targets=targets)
        request = proto.search_get_pb2.SearchRequest(
            collection=self.declared.name, tenant=self.tenant, limit=k, near_vector=near, metadata=proto.search_get_pb2.MetadataRequest(uuid=True),
            properties=proto.search_get_pb2.PropertiesRequest(), uses_123_api=True, uses_125_api=True, uses_127_api=True,
        )  # fmt: skip
        found = proto.search_get_pb2.SearchReply.FromString(
            self.wire.call("Search", request)
        ).results
        return [f"u:{one.metadata.id}" for one in found]

    def sample(self, rows: int) -> tuple[int | None, int, dict[str, int]]:
        """Look at some objects.

        Returns:
            the lowest id (None: there is no object), bytes an object, and the width of each vector
            that was seen.
        """
        first, seen, size, widths = None, 0, 0, dict[str, int]()
        for part in range(4 if rows > _SAMPLE else 1):
            found, weight = self._fitting(
                id_of(part << 126) if part else "", PageSize(_SAMPLE, _SAMPLE, _AIM)
            )
            if found and first is None:
                first = int.from_bytes(found[0].metadata.id_as_bytes, "big")
            seen, size = seen + len(found), size + weight
            for name, width in types.widths(self.declared, found):
                widths.setdefault(name, width)
        return first, max(1, size // max(1, seen)), widths

    def _fitting(self, after: str, size: PageSize) -> tuple[list[Any], int]:
        """Ask for a page, for half of it while it is too large.

        Raises:
            TooLarge: one record is.
        """
        while True:
            try:
                return self.page(after, size.rows, whole=True)
            except TooLarge:
                if not size.halve():
                    raise

    def walk(self, where: dict[str, Any], batch_bytes: int) -> Iterator[Page | Reject]:
        """Read the range behind ``after`` up to ``until``, which belongs to it."""
        after, until = str(where["after"]), str(where["until"])
        aim, left = min(batch_bytes, _AIM), int(where["rows"])
        size = PageSize(max(1, aim // where["row_bytes"]), _MOST, aim)
        while True:
            try:  # the plan's estimate keeps the last page short
                found, links, weight = self._linked(
                    after, PageSize(size.rows, max(left, _LOOK) + 1, aim)
                )
            except TooLarge as error:
                alone = [one.metadata.id for one in self.page(after, 1, whole=False)[0]]
                if alone and until and alone[0] > until:
                    return
                yield from (self._aside(error.what, one) for one in alone)
                after = alone[0] if alone else after
                continue
            ids = [one.metadata.id for one in found]
            self._ascend(after, ids)
            there = [one for one in found if not until or one.metadata.id <= until]
            kept = [one for one in there if links is None or one.metadata.id in links]
            yield Page(kept, None if links is None else [links[one.metadata.id] for one in kept])
            if links is not None:
                yield from (
                    self._aside("its references did not come", one.metadata.id)
                    for one in there
                    if one.metadata.id not in links
                )
            if len(there) < len(found) or not found:
                return
            after, left = ids[-1], left - len(ids)
            size.learn(len(ids), weight)

    def _aside(self, reason: str, name: str) -> Reject:
        return Reject(reason, f"{self.declared.name} {name}", json.dumps({"id": name}).encode())

    def _ascend(self, after: str, ids: list[str]) -> None:
        """Check the order.

        Raises:
            SourceError: an id comes twice or out of order: what is behind the cursor could not be
                trusted.
        """
        for before, one in zip([after, *ids], ids, strict=False):
            if before and one <= before:
                raise SourceError(
                    f"{self.declared.name}: {one} came behind {before}",
                    "report it to Weaviate; its cursor promises ascending ids",
                )

    def _linked(
        self, after: str, size: PageSize
    ) -> tuple[list[Any], dict[str, dict[str, Any]] | None, int]:
        """Ask for a page, and for the references in it over REST.

        GRPC gives only those whose target is there, and of one collection.

        An object that only one of the two answers has was written in between: both are asked again.

        Returns:
            objects, properties by id (None where the collection declares no reference), and the
            bytes of the objects.
        """
        links: dict[str, dict[str, Any]] | None = None
        for _ in range(_AGAIN):
            found, weight = self._fitting(after, size)
            if not self.declared.references or not found:
                break
            query = {
                "class": self.declared.name,
                "limit": str(len(found) + _LOOK),
                "after": after,
            } | ({"tenant": self.tenant} if self.tenant else {})
            links = {
                one["id"]: one["properties"] or {}
                for one in self.wire.rest("/objects", **query)["objects"]
            }
            if all(one.metadata.id in links for one in found):
                break
        return found, links, weight


def cuts(following: Callable[[int, int], list[int]], first: int, parts: int) -> list[int]:
    """Cut the ids into ranges of about as many records each.

    A wrong estimate makes shards uneven, never wrong.

    UUIDs of one's own making are skewed (counters fill the lowest range only), and the server needs
    a scan to count a range.  So the cursor is looked at in some places: how far 32 ids reach from
    there tells how dense they are.

    Args:
        following: (id, n) -> the next n ids.
        first: the lowest id.
        parts: how many ranges.

    Returns:
        the last id of each range but the last, ascending; fewer than ``parts``.
    """
    todo, known, looks = [(first, _last(following, first))], [], 0
    while todo:
        low, high = todo.pop()
        places = sorted({low + (high - low) * part // 4 for part in range(4)})
        dense = [_density(following, place, high) for place in places]
        looks += len(places)
        if max(dense) > 4 * min(dense) and high - low > _LOOK and looks < _LOOKS:
            middle = (low + high) // 2
            todo += [(low, middle), (middle + 1, high)]
        else:
            known.append((low, high, (high - low + 1) * sum(dense) / len(dense)))
    found: list[int] = []
    each, before = sum(rows for _, _, rows in known) / parts, 0.0
    for low, high, rows in sorted(known):
        while len(found) < parts - 1 and rows and each * (len(found) + 1) < before + rows:
            found.append(low + int((high - low) * ((each * (len(found) + 1) - before) / rows)))
        before += rows
    return sorted(set(found))


def _last(following: Callable[[int, int], list[int]], first: int) -> int:
    """Find the highest id, or a little more: the cursor goes upwards only."""
    low, high = first, 2**128 - 1
    while high - low > (low - first) // 1000:
        middle = (low + high) // 2
        there = following(middle, 1)
        low, high = (there[-1], high) if there else (low, middle)
    return max(low, high)


def _density(following: Callable[[int, int], list[int]], place: int, high: int) -> float:
    """Give the ids there are to each number from a place on."""
    there = following(place, _LOOK)
    if len(there) == _LOOK and there[-1] <= high:
        return _LOOK / (there[-1] - place)
    return sum(one <= high for one in there) / max(1, high - place)


def id_of(number: int) -> str:
    """Write a 128-bit number as the cursor takes it."""
    return str(uuid.UUID(int=number))
