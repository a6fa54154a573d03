"""Run the backbone of a sentence-transformers model with OpenVINO.

The library still makes tokens, pools and applies prompts.  The backbone is traced once
and compiled with a precision hint.  The library's extras for this are not used:
``sentence-transformers[onnx]`` replaces 6.2 by 5.7.0 and transformers 5 by 4.57
(optimum-onnx 0.1.0 pins transformers<4.58), and optimum-intel 2.2.0, which
``sentence-transformers[openvino]`` needs, pins transformers<5.6.
"""

from __future__ import annotations

from typing import Any

from cfray.errors import ConfigError


def replace_backbone(model: Any, dtype: str) -> None:
    """Compile the backbone of a model, and let the model compute with the result.

    Args:
        model: a loaded SentenceTransformer on the CPU; changed in place.
        dtype: ``fp32``, ``bf16`` or ``fp16``: the precision that OpenVINO may compute in.

    Raises:
        ConfigError: OpenVINO is missing, or this model cannot be traced.
    """
    import torch

    openvino = _import_openvino()
    backbone: Any = getattr(model[0], "auto_model", None)
    if backbone is None:
        raise ConfigError(
            "embedding.engine openvino needs a transformer; the model begins with "
            f"{type(model[0]).__name__}",
            "set embedding.engine: torch",
        )
    example = {
        name: value
        for name, value in model.preprocess(["a b c", "d"]).items()
        if torch.is_tensor(value)
    }
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in example]
    settings = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
    }
    traced = _trace(openvino, backbone, {name: example[name] for name in names})
    compiled = openvino.Core().compile_model(traced, "CPU", settings)

    def forward(features: dict[str, Any], **_options: object) -> dict[str, Any]:
        output = compiled([features[name].numpy() for name in names])[0]
        return {**features, "token_embeddings": torch.from_numpy(output)}

    model[0].forward = forward


def _import_openvino() -> Any:
    try:
        import openvino
    except ModuleNotFoundError:
        raise ConfigError(
            "openvino is not installed",
            "pip install 'cfray[openvino]' on the driver and on every worker, or set "
            "embedding.engine: torch",
        ) from None
    return openvino


def _trace(openvino: Any, backbone: Any, example: dict[str, Any]) -> Any:
    """Trace the backbone on an example of its inputs.

    Raises:
        ConfigError: OpenVINO cannot trace it.
    """
    import torch

    class Traceable(torch.nn.Module):  # type: ignore[misc]  # mypy reads no types of torch
        """The backbone with tensors in and a single tensor out, as tracing needs it."""

        def __init__(self) -> None:
            super().__init__()
            # torch's signature: the flag is positional
            self.backbone = backbone.requires_grad_(False)

        def forward(self, *tensors: Any) -> Any:
            return self.backbone(**dict(zip(example, tensors, strict=True))).last_hidden_state

    try:
        return openvino.convert_model(Traceable(), example_input=tuple(example.values()))
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"OpenVINO cannot trace this model: {str(error).splitlines()[0][:200]}",
            "set embedding.engine: torch",
        ) from error
