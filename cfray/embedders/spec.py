"""What a job file may say about vectors.

Keep them, make them anew with a model, or map them into a new model's space.

Keys that change no vector (cache, actors, the gate's threshold, credentials and
rates of an endpoint) do not enter the fingerprint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cfray.runtime import filesystems
from cfray.runtime.credentials import Secret
from cfray.runtime.models import Strict

#: Widths a float may be stored in beside the primary vector.
FloatWidth = Literal["float32", "float16"]


class Endpoint(Strict):
    """A server that embeds: ``openai`` speaks ``POST {url}/embeddings``, ``tei``.

    (text-embeddings-inference) ``POST {url}/embed``.
    """

    url: str = Field(min_length=1)
    api: Literal["openai", "tei"] = "openai"
    #: What the server calls the model; with ``openai`` required.
    model: str | None = None
    #: Width to ask for (``dimensions`` of the OpenAI API).
    dimensions: int | None = Field(default=None, ge=1)
    #: Tokens beyond which the server cuts a text; only its operator knows.
    max_tokens: int = Field(default=8191, ge=1)
    api_key: Secret | None = None
    ca_file: str | None = None
    #: Seconds that one request may take.
    timeout: float = Field(default=60, gt=0)
    #: Texts of one request: 32 is what an untouched TEI takes at most (max_client_batch_size).
    batch: int = Field(default=32, ge=1)
    #: Budgets of all workers together; default: none but the server's own Retry-After.
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    #: Currency is the operator's; ``plan`` multiplies.
    price_per_million_tokens: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.api == "openai" and self.model is None:
            raise ValueError("api openai needs model: the name the server knows it by")
        if "@" in self.url.split("://")[-1].split("/")[0]:
            raise ValueError(
                "url holds a credential; name it with api_key: {env: NAME} or {file: PATH}"
            )
        return self


class Chunk(Strict):
    """Cut documents of more than ``tokens`` into chunk frames that are ``member_of`` their document."""

    tokens: int = Field(ge=8)
    overlap: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _overlap_is_smaller(self) -> Self:
        if 2 * self.overlap > self.tokens:
            raise ValueError(
                "overlap must be at most half of tokens: more would write every word of a document several times"
            )
        return self


class Remap(Strict):
    """Learn a map from the old vectors to the new model's from ``pairs`` records.

    Judge it before it is used.
    """

    #: Share of the new model's own retrieval that must survive (0.90: embeddings.md part 5; a
    #: judgement, not a measurement).
    min_quality: float = Field(default=0.90, ge=0, le=1)
    #: Records embedded with the new model to learn from; 5,000 is the floor below which maps
    #: collapse (embeddings.md part 4).
    pairs: int = Field(default=20_000, ge=5_000)


class Reduce(Strict):
    """Make vectors narrower: ``truncate`` cuts them.

    (Matryoshka models), ``pca`` learns a projection that queries get, too.
    """

    method: Literal["truncate", "pca"]
    dimension: int = Field(ge=1, le=65_536)


class Column(Strict):
    """A vector column of its own, ``x_vector_<name>``.

    Another text embedded by the same model, or the vector in another width.
    """

    of: Literal["vector", "title", "context"]
    dtype: FloatWidth = "float32"


class Expect(Strict):
    """The model the stored vectors are believed to come from.

    A sample is embedded with it and compared.
    """

    model: str
    sample: int = Field(default=64, ge=1, le=10_000)
    #: Median cosine below which the belief is wrong; the same model in another engine or dtype
    #: stays above 0.98 (embeddings.md part 3).
    min_cosine: float = Field(default=0.98, ge=-1, le=1)


class Actors(Strict):
    """How many embedding actors stay up: between ``min`` and ``max``, as there is work for them."""

    min: int = Field(default=1, ge=1)
    max: int = Field(ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError("min is larger than max")
        return self


class Embedding(Strict):
    """What becomes of the vectors."""

    policy: Literal["keep", "regenerate", "remap"] = "keep"
    #: zero: readable by every ContextFrame client (contextframe.md, "A null vector breaks it").
    missing_vector: Literal["zero", "null", "quarantine"] = "zero"
    #: Width of the column where no vector is mapped; 1 is the smallest column a client can read.
    dimension: Annotated[int, Field(ge=1, le=65_536)] | None = None
    #: The new model: a folder, or an installed package that carries one.
    model: str | None = Field(default=None, min_length=1)
    #: The new model behind a server, instead of ``model``.
    endpoint: Endpoint | None = None
    engine: Literal["torch", "openvino"] = "torch"
    #: auto: bf16 where the processor computes it, else fp32 (embeddings.md part 3).
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    #: What stands before each document and each query; default: what the model's own configuration
    #: says.
    prompt: str | None = None
    query_prompt: str | None = None
    #: Keep only the first numbers of a Matryoshka model's vectors, at length 1 again.
    truncate_dim: int | None = Field(default=None, ge=1)
    on_long_text: Literal["truncate", "chunk_mean", "error"] = "truncate"
    chunk: Chunk | None = None
    remap: Remap | None = None
    reduce: Reduce | None = None
    #: Further vector columns, by the name behind ``x_vector_``.
    columns: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], Column] = Field(default={})
    expect: Expect | None = None
    #: Folder, on any filesystem, of vectors that were computed before.
    cache: str | None = None
    #: auto: one a core (a GPU where there are some); 8 that ask an endpoint.
    actors: Literal["auto"] | Annotated[int, Field(ge=1)] | Actors = "auto"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.policy == "keep":
            for name in ("model", "endpoint", "chunk", "remap", "truncate_dim", "cache"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name} needs policy: regenerate or remap; policy keep leaves the vectors as they are"
                    )
            if any(column.of != "vector" for column in self.columns.values()):
                raise ValueError(
                    "columns of a text need policy: regenerate or remap: a model must make them"
                )
        elif self.dimension is not None:
            raise ValueError(
                f"dimension is the model's under policy {self.policy}; truncate_dim and reduce make vectors narrower"
            )
        elif (self.model is None) is (self.endpoint is None):
            raise ValueError(
                f"policy {self.policy} needs one of model (a folder or an installed package) and endpoint"
            )
        if self.policy != "remap" and self.remap is not None:
            raise ValueError("remap needs policy: remap")
        if self.policy == "remap" and self.chunk is not None:
            raise ValueError(
                "chunk needs policy: regenerate: there is no old vector of a chunk to map"
            )
        if "origin" in self.columns:
            raise ValueError(
                "the column x_vector_origin is cfray's own; give the column another name"
            )
        return self

    def agreed(self) -> dict[str, object]:
        """Give what the fingerprint is made of, as parsed JSON.

        Nothing that changes no vector, and no key at its default but the oldest three.
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
        plain = Embedding().model_dump(mode="json")
        return {
            name: value
            for name, value in body.items()
            if name in ("policy", "missing_vector", "dimension") or value != plain[name]
        }

    def located(self, base: Path) -> Embedding:
        """Resolve paths against the job file's folder.

        A model that is no folder there is taken for an installed package's name.
        """
        update: dict[str, object] = {}
        if self.model is not None:
            update["model"] = _place(self.model, base)
        if self.expect is not None:
            update["expect"] = self.expect.model_copy(
                update={"model": _place(self.expect.model, base)}
            )
        if self.cache is not None:
            update["cache"] = filesystems.absolute(self.cache, base).rstrip("/")
        if self.endpoint is not None:
            files: dict[str, object] = {}
            if self.endpoint.ca_file is not None:
                files["ca_file"] = filesystems.absolute(self.endpoint.ca_file, base)
            if self.endpoint.api_key is not None and self.endpoint.api_key.file is not None:
                files["api_key"] = Secret(
                    file=filesystems.absolute(self.endpoint.api_key.file, base)
                )
            update["endpoint"] = self.endpoint.model_copy(update=files)
        return self.model_copy(update=update)


def _place(model: str, base: Path) -> str:
    path = (base / Path(model).expanduser()).resolve()
    return str(path) if path.exists() or "/" in model or model.startswith((".", "~")) else model
