"""What the embedding of a run will do, cost and lose, before it begins.

The driver looks at the model with the plan's sample, and lets it go: each worker loads it again.
What is decided here is what every worker must agree on: the model's identity, the number type
that it computes in, and the width of the target's vectors.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.conversion import chunk_frames
from cfray.embedders.base import Embedder, Identity
from cfray.embedders.recipe import Recipe
from cfray.engine import throttle
from cfray.errors import ConfigError
from cfray.job.spec import JobSpec
from cfray.planning.forecast import Forecast
from cfray.runtime.plurals import counted

#: Texts of the sample that are embedded to learn how fast the model is.
_TIMED_TEXTS = 64
#: What ``remap`` embeds for each pair that it learns from, in texts: the pair's text, and a short
#: query that costs about a fifth of it.
_TEXTS_A_PAIR = 1.2

_FATES = {
    "truncate": "are cut",
    "chunk_mean": "are embedded in pieces",
    "error": "go to quarantine",
}


class ModelForecast:
    """The model as the plan sees it."""

    def __init__(self, job: JobSpec) -> None:
        """Remember the job; the model is loaded when the recipe is planned."""
        self.job = job
        self.embedder: Embedder | None = None

    def close(self) -> None:
        """Let the model go: the driver does not need it again."""
        self.embedder = None

    def plan_recipe(self, dimension: int) -> Recipe:
        """Load the model, or reach its server, and say how the vectors will be made.

        Args:
            dimension: width of the source's vectors.

        Raises:
            CfrayError: the model cannot be loaded, or the server not be reached.
            ConfigError: ``embedding.reduce`` would not make the vectors narrower.
        """
        spec = self.job.embedding
        where, reduction = "", ""
        if spec.policy != "keep":
            from cfray.embedders.open import open_embedder

            self.embedder = open_embedder(
                spec, throttle.endpoint_budgets(spec.endpoint, is_local=True)
            )
            dimension = self.embedder.identity.dimension
            where = spec.model or (spec.endpoint.url if spec.endpoint else "")
        if spec.reduce is not None:
            if spec.reduce.dimension >= dimension:
                raise ConfigError(
                    f"embedding.reduce.dimension is {spec.reduce.dimension}, the vectors have "
                    f"{dimension} numbers",
                    "give a smaller dimension",
                )
            dimension = spec.reduce.dimension
            reduction = "truncate" if spec.reduce.method == "truncate" else ""
        model = self.embedder.identity if self.embedder else None
        return Recipe(spec.policy, dimension, model, where, reduction=reduction)

    def notes(self) -> list[str]:
        """Name the model that makes the vectors; nothing where the source's are kept."""
        return [] if self.embedder is None else [model_note(self.embedder.identity)]

    def measure(self, forecast: Forecast, frames: list[pa.RecordBatch], rows: int) -> None:
        """Add to a forecast what the model will do, cost and lose; nothing where there is none.

        Args:
            forecast: of the same sample.
            frames: the sample as frames, chunks among them.
            rows: of the whole target, chunks among them; 0 where unknown.

        Raises:
            CfrayError: the model failed.
        """
        if self.embedder is not None:
            self._measure_model(self.embedder, forecast, frames, rows)

    def _measure_model(
        self, embedder: Embedder, forecast: Forecast, frames: list[pa.RecordBatch], rows: int
    ) -> None:
        """Count the tokens of the sample's texts, and time the model on some of them."""
        texts = _SampledTexts.of(embedder, [batch.column("text_content") for batch in frames])
        counts = texts.counts()
        chunks = [_texts(batch, "text_content", of_chunks=True) for batch in frames]
        if any(map(len, chunks)):
            chunk_counts = _SampledTexts.of(embedder, chunks).counts()
            counts["chunks"] = chunk_counts["texts"]
            counts["chunks_truncated"] = chunk_counts["truncated"]
        forecast.notes += self._text_notes(embedder.identity, counts)
        forecast.quarantined.update(self._refused(counts))
        if embedder.identity.on_long_text != "truncate":
            counts["truncated"] = counts["tokens_lost"] = 0
        names = sorted({column.of for column in self.job.embedding.columns.values()} - {"vector"})
        further = _SampledTexts.of(
            embedder,
            [_texts(batch, name, of_chunks=False) for name in names for batch in frames],
        )
        all_texts = texts.with_further(further)
        if names:
            counts["column_texts"] = len(further.texts)
            forecast.notes.append(
                f"further columns: {counted(len(further.texts), 'sampled text')} more of "
                f"{', '.join(names)}"
            )
        forecast.embedding.update(counts)
        if all_texts.texts:
            target_texts = rows * len(all_texts.texts) / max(1, texts.cells)
            seconds = all_texts.seconds_per_text(embedder) * target_texts
            forecast.embedding["seconds"] = round(seconds * self._embedded_share(rows), 1)
            self._price(forecast, all_texts.mean_visible_tokens * target_texts)
            if self.job.embedding.endpoint is not None:
                timed = counted(min(_TIMED_TEXTS, len(all_texts.texts)), "text")
                forecast.notes.append(
                    f"{timed} of the sample went to {self.job.embedding.endpoint.url}, which "
                    "made their vectors to see how fast it is"
                )

    def _refused(self, counts: dict[str, int]) -> dict[str, int]:
        """Count the texts of the sample that would send their records to quarantine, by reason."""
        spec = self.job.embedding
        refused = {
            "text longer than the model's N tokens": (
                counts["truncated"] if spec.on_long_text == "error" else 0
            ),
            "no vector could be made": counts["blank"] * (spec.missing_vector == "quarantine"),
        }
        return {reason: count for reason, count in refused.items() if count}

    def _embedded_share(self, records: int) -> float:
        """Give the share of the source's texts that are embedded: ``remap`` maps the others."""
        spec = self.job.embedding
        if spec.policy != "remap":
            return 1.0
        pairs = spec.remap.pairs if spec.remap else 20_000
        return min(1.0, _TEXTS_A_PAIR * pairs / max(1, records))

    def _price(self, forecast: Forecast, tokens: float) -> None:
        """Say what an endpoint will cost that embeds so many tokens, where its price is known."""
        endpoint = self.job.embedding.endpoint
        price = endpoint.price_per_million_tokens if endpoint else None
        if price is None:
            return
        cost = round(tokens * price / 1e6, 2)
        forecast.embedding["cost"] = cost
        forecast.notes.append(
            f"the endpoint will cost about {cost:,.2f}, at {price} a million tokens"
        )

    def _text_notes(self, model: Identity, counts: dict[str, int]) -> list[str]:
        """Say what becomes of texts that are too long or blank."""
        notes = []
        if counts["truncated"]:
            lost = f" ({counts['tokens_lost']:,} of {counts['tokens']:,} tokens lost)"
            long_chunks = counts.get("chunks_truncated", 0)
            chunks = f", {long_chunks:,} of them chunks," if long_chunks else ""
            notes.append(
                f"{counts['truncated']:,} of {counts['texts']:,} sampled texts{chunks} are longer "
                f"than the model's {model.max_tokens} tokens and {_FATES[model.on_long_text]}"
                + (lost if model.on_long_text == "truncate" else "")
            )
        if counts["blank"]:
            notes.append(
                f"{counts['blank']:,} sampled records have no text to embed: "
                f"embedding.missing_vector decides ({self.job.embedding.missing_vector})"
            )
        return notes


def model_note(model: Identity) -> str:
    """Name a model in a plan's notes."""
    details = f"{model.dimension} numbers, {model.engine} {model.dtype}"
    prompt = f", prompt {model.prompt!r}" if model.prompt else ""
    return f"vectors by {model.name} ({details}, sha256 {model.sha256[:16]}{prompt})"


@dataclass(frozen=True, slots=True)
class _SampledTexts:
    """Texts of the sample that are not blank, with their tokens.

    Attributes:
        texts: n texts.
        tokens: of each, ``(n,)``.
        cells: texts with the blank ones and nulls.
        limit: tokens of a text that the model sees.
    """

    texts: list[str]
    tokens: npt.NDArray[np.int64]
    cells: int
    limit: int

    @classmethod
    def of(cls, embedder: Embedder, columns: list[pa.StringArray]) -> Self:
        """Count the tokens of the texts in some columns."""
        cells = [text for column in columns for text in column.to_pylist()]
        texts = [text for text in cells if text is not None and text.strip()]
        tokens = np.array(embedder.count_tokens(texts) if texts else [], np.int64)
        return cls(texts, tokens, len(cells), embedder.identity.max_tokens)

    def with_further(self, other: Self) -> Self:
        """Give these texts and others; ``cells`` stays."""
        tokens = np.concatenate([self.tokens, other.tokens])
        return replace(self, texts=self.texts + other.texts, tokens=tokens)

    def counts(self) -> dict[str, int]:
        """Count the texts, and what the model does not see of them."""
        too_long = self.tokens > self.limit
        return {
            "texts": len(self.texts),
            "blank": self.cells - len(self.texts),
            "tokens": int(self.tokens.sum()),
            "truncated": int(too_long.sum()),
            "tokens_lost": int((self.tokens[too_long] - self.limit).sum()),
        }

    @property
    def mean_visible_tokens(self) -> float:
        """Give the tokens of a text that the model sees, on average."""
        return float(np.minimum(self.tokens, self.limit).mean())

    def seconds_per_text(self, embedder: Embedder) -> float:
        """Time the model on texts that are spread evenly over the sample."""
        count = min(_TIMED_TEXTS, len(self.texts))
        rows = np.linspace(0, len(self.texts) - 1, count).astype(int).tolist()
        begin = time.perf_counter()
        embedder.encode([self.texts[row] for row in rows], self.tokens[rows].tolist())
        return (time.perf_counter() - begin) / len(rows)


def _texts(frames: pa.RecordBatch, name: str, *, of_chunks: bool) -> pa.StringArray:
    """Give a column of the frames that are chunks, or of those that are documents."""
    texts = frames.column(name)
    if chunk_frames.FIELD.name not in frames.schema.names:
        return texts.slice(0, 0) if of_chunks else texts
    chunk_of = frames.column(chunk_frames.FIELD.name)
    return texts.filter(chunk_of.is_valid() if of_chunks else chunk_of.is_null())
