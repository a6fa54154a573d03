"""Load a model's tokenizer without the model, and split texts where its tokens begin.

The copy cuts long documents into chunks on workers that hold no model.  A tokenizer that stands in
``tokenizer.json`` needs the library tokenizers alone: 13 MB of memory and 0.1 s
(all-MiniLM-L6-v2).  ``AutoTokenizer`` of transformers imports torch, which takes 570 MB and about
10 s on a busy core, so it is only asked where that file is missing.

Nothing here loads weights, and nothing asks a hub.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cfray.embedders import models
from cfray.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: How the files of weights end: of torch, safetensors, ONNX (with its external data), TensorFlow,
#: Flax, Rust, Core ML, GGUF and OpenVINO.
_WEIGHTS = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".npy"),
    *(".onnx", ".onnx_data", ".onnx.data", ".h5", ".tflite", ".pb", ".msgpack"),
    *(".ot", ".mlmodel", ".gguf", ".xml"),
)
#: Characters of a text that a tokenizer is given at once.
_WINDOW = 1_000_000
_INSTALL = "pip install 'cfray[embed]' on the driver and on every worker"


@lru_cache(maxsize=8)
def hash_tokenizer(folder: Path) -> str:
    """Give the SHA-256 over the names and bytes of a model's files, less its weights (hex).

    Weights cut no text, and a worker need not read gigabytes of them.  Every other file counts: a
    tokenizer may be kept in files of any name, and which of them it reads depends on its class.  So
    nodes that agree on this hash cut alike, and a node may hold the files without the weights.
    """
    return models.hash_names_and_bytes(
        folder, [path for path in models.files_of(folder) if not path.name.endswith(_WEIGHTS)]
    )


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a sentence-transformers or transformers model.

    Where the file ``tokenizer.json`` exists, the tokenizer is what that file says, lower-casing
    included that sentence-transformers adds; so all workers cut alike, whichever transformers they
    have.

    Args:
        folder: of the model; its weights may be missing.

    Returns:
        a tokenizer that neither truncates nor pads.

    Raises:
        ConfigError: a library is not installed, or the tokenizer cannot be loaded.
    """
    models.switch_off_hub()
    module = _first_module(folder)
    path = module / "tokenizer.json"
    tokenizer = _read_tokenizer(path) if path.is_file() else _ask_transformers(module)
    if _lowers_case(folder, module):
        _lower_case(tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def without_limit(of_model: Any) -> Any:
    """Give a model's tokenizer as it sees a text without a limit.

    The bare tokenizer of a static model cuts a text by itself, if its file says so.
    """
    if not hasattr(of_model, "encode_batch") or of_model.truncation is None:
        return of_model
    unlimited = type(of_model).from_str(of_model.to_str())
    unlimited.no_truncation()
    return unlimited


def token_ranges(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Give where each token starts and ends in a text, without special tokens.

    Args:
        tokenizer: of ``load_tokenizer``, or a loaded model's: one of transformers, or, of a static
            model, a bare ``tokenizers.Tokenizer``.
        text: without lone surrogates.

    Raises:
        TypeError: the text has a lone surrogate.
    """
    if hasattr(tokenizer, "encode_batch"):
        return list(tokenizer.encode(text, add_special_tokens=False).offsets)
    encoded = tokenizer(
        text,
        add_special_tokens=False,
        truncation=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    return list(encoded["offset_mapping"])


def windows(text: str) -> list[str]:
    """Divide a text of more than a million characters behind white space.

    Joined, the windows are the text.  A tokenizer holds some 150 bytes for each byte of a text at
    once (4 MB of text took 535 MB).  No token reaches over white space, so the windows have the
    tokens that the text has.
    """
    divided: list[str] = []
    start = 0
    while len(text) - start > _WINDOW:
        limit = start + _WINDOW
        end = max(text.rfind(space, start, limit) for space in (" ", "\n", "\t")) + 1
        end = end if end > start else limit
        divided.append(text[start:end])
        start = end
    return [*divided, text[start:]]


def split_text(tokenizer: Any, text: str, tokens: int, overlap: int) -> list[str]:
    """Split a text into parts of at most ``tokens`` tokens, where its tokens begin.

    What stands between two tokens goes with the first, so nothing of the text is left out.  Parts
    do not overlap where two windows meet.

    Args:
        tokenizer: as in ``token_ranges``.
        text: without lone surrogates.
        tokens: of a part, at most.
        overlap: tokens that a part repeats of the part before it.
    """
    return [
        part
        for window in windows(text)
        for part in _split(tokenizer, window, token_ranges(tokenizer, window), tokens, overlap)
    ]


def split_long_text(tokenizer: Tokenizer, text: str, tokens: int, overlap: int) -> list[str]:
    """Split a text that has more than ``tokens`` tokens as ``split_text`` does.

    Returns:
        the parts; none where the text has no more tokens than that.
    """
    text_parts: list[str] = []
    total = 0
    for window in windows(text):
        encoding = tokenizer.encode(window, add_special_tokens=False)
        total += len(encoding)
        text_parts += _split(tokenizer, window, encoding.offsets, tokens, overlap)
    return text_parts if total > tokens else []


def _split(
    tokenizer: Any, text: str, ranges: list[tuple[int, int]], tokens: int, overlap: int
) -> list[str]:
    """Split a text whose tokens stand in these ranges."""
    starts = [start for start, _ in ranges]
    text_parts: list[str] = []
    for first in range(0, max(1, len(starts) - overlap), tokens - overlap):
        begin = starts[first] if first else 0
        end = starts[first + tokens] if first + tokens < len(starts) else len(text)
        text_parts += _halve_until_fitting(tokenizer, text[begin:end], tokens)
    return text_parts


def _halve_until_fitting(tokenizer: Any, text: str, tokens: int) -> list[str]:
    """Halve a part of a text that has more tokens by itself than within the text.

    A cut inside a word can make more tokens of the word.
    """
    if len(token_ranges(tokenizer, text)) <= tokens or len(text) < 2:
        return [text]
    half = len(text) // 2
    return [
        *_halve_until_fitting(tokenizer, text[:half], tokens),
        *_halve_until_fitting(tokenizer, text[half:], tokens),
    ]


def _first_module(folder: Path) -> Path:
    """Find the folder of the module that reads texts; a transformers model has one folder."""
    modules = _read_json(folder / "modules.json")
    return folder / str(modules[0].get("path", "")) if modules else folder


def _lowers_case(folder: Path, module: Path) -> bool:
    """Tell whether sentence-transformers lower-cases the texts of its module Transformer.

    It reads no such file where the folder has no ``modules.json``.
    """
    if not (folder / "modules.json").is_file():
        return False
    return any(
        _read_json(path).get("do_lower_case", False)
        for path in module.glob("sentence_*_config.json")
    )


def _read_json(path: Path) -> Any:
    """Read a JSON file; a file that does not exist is an empty object.

    Raises:
        ConfigError: the file holds no JSON.
    """
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _cannot_load(path, error) from error


def _read_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer from the file ``tokenizer.json``."""
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed", _INSTALL) from None
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library has no narrower class
        raise _cannot_load(path, error) from error


def _ask_transformers(module: Path) -> Tokenizer:
    """Let transformers make the tokenizer of its other files, as ``vocab.txt``."""
    try:
        from transformers import AutoTokenizer
        from transformers.utils import logging as transformers_logging
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed", _INSTALL) from None
    transformers_logging.set_verbosity_error()
    try:
        loaded = AutoTokenizer.from_pretrained(str(module), local_files_only=True)
        backend: Tokenizer = loaded.backend_tokenizer
    except (OSError, ValueError, KeyError, ImportError, AttributeError) as error:
        raise _cannot_load(module, error) from error
    return backend


def _lower_case(tokenizer: Tokenizer) -> None:
    """Lower-case texts before all else, unless the tokenizer does it anyway."""
    from tokenizers.normalizers import Lowercase, Sequence

    normalizer = tokenizer.normalizer
    if isinstance(normalizer, Sequence):
        steps = list(normalizer)  # type: ignore[call-overload]  # the stub lacks __getitem__
    else:
        steps = [] if normalizer is None else [normalizer]
    if not any(isinstance(step, Lowercase) for step in steps):
        tokenizer.normalizer = Sequence([Lowercase(), *steps])


def _cannot_load(location: Path, error: Exception) -> ConfigError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
    return ConfigError(
        f"embedding.model: the tokenizer in {location} cannot be loaded: {reason}",
        "give a folder whose model has a tokenizer.json, or leave embedding.chunk out",
    )
