"""What an embedder is: texts in, vectors out, and an identity that says exactly whose they are.

An embedder knows nothing of frames, null texts or batches of a shard; the rules for
those stand once, in ``texts.py``, whatever the engine.  An embedder loads its model when
it is created, is used by a single thread, and may be created again at any time.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cfray.records.vectors import Floats


@dataclass(frozen=True, slots=True)
class Identity:
    """Everything that decides a vector besides the text.

    Attributes:
        name: of the model, for people.
        sha256: of the model's files (hex); for an endpoint, of its address and of the name that it
            gives the model, for nobody outside the server can know more.
        engine: ``torch``, ``openvino``, ``openai`` or ``tei``.
        dtype: ``fp32``, ``bf16``, ``fp16``; ``server`` for an endpoint.
        prompt, query_prompt: text put before a document and before a query.
        max_tokens: tokens (special ones included) beyond which the model does not see the text.
        dimension: width of the vectors, after ``truncate_dim``.
        truncate_dim: how many numbers of a Matryoshka model's vector remain; None: all.
        on_long_text: what becomes of a text of more than ``max_tokens`` tokens.
    """

    name: str
    sha256: str
    engine: str
    dtype: str
    prompt: str
    query_prompt: str
    max_tokens: int
    dimension: int
    truncate_dim: int | None = None
    on_long_text: str = "truncate"

    @property
    def key(self) -> str:
        """Give the SHA-256 of everything but the name (hex).

        Two embedders with the same key make the same vectors.
        """
        body = {name: value for name, value in asdict(self).items() if name != "name"}
        return hashlib.sha256(
            json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()


class Embedder(ABC):
    """One loaded model, or one server."""

    identity: Identity

    @abstractmethod
    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count each text's tokens as the model would see them without a limit.

        The prompt and special tokens are included.
        """

    @abstractmethod
    def encode(self, texts: Sequence[str], tokens: Sequence[int]) -> Floats:
        """Embed documents.

        Args:
            texts: not empty, and without the prompt.
            tokens: of each text, from ``count_tokens``; they decide which texts share a batch.

        Returns:
            ``(len(texts), identity.dimension)`` float32; the vector of a text that is too long is
            of the part that the model sees, and that of a text that the model fails on holds NaN.

        Raises:
            CfrayError: terminal, or transient where a server may answer later.
        """

    def fault_of(self, text: str) -> str:
        """Say why ``encode`` gave NaN for a text; asked once, after it."""
        return "the model gave a vector with NaN or an infinite number"

    @abstractmethod
    def encode_queries(self, texts: Sequence[str]) -> Floats:
        """Embed queries: as documents are embedded, but with the prompt for queries."""

    @abstractmethod
    def split_text(self, text: str, tokens: int, overlap: int) -> list[str]:
        """Split a text into parts of at most ``tokens`` tokens.

        Prompt and special tokens do not count.  Each part begins ``overlap`` tokens before the end
        of the part before it.
        """
