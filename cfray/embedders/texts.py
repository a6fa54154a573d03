"""What becomes of the texts of a batch, whatever the engine.

None of them can spoil the others, and none is cut in silence.

Null, empty and blank texts get no vector (an empty text's would be a unit vector
that many queries hit: ``embeddings.md`` part 3).  Equal texts are embedded once.
A text that is longer than the model sees is cut and counted, embedded in pieces,
or refused, as the job says.
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


@dataclass(frozen=True, slots=True)
class Chunks:
    """Chunks of the long texts of a batch, in the order of their documents.

    Attributes:
        owner: row of each chunk's document ``(m,)``.
        number: of the chunk within its document, from 0 ``(m,)``.
        texts: m texts.
        vectors: ``(m, d)``.
    """

    owner: Rows
    number: Rows
    texts: list[str]
    vectors: Floats


@dataclass(frozen=True, slots=True)
class Embedded:
    """What came of one batch of texts.

    Attributes:
        vectors: ``(n, d)`` float32; zero where there is none.
        missing: ``(n,)`` true where a text is null or blank, or was refused.
        faults: row -> why its text was refused.
        counts: ``texts_embedded`` (what the model was given), ``texts_repeated``, ``cache_hits``,
            ``texts_truncated``, ``tokens_lost``.
        chunks: None unless the job asks for them.
    """

    vectors: Floats
    missing: npt.NDArray[np.bool_]
    faults: dict[int, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    chunks: Chunks | None = None


class Texts:
    """An embedder with the job's rules around it."""

    def __init__(self, embedder: Embedder, spec: Embedding, cache: Cache | None = None) -> None:
        """Keep all three."""
        self.embedder, self.spec, self.cache = embedder, spec, cache
        #: Tokens of a text itself that the model sees.
        self.room = max(1, embedder.identity.max_tokens - embedder.count_tokens([""])[0])

    def embedded(self, column: pa.StringArray) -> Embedded:
        """Embed one batch of texts.

        Raises:
            CfrayError: the engine failed as a whole; never for one text.
        """
        rows = column.to_pylist()
        missing = np.array([text is None or not text.strip() for text in rows], np.bool_)
        places: dict[str, list[int]] = {}
        for row in np.flatnonzero(~missing).tolist():
            places.setdefault(rows[row], []).append(row)
        vectors = np.zeros((len(rows), self.embedder.identity.dimension), np.float32)
        counts: Counter[str] = Counter({"texts_repeated": int((~missing).sum()) - len(places)})
        texts = list(places)
        tokens = self.embedder.count_tokens(texts) if texts else []
        faults = self._refused(texts, tokens, places)
        missing[list(faults)] = True
        kept = [place for place, text in enumerate(texts) if places[text][0] not in faults]
        made = self._vectors(
            [texts[place] for place in kept], [tokens[place] for place in kept], places, counts
        )
        for place, vector in zip(kept, made, strict=True):
            vectors[places[texts[place]]] = vector
        for row in np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():
            faults[row] = "the model gave a vector with NaN or an infinite number"
            vectors[row], missing[row] = 0, True
        chunks = (
            self._chunks(rows, missing, dict(zip(texts, tokens, strict=True)), counts)
            if self.spec.chunk
            else None
        )
        return Embedded(vectors, missing, faults, counts, chunks)

    def _refused(
        self, texts: Sequence[str], tokens: Sequence[int], places: dict[str, list[int]]
    ) -> dict[int, str]:
        """Find the texts that are too long where the job wants them refused."""
        if self.spec.on_long_text != "error":
            return {}
        limit = self.embedder.identity.max_tokens
        reason = (
            "text of {} tokens is longer than the model's {}, and embedding.on_long_text is error"
        )
        return {
            row: reason.format(count, limit)
            for text, count in zip(texts, tokens, strict=True)
            if count > limit
            for row in places[text]
        }

    def _vectors(
        self,
        texts: list[str],
        tokens: list[int],
        places: dict[str, list[int]],
        counts: Counter[str],
    ) -> Floats:
        """Give the vectors of distinct texts: from the cache, or from the model."""
        vectors = np.zeros((len(texts), self.embedder.identity.dimension), np.float32)
        known = np.zeros(len(texts), np.bool_)
        if self.cache is not None and texts:
            known, vectors = self.cache.find(texts)
            counts["cache_hits"] += int(known.sum())
        limit = self.embedder.identity.max_tokens
        long = np.array([count > limit for count in tokens], np.bool_)
        if self.spec.on_long_text == "chunk_mean":
            counts["texts_pooled"] += sum(
                len(places[texts[place]]) for place in np.flatnonzero(long).tolist()
            )
        else:
            for place in np.flatnonzero(long).tolist():
                counts["texts_truncated"] += len(places[texts[place]])
                counts["tokens_lost"] += (tokens[place] - limit) * len(places[texts[place]])
        pooled = ~known & long & (self.spec.on_long_text == "chunk_mean")
        direct = np.flatnonzero(~known & ~pooled).tolist()
        if direct:
            vectors[direct] = self.embedder.encode(
                [texts[place] for place in direct], [tokens[place] for place in direct]
            )
            counts["texts_embedded"] += len(direct)
        for place in np.flatnonzero(pooled).tolist():
            vectors[place] = self._mean(texts[place], counts)
        if self.cache is not None and not known.all():
            fresh = np.flatnonzero(~known & np.isfinite(vectors).all(axis=1)).tolist()
            self.cache.add([texts[place] for place in fresh], vectors[fresh])
        return vectors

    def _mean(self, text: str, counts: Counter[str]) -> Floats:
        """Embed a long text in pieces that the model sees whole.

        Their mean by tokens, at length 1 where the pieces have that.
        """
        pieces = [piece for piece in self.embedder.pieces(text, self.room, 0) if piece.strip()]
        tokens = self.embedder.count_tokens(pieces)
        vectors = self.embedder.encode(pieces, tokens)
        counts["texts_embedded"] += len(pieces)
        mean = np.average(vectors.astype(np.float64), axis=0, weights=np.asarray(tokens))
        lengths = np.linalg.norm(vectors, axis=1)
        if bool(np.allclose(lengths, 1, atol=1e-3)):
            mean = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return mean.astype(np.float32)

    def _chunks(
        self,
        rows: list[str | None],
        missing: npt.NDArray[np.bool_],
        tokens: dict[str, int],
        counts: Counter[str],
    ) -> Chunks:
        """Cut the texts that are longer than a chunk, and embed the pieces."""
        assert self.spec.chunk is not None
        size = self.spec.chunk.tokens
        around = self.embedder.count_tokens([""])[0]
        owner: list[int] = []
        number: list[int] = []
        texts: list[str] = []
        for row, text in enumerate(rows):
            if text is None or missing[row] or tokens[text] - around <= size:
                continue
            pieces = [
                piece
                for piece in self.embedder.pieces(text, size, self.spec.chunk.overlap)
                if piece.strip()
            ]
            owner += [row] * len(pieces)
            number += range(len(pieces))
            texts += pieces
        counts["chunks"] += len(texts)
        places: dict[str, list[int]] = {}
        for place, text in enumerate(texts):
            places.setdefault(text, []).append(place)
        distinct = list(places)
        vectors = np.zeros((len(texts), self.embedder.identity.dimension), np.float32)
        if distinct:
            for text, vector in zip(
                distinct,
                self._vectors(distinct, self.embedder.count_tokens(distinct), places, counts),
                strict=True,
            ):
                vectors[places[text]] = vector
        return Chunks(np.array(owner, np.int64), np.array(number, np.int64), texts, vectors)
