"""Load a sentence-transformers model, and set what torch computes in.

Only this module imports sentence-transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cfray.embedders import models
from cfray.errors import ConfigError


def load(folder: Path, device: str, threads: int | None) -> Any:
    """Load the model of a folder for inference.

    Args:
        folder: of the model.
        device: ``cpu`` or ``cuda``.
        threads: of torch; None: torch's default.

    Raises:
        ConfigError: a library is not installed, or the model cannot be loaded.
    """
    models.switch_off_hub()
    torch, library = _import_libraries()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        model = library.SentenceTransformer(str(folder), device=device, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(
            f"embedding.model: {folder} cannot be loaded: {str(error).splitlines()[0][:300]}",
            "give a folder that sentence-transformers can load",
        ) from error
    model.eval()
    return model


def _import_libraries() -> tuple[Any, Any]:
    """Import torch and sentence-transformers.

    Raises:
        ConfigError: a library is not installed.
    """
    try:
        import sentence_transformers
        import torch
        from transformers.utils import logging as transformers_logging
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed",
            "pip install 'cfray[embed]' on the driver and on every worker",
        ) from None
    settings: Any = transformers_logging
    settings.disable_progress_bar()
    settings.set_verbosity_error()
    return torch, sentence_transformers


def find_prompt(model: Any, job_prompt: str | None, names: tuple[str, ...]) -> str:
    """Give the job file's prompt, else the prompt that the model's configuration has."""
    if job_prompt is not None:
        return job_prompt
    return next((str(model.prompts[name]) for name in names if model.prompts.get(name)), "")


def resolve_dtype(dtype: str, device: str) -> str:
    """Choose the type for ``auto``: bf16 where the hardware computes it."""
    import torch

    if dtype != "auto":
        return dtype
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if models.processor_has_bf16() else "fp32"


def set_dtype(model: Any, dtype: str) -> None:
    """Let the transformer compute in a narrower type.

    Its output is converted to fp32, so that pooling and length are computed in fp32.
    """
    import torch

    backbone = model[0]
    backbone.to({"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype])
    backbone.register_forward_hook(
        lambda _module, _inputs, output: {
            name: value.float() if torch.is_tensor(value) and value.is_floating_point() else value
            for name, value in output.items()
        }
    )
