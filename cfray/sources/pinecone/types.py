"""What a Pinecone index declares, its records as batches of that.

What its client's errors mean.

Records keep what the wire gives: Pinecone stores every number of the metadata
as a float64, so that 5 may come back as 5.0, and strips nulls when it writes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from cfray.errors import SourceError, SourceUnavailable
from cfray.formats import points
from cfray.records.record import canonical
from cfray.runtime import filesystems
from cfray.sources.base import Collection, Json, Metric

#: The default namespace's name, where one must be given.
DEFAULT = "__default__"
#: Names under which an index that takes vectors, not documents, declares its two vectors.
_OF_VECTORS = frozenset({"_values", "_sparse_values"})
_METRICS: dict[str, Metric] = {"cosine": "cosine", "euclidean": "l2", "dotproduct": "dot"}


@dataclass(frozen=True, slots=True)
class PineconeIndex:
    """Where a collection's records are, and the vectors they have.

    Attributes:
        host: of the index, with its scheme.
        namespace: "" is the default one.
        documents: whether the index holds documents (fields of its own names) or vectors with
            metadata.
        dense: name of each dense vector -> its width; "" is the one of an index of vectors.
        sparse: names of the sparse vectors.
    """

    host: str
    namespace: str
    documents: bool = False
    dense: dict[str, int] = field(default_factory=dict)
    sparse: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Json]:
        """Write it into a shard's ``where``."""
        dense: dict[str, Json] = dict(self.dense)
        return {
            "host": self.host,
            "namespace": self.namespace,
            "documents": self.documents,
            "dense": dense,
            "sparse": list(self.sparse),
        }

    @classmethod
    def from_json(cls, where: Mapping[str, Json]) -> PineconeIndex:
        """Read it from a shard's ``where``."""
        dense, sparse = where["dense"], where["sparse"]
        assert isinstance(dense, dict)
        assert isinstance(sparse, list)
        widths = {name: int(str(width)) for name, width in dense.items()}
        return cls(
            str(where["host"]),
            str(where["namespace"]),
            bool(where["documents"]),
            widths,
            tuple(map(str, sparse)),
        )


@dataclass(frozen=True, slots=True)
class Home:
    """One source collection: a namespace of an index.

    Attributes:
        collection: its name and what else is to be said of it; ``rows`` is Pinecone's own,
            eventually consistent count.
        layout: where and how its records are.
        pod: whether its index is of pods, which list no ids.
        row_bytes: of a record, about; 0 where the index does not say.
    """

    collection: Collection
    layout: PineconeIndex
    pod: bool
    row_bytes: int


def homes(model: Any, stats: Any, namespaces: Mapping[str, tuple[int, int]]) -> list[Home]:
    """Say what a described index holds, namespace by namespace.

    Args:
        model: the client's ``IndexModel``.
        stats: the index's statistics: they know the width that the schema of an older index leaves
            out.
        namespaces: name -> number of records and bytes (0: not said).
    """
    told = model.to_dict()
    fields: dict[str, dict[str, Any]] = told["schema"]["fields"]
    documents = _holds_documents(fields)
    vectors = {
        name: (int(one["dimension"]), _METRICS.get(one["metric"]))
        for name, one in fields.items()
        if one.get("type") == "dense_vector"
    }
    if documents:
        dense = {name: width for name, (width, _) in vectors.items()}
        sparse = tuple(
            sorted(name for name, one in fields.items() if one.get("type") == "sparse_vector")
        )
    else:
        of_dot_product = (
            stats.metric == "dotproduct" or told.get("metric") == "dotproduct"
        )  # the only one that takes sparse values, too
        width = stats.dimension or next((width for width, _ in vectors.values()), None)
        dense = {"": int(width)} if width else {}
        sparse = (
            ("sparse",)
            if of_dot_product or stats.vector_type == "sparse" or "_sparse_values" in fields
            else ()
        )
    facts = {
        key: _text(value)
        for key, value in told.items()
        if key not in ("name", "host", "private_host", "status") and value is not None
    }
    found = []
    for namespace, (rows, size) in sorted(namespaces.items()):
        collection = Collection(
            f"{model.name}/{namespace}" if namespace else model.name,
            rows=rows,
            dimension=dense.get(""),
            metric=_METRICS.get(str(stats.metric or told.get("metric"))) if "" in dense else None,
            vectors=vectors if documents else {},
            facts=facts,
        )
        layout = PineconeIndex(model.host, namespace, documents, dense, sparse)
        found.append(Home(collection, layout, is_of_pods(model), size // rows if rows else 0))
    return found


def _holds_documents(fields: Mapping[str, Mapping[str, Any]]) -> bool:
    """Tell an index of documents from one of vectors (also one that embeds text itself.

    ``semantic_text``).
    """
    kinds = {one.get("type") for one in fields.values()}
    if "semantic_text" in kinds:
        return False
    searched = any(
        one.get(key) is not None
        for one in fields.values()
        for key in ("full_text_search", "embed", "sparse_embed", "store_text")
    )
    return searched or any(
        name not in _OF_VECTORS
        for name, one in fields.items()
        if str(one.get("type")).endswith("_vector")
    )


def is_of_pods(model: Any) -> bool:
    """Tell whether a described index is of pods."""
    return bool(model.to_dict()["deployment"].get("deployment_type") == "pod")


def _text(value: object) -> str:
    return value if isinstance(value, str) else canonical(value)


def is_fit(text: str) -> bool:
    """Tell whether the client takes a text for an id.

    (its ``ids`` pattern in the API's description).
    """
    return 1 <= len(text) <= 512 and text.isascii() and "\0" not in text


def given_ids(uri: str) -> list[str]:
    """Read a file of ids: one a line, in ``.jsonl`` as JSON strings; sorted, each once.

    Raises:
        SourceError: it cannot be read, or a line of ``.jsonl`` is no string.
    """
    system, path = filesystems.filesystem(uri)
    try:
        with system.open_input_stream(path) as stream:
            lines = [line.removesuffix("\r") for line in stream.read().decode().split("\n")]
        found = (
            {json.loads(line) for line in lines if line}
            if uri.endswith(".jsonl")
            else {line for line in lines if line}
        )
    except (OSError, ValueError, TypeError) as error:
        raise SourceError(
            f"the file of ids {uri} cannot be read: {error}",
            "correct source.ids: one id a line, UTF-8; in .jsonl a JSON string",
        ) from None
    if not all(isinstance(one, str) for one in found):
        raise SourceError(
            f"the file of ids {uri} holds something else than strings",
            "write each id as a JSON string, or name the file .txt",
        )
    return sorted(found)


def refuse_pods(homes: Sequence[Home], given: str | None) -> None:
    """Refuse what cannot be read completely.

    Raises:
        SourceError: a pod index without its ids, or ids without one collection that they are of.
    """
    pods = [home.collection.name for home in homes if home.pod]
    if pods and not given:
        raise SourceError(
            f"{pods[0]} is a pod index: it cannot list its ids, and no number of queries is sure to find all of them",
            "give its ids in a file with source.ids, or restore a collection of it into a serverless index and read that",
        )
    if given and len(homes) > 1:
        raise SourceError(
            f"source.ids is for one collection, and there are {len(homes)}",
            "name the one in source.collections",
        )


def read_units(rows: Sequence[int], *, listed: bool) -> str:
    """Estimate what a run costs: a list request takes 1 read unit and gives 100 ids.

    A fetch takes 1 for every 10 records.

    Source: https://docs.pinecone.io/guides/cost/understand-cost, "Read units".
    """
    lists = sum(max(1, -(-count // 100)) for count in rows) if listed else 0
    fetches = sum(-(-count // 10) for count in rows)
    return (
        f"read units, an estimate: {lists} for listing the ids (1 a request of 100, every time a plan is made) and {fetches} for reading"
        " (1 for every 10 records); each shard that is read again costs its part again"
    )


def batch(layout: PineconeIndex, ids: Sequence[str], found: Sequence[Any]) -> pa.RecordBatch:
    """Put fetched records together: the client's vectors, or documents as mappings."""
    dense: dict[str, list[Any]]
    sparse: dict[str, list[Any]]
    if layout.documents:
        dense = {name: [one.get(name) for one in found] for name in layout.dense}
        sparse = {name: [one.get(name) for one in found] for name in layout.sparse}
        taken = {"_id", *dense, *sparse}
        payload = [{key: value for key, value in one.items() if key not in taken} for one in found]
    else:
        dense = {"": [one.values or None for one in found]}
        sparse = {"sparse": [one.sparse_values for one in found]}
        payload = [one.metadata or {} for one in found]
    columns: dict[str, pa.Array] = {}
    for name, values in dense.items():
        width = layout.dense.get(name) or next((len(one) for one in values if one), 0)
        if width:  # also where the index declares none and a record has one all the same
            columns[name] = points.dense(values, pa.list_(pa.float32(), width))
    for name, sparse_values in sparse.items():
        if name in layout.sparse or any(one is not None for one in sparse_values):
            columns[name] = points.sparse([_pair(one) for one in sparse_values])
    return points.batch(
        pa.array(ids, pa.string()),
        columns,
        payload,
        inside="fields" if layout.documents else "metadata",
    )


def _pair(value: Any) -> tuple[Sequence[int], Sequence[float]] | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return value["indices"], value["values"]
    return value.indices, value.values


class TooLarge(SourceError):
    """A request or its answer was larger than something on the way lets through."""


class Unreadable(SourceError):
    """The client cannot make records of an answer that is whole."""


class Gone(SourceError):
    """There is no such index or namespace."""


def judge(error: Exception, place: str) -> SourceError | None:
    """Say what an error of the client means."""
    errors = importlib.import_module("pinecone.errors.exceptions")
    lost = (errors.PineconeConnectionError, errors.PineconeTimeoutError)
    if isinstance(error, errors.ApiError):
        return _refusal(error, place)
    if isinstance(error, lost) or (_of_httpx(error) and type(error).__name__ != "InvalidURL"):
        return SourceUnavailable(
            f"{place} did not answer: {error}",
            "check source.url and the network, then run the same command again",
        )
    if isinstance(error, errors.ResponseParsingError):
        return _misread(error, place)
    if isinstance(error, errors.PineconeError) or _of_httpx(error):
        remedy = (
            "correct what source.api_key names"
            if "key" in str(error).lower()
            else "correct the source in the job file"
        )
        return SourceError(f"{place} cannot be asked: {error}", remedy)
    if isinstance(error, OSError) and not isinstance(
        error, ConnectionError
    ):  # ssl.SSLError among them
        return SourceError(
            f"the certificates for {place} cannot be loaded: {error}",
            "correct source.ca_file: certificates in PEM",
        )
    return None


def _of_httpx(error: Exception) -> bool:
    """Tell what the client passes on from the HTTP library below it."""
    return type(error).__module__.split(".", 1)[0] == "httpx"


def _misread(error: Any, place: str) -> SourceError:
    if (
        type(error.cause).__name__ == "ValidationError"
    ):  # of msgspec: JSON, but of another form; anything else is no JSON
        return Unreadable(
            f"{place} gave an answer that its client cannot read: {error}",
            "upgrade the pinecone package, then run again",
        )
    return SourceUnavailable(
        f"{place} gave an answer that is no JSON: {error}",
        "check what stands between here and Pinecone, then run again",
    )


def _refusal(error: Any, place: str) -> SourceError:
    """Judge an answer by its HTTP status."""
    status, said = int(error.status_code), f"{place} answered {error}"
    if status in (408, 429) or status >= 500:
        seconds = _seconds(error.headers or {})
        return SourceUnavailable(
            said,
            "wait, or lower source.requests_per_second; then run the same command again",
            seconds,
        )
    if status in (401, 403):
        return SourceError(
            said,
            "set the environment variable or file that source.api_key names to a key that may read this project",
        )
    if status == 402:
        return SourceError(
            said, "settle the account with Pinecone, then run the same command again"
        )
    if status == 404:
        return Gone(
            said, "correct source.collections: the index or the namespace is not there (any more)"
        )
    if status in (413, 414, 431):
        return TooLarge(
            said,
            "nothing smaller can be asked for: raise the limit of what stands between here and Pinecone",
        )
    return SourceError(said, "correct the source in the job file, or upgrade the pinecone package")


def _seconds(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After where it is a number of seconds."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(headers.get("retry-after", "")))
    return None
