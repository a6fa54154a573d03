"""The vendor's client: opened for one piece of work and closed after it, its two ways to scroll.

What its errors mean.

Pages come through the raw stubs (``grpc_points``, which the client offers for such use), because
its own gRPC ``scroll`` makes a Python float of every number.  All else goes over REST, so that one
port is enough where gRPC is not wanted.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime.sdk import import_sdk
from cfray.runtime.throttle import Throttle
from cfray.sources import remote
from cfray.sources.qdrant import types
from cfray.sources.qdrant.schema import Vector
from cfray.sources.qdrant.types import Id, Page

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

#: The first version whose filters know slices (pull request qdrant/qdrant#9899).
_SLICES_SINCE = (1, 19)
_KEY = "correct what source.api_key names: the key must be valid and may read these collections"
_ADDRESS = "check that source.url is Qdrant's REST port and source.grpc_port its gRPC port"
#: What to do about answers that will not change; every other one may.
_REMEDIES: dict[int | None, str] = {
    301: _ADDRESS,
    302: _ADDRESS,
    307: _ADDRESS,
    308: _ADDRESS,
    400: f"{_ADDRESS}, and that its version is supported",
    401: _KEY,
    403: _KEY,
    404: "correct source.collections, or source.url where it is not Qdrant's",
    405: _ADDRESS,
    413: "one point is more than what stands before the server lets through: raise its limit",
    422: f"{_ADDRESS}, and that its version is supported",
}
_CHECK = (
    "check that the store answers and that source.url is right, then run the same command again"
)


@dataclass(frozen=True, slots=True)
class Reach:
    """How pages are asked for.

    Attributes:
        place: the store, for errors.
        timeout: seconds for a page.
        over_grpc: rather than over REST.
        throttle: the run-wide budget of requests.
    """

    place: str
    timeout: float
    over_grpc: bool
    throttle: Throttle


@dataclass(frozen=True, slots=True)
class Scroll:
    """What a scroll asks for, page after page.

    Attributes:
        collection: its name.
        declares: its vectors.
        slice: (total, index) of the slice; None for all points.
        shard_key: under custom sharding, the key of the shards to read.
        consistency: how many replicas must agree; None leaves it to the server.
        whole: false for ids alone.
    """

    collection: str
    declares: Mapping[str, Vector] = field(default_factory=dict)
    slice: tuple[int, int] | None = None
    shard_key: Id | None = None
    consistency: str | int | None = None
    whole: bool = True

    def page(
        self, store: QdrantClient, offset: Id | None, size: remote.PageSize, reach: Reach
    ) -> Page:
        """Ask for a page; at once for a smaller one where the store refuses its size.

        For a smaller one next time where it took too long.
        """
        while True:
            try:
                if reach.over_grpc:
                    with suppress(types.Inexact):
                        return self.over_grpc(store, offset, size.rows, reach.place, reach.timeout)
                return self.over_rest(store, offset, size.rows, reach.place)
            except Exception as error:
                late = is_late(error)
                if not (late or is_too_much(error)) or not size.halve():
                    raise
                size.most = size.rows
                if late:
                    raise
                reach.throttle.take()

    def over_rest(self, store: QdrantClient, offset: Id | None, limit: int, place: str) -> Page:
        """Ask for one page over REST."""
        found, following = store.scroll(
            self.collection,
            scroll_filter=self.filter(),
            limit=limit,
            offset=offset,
            with_payload=self.whole,
            with_vectors=self.whole,
            consistency=self.consistency,
            shard_key_selector=self.shard_key,
        )
        return types.page_of(
            map(types.from_record, found),
            self.declares,
            following=following,
            shard_key=self.shard_key,
            place=place,
        )

    def over_grpc(
        self, store: QdrantClient, offset: Id | None, limit: int, place: str, timeout: float
    ) -> Page:
        """Ask for one page over gRPC.

        Raises:
            Inexact: only REST can say what a number in it was.
        """
        from qdrant_client import grpc
        from qdrant_client.conversions.conversion import RestToGrpc

        request = grpc.ScrollPoints(
            collection_name=self.collection,
            limit=limit,
            with_payload=grpc.WithPayloadSelector(enable=self.whole),
            with_vectors=grpc.WithVectorsSelector(enable=self.whole),
        )
        if offset is not None:
            request.offset.CopyFrom(
                grpc.PointId(num=offset) if isinstance(offset, int) else grpc.PointId(uuid=offset)
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
        answer = store.grpc_points.Scroll(request, timeout=timeout)
        following = (
            types.id_of(answer.next_page_offset) if answer.HasField("next_page_offset") else None
        )
        return types.page_of(
            map(types.from_message, answer.result),
            self.declares,
            following=following,
            shard_key=self.shard_key,
            place=place,
        )

    def count(self, store: QdrantClient) -> int:
        """Count the points exactly (``points_count`` is an estimate).

        The client's own ``count`` knows no consistency.
        """
        from qdrant_client import models

        request = models.CountRequest(filter=self.filter(), exact=True, shard_key=self.shard_key)
        counted = store.http.points_api.count_points(
            self.collection, consistency=self.consistency, count_request=request
        )
        return int(counted.result.count)

    def filter(self) -> Any:
        """Write the slice as the client's filter."""
        from qdrant_client import models

        if self.slice is None:
            return None
        total, index = self.slice
        return models.Filter(
            must=[models.SliceCondition(slice=models.Slice(total=total, index=index))]
        )


@contextmanager
def opened(
    url: str,
    *,
    secret: str | None,
    timeout: float,
    grpc_port: int,
    ca_file: str | None,
    insecure: bool,
) -> Iterator[QdrantClient]:
    """Open a client, and close it."""
    sdk = import_sdk("qdrant_client", "qdrant")
    certificates: dict[str, Any] = {"verify": False} if insecure else {}
    if ca_file:
        try:
            certificates = {
                "verify": ca_file,
                "grpc_options": {"root_certificates": Path(ca_file).read_bytes()},
            }
        except OSError as error:
            raise SourceError(
                f"cannot read the certificates {ca_file}: {type(error).__name__}",
                "correct source.ca_file",
            ) from None
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Api key is used with an insecure connection"
        )  # the plan says so, once
        try:
            client = sdk.QdrantClient(
                url=url,
                api_key=secret,
                timeout=timeout,
                grpc_port=grpc_port,
                pool_size=1,
                check_compatibility=False,
                **certificates,
            )
        except (ValueError, OSError) as error:
            raise SourceError(
                f"cannot open a client for {url}: {error}",
                "correct source.url: http(s)://host:port of Qdrant's REST API",
            ) from None
    try:
        yield client
    finally:
        client.close()


def knows_slices(version: str) -> bool:
    """Tell whether a server of this version cuts a scroll into slices.

    An unreadable version does not.
    """
    parts = version.split(".")[:2]
    return all(part.isdigit() for part in parts) and tuple(map(int, parts)) >= _SLICES_SINCE


def is_too_much(error: Exception) -> bool:
    """Tell whether the store refuses the size of a page.

    Strict mode's limit, or a message too large for gRPC.
    """
    status, text = _told(error)
    return (
        (status in (400, 403, 413) and "limit" in text.lower())
        or "larger than max" in text
        or status == 413
    )


def is_late(error: Exception) -> bool:
    """Tell whether a page took longer than the time-out."""
    status, text = _told(error)
    cause = type(getattr(error, "source", None)).__name__
    return (
        status in (408, 504)
        or "timeout" in cause.lower()
        or "deadline" in text.lower()
        or "timed out" in text.lower()
    )


def judge(error: Exception, place: str) -> SourceError | None:
    """Say what an error of the client means; None where it is none of the store's."""
    import grpc
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException

    if isinstance(error, json.JSONDecodeError):
        return SourceUnavailable(f"{place} gave an answer that is no JSON: {error}", _CHECK)
    if not isinstance(error, grpc.RpcError | ApiException | QdrantException):
        return None
    status, text = _told(error)
    what = f"{place}: {text[:500]}"
    if isinstance(
        error, QdrantException
    ):  # too many requests; a Retry-After that is no whole number is an error of its own
        return SourceUnavailable(
            what, "lower source.requests_per_second", getattr(error, "retry_after_s", None)
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return SourceError(
            what, "name the certificate to trust in source.ca_file, or set source.insecure: true"
        )
    if remedy := _REMEDIES.get(status):
        return SourceError(what, remedy)
    grpc_only = (
        "; where only the REST port can be reached, set source.prefer_grpc: false"
        if isinstance(error, grpc.RpcError)
        else ""
    )
    return SourceUnavailable(what, _CHECK + grpc_only)


#: gRPC's codes as REST's; those not here are transient.
_STATUS = {
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 400,
}


def _told(error: Exception) -> tuple[int | None, str]:
    """Give the HTTP status of an error, or what corresponds to it, and its text."""
    code = getattr(error, "code", None)
    if callable(code):  # gRPC
        return _STATUS.get(code().name), f"{code().name}: {error.details()}"  # type: ignore[attr-defined]  # an RpcError that is a Call
    if (
        cause := getattr(error, "source", None)
    ) is not None:  # no answer, or one that is not understood
        understood = type(cause).__name__ != "ValidationError"
        return (None if understood else 400), f"{type(cause).__name__}: {cause}"
    status = getattr(error, "status_code", None)
    content = getattr(error, "content", b"")
    return status, f"HTTP {status}: {_said(content)}" if status else str(error)


def _said(content: bytes) -> str:
    """Take the sentence out of an error's JSON."""
    try:
        return str(json.loads(content)["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return content.decode(errors="replace")
