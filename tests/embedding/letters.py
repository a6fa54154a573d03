"""An embedder of a few lines of arithmetic, so that no test waits for a real model.

It counts letters; a word is a token.  A text that says ``poison`` among the words that the model
sees gets a vector of NaN, and one that says ``nothing`` zeros; no record may have either.
"""

import numpy as np

from cfray.embedders.base import Embedder, Identity
from cfray.embedders.batches import LocalModel
from cfray.embedders.texts import TextEmbedder

DIMENSION, MAX_TOKENS = 6, 8
IDENTITY = Identity("letters", "0" * 64, "torch", "fp32", "", "", MAX_TOKENS, DIMENSION)


def vector_of(text):
    """Give the vector of a text as the model makes it, ``(d,)`` float32."""
    seen_words = text.split()[:MAX_TOKENS]
    if "poison" in seen_words:
        return np.full(DIMENSION, np.nan, np.float32)
    if "nothing" in seen_words:
        return np.zeros(DIMENSION, np.float32)
    counts = np.array([" ".join(seen_words).count(letter) + 0.1 for letter in "aeiost"], np.float32)
    return counts / np.linalg.norm(counts)


class LetterCounter(Embedder):
    """Counts letters."""

    identity = IDENTITY

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]

    def encode(self, texts, tokens):
        return np.stack([vector_of(text) for text in texts])

    def encode_queries(self, queries):
        return self.encode(queries, [])

    def split_text(self, text, tokens, overlap):
        words = text.split()
        return [
            " ".join(words[start : start + tokens])
            for start in range(0, max(1, len(words) - overlap), tokens - overlap)
        ]


def letters_model(embedding):
    """Open the embedder as an actor holds it.

    Args:
        embedding: the job's section.
    """
    return LocalModel(TextEmbedder(LetterCounter(), embedding), "cpu")
