"""What an embedder is: texts in, vectors out.

An identity that says exactly whose vectors they are.

An embedder knows nothing of frames, null texts or batches of a shard; the
rules for those stand once, in ``texts.py``, whatever the engine.  It loads its
model when it is made, is used by one thread, and may be made anew at any time.
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
        name: the model's, for people.
        sha256: of the model's files (hex); for an endpoint of its address and the name it gives the
            model: nobody outside can know more.
        engine: ``torch``, ``openvino``, ``openai`` or ``tei``.
        dtype: ``fp32``, ``bf16``, ``fp16``; ``server`` for an endpoint.
        prompt, query_prompt: what stands before a document and before a query.
        max_tokens: tokens (special ones included) beyond which the model does not see the text.
        dimension: width of the vectors, after ``truncate_dim``.
        truncate_dim: numbers kept of a Matryoshka model's vector; None: all.
        on_long_text: what becomes of a text beyond ``max_tokens``.
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
        """Give the SHA-256 of all of it but the name (hex).

        Two embedders with one key make the same vectors.
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

        Prompt and special tokens included.
        """

    @abstractmethod
    def encode(self, texts: Sequence[str], tokens: Sequence[int]) -> Floats:
        """Embed documents.

        Args:
            texts: none of them empty; the prompt is not in them.
            tokens: of each text, from ``count_tokens``; batches are made by them.

        Returns:
            ``(len(texts), identity.dimension)`` float32; of a text that is too long only what the
            model sees.

        Raises:
            CfrayError: terminal, or transient where a server may answer later.
        """

    @abstractmethod
    def encode_queries(self, texts: Sequence[str]) -> Floats:
        """Embed queries: like documents, with the prompt for queries."""

    @abstractmethod
    def pieces(self, text: str, tokens: int, overlap: int) -> list[str]:
        """Cut a text into pieces of at most ``tokens`` tokens of its own.

        (prompt and special ones not counted), each beginning ``overlap`` before the last one's end.
        """
