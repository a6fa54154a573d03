"""Regenerate with sentence-transformers.

Batches by token budget, matrix products in bf16, pooling and length in fp32.

What ``encode`` of the library does for a person, done for a corpus: texts sorted
by length into batches of at most so many tokens, the document prompt applied,
no row of a batch able to spoil the others.  At the start the engine is held
against fp32 on a few texts, and refused if it does not agree.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from cfray.embedders import models
from cfray.embedders.base import Embedder, Identity
from cfray.embedders.spec import Embedding
from cfray.errors import ConfigError, ProofFailed
from cfray.records.vectors import Floats

#: Tokens (padding included) of one batch: small on a CPU, whose caches they must fit
#: (``embeddings.md`` part 3); large on a GPU.
_BUDGET = {"cpu": 4_096, "cuda": 65_536}
#: Least cosine between the engine and fp32 on the check's texts; bf16 has .9999, int8 .984
#: (``embeddings.md`` part 3).
_AGREES = 0.999
_CHECK = tuple(
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
#: Candidates for the prompt of documents and of queries, in the order sentence-transformers looks
#: for them.
_DOCUMENT, _QUERY = ("document", "passage", "corpus"), ("query",)


class SentenceTransformersEmbedder(Embedder):
    """One loaded model."""

    def __init__(
        self, spec: Embedding, dtype: str, *, device: str = "cpu", threads: int | None = None
    ) -> None:
        """Load the model and check the engine against fp32.

        Args:
            spec: the job's section.
            dtype: ``fp32``, ``bf16`` or ``fp16``; ``auto`` is decided here, once, and recorded in
                the identity.
            device: ``cpu`` or ``cuda``.
            threads: of torch; None leaves it alone.

        Raises:
            ConfigError: the library or the model is missing, or ``truncate_dim`` is more than there
                is.
            ProofFailed: the engine does not agree with fp32.
        """
        models.offline()
        torch, library = _libraries()
        if threads is not None:
            torch.set_num_threads(threads)
        assert spec.model is not None
        place = models.folder(spec.model)
        self.device = device
        #: Whether the next batch is made ready while this one is computed: a GPU waits for nothing
        #: else.
        self.ahead = device != "cpu"
        try:
            self.model = library.SentenceTransformer(
                str(place), device=device, local_files_only=True
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ConfigError(
                f"embedding.model: {place} cannot be loaded: {str(error).splitlines()[0][:300]}",
                "give a folder that sentence-transformers can load",
            ) from error
        self.model.eval()
        self.prompt = _prompt(self.model, spec.prompt, _DOCUMENT)
        self.query_prompt = _prompt(self.model, spec.query_prompt, _QUERY)
        self.truncate_dim = spec.truncate_dim
        self.identity = self._identity(spec, place, _resolved(dtype, device, torch))
        self._engage(spec.engine)

    def _identity(self, spec: Embedding, place: Path, dtype: str) -> Identity:
        width = int(self.model.get_embedding_dimension() or len(self.model.encode("x")))
        if self.truncate_dim is not None and self.truncate_dim > width:
            raise ConfigError(
                f"embedding.truncate_dim is {self.truncate_dim}, the model's vectors have {width}",
                "give a smaller one, or leave it out",
            )
        return Identity(
            name=place.name if place.name != "model" else place.parent.name,
            sha256=models.sha256(place),
            engine=spec.engine,
            dtype=dtype,
            prompt=self.prompt,
            query_prompt=self.query_prompt,
            max_tokens=int(self.model.max_seq_length or 2**31 - 1),
            dimension=self.truncate_dim or width,
            truncate_dim=self.truncate_dim,
            on_long_text=spec.on_long_text,
        )

    def _engage(self, engine: str) -> None:
        """Switch from fp32 to the engine and hold one against the other.

        Raises:
            ProofFailed: they do not agree.
        """
        if engine == "torch" and self.identity.dtype == "fp32":
            return
        tokens = self.count_tokens(_CHECK)
        reference = self.encode(_CHECK, tokens)
        if engine == "openvino":
            from cfray.embedders import openvino

            openvino.engage(self.model, self.identity.dtype)
        else:
            _narrow(self.model, self.identity.dtype)
        found = self.encode(_CHECK, tokens)
        lengths = np.linalg.norm(reference, axis=1) * np.linalg.norm(found, axis=1)
        cosines = (reference * found).sum(axis=1) / np.maximum(lengths, 1e-30)
        if not float(cosines.min()) >= _AGREES:
            raise ProofFailed(
                f"{engine} in {self.identity.dtype} does not agree with fp32 on this machine: cosine {cosines.min():.5f}, at least {_AGREES} is needed",
                "set embedding.dtype: fp32 (and engine: torch)",
            )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens with the model's own tokenizer."""
        return [len(ids) for ids in self._tokens([self.prompt + text for text in texts])]

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        tokenizer = self.model.tokenizer
        if hasattr(tokenizer, "encode_batch"):  # a bare tokenizers.Tokenizer (static models)
            return [
                encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)
            ]
        ids: list[list[int]] = tokenizer(
            texts, truncation=False, padding=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        return ids

    def encode(self, texts: Sequence[str], tokens: Sequence[int]) -> Floats:
        """Embed documents."""
        return self._encoded(texts, tokens, self.prompt, "document")

    def encode_queries(self, texts: Sequence[str]) -> Floats:
        """Embed queries."""
        return self._encoded(
            texts,
            [len(ids) for ids in self._tokens([self.query_prompt + text for text in texts])],
            self.query_prompt,
            "query",
        )

    def _encoded(
        self, texts: Sequence[str], tokens: Sequence[int], prompt: str, task: str
    ) -> Floats:
        import torch

        vectors = np.empty((len(texts), self.identity.dimension), np.float32)
        seen = np.minimum(np.asarray(tokens, np.int64), self.identity.max_tokens)
        order = np.argsort(seen, kind="stable")
        groups = list(batches(seen[order].tolist(), _BUDGET[self.device]))
        with torch.inference_mode():
            for (start, end), features in self._features(texts, order, groups, prompt, task):
                made = self.model(features, task=task)["sentence_embedding"].float()
                if self.truncate_dim is not None:
                    made = torch.nn.functional.normalize(made[:, : self.truncate_dim], dim=1)
                vectors[order[start:end]] = made.cpu().numpy()
        return vectors

    def _features(
        self,
        texts: Sequence[str],
        order: Any,
        groups: list[tuple[int, int]],
        prompt: str,
        task: str,
    ) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
        """Tokenise batch by batch; for a GPU one batch ahead, in pinned memory."""
        import torch

        def made(group: tuple[int, int]) -> dict[str, Any]:
            features = dict(
                self.model.preprocess(
                    [texts[row] for row in order[group[0] : group[1]]],
                    prompt=prompt or None,
                    task=task,
                )
            )
            if not torch.cuda.is_available():
                return features
            return {
                name: value.pin_memory() if torch.is_tensor(value) else value
                for name, value in features.items()
            }

        if not self.ahead:
            yield from ((group, made(group)) for group in groups)
            return
        with ThreadPoolExecutor(1) as ahead:
            coming = [ahead.submit(made, group) for group in groups[:1]]
            for place, group in enumerate(groups):
                features = coming.pop().result()
                coming += [ahead.submit(made, later) for later in groups[place + 1 : place + 2]]
                yield (
                    group,
                    {
                        name: value.to(self.device, non_blocking=True)
                        if torch.is_tensor(value)
                        else value
                        for name, value in features.items()
                    },
                )

    def pieces(self, text: str, tokens: int, overlap: int) -> list[str]:
        """Cut a text where its tokens begin.

        Whatever stands between two tokens goes with the first, so nothing of the text is left out.
        """
        starts = [start for start, _ in self._places(text)]
        found: list[str] = []
        for first in range(0, max(1, len(starts) - overlap), tokens - overlap):
            begin = starts[first] if first else 0
            end = starts[first + tokens] if first + tokens < len(starts) else len(text)
            found += self._fitting(text[begin:end], tokens)
        return found

    def _places(self, text: str) -> list[tuple[int, int]]:
        tokenizer = self.model.tokenizer
        if hasattr(tokenizer, "encode_batch"):
            return list(tokenizer.encode(text, add_special_tokens=False).offsets)
        return list(
            tokenizer(
                text,
                add_special_tokens=False,
                truncation=False,
                return_offsets_mapping=True,
                verbose=False,
            )["offset_mapping"]
        )

    def _fitting(self, piece: str, tokens: int) -> list[str]:
        """Halve a piece that a cut inside a word made longer in tokens than it was."""
        if len(self._places(piece)) <= tokens or len(piece) < 2:
            return [piece]
        half = len(piece) // 2
        return self._fitting(piece[:half], tokens) + self._fitting(piece[half:], tokens)


def batches(lengths: Sequence[int], budget: int) -> Iterator[tuple[int, int]]:
    """Divide texts of ascending lengths into runs of at most ``budget`` tokens, padding included.

    One text is always a run.

    Yields:
        (start, end) into ``lengths``.
    """
    start = 0
    for end, (length, following) in enumerate(itertools.pairwise([*lengths, 0]), 1):
        if end == len(lengths) or max(following, length) * (end + 1 - start) > budget:
            yield start, end
            start = end


def _libraries() -> tuple[Any, Any]:
    """Import torch and sentence-transformers.

    Raises:
        ConfigError: they are not installed.
    """
    try:
        import sentence_transformers
        import torch
        from transformers.utils import logging as own_voice
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed",
            "pip install 'cfray[embed]' on the driver and on every worker",
        ) from None
    voice: Any = own_voice
    voice.disable_progress_bar()
    voice.set_verbosity_error()
    return torch, sentence_transformers


def _prompt(model: Any, own: str | None, names: tuple[str, ...]) -> str:
    """Give the job file's prompt, else the one the model's configuration has for this task."""
    if own is not None:
        return own
    return next((str(model.prompts[name]) for name in names if model.prompts.get(name)), "")


def _resolved(dtype: str, device: str, torch: Any) -> str:
    if dtype != "auto":
        return dtype
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if models.computes_bf16() else "fp32"


def _narrow(model: Any, dtype: str) -> None:
    """Let the transformer compute in a narrower type.

    What leaves it is fp32 again, so pooling and length are computed in that.
    """
    import torch

    backbone = model[0]
    backbone.to({"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype])
    backbone.register_forward_hook(
        lambda _module, _given, made: {
            name: value.float() if torch.is_tensor(value) and value.is_floating_point() else value
            for name, value in made.items()
        }
    )
