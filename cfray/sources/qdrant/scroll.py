"""Scroll through a Qdrant collection, page by page, over gRPC or REST.

Pages come through the raw gRPC stubs (``grpc_points``, which the client offers for such
use), because the client's own gRPC ``scroll`` makes a Python float of every number.  All
other requests use REST, so that one port is enough where gRPC is not wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from cfray.runtime.throttle import Throttle
from cfray.sources.base import Context
from cfray.sources.paging import PageSize
from cfray.sources.qdrant.decode import (
    AmbiguousNumber,
    decode_id,
    decode_message,
    decode_record,
)
from cfray.sources.qdrant.errors import is_page_too_large, is_timeout
from cfray.sources.qdrant.schema import VectorConfig
from cfray.sources.qdrant.settings import QdrantSettings
from cfray.sources.qdrant.types import Page, PointId, build_page, check_order

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageTransport:
    """How pages are asked for.

    Attributes:
        address: of the store, for errors.
        timeout: seconds that a page may take.
        over_grpc: whether pages come over gRPC rather than REST.
        throttle: the run-wide budget of requests.
    """

    address: str
    timeout: float
    over_grpc: bool
    throttle: Throttle


@dataclass(frozen=True, slots=True)
class ScrollQuery:
    """What a scroll asks for, page after page.

    Attributes:
        collection: name of the collection.
        vectors: the vectors that the collection declares.
        slice: (total, index) of the slice; None for all points.
        shard_key: under custom sharding, the key of the shards to read.
        consistency: how many replicas must agree; None leaves it to the server.
        with_content: whether payloads and vectors come with the ids.
    """

    collection: str
    vectors: Mapping[str, VectorConfig] = field(default_factory=dict)
    slice: tuple[int, int] | None = None
    shard_key: PointId | None = None
    consistency: str | int | None = None
    with_content: bool = True

    def fetch_page(
        self,
        client: QdrantClient,
        start: PointId | None,
        page_size: PageSize,
        transport: PageTransport,
    ) -> Page:
        """Fetch a page from ``start`` on.

        If the store refuses its size, a smaller page is asked for at once.  If it took too long,
        the error is raised, and the next attempt asks for a smaller page.
        """
        while True:
            try:
                if transport.over_grpc:
                    with suppress(AmbiguousNumber):
                        return self.fetch_over_grpc(client, start, page_size.rows, transport)
                return self.fetch_over_rest(client, start, page_size.rows, transport)
            except Exception as error:
                took_too_long = is_timeout(error)
                if not (took_too_long or is_page_too_large(error)) or not page_size.halve():
                    raise
                page_size.max_rows = page_size.rows
                if took_too_long:
                    raise
                transport.throttle.take()

    def fetch_over_rest(
        self, client: QdrantClient, start: PointId | None, rows: int, transport: PageTransport
    ) -> Page:
        """Fetch one page over REST."""
        records, next_id = client.scroll(
            self.collection,
            scroll_filter=self.filter(),
            limit=rows,
            offset=start,
            with_payload=self.with_content,
            with_vectors=self.with_content,
            consistency=self.consistency,
            shard_key_selector=self.shard_key,
        )
        return build_page(
            map(decode_record, records),
            self.vectors,
            next_id=next_id,
            shard_key=self.shard_key,
            address=transport.address,
        )

    def fetch_over_grpc(
        self, client: QdrantClient, start: PointId | None, rows: int, transport: PageTransport
    ) -> Page:
        """Fetch one page over gRPC.

        Raises:
            AmbiguousNumber: only REST can say what a number in it was.
        """
        request = self._grpc_request(start, rows)
        answer = client.grpc_points.Scroll(request, timeout=transport.timeout)
        next_id = (
            decode_id(answer.next_page_offset) if answer.HasField("next_page_offset") else None
        )
        return build_page(
            map(decode_message, answer.result),
            self.vectors,
            next_id=next_id,
            shard_key=self.shard_key,
            address=transport.address,
        )

    def _grpc_request(self, start: PointId | None, rows: int) -> Any:
        from qdrant_client import grpc
        from qdrant_client.conversions.conversion import RestToGrpc

        request = grpc.ScrollPoints(
            collection_name=self.collection,
            limit=rows,
            with_payload=grpc.WithPayloadSelector(enable=self.with_content),
            with_vectors=grpc.WithVectorsSelector(enable=self.with_content),
        )
        if start is not None:
            request.offset.CopyFrom(
                grpc.PointId(num=start) if isinstance(start, int) else grpc.PointId(uuid=start)
            )
        if self.slice is not None:
            request.filter.CopyFrom(RestToGrpc.convert_filter(self.filter()))
        if self.shard_key is not None:
            request.shard_key_selector.CopyFrom(
                RestToGrpc.convert_shard_key_selector(self.shard_key)
            )
        if isinstance(self.consistency, int):
            request.read_consistency.factor = self.consistency
        elif self.consistency is not None:
            request.read_consistency.type = grpc.ReadConsistencyType.Value(
                self.consistency.capitalize()
            )
        return request

    def count(self, client: QdrantClient) -> int:
        """Count the points exactly: the server's ``points_count`` is an estimate.

        The client's own ``count`` does not know consistency.
        """
        from qdrant_client import models

        request = models.CountRequest(filter=self.filter(), exact=True, shard_key=self.shard_key)
        answer = client.http.points_api.count_points(
            self.collection, consistency=self.consistency, count_request=request
        )
        return int(answer.result.count)

    def filter(self) -> Any:
        """Write the slice as the client's filter; None for all points."""
        from qdrant_client import models

        if self.slice is None:
            return None
        total, index = self.slice
        return models.Filter(
            must=[models.SliceCondition(slice=models.Slice(total=total, index=index))]
        )


@dataclass(frozen=True, slots=True)
class StoreReader:
    """An opened client with the settings and the budget of a run.

    Attributes:
        client: the vendor's client.
        settings: of the source.
        context: of the run.
    """

    client: QdrantClient
    settings: QdrantSettings
    context: Context

    def send(self, action: Callable[[], T]) -> T:
        """Send one request within the run's budget."""
        return self.settings.send_request(action, self.context)

    def count(self, query: ScrollQuery) -> int:
        """Count the points of a query."""
        return self.send(partial(query.count, self.client))

    def scroll(
        self,
        query: ScrollQuery,
        page_size: PageSize,
        *,
        start: PointId | None = None,
        end: PointId | None = None,
    ) -> Iterator[Page]:
        """Scroll from ``start`` up to ``end``, and check that the ids rise.

        Raises:
            SourceError: a page repeats or goes back, which would lose or double rows.
        """
        settings = self.settings
        transport = PageTransport(
            settings.address, settings.timeout, settings.uses_grpc, self.context.throttle
        )
        collection = f"{settings.address}, collection {query.collection}"
        next_id, last_id = start, None
        while True:
            page = self.send(partial(query.fetch_page, self.client, next_id, page_size, transport))
            last_id = check_order(page, last_id, collection)
            page = page.cut_at(end)
            if page.ids:
                yield page
            if page.next_id is None:
                return
            next_id = page.next_id
