"""What becomes of a batch of texts, whatever the engine: no text spoils another, no cut is silent.

Null, empty and blank texts get no vector: all-MiniLM-L6-v2 makes a unit vector of an empty
text, the same as of a blank, and many queries would find it.  Equal texts are embedded
once.  A text that is longer than the model sees is cut and counted, embedded in parts, or
refused, as the job says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.embedders.base import Embedder
from cfray.embedders.cache import Cache
from cfray.embedders.spec import Embedding
from cfray.records.vectors import Floats

Rows = npt.NDArray[np.int64]
#: Distinct texts -> the rows that hold them.
RowsByText = dict[str, list[int]]

#: Why a text is refused for which the model gave zeros.
_ZEROS = "the model gave a vector of zeros"


@dataclass(frozen=True, slots=True)
class EmbeddedTexts:
    """The vectors of one batch of texts.

    Attributes:
        vectors: ``(n, d)`` float32; zero where a text has none.
        missing: ``(n,)`` true where a text has no vector: it is null or blank, or was refused.
        faults: row -> why its text was refused.
        counts: ``texts_embedded`` (texts that the model was given), ``texts_repeated``,
            ``cache_hits``, ``texts_truncated``, ``texts_pooled``, ``tokens_lost``.
    """

    vectors: Floats
    missing: npt.NDArray[np.bool_]
    faults: dict[int, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


class TextEmbedder:
    """An embedder with the job's rules for texts, and its cache, around it.

    Attributes:
        room: tokens that the model sees of a text, without the prompt and special tokens.
    """

    def __init__(self, embedder: Embedder, spec: Embedding, cache: Cache | None = None) -> None:
        """Count what the prompt and special tokens leave of the model's tokens."""
        self.embedder, self.spec, self.cache = embedder, spec, cache
        overhead = embedder.count_tokens([""])[0]
        self.room = max(1, embedder.identity.max_tokens - overhead)

    def embed(self, column: pa.StringArray) -> EmbeddedTexts:
        """Embed one batch of texts.

        Raises:
            CfrayError: the model or the server failed for the whole batch; never for one text.
        """
        texts = column.to_pylist()
        missing = np.array([text is None or not text.strip() for text in texts], np.bool_)
        rows_by_text = _group_equal([text or "" for text in texts], np.flatnonzero(~missing))
        repeated = int((~missing).sum()) - len(rows_by_text)
        counts: Counter[str] = Counter({"texts_repeated": repeated})
        distinct = list(rows_by_text)
        tokens = dict(
            zip(distinct, self.embedder.count_tokens(distinct) if distinct else [], strict=True)
        )
        faults = self._too_long(tokens, rows_by_text)
        missing[list(faults)] = True
        accepted = [text for text in distinct if rows_by_text[text][0] not in faults]
        vectors = np.zeros((len(texts), self.embedder.identity.dimension), np.float32)
        accepted_tokens = [tokens[text] for text in accepted]
        new_vectors = self._vectors(accepted, accepted_tokens, rows_by_text, counts)
        for text, vector in zip(accepted, new_vectors, strict=True):
            vectors[rows_by_text[text]] = vector
        for text, why in self._faults(accepted, new_vectors).items():
            rows = rows_by_text[text]
            faults |= dict.fromkeys(rows, why)
            vectors[rows], missing[rows] = 0, True
        return EmbeddedTexts(vectors, missing, faults, counts)

    def _faults(self, texts: list[str], vectors: Floats) -> dict[str, str]:
        """Say which texts have no vector that a search could find, and why."""
        is_finite = np.isfinite(vectors).all(axis=1)
        is_zero = is_finite & ~vectors.any(axis=1)
        faults = {texts[index]: _ZEROS for index in np.flatnonzero(is_zero).tolist()}
        for index in np.flatnonzero(~is_finite).tolist():
            faults[texts[index]] = self.embedder.fault_of(texts[index])
        return faults

    def _too_long(self, tokens: dict[str, int], rows_by_text: RowsByText) -> dict[int, str]:
        """Find the rows whose text is too long, where the job refuses such a text."""
        if self.spec.on_long_text != "error":
            return {}
        limit = self.embedder.identity.max_tokens
        return {
            row: f"text longer than the model's {limit} tokens (it has {count}), and "
            "embedding.on_long_text is error"
            for text, count in tokens.items()
            if count > limit
            for row in rows_by_text[text]
        }

    def _vectors(
        self,
        texts: list[str],
        tokens: list[int],
        rows_by_text: RowsByText,
        counts: Counter[str],
    ) -> Floats:
        """Give the vectors of distinct texts, from the cache or from the model.

        Args:
            texts: distinct.
            tokens: of each text.
            rows_by_text: a text that several rows hold counts once for each row.
            counts: changed in place.
        """
        vectors = np.zeros((len(texts), self.embedder.identity.dimension), np.float32)
        is_cached = np.zeros(len(texts), np.bool_)
        if self.cache is not None and texts:
            is_cached, vectors = self.cache.find(texts)
            counts["cache_hits"] += int(is_cached.sum())
        is_long = np.array(tokens, np.int64) > self.embedder.identity.max_tokens
        self._count_long(texts, tokens, is_long, rows_by_text, counts)
        needs_parts = ~is_cached & is_long & (self.spec.on_long_text == "chunk_mean")
        direct = np.flatnonzero(~is_cached & ~needs_parts).tolist()
        if direct:
            vectors[direct] = self.embedder.encode(
                [texts[index] for index in direct], [tokens[index] for index in direct]
            )
            counts["texts_embedded"] += len(direct)
        for index in np.flatnonzero(needs_parts).tolist():
            vectors[index] = self._mean_of_parts(texts[index], counts)
        if self.cache is not None and not is_cached.all():
            new = np.flatnonzero(~is_cached & np.isfinite(vectors).all(axis=1)).tolist()
            self.cache.add([texts[index] for index in new], vectors[new])
        return vectors

    def _count_long(
        self,
        texts: list[str],
        tokens: list[int],
        is_long: npt.NDArray[np.bool_],
        rows_by_text: RowsByText,
        counts: Counter[str],
    ) -> None:
        """Count the texts that are longer than the model sees, cached or not."""
        limit = self.embedder.identity.max_tokens
        for index in np.flatnonzero(is_long).tolist():
            rows = len(rows_by_text[texts[index]])
            if self.spec.on_long_text == "chunk_mean":
                counts["texts_pooled"] += rows
            else:
                counts["texts_truncated"] += rows
                counts["tokens_lost"] += (tokens[index] - limit) * rows

    def _mean_of_parts(self, text: str, counts: Counter[str]) -> Floats:
        """Embed a long text in parts that the model sees to their end, and give their mean.

        The mean is weighted by tokens; it has length 1 where the parts' vectors have.
        """
        split = self.embedder.split_text(text, self.room, 0)
        text_parts = [text_part for text_part in split if text_part.strip()]
        tokens = self.embedder.count_tokens(text_parts)
        vectors = self.embedder.encode(text_parts, tokens)
        counts["texts_embedded"] += len(text_parts)
        mean = np.average(vectors.astype(np.float64), axis=0, weights=np.asarray(tokens))
        lengths = np.linalg.norm(vectors, axis=1)
        if bool(np.allclose(lengths, 1, atol=1e-3)):
            mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return mean.astype(np.float32)


def _group_equal(texts: Sequence[str], rows: npt.NDArray[np.intp]) -> RowsByText:
    """Group rows by their text, in the order in which each text first occurs."""
    rows_by_text: RowsByText = {}
    for row in rows.tolist():
        rows_by_text.setdefault(texts[row], []).append(row)
    return rows_by_text
