"""What a job file may say about vectors: the section ``embedding``.

The policy keeps them, makes them anew with a model, or maps them into a new model's
space.  Keys that change no vector (cache, actors, the gate's threshold, credentials and
rates of an endpoint) do not enter the fingerprint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from cfray.runtime import filesystems
from cfray.runtime.credentials import Secret, check_no_secret_in_url
from cfray.runtime.models import Strict

#: Records below which no map is learned.  Ridge maps learned from 1,000 pairs kept 0.48 to 0.79 of
#: the new model's hits, from 5,000 pairs 0.60 to 0.88 (five pairs of models on Debian's package
#: descriptions), and a network learned from 1,000 pairs kept as little as 0.04.
LEAST_PAIRS = 5_000
#: Types in which a further vector column may store its numbers.
FloatWidth = Literal["float32", "float16"]


class Endpoint(Strict):
    """A server that embeds.

    ``openai`` speaks ``POST {url}/embeddings``, ``tei`` (text-embeddings-inference)
    ``POST {url}/embed``.
    """

    url: str = Field(min_length=1)
    api: Literal["openai", "tei"] = "openai"
    #: The server's name of the model; required with ``openai``.
    model: str | None = None
    #: Width of the vectors to ask for (``dimensions`` of the OpenAI API).
    dimensions: int | None = Field(default=None, ge=1)
    #: Tokens beyond which the server cuts a text; only its operator knows them.
    max_tokens: int = Field(default=8191, ge=1)
    api_key: Secret | None = None
    ca_file: str | None = None
    #: Seconds that a request may take.
    timeout: float = Field(default=60, gt=0)
    #: Texts of a request: TEI's default takes at most 32 (max_client_batch_size).
    batch: int = Field(default=32, ge=1)
    #: Budgets of all workers together; default: only the pauses that the server asks for.
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    #: In the operator's currency; ``plan`` multiplies it by the tokens.
    price_per_million_tokens: float | None = Field(default=None, ge=0)

    @field_validator("url")
    @classmethod
    def _holds_no_credential(cls, url: str) -> str:
        return check_no_secret_in_url(url, "name it with api_key: {env: NAME} or {file: PATH}")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.api == "openai" and self.model is None:
            raise ValueError("api openai needs model: the server's name of the model")
        return self

    def resolve_paths(self, base: Path) -> Endpoint:
        """Resolve the paths of its files against the job file's folder."""
        update: dict[str, object] = {}
        if self.ca_file is not None:
            update["ca_file"] = filesystems.resolve_path(self.ca_file, base)
        if self.api_key is not None and self.api_key.file is not None:
            update["api_key"] = Secret(file=filesystems.resolve_path(self.api_key.file, base))
        return self.model_copy(update=update)


class Chunk(Strict):
    """Cut documents of more than ``tokens`` into chunk frames, ``member_of`` their document."""

    tokens: int = Field(ge=8)
    overlap: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _overlap_is_small(self) -> Self:
        if 2 * self.overlap > self.tokens:
            raise ValueError(
                "overlap must be at most half of tokens: more would write every word of a "
                "document several times"
            )
        return self


class Remap(Strict):
    """Learn a map from the old vectors to the new model's, and judge it before it is used."""

    #: Share of the new model's own retrieval that must survive; 0.90 is a judgement, not a
    #: measurement.
    min_quality: float = Field(default=0.90, ge=0, le=1)
    #: Records that are embedded with the new model to learn from.  With 20,000 pairs a ridge kept
    #: 0.01 or 0.02 more of the new model's hits than with 5,000, a network 0.08 to 0.14 more (three
    #: pairs of models on Debian's package descriptions).
    pairs: int = Field(default=20_000, ge=LEAST_PAIRS)


class Reduce(Strict):
    """Make vectors narrower.

    ``truncate`` keeps their first numbers, as Matryoshka models allow; ``pca`` learns a projection,
    which queries get, too.
    """

    method: Literal["truncate", "pca"]
    dimension: int = Field(ge=1, le=65_536)


class Column(Strict):
    """A further vector column, ``x_vector_<name>``.

    It holds another text embedded by the same model, or the vector in another type.
    """

    of: Literal["vector", "title", "context"]
    dtype: FloatWidth = "float32"


class Expect(Strict):
    """The model that is expected to have made the stored vectors.

    A sample is embedded with it and compared with the stored vectors.
    """

    model: str
    sample: int = Field(default=64, ge=1, le=10_000)
    #: Median cosine below which another model made the vectors.  The same model in another engine
    #: or type stays above it: bf16 has 0.9999, a model quantised to int8 0.993 (all-MiniLM-L6-v2).
    min_cosine: float = Field(default=0.98, ge=-1, le=1)


class Actors(Strict):
    """How many embedding actors are up: from ``min`` to ``max``, as many as there is work for."""

    min: int = Field(default=1, ge=1)
    max: int = Field(ge=1)

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError("min is larger than max")
        return self


class Embedding(Strict):
    """What becomes of the vectors."""

    policy: Literal["keep", "regenerate", "remap"] = "keep"
    #: zero: every ContextFrame client can read the row, which a null vector would prevent.
    missing_vector: Literal["zero", "null", "quarantine"] = "zero"
    #: Width of the column where no vector is mapped; 1 is the least width that a client can read.
    dimension: Annotated[int, Field(ge=1, le=65_536)] | None = None
    #: The new model: a folder, or an installed package that carries a model.
    model: str | None = Field(default=None, min_length=1)
    #: The new model behind a server, instead of ``model``.
    endpoint: Endpoint | None = None
    engine: Literal["torch", "openvino"] = "torch"
    #: auto: bf16 where the processor computes it in hardware, else fp32.
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    #: Text put before each document and each query; default: as the model's configuration says.
    prompt: str | None = None
    query_prompt: str | None = None
    #: Keep only the first numbers of a Matryoshka model's vectors, at length 1 again.
    truncate_dim: int | None = Field(default=None, ge=1)
    on_long_text: Literal["truncate", "chunk_mean", "error"] = "truncate"
    chunk: Chunk | None = None
    remap: Remap | None = None
    reduce: Reduce | None = None
    #: Further vector columns, by the part of their name after ``x_vector_``.
    columns: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], Column] = Field(default={})
    expect: Expect | None = None
    #: Folder, on any filesystem, of vectors that were computed before.
    cache: str | None = None
    #: auto: an actor a core, or a GPU where the cluster has GPUs; 8 actors for an endpoint.
    actors: Literal["auto"] | Annotated[int, Field(ge=1)] | Actors = "auto"

    @model_validator(mode="after")
    def _fits_policy(self) -> Self:
        if self.policy == "keep":
            for name in ("model", "endpoint", "chunk", "remap", "truncate_dim", "cache"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} needs policy: regenerate or remap; policy keep leaves the vectors "
                        "as they are"
                    )
            if any(column.of != "vector" for column in self.columns.values()):
                raise ValueError(
                    "columns of a text need policy: regenerate or remap: a model must make them"
                )
        elif self.dimension is not None:
            raise ValueError(
                f"dimension is the model's under policy {self.policy}; truncate_dim and reduce "
                "make vectors narrower"
            )
        elif (self.model is None) is (self.endpoint is None):
            raise ValueError(
                f"policy {self.policy} needs either model (a folder or an installed package) or "
                "endpoint"
            )
        return self

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.policy != "remap" and self.remap is not None:
            raise ValueError("remap needs policy: remap")
        if self.policy == "remap" and self.chunk is not None:
            raise ValueError(
                "chunk needs policy: regenerate: there is no old vector of a chunk to map"
            )
        if "origin" in self.columns:
            raise ValueError(
                "cfray writes the column x_vector_origin itself; give the column another name"
            )
        return self

    @property
    def makes_vectors(self) -> bool:
        """Tell whether vectors are made after the copy; else they stay as they were copied."""
        return self.policy != "keep" or self.reduce is not None or bool(self.columns)

    def agreed(self) -> dict[str, object]:
        """Give what the fingerprint is made of, as parsed JSON.

        Keys that change no vector are left out, and so is every key at its default except the
        oldest three: a key that a later version adds changes no fingerprint of an earlier job.
        """
        body = self.model_dump(mode="json", exclude={"cache", "actors", "expect"})
        for name in (
            "api_key",
            "ca_file",
            "timeout",
            "batch",
            "requests_per_minute",
            "tokens_per_minute",
            "price_per_million_tokens",
        ):
            (body["endpoint"] or {}).pop(name, None)
        (body["remap"] or {}).pop("min_quality", None)
        defaults = Embedding().model_dump(mode="json")
        return {
            name: value
            for name, value in body.items()
            if name in ("policy", "missing_vector", "dimension") or value != defaults[name]
        }

    def resolve_paths(self, base: Path) -> Embedding:
        """Resolve paths against the job file's folder.

        A model that is no folder there is taken for the name of an installed package.
        """
        update: dict[str, object] = {}
        if self.model is not None:
            update["model"] = _model_location(self.model, base)
        if self.expect is not None:
            update["expect"] = self.expect.model_copy(
                update={"model": _model_location(self.expect.model, base)}
            )
        if self.cache is not None:
            update["cache"] = filesystems.resolve_path(self.cache, base).rstrip("/")
        if self.endpoint is not None:
            update["endpoint"] = self.endpoint.resolve_paths(base)
        return self.model_copy(update=update)


def _model_location(model: str, base: Path) -> str:
    path = (base / Path(model).expanduser()).resolve()
    return str(path) if path.exists() or "/" in model or model.startswith((".", "~")) else model
