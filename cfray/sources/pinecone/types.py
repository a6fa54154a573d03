"""What a Pinecone index declares, namespace by namespace: its address, vectors and counts.

A namespace is a source collection.  Its description travels to the workers inside each
shard, so that a worker need not ask the control plane again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cfray.records.record import canonical
from cfray.sources.base import Collection, Json, Metric

#: The name that the API wants for the default namespace where a name is required.
DEFAULT_NAMESPACE = "__default__"
#: Names under which an index that takes vectors, not documents, declares its two vectors.
_VECTOR_INDEX_FIELDS = frozenset({"_values", "_sparse_values"})
_METRICS: dict[str, Metric] = {"cosine": "cosine", "euclidean": "l2", "dotproduct": "dot"}


def collection_name(name: str) -> str:
    """Give the name of a collection without the default namespace, which may be written out."""
    index, _, namespace = name.partition("/")
    return index if namespace in ("", DEFAULT_NAMESPACE) else name


@dataclass(frozen=True, slots=True)
class PineconeNamespace:
    """Where the records of a collection are, and which vectors they have.

    Attributes:
        host: address of the index, with its scheme.
        name: of the namespace; empty for the default one.
        holds_documents: whether the index holds documents (fields with names of the user's
            choice) or vectors with metadata.
        dense: name of each dense vector -> its dimension; in an index of vectors the name is
            empty.
        sparse: names of the sparse vectors.
    """

    host: str
    name: str
    holds_documents: bool = False
    dense: dict[str, int] = field(default_factory=dict)
    sparse: tuple[str, ...] = ()

    @property
    def api_name(self) -> str:
        """Give the name for requests that must name the default namespace, too."""
        return self.name or DEFAULT_NAMESPACE

    def to_json(self) -> dict[str, Json]:
        """Write the description into a shard's ``where``."""
        dense: dict[str, Json] = dict(self.dense)
        return {
            "host": self.host,
            "namespace": self.name,
            "documents": self.holds_documents,
            "dense": dense,
            "sparse": list(self.sparse),
        }

    @classmethod
    def from_json(cls, where: Mapping[str, Json]) -> PineconeNamespace:
        """Read the description from a shard's ``where``."""
        dense, sparse = where["dense"], where["sparse"]
        assert isinstance(dense, dict)
        assert isinstance(sparse, list)
        return cls(
            host=str(where["host"]),
            name=str(where["namespace"]),
            holds_documents=bool(where["documents"]),
            dense={name: int(str(dimension)) for name, dimension in dense.items()},
            sparse=tuple(map(str, sparse)),
        )


@dataclass(frozen=True, slots=True)
class NamespaceSize:
    """What Pinecone says of a namespace's size.

    Attributes:
        rows: number of records, an eventually consistent count.
        stored_bytes: bytes of all its records; 0 where the index does not say.
    """

    rows: int
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DescribedNamespace:
    """One source collection, as the control plane and the index describe it.

    Attributes:
        collection: its name and facts; ``rows`` is Pinecone's eventually consistent count.
        namespace: where its records are, and which vectors they have.
        is_pod: whether its index runs on pods, which cannot list ids.
        row_bytes: bytes of a record on average; 0 where the index does not say.
    """

    collection: Collection
    namespace: PineconeNamespace
    is_pod: bool
    row_bytes: int


def describe_namespaces(
    model: Any, stats: Any, sizes: Mapping[str, NamespaceSize]
) -> list[DescribedNamespace]:
    """Describe the namespaces of an index, sorted by name.

    Args:
        model: the client's ``IndexModel``.
        stats: the client's statistics of the index; they have the dimension that the schema
            of an older index lacks.
        sizes: name of each namespace -> its size.
    """
    index = model.to_dict()
    fields: dict[str, dict[str, Any]] = index["schema"]["fields"]
    declared_vectors = {
        name: (int(declared["dimension"]), _METRICS.get(declared["metric"]))
        for name, declared in fields.items()
        if declared.get("type") == "dense_vector"
    }
    dimensions = {name: dimension for name, (dimension, _) in declared_vectors.items()}
    holds_documents = _holds_documents(fields)
    if holds_documents:
        dense, sparse = dimensions, _sparse_fields(fields)
    else:
        dimension = stats.dimension or next(iter(dimensions.values()), None)
        dense = {"": int(dimension)} if dimension else {}
        sparse = ("sparse",) if _takes_sparse_values(index, stats) else ()
    metric = _METRICS.get(str(stats.metric or index.get("metric"))) if "" in dense else None
    descriptions = []
    for name, size in sorted(sizes.items()):
        collection = Collection(
            f"{model.name}/{name}" if name else model.name,
            rows=size.rows,
            dimension=dense.get(""),
            metric=metric,
            vectors=declared_vectors if holds_documents else {},
            facts=_facts(index),
        )
        namespace = PineconeNamespace(model.host, name, holds_documents, dense, sparse)
        row_bytes = size.stored_bytes // size.rows if size.rows else 0
        is_pod = is_pod_index(model)
        descriptions.append(DescribedNamespace(collection, namespace, is_pod, row_bytes))
    return descriptions


def is_pod_index(model: Any) -> bool:
    """Tell whether a described index runs on pods."""
    return bool(model.to_dict()["deployment"].get("deployment_type") == "pod")


def _holds_documents(fields: Mapping[str, Mapping[str, Any]]) -> bool:
    """Tell an index of documents from an index of vectors.

    An index that embeds text itself (``semantic_text``) takes vectors.
    """
    types = {declared.get("type") for declared in fields.values()}
    if "semantic_text" in types:
        return False
    searches_text = any(
        declared.get(option) is not None
        for declared in fields.values()
        for option in ("full_text_search", "embed", "sparse_embed", "store_text")
    )
    names_its_vectors = any(
        name not in _VECTOR_INDEX_FIELDS
        for name, declared in fields.items()
        if str(declared.get("type")).endswith("_vector")
    )
    return searches_text or names_its_vectors


def _sparse_fields(fields: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(
        sorted(name for name, declared in fields.items() if declared.get("type") == "sparse_vector")
    )


def _takes_sparse_values(index: Mapping[str, Any], stats: Any) -> bool:
    """Tell whether an index of vectors takes sparse values.

    The dot product is the only metric under which a record may have both kinds.
    """
    by_dot_product = stats.metric == "dotproduct" or index.get("metric") == "dotproduct"
    return (
        by_dot_product
        or stats.vector_type == "sparse"
        or "_sparse_values" in index["schema"]["fields"]
    )


def _facts(index: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: value if isinstance(value, str) else canonical(value)
        for key, value in index.items()
        if key not in ("name", "host", "private_host", "status") and value is not None
    }
