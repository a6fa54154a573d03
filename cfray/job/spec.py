"""JobSpec: what a job file may say, its defaults and their units, validated before anything starts.

The union of sources below is the registry of sources: cfray has no other.  Each default stands
once, here or in the model that it belongs to.  A job file names a secret and never holds it.
"""

from __future__ import annotations

from collections import abc
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PrivateAttr, model_validator

from cfray.embedders.spec import Embedding
from cfray.job.agreement import FINGERPRINTED, agreement, fingerprint
from cfray.job.mapping import FRAME_KINDS, FRAME_MAPPING, Mapping
from cfray.runtime import filesystems
from cfray.runtime.models import MIB, ByteSize, Location, Strict
from cfray.sources.chroma.source import Chroma
from cfray.sources.dynamodb.source import DynamoDB
from cfray.sources.elasticsearch.source import Elasticsearch
from cfray.sources.files.arrow import Arrow
from cfray.sources.files.csv import Csv
from cfray.sources.files.delta import Delta
from cfray.sources.files.frames import Frames
from cfray.sources.files.json import JsonFile
from cfray.sources.files.jsonl import JsonLines
from cfray.sources.files.lance import Lance
from cfray.sources.files.parquet import Parquet
from cfray.sources.files.targets import Targets
from cfray.sources.files.xml import XmlFile
from cfray.sources.filesystem.source import Filesystem
from cfray.sources.milvus.source import Milvus
from cfray.sources.mongodb.source import MongoDB
from cfray.sources.opensearch.source import OpenSearch
from cfray.sources.pinecone.source import Pinecone
from cfray.sources.postgres.source import Postgres
from cfray.sources.qdrant.source import Qdrant
from cfray.sources.weaviate.source import Weaviate

AnyFiles = Parquet | JsonLines | JsonFile | Csv | Arrow | Lance | Delta | XmlFile | Frames | Targets
VectorDatabase = Pinecone | Weaviate | Qdrant | Chroma | Milvus
DocumentStore = Postgres | Elasticsearch | OpenSearch | MongoDB | DynamoDB | Filesystem
AnyStore = VectorDatabase | DocumentStore
AnySource = Annotated[AnyFiles | AnyStore, Field(discriminator="kind")]

#: Every kind of source, by the word the job file uses.
KINDS: dict[str, type[BaseModel]] = {
    str(model.model_fields["kind"].default): model
    for model in (*get_args(AnyFiles), *get_args(AnyStore))
}

#: The kinds that are databases, and trees of documents; each has a folder in ``sources``.
STORES = tuple(str(model.model_fields["kind"].default) for model in get_args(AnyStore))


class Target(Strict):
    """Where the dataset goes."""

    uri: Location


VectorIndex = Literal["auto", "none", "IVF_RQ", "IVF_FLAT", "IVF_SQ", "IVF_PQ", "IVF_HNSW_SQ"]


class VectorIndexSpec(Strict):
    """The vector index.

    ``auto`` is none below 50,000 rows; above, IVF_RQ where the dimension divides by 8, as Lance
    requires for it, else IVF_SQ.
    """

    type: VectorIndex = "auto"
    metric: Literal["cosine", "l2", "dot"] | None = None
    #: Sub-vectors of IVF_PQ, which requires them; default: dimension / 8 where that divides.
    num_sub_vectors: int | None = Field(default=None, ge=1)
    #: Share of the 10 nearest vectors that a search must find; the settings that reach it are
    #: written into the dataset.
    recall: float = Field(default=0.99, gt=0, le=1)


class Index(Strict):
    """Which indexes the target gets."""

    vector: VectorIndexSpec = VectorIndexSpec()
    text: list[Literal["text_content", "title", "context"]] = Field(default=["text_content"])
    scalar: list[
        Literal[
            "uuid",
            "collection",
            "record_type",
            "status",
            "author",
            "tags",
            "position",
            "created_at",
            "updated_at",
        ]
    ] = Field(default=["uuid", "collection"])


class Parity(Strict):
    """How searches in the target are compared with those in the source (``verify --parity``)."""

    #: File with a search a line, as JSON: ``{"vector": [..], "collection": NAME, "where": {COLUMN:
    #: TEXT}}``; the source collection may be left out where there is only one, the filter always.
    #: Default: vectors of the source's.
    queries: Location | None = None
    #: Searches by vectors that are drawn from the source; half of these vectors are shifted a
    #: little, so that no record has them.  A fourth as many have a filter and come on top.
    searches: int = Field(default=200, ge=2, le=10_000)
    #: Nearest records that a search asks for.
    k: int = Field(default=10, ge=1, le=1_000)
    #: Share of the source's hits that the target must give, too, or give nearer ones in place of;
    #: below 1, for no number of searches proves that.
    agreement: float = Field(default=0.95, gt=0, lt=1)

    def resolve_paths(self, base: Path) -> Self:
        """Resolve the path of the queries against the folder of the job file."""
        if self.queries is None:
            return self
        return self.model_copy(update={"queries": filesystems.resolve_path(self.queries, base)})


def _share_or_count(value: object) -> object:
    """Read ``1%`` or ``0.01`` as a share, an integer as a number of records."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            pass
    if isinstance(value, bool) or not isinstance(value, int | float):
        # pydantic turns a ValueError into its finding
        raise ValueError(  # noqa: TRY004
            "is neither a share like 1% nor a number of records"
        )
    return value


def _in_range(value: float) -> float:
    """Refuse what no number of records can be."""
    if value < 0:
        raise ValueError("must not be negative")
    if isinstance(value, float) and value > 1:
        raise ValueError("a share is at most 100%; write a number of records as an integer")
    return value


class Limits(Strict):
    """What a run may cost before it stops; nothing here changes a row."""

    #: A share of the records (a float or 1%) or their number (an integer).
    max_quarantined: Annotated[
        int | float, BeforeValidator(_share_or_count), AfterValidator(_in_range)
    ] = 0.01
    #: Bytes of UTF-8 beyond which a document goes to quarantine.
    max_document: ByteSize = 128 * MIB
    #: Memory that Ray reserves for a worker task; ``auto``: Ray divides what the cluster has.
    memory: Literal["auto"] | ByteSize = "auto"
    #: Worker tasks at the same time; ``auto``: as many as the cluster has cores.
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"


def _kind_of(source: object) -> object:
    return source.get("kind") if isinstance(source, dict) else getattr(source, "kind", None)


class JobSpec(Strict):
    """One migration, as the job file says it.

    What a resume must agree on is worked out when a job is made, from the locations as they are
    written then: a job file may move together with its data, and its fingerprint stays.
    """

    name: str = Field(min_length=1)
    source: AnySource
    mapping: Mapping = Mapping()
    embedding: Embedding = Embedding()
    target: Target
    index: Index = Index()
    parity: Parity = Parity()
    limits: Limits = Limits()
    strict: bool = False
    _agreed: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _map_frames(cls, values: Any) -> Any:  # whatever a job file holds
        """Give frames their own mapping: each column is the column of that name."""
        if not isinstance(values, dict) or str(_kind_of(values.get("source"))) not in FRAME_KINDS:
            return values
        own = Mapping.model_validate(FRAME_MAPPING)
        # a job that is made anew of what was agreed names it
        if values.get("mapping") and Mapping.model_validate(values["mapping"]) != own:
            raise ValueError("mapping: frames keep their columns; leave mapping out")
        return {**values, "mapping": own}

    @model_validator(mode="after")
    def _keep_frames(self) -> Self:
        if self.source.kind in FRAME_KINDS and (
            self.embedding.policy != "keep" or self.embedding.makes_vectors
        ):
            raise ValueError("embedding: frames keep their vectors; cfray embed makes others later")
        return self

    def model_post_init(self, _context: object, /) -> None:
        """Work out what a resume must agree on."""
        self._agreed = agreement(self.name, self.source, self.mapping, self.embedding)

    @property
    def agreed(self) -> dict[str, Any]:
        """Give the part of the job file that the fingerprint is made of (parsed JSON)."""
        return self._agreed

    @property
    def fingerprint(self) -> str:
        """Give the SHA-256 of ``agreed`` as canonical JSON."""
        return fingerprint(self._agreed)

    def model_copy(
        self, *, update: abc.Mapping[str, Any] | None = None, deep: bool = False
    ) -> Self:
        """Copy the job; a copy with another name, source, mapping or embedding is another job."""
        copy = super().model_copy(update=update, deep=deep)
        agreed = agreement(copy.name, copy.source, copy.mapping, copy.embedding)
        changed = {key: agreed[key] for key in FINGERPRINTED if key in (update or {})}
        copy._agreed = self._agreed | changed  # noqa: SLF001  # of this very model
        return copy

    def resolve_paths(self, base: Path) -> Self:
        """Resolve the paths of a job file against its folder; the fingerprint stays."""
        update = {
            "source": self.source.resolve_paths(base),
            "embedding": self.embedding.resolve_paths(base),
            "target": Target(uri=filesystems.resolve_path(self.target.uri, base).rstrip("/")),
            "parity": self.parity.resolve_paths(base),
        }
        return super().model_copy(update=update)

    def with_embedding(self, embedding: Embedding) -> Self:
        """Make the vectors in another way for the same rows; the fingerprint stays."""
        return super().model_copy(update={"embedding": embedding})
