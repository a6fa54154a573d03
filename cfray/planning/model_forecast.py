"""What embedding will do, cost and lose, before it begins.

The model looked at once, on the driver, with the plan's sample.

Decides what every worker must agree on: the model's identity, the type it
computes in, the width of the target's vectors.
"""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.embedders.base import Embedder
from cfray.embedders.recipe import Recipe
from cfray.engine import throttle
from cfray.errors import ConfigError
from cfray.job.mapping import SourceShape
from cfray.job.spec import JobSpec
from cfray.planning.forecast import Forecast
from cfray.records.vectors import matrix

#: Texts of the sample that are really embedded, to learn the rate.
_TIMED = 64


class ModelForecast:
    """The model as the plan sees it."""

    def __init__(self, job: JobSpec) -> None:
        """Load nothing yet."""
        self.job = job
        self.embedder: Embedder | None = None
        #: What comparing with ``embedding.expect`` gave (``Plan.expected``).
        self.expected: dict[str, float] = {}

    def close(self) -> None:
        """Let the model go: the driver does not need it again."""
        self.embedder = None

    def recipe(self, layout: SourceShape) -> Recipe:
        """Load the model (or reach the server) and say how the vectors will come to be.

        Args:
            layout: with the width of the source's vectors.

        Raises:
            CfrayError: the model cannot be had.
        """
        spec = self.job.embedding
        dimension, where = layout.dimension, ""
        if spec.policy != "keep":
            from cfray.embedders.open import open_embedder

            self.embedder = open_embedder(spec, throttle.for_endpoint(spec.endpoint, alone=True))
            dimension = self.embedder.identity.dimension
            where = spec.model or (spec.endpoint.url if spec.endpoint else "")
        if spec.reduce is not None:
            if spec.reduce.dimension >= dimension:
                raise ConfigError(
                    f"embedding.reduce.dimension is {spec.reduce.dimension}, the vectors have {dimension} numbers",
                    "give a smaller one",
                )
            dimension = spec.reduce.dimension
        reduction = (
            "truncate" if spec.reduce is not None and spec.reduce.method == "truncate" else ""
        )
        return Recipe(
            spec.policy,
            dimension,
            self.embedder.identity if self.embedder else None,
            where,
            reduction=reduction,
        )

    def look(self, forecast: Forecast, rows: int | None) -> None:
        """Count the sample's tokens, time the model on some of it.

        Compare the stored vectors with the model they are believed to come from.
        """
        if self.embedder is not None:
            self._measure(self.embedder, forecast, rows)
        elif self.job.embedding.policy == "keep":
            _sanity(forecast)
        if self.job.embedding.expect is not None:
            self._compare(forecast)

    def _measure(self, embedder: Embedder, forecast: Forecast, rows: int | None) -> None:
        every = [
            text for batch in forecast.frames for text in batch.column("text_content").to_pylist()
        ]
        texts = [text for text in every if text is not None and text.strip()]
        limit = embedder.identity.max_tokens
        tokens = (
            np.array(embedder.count_tokens(texts), np.int64) if texts else np.empty(0, np.int64)
        )
        long = tokens > limit
        known = {
            "texts": len(texts),
            "blank": len(every) - len(texts),
            "tokens": int(tokens.sum()),
            "truncated": int(long.sum()),
        }
        known["tokens_lost"] = int((tokens[long] - limit).sum())
        forecast.embedding.update(known)
        some = (
            np.linspace(0, len(texts) - 1, min(_TIMED, len(texts))).astype(int).tolist()
            if texts
            else []
        )
        if some:
            begin = time.perf_counter()
            embedder.encode([texts[place] for place in some], tokens[some].tolist())
            share = len(texts) / max(1, len(every))
            forecast.embedding["seconds"] = round(
                (time.perf_counter() - begin) / len(some) * (rows or 0) * share, 1
            )
            if (
                self.job.embedding.policy == "remap"
            ):  # only the pairs, and a short query each, are embedded
                pairs = self.job.embedding.remap.pairs if self.job.embedding.remap else 20_000
                forecast.embedding["seconds"] *= min(1.0, 1.2 * pairs / max(1, rows or 0))
            price = (
                self.job.embedding.endpoint.price_per_million_tokens
                if self.job.embedding.endpoint
                else None
            )
            if price is not None:
                cost = round(
                    float(np.minimum(tokens, limit).mean()) * (rows or 0) * share * price / 1e6, 2
                )
                forecast.embedding["cost"] = cost
                forecast.notes.append(
                    f"the endpoint will cost about {cost:,.2f}, at {price} a million tokens"
                )
        forecast.notes += self._told(embedder, known)

    def _told(self, embedder: Embedder, known: dict[str, int]) -> list[str]:
        """Say what the operator should know of the model and the texts."""
        one = embedder.identity
        told = [
            f"vectors by {one.name} ({one.dimension} numbers, {one.engine} {one.dtype}, sha256 {one.sha256[:16]}"
            + (f", prompt {one.prompt!r}" if one.prompt else "")
            + ")"
        ]
        if known["truncated"]:
            fate = {
                "truncate": "are cut",
                "chunk_mean": "are embedded in pieces",
                "error": "go to quarantine",
            }[one.on_long_text]
            told.append(
                f"{known['truncated']:,} of {known['texts']:,} sampled texts are longer than the model's {one.max_tokens} tokens and {fate}"
                + (
                    f" ({known['tokens_lost']:,} of {known['tokens']:,} tokens lost)"
                    if one.on_long_text == "truncate"
                    else ""
                )
            )
        if known["blank"]:
            told.append(
                f"{known['blank']:,} sampled records have no text to embed: embedding.missing_vector decides ({self.job.embedding.missing_vector})"
            )
        return told

    def _compare(self, forecast: Forecast) -> None:
        """Embed some texts with the expected model and compare with the vectors that are stored for them."""
        from cfray.embedders.sentence_transformers import SentenceTransformersEmbedder
        from cfray.embedders.spec import Embedding

        expect = self.job.embedding.expect
        assert expect is not None
        rows = _with_both(forecast.frames, expect.sample)
        if not rows:
            raise ConfigError(
                "embedding.expect: no record of the sample has a text and a vector",
                "map both, or leave expect out",
            )
        texts, stored = [text for text, _ in rows], np.stack([vector for _, vector in rows])
        embedder = SentenceTransformersEmbedder(
            Embedding(policy="regenerate", model=expect.model), "fp32"
        )
        if embedder.identity.dimension != stored.shape[1]:
            raise ConfigError(
                f"embedding.expect: {expect.model} makes vectors of {embedder.identity.dimension} numbers, the stored ones have {stored.shape[1]}",
                "the stored vectors are another model's: correct expect.model",
            )
        made = embedder.encode(texts, embedder.count_tokens(texts))
        lengths = np.linalg.norm(made, axis=1) * np.linalg.norm(stored, axis=1)
        cosines = (made * stored).sum(axis=1) / np.maximum(lengths, 1e-30)
        median, least = float(np.median(cosines)), float(cosines.min())
        self.expected = {
            "sample": len(rows),
            "median": round(median, 5),
            "least": round(least, 5),
            "needed": expect.min_cosine,
        }
        forecast.notes.append(
            f"stored vectors against {expect.model}: cosine {median:.4f} (median), {least:.4f} (least) of {len(rows)} records"
            + (
                ""
                if median >= expect.min_cosine
                else f": THEY WERE NOT MADE BY IT (at least {expect.min_cosine} was expected)"
            )
        )


def _with_both(batches: list[pa.RecordBatch], most: int) -> list[tuple[str, np.ndarray]]:
    """Give records that have a text and a vector, spread over the sample."""
    found = []
    for batch in batches:
        values = matrix(batch.column("vector"))
        for row, text in enumerate(batch.column("text_content").to_pylist()):
            if text and text.strip() and values[row].any():
                found.append((text, values[row]))
    return (
        [
            found[place]
            for place in np.linspace(0, len(found) - 1, min(most, len(found))).astype(int).tolist()
        ]
        if found
        else []
    )


def _sanity(forecast: Forecast) -> None:
    """Say what the sample's vectors look like: lengths, zeros, repetitions."""
    columns = [batch.column("vector") for batch in forecast.frames if batch.num_rows]
    if not columns or columns[0].type.list_size == 1:
        return
    values = np.concatenate([matrix(column) for column in columns])
    lengths = np.linalg.norm(values, axis=1)
    there = lengths > 0
    if not there.any():
        return
    distinct = len(pc.unique(pa.array([vector.tobytes() for vector in values[there]], pa.binary())))
    forecast.notes.append(
        f"vectors of the sample: lengths {lengths[there].min():.3f} to {lengths[there].max():.3f}, "
        f"{(~there).mean():.1%} zero or missing, {1 - distinct / there.sum():.1%} repeat another one"
    )
