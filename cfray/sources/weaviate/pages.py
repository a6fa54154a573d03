"""Read one Weaviate collection or tenant page by page, behind its cursor.

The cursor takes an id and gives the objects behind it, ascending; the id need not exist.
The order is checked, a page that is too large is halved, and only an empty page or the
range's last id is the end.

Source: https://docs.weaviate.io/weaviate/manage-objects/read-all-objects
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias, TypeVar

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.sources.base import FieldEquals
from cfray.sources.paging import PageSize
from cfray.sources.weaviate.client import Connection
from cfray.sources.weaviate.errors import TooLargeError
from cfray.sources.weaviate.schema import Definition, Message, property_request

T = TypeVar("T")

#: An object's reference properties, as REST gives them.
References: TypeAlias = dict[str, Any]

#: Records that a page asks for at most: above, pages are no faster (measured with 384 dimensions).
_PAGE_ROWS = 2_000
#: Bytes that a page aims at, at most: the server sends no message above 104,858,000 bytes.
PAGE_BYTES = 32 * 1024 * 1024
#: Records beyond the expected end of a range, or of a page, that a request asks for.
_SPARE_ROWS = 32
#: How often a page is requested again because objects were written meanwhile.
_PAGE_ATTEMPTS = 10
#: The flags of a request that a server of 1.27 or later expects.
_API_FLAGS = {"uses_123_api": True, "uses_125_api": True, "uses_127_api": True}


@dataclass(frozen=True)
class Page:
    """Objects as gRPC gives them, and the references of each if the collection has any."""

    objects: list[Message]
    references: list[References] | None


@dataclass(frozen=True)
class Cursor:
    """The cursor of a collection, or of a tenant of it.

    Attributes:
        tenant: empty where the collection has no tenants.
        consistency_level: empty for the server's setting.
    """

    connection: Connection
    collection: Definition
    tenant: str
    consistency_level: str

    def fetch(self, after: str, limit: int, *, with_content: bool) -> tuple[list[Message], int]:
        """Give the objects behind an id, and the bytes that they took.

        Args:
            after: an id, or empty for the start.
            limit: objects at most.
            with_content: whether vectors and properties come, too, or the ids alone.
        """
        messages = self.connection.protocol.search_get_pb2
        metadata = messages.MetadataRequest(
            uuid=True,
            vector=with_content,
            creation_time_unix=with_content,
            last_update_time_unix=with_content,
        )
        properties = (
            property_request(self.collection, self.connection.protocol)
            if with_content
            else messages.PropertiesRequest()
        )
        return self.fetch_parts(after, limit, metadata, properties)

    def fetch_parts(
        self, after: str, limit: int, metadata: Message, properties: Message
    ) -> tuple[list[Message], int]:
        """Give the requested parts of the objects behind an id, and the bytes that they took."""
        messages = self.connection.protocol.search_get_pb2
        level = self.consistency_level
        request = messages.SearchRequest(
            collection=self.collection.name,
            tenant=self.tenant,
            limit=limit,
            after=after,
            metadata=metadata,
            properties=properties,
            consistency_level=f"CONSISTENCY_LEVEL_{level}" if level else None,
            **_API_FLAGS,
        )
        reply = self.connection.call_grpc("Search", request)
        return list(messages.SearchReply.FromString(reply).results), len(reply)

    def ids_after(self, number: int, limit: int) -> list[int]:
        """Give the next ids behind a number."""
        objects, _ = self.fetch(format_id(number), limit, with_content=False)
        return [_id_number(result) for result in objects]

    def search(self, vector: bytes, k: int, where: FieldEquals | None = None) -> list[str]:
        """Give the tagged ids of the objects that the index finds nearest, nearest first."""
        single_indexes = [
            (column, index.target_name)
            for column, index in self.collection.vectors.items()
            if not index.is_multi
        ]
        if not single_indexes:
            raise SourceError(
                f"{self.collection.name} has no vector index that holds one vector an object",
                "compare with a collection that has one",
            )
        _, target_name = min(single_indexes)
        protocol = self.connection.protocol
        vectors = [protocol.base_pb2.Vectors(vector_bytes=vector, type="VECTOR_TYPE_SINGLE_FP32")]
        targets = (
            protocol.base_search_pb2.Targets(target_vectors=[target_name]) if target_name else None
        )
        near = protocol.base_search_pb2.NearVector(vectors=vectors, targets=targets)
        filters = None
        if where is not None:
            filters = protocol.base_pb2.Filters(
                operator="OPERATOR_EQUAL",
                target=protocol.base_pb2.FilterTarget(property=where.name),
                value_text=where.text,
            )
        return self._find(k, near_vector=near, filters=filters)

    def search_words(self, words: str, name: str, k: int) -> list[str]:
        """Give the tagged ids of the objects whose property matches words best by BM25."""
        search = self.connection.protocol.base_search_pb2.BM25(query=words, properties=[name])
        return self._find(k, bm25_search=search)

    def _find(self, k: int, **search: Any) -> list[str]:
        """Send a search; give the tagged ids that it finds, best first."""
        messages = self.connection.protocol.search_get_pb2
        request = messages.SearchRequest(
            collection=self.collection.name,
            tenant=self.tenant,
            limit=k,
            metadata=messages.MetadataRequest(uuid=True),
            properties=messages.PropertiesRequest(),
            **search,
            **_API_FLAGS,
        )
        reply = messages.SearchReply.FromString(self.connection.call_grpc("Search", request))
        return [f"u:{result.metadata.id}" for result in reply.results]

    def read_range(self, where: dict[str, Any], batch_bytes: int) -> Iterator[Page | Reject]:
        """Read the objects behind the id ``after`` up to and with the id ``until``."""
        after, until = str(where["after"]), str(where["until"])
        target_bytes, remaining_rows = min(batch_bytes, PAGE_BYTES), int(where["rows"])
        size = PageSize(max(1, target_bytes // where["row_bytes"]), _PAGE_ROWS, target_bytes)
        while True:
            # the plan's estimate keeps the last page short
            limit = PageSize(size.rows, max(remaining_rows, _SPARE_ROWS) + 1, target_bytes)
            try:
                objects, references, page_bytes = self._fetch_with_references(after, limit)
            except TooLargeError as error:
                ids = [_id_of(result) for result in self.fetch(after, 1, with_content=False)[0]]
                if ids and until and ids[0] > until:
                    return
                yield from (self._reject(error.what, object_id) for object_id in ids)
                after = ids[0] if ids else after
                continue
            ids = [_id_of(result) for result in objects]
            self._check_order(after, ids)
            in_range = [result for result in objects if not until or _id_of(result) <= until]
            yield from self._split_page(in_range, references)
            if len(in_range) < len(objects) or not objects:
                return
            after, remaining_rows = ids[-1], remaining_rows - len(ids)
            size.adjust(len(ids), page_bytes)

    def _split_page(
        self, objects: list[Message], references: dict[str, References] | None
    ) -> Iterator[Page | Reject]:
        """Give a page, then a reject for each object whose references did not come."""
        if references is None:
            yield Page(objects, None)
            return
        complete = [result for result in objects if _id_of(result) in references]
        yield Page(complete, [references[_id_of(result)] for result in complete])
        for result in objects:
            if _id_of(result) not in references:
                yield self._reject("its references did not come", _id_of(result))

    def _reject(self, reason: str, object_id: str) -> Reject:
        content = json.dumps({"id": object_id}).encode()
        return Reject(reason, f"{self.collection.name} {object_id}", content)

    def _check_order(self, after: str, ids: Sequence[str]) -> None:
        """Check that the ids of a page ascend.

        Raises:
            SourceError: an id comes twice or out of order, so that no object behind the cursor
                could be trusted to come.
        """
        for previous_id, object_id in pairwise([after, *ids]):
            if previous_id and object_id <= previous_id:
                raise SourceError(
                    f"{self.collection.name}: {object_id} came behind {previous_id}",
                    "report it to Weaviate; its cursor promises ascending ids",
                )

    def _fetch_with_references(
        self, after: str, size: PageSize
    ) -> tuple[list[Message], dict[str, References] | None, int]:
        """Fetch a page over gRPC, and the references in it over REST.

        gRPC gives only references whose target exists, and of one target collection.  An object
        that only one of the two answers has was written in between: both are requested again.

        Returns:
            The objects, their references by id (None where the collection declares no reference),
            and the bytes of the objects.
        """
        references: dict[str, References] | None = None
        for _ in range(_PAGE_ATTEMPTS):
            objects, page_bytes = halve_until_it_fits(
                size, partial(self.fetch, after, with_content=True)
            )
            if not self.collection.references or not objects:
                break
            references = self._fetch_references(after, len(objects) + _SPARE_ROWS)
            if all(_id_of(result) in references for result in objects):
                break
        return objects, references, page_bytes

    def _fetch_references(self, after: str, limit: int) -> dict[str, References]:
        query = {"class": self.collection.name, "limit": str(limit), "after": after}
        if self.tenant:
            query["tenant"] = self.tenant
        objects = self.connection.call_rest("/objects", **query)["objects"]
        return {result["id"]: result["properties"] or {} for result in objects}


def halve_until_it_fits(size: PageSize, fetch: Callable[[int], T]) -> T:
    """Fetch a page, or half of it while it is too large.

    Args:
        size: how many objects; is halved.
        fetch: fetches so many.

    Raises:
        TooLargeError: a single object is too large.
    """
    while True:
        try:
            return fetch(size.rows)
        except TooLargeError:
            if not size.halve():
                raise


def _id_of(result: Message) -> str:
    return str(result.metadata.id)


def _id_number(result: Message) -> int:
    return int.from_bytes(result.metadata.id_as_bytes, "big")


def format_id(number: int) -> str:
    """Write a 128-bit number as the cursor takes it."""
    return str(uuid.UUID(int=number))
