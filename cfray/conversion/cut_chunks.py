"""Cut long documents into chunks while they are copied, with the tokenizer and without the model.

A worker loads the tokenizer once, with the first batch that it cuts, and refuses a tokenizer that
is not the plan's: two workers with two tokenizers would cut alike texts in two ways.  Texts for an
endpoint are cut by their stated estimate, for only the server has its tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa

from cfray.conversion.chunk_frames import Chunks
from cfray.embedders import estimate, models, tokenizer
from cfray.embedders.spec import Chunk, Embedding
from cfray.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def planned_tokenizer(spec: Embedding) -> str:
    """Give the SHA-256 of the tokenizer that the copy cuts with (hex).

    Empty where no chunks are cut, or an endpoint's texts are.

    Raises:
        ConfigError: the tokenizer cannot be loaded.
    """
    if spec.chunk is None or spec.model is None:
        return ""
    sha256 = tokenizer.hash_tokenizer(models.find_folder(spec.model))
    _load(spec.model, sha256)
    return sha256


@dataclass(frozen=True, slots=True)
class ChunkCutter:
    """Cuts the long texts of a batch; travels to workers.

    Attributes:
        chunk: tokens and overlap of the chunks.
        model: the folder or package of the model; None: an endpoint.
        tokenizer_sha256: of the tokenizer that the plan found.
    """

    chunk: Chunk
    model: str | None
    tokenizer_sha256: str

    @classmethod
    def of(cls, spec: Embedding, tokenizer_sha256: str) -> Self | None:
        """Make what a job needs to cut chunks; None where it asks for none.

        Args:
            spec: the job's section.
            tokenizer_sha256: ``planned_tokenizer`` of the plan.
        """
        if spec.chunk is None:
            return None
        return cls(spec.chunk, spec.model, tokenizer_sha256)

    def cut(self, texts: pa.StringArray) -> Chunks:
        """Cut each text that has more tokens than a chunk.

        The prompt and special tokens do not count.  A null or blank text is not cut, and a blank
        part of a text is no chunk.  While a text is cut, its tokens take about 150 times its bytes
        (measured with all-MiniLM-L6-v2: 1.5 GB for a text of 10 MB).

        Raises:
            ConfigError: the tokenizer is missing here, or is not the plan's.
        """
        owner: list[int] = []
        number: list[int] = []
        chunk_texts: list[str] = []
        for row, text in enumerate(texts.to_pylist()):
            if text is None or not text.strip():
                continue
            text_parts = [part for part in self._split_if_long(text) if part.strip()]
            owner += [row] * len(text_parts)
            number += range(len(text_parts))
            chunk_texts += text_parts
        return Chunks(np.array(owner, np.int64), np.array(number, np.int64), chunk_texts)

    def _split_if_long(self, text: str) -> list[str]:
        """Split a text that has more tokens than a chunk; give nothing of a shorter text."""
        tokens, overlap = self.chunk.tokens, self.chunk.overlap
        if self.model is None:
            is_long = estimate.count_tokens(text) > tokens
            return estimate.split_text(text, tokens, overlap) if is_long else []
        loaded = _load(self.model, self.tokenizer_sha256)
        return tokenizer.split_long_text(loaded, text, tokens, overlap)


@lru_cache(maxsize=4)
def _load(model: str, sha256: str) -> Tokenizer:
    """Load the tokenizer of a folder or an installed package, once a process.

    Raises:
        ConfigError: it cannot be loaded, or is not the tokenizer with this SHA-256.
    """
    folder = models.find_folder(model)
    local_sha256 = tokenizer.hash_tokenizer(folder)
    if local_sha256 != sha256:
        raise ConfigError(
            "embedding.model: this worker finds another tokenizer than the plan did "
            f"({folder}, sha256 {local_sha256[:16]} instead of {sha256[:16]})",
            "give every node the same files, or a new target.uri for the new model",
        )
    return tokenizer.load_tokenizer(folder)
