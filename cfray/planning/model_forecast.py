"""What the embedding of a run will do, cost and lose, before it begins.

The driver looks at the model with the plan's sample, and lets it go: each worker loads it again.
What is decided here is what every worker must agree on: the model's identity, the number type
that it computes in, and the width of the target's vectors.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.embedders.base import Embedder, Identity
from cfray.embedders.recipe import Recipe
from cfray.engine import throttle
from cfray.errors import ConfigError
from cfray.job.spec import JobSpec
from cfray.planning.forecast import Forecast

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
        if self.embedder is None:
            return []
        model = self.embedder.identity
        details = f"{model.dimension} numbers, {model.engine} {model.dtype}"
        prompt = f", prompt {model.prompt!r}" if model.prompt else ""
        return [f"vectors by {model.name} ({details}, sha256 {model.sha256[:16]}{prompt})"]

    def measure(
        self, forecast: Forecast, frames: list[pa.RecordBatch], records: int | None
    ) -> None:
        """Add to a forecast what the model will do, cost and lose; nothing where there is none.

        Args:
            forecast: of the same sample.
            frames: the sample, converted.
            records: of the whole source; None where unknown.

        Raises:
            CfrayError: the model failed.
        """
        if self.embedder is not None:
            self._measure_model(self.embedder, forecast, frames, records or 0)

    def _measure_model(
        self, embedder: Embedder, forecast: Forecast, frames: list[pa.RecordBatch], records: int
    ) -> None:
        """Count the tokens of the sample's texts, and time the model on some of them."""
        cells = [text for batch in frames for text in batch.column("text_content").to_pylist()]
        texts = [text for text in cells if text is not None and text.strip()]
        limit = embedder.identity.max_tokens
        tokens = np.array(embedder.count_tokens(texts) if texts else [], np.int64)
        too_long = tokens > limit
        counts = {
            "texts": len(texts),
            "blank": len(cells) - len(texts),
            "tokens": int(tokens.sum()),
            "truncated": int(too_long.sum()),
            "tokens_lost": int((tokens[too_long] - limit).sum()),
        }
        forecast.embedding.update(counts)
        if texts:
            source_texts = records * len(texts) / len(cells)
            seconds = _seconds_per_text(embedder, texts, tokens) * source_texts
            forecast.embedding["seconds"] = round(seconds, 1) * self._embedded_share(records)
            self._price(forecast, np.minimum(tokens, limit).mean() * source_texts)
        forecast.notes += self._text_notes(embedder.identity, counts)

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
            notes.append(
                f"{counts['truncated']:,} of {counts['texts']:,} sampled texts are longer than the "
                f"model's {model.max_tokens} tokens and {_FATES[model.on_long_text]}"
                + (lost if model.on_long_text == "truncate" else "")
            )
        if counts["blank"]:
            notes.append(
                f"{counts['blank']:,} sampled records have no text to embed: "
                f"embedding.missing_vector decides ({self.job.embedding.missing_vector})"
            )
        return notes


def _seconds_per_text(embedder: Embedder, texts: list[str], tokens: npt.NDArray[np.int64]) -> float:
    """Time the model on texts that are spread evenly over the sample."""
    rows = np.linspace(0, len(texts) - 1, min(_TIMED_TEXTS, len(texts))).astype(int).tolist()
    begin = time.perf_counter()
    embedder.encode([texts[row] for row in rows], tokens[rows].tolist())
    return (time.perf_counter() - begin) / len(rows)
