"""Embed with a sentence-transformers model: what the library's ``encode`` does, for a corpus.

Texts are sorted by length into batches of a token budget, the prompt for documents is
applied, matrix products are computed in bf16, pooling and length in fp32.  When the
embedder is created, the engine is compared with fp32 on a few texts and refused if the
two do not agree.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cfray.embedders import models, tokenizer, torch_model
from cfray.embedders.base import Embedder, Identity
from cfray.embedders.spec import Embedding
from cfray.errors import ConfigError, ProofFailed
from cfray.records.vectors import Floats, cosines

#: Tokens (padding included) of a batch.  A CPU needs small batches: 8 and 32 texts a batch were
#: equally fast (94 and 93 texts a second on one core, all-MiniLM-L6-v2 in bf16), 128 texts half as
#: fast.  A GPU needs large batches (not measured).
_TOKEN_BUDGET = {"cpu": 4_096, "cuda": 65_536}
#: Least cosine between the engine and fp32 on the texts of the check.  In bf16, torch and OpenVINO
#: had at least 0.9999; a model quantised to int8 had 0.984 (all-MiniLM-L6-v2).
_LEAST_COSINE = 0.999
#: Texts of the check, of 2 to 9 sentences.
_CHECK_TEXTS = tuple(
    " ".join(
        (
            "The quick brown fox jumps over the lazy dog near the river bank.",
            "Library for reading and writing archives.",
            "42 kg, 3.5 %",
        )[n % 3 :]
        * n
    )
    for n in (1, 2, 3, 5, 8)
)
#: Names of the prompts for documents and for queries, in the order in which sentence-transformers
#: looks for them.
_DOCUMENT_PROMPTS, _QUERY_PROMPTS = ("document", "passage", "corpus"), ("query",)

#: Tokens of a model that sees all of a text; a static model says infinity.
_NO_LIMIT = 2**31 - 1

#: Start and end of a batch among the texts sorted by length.
Batch = tuple[int, int]


class SentenceTransformersEmbedder(Embedder):
    """A loaded sentence-transformers model."""

    def __init__(
        self, spec: Embedding, dtype: str, *, device: str = "cpu", threads: int | None = None
    ) -> None:
        """Load the model and compare the engine with fp32.

        Args:
            spec: the job's section.
            dtype: ``fp32``, ``bf16`` or ``fp16``; ``auto`` is resolved here, once, and the identity
                records to what.
            device: ``cpu`` or ``cuda``.
            threads: of torch; None: torch's default.

        Raises:
            ConfigError: the library or the model is missing, or ``truncate_dim`` is larger than the
                model's dimension.
            ProofFailed: the engine does not agree with fp32.
        """
        assert spec.model is not None
        folder = models.find_folder(spec.model)
        self.device = device
        #: Whether a batch is made ready while the batch before it is computed: on a GPU nothing
        #: else hides the time that tokenising takes.
        self.prefetches = device != "cpu"
        self.model = torch_model.load(folder, device, threads)
        self._counting = tokenizer.without_limit(self.model.tokenizer)
        self.prompt = torch_model.find_prompt(self.model, spec.prompt, _DOCUMENT_PROMPTS)
        self.query_prompt = torch_model.find_prompt(self.model, spec.query_prompt, _QUERY_PROMPTS)
        self.truncate_dim = spec.truncate_dim
        self.identity = self._identity(spec, folder, torch_model.resolve_dtype(dtype, device))
        self._switch_engine(spec.engine)

    def _identity(self, spec: Embedding, folder: Path, dtype: str) -> Identity:
        width = int(self.model.get_embedding_dimension() or len(self.model.encode("x")))
        if self.truncate_dim is not None and self.truncate_dim > width:
            raise ConfigError(
                f"embedding.truncate_dim is {self.truncate_dim}, the model's vectors have {width}",
                "give a smaller number, or leave it out",
            )
        return Identity(
            name=folder.name if folder.name != "model" else folder.parent.name,
            sha256=models.hash_files(folder),
            engine=spec.engine,
            dtype=dtype,
            prompt=self.prompt,
            query_prompt=self.query_prompt,
            max_tokens=self._limit(),
            dimension=self.truncate_dim or width,
            truncate_dim=self.truncate_dim,
            on_long_text=spec.on_long_text,
        )

    def _limit(self) -> int:
        """Give the tokens that the model sees; a static model's tokenizer may have the limit."""
        limit = int(min(self.model.max_seq_length or _NO_LIMIT, _NO_LIMIT))
        truncation = getattr(self.model.tokenizer, "truncation", None)
        return min(limit, truncation["max_length"]) if isinstance(truncation, dict) else limit

    def _switch_engine(self, engine: str) -> None:
        """Switch from fp32 to the engine, and compare the vectors of both.

        Raises:
            ProofFailed: the vectors do not agree.
        """
        dtype = self.identity.dtype
        if engine == "torch" and dtype == "fp32":
            return
        tokens = self.count_tokens(_CHECK_TEXTS)
        reference = self.encode(_CHECK_TEXTS, tokens)
        if engine == "openvino":
            from cfray.embedders import openvino

            openvino.replace_backbone(self.model, dtype)
        else:
            torch_model.set_dtype(self.model, dtype)
        vectors = self.encode(_CHECK_TEXTS, tokens)
        cosine = float(cosines(reference, vectors).min())
        # a cosine of NaN fails, too
        if not cosine >= _LEAST_COSINE:
            raise ProofFailed(
                f"{engine} in {dtype} does not agree with fp32 on this machine: cosine "
                f"{cosine:.5f}, at least {_LEAST_COSINE} is needed",
                "set embedding.dtype: fp32 (and engine: torch)",
            )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens with the model's own tokenizer."""
        return self._count_tokens([self.prompt + text for text in texts])

    def _count_tokens(self, texts: list[str]) -> list[int]:
        """Count the tokens of texts, the special ones once a text."""
        windows = [tokenizer.windows(text) for text in texts]
        counts = self._count_tokens_at_once([window for text in windows for window in text])
        if len(counts) == len(texts):
            return counts
        (special_tokens,) = self._count_tokens_at_once([""])
        remaining = iter(counts)
        return [
            sum(next(remaining) - special_tokens for _ in text) + special_tokens for text in windows
        ]

    def _count_tokens_at_once(self, texts: list[str]) -> list[int]:
        # A static model has a bare tokenizers.Tokenizer.
        if hasattr(self._counting, "encode_batch"):
            encodings = self._counting.encode_batch(texts, add_special_tokens=False)
            return [len(encoding.ids) for encoding in encodings]
        encoded = self._counting(
            texts, truncation=False, padding=False, return_attention_mask=False, verbose=False
        )
        return [len(ids) for ids in encoded["input_ids"]]

    def encode(self, texts: Sequence[str], tokens: Sequence[int]) -> Floats:
        """Embed documents."""
        return self._encode(texts, tokens, self.prompt, "document")

    def encode_queries(self, texts: Sequence[str]) -> Floats:
        """Embed queries."""
        tokens = self._count_tokens([self.query_prompt + text for text in texts])
        return self._encode(texts, tokens, self.query_prompt, "query")

    def _encode(
        self, texts: Sequence[str], tokens: Sequence[int], prompt: str, task: str
    ) -> Floats:
        import torch

        texts = [self._visible(text) for text in texts]
        vectors = np.empty((len(texts), self.identity.dimension), np.float32)
        visible_tokens = np.minimum(np.asarray(tokens, np.int64), self.identity.max_tokens)
        order = np.argsort(visible_tokens, kind="stable")
        batches = list(divide(visible_tokens[order].tolist(), _TOKEN_BUDGET[self.device]))
        with torch.inference_mode():
            for (start, end), features in self._features(texts, order, batches, prompt, task):
                rows = self.model(features, task=task)["sentence_embedding"].float()
                if self.truncate_dim is not None:
                    rows = torch.nn.functional.normalize(rows[:, : self.truncate_dim], dim=1)
                vectors[order[start:end]] = rows.cpu().numpy()
        return vectors

    def _visible(self, text: str) -> str:
        """Leave out of a text of more than a million characters what the model does not see."""
        first, *further = tokenizer.windows(text)
        (tokens,) = self._count_tokens_at_once([first]) if further else (0,)
        return first if further and tokens > self.identity.max_tokens else text

    def _features(
        self,
        texts: Sequence[str],
        order: npt.NDArray[np.intp],
        batches: list[Batch],
        prompt: str,
        task: str,
    ) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """Tokenise batch by batch; for a GPU a batch ahead, in pinned memory."""
        import torch

        def tokenise(batch: Batch) -> dict[str, Any]:
            batch_texts = [texts[row] for row in order[batch[0] : batch[1]]]
            features = dict(self.model.preprocess(batch_texts, prompt=prompt or None, task=task))
            if not torch.cuda.is_available():
                return features
            return {
                name: value.pin_memory() if torch.is_tensor(value) else value
                for name, value in features.items()
            }

        if not self.prefetches:
            yield from ((batch, tokenise(batch)) for batch in batches)
            return
        with ThreadPoolExecutor(1) as executor:
            pending = [executor.submit(tokenise, batch) for batch in batches[:1]]
            for number, batch in enumerate(batches):
                features = pending.pop().result()
                pending += [
                    executor.submit(tokenise, following)
                    for following in batches[number + 1 : number + 2]
                ]
                yield batch, self._to_device(features)

    def _to_device(self, features: dict[str, Any]) -> dict[str, Any]:
        import torch

        return {
            name: value.to(self.device, non_blocking=True) if torch.is_tensor(value) else value
            for name, value in features.items()
        }

    def split_text(self, text: str, tokens: int, overlap: int) -> list[str]:
        """Split a text where its tokens begin."""
        return tokenizer.split_text(self._counting, text, tokens, overlap)


def divide(lengths: Sequence[int], budget: int) -> Iterator[Batch]:
    """Divide texts of ascending lengths into batches of at most ``budget`` tokens.

    Padding counts.  A text that is longer than the budget is a batch by itself.

    Yields:
        start and end of each batch in ``lengths``.
    """
    start = 0
    for end, (length, next_length) in enumerate(itertools.pairwise([*lengths, 0]), 1):
        if end == len(lengths) or max(next_length, length) * (end + 1 - start) > budget:
            yield start, end
            start = end
