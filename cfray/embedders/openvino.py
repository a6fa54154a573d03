"""Run a sentence-transformers model's backbone with OpenVINO.

Tokens, pooling and prompts stay the library's.

The backbone is traced once and compiled with a precision hint.  The extras of
sentence-transformers for this are not used: they pin older versions of it and
of transformers (``embeddings.md`` part 3, "dependency trap").
"""

from __future__ import annotations

from typing import Any

from cfray.errors import ConfigError


def engage(model: Any, dtype: str) -> None:
    """Put the compiled backbone in the place of the first module's own.

    Args:
        model: a loaded SentenceTransformer on the CPU; changed in place.
        dtype: ``fp32`` or ``bf16``: the precision OpenVINO may compute in.

    Raises:
        ConfigError: OpenVINO is missing, or this model cannot be traced.
    """
    import torch

    try:
        import openvino
    except ModuleNotFoundError:
        raise ConfigError(
            "openvino is not installed",
            "pip install 'cfray[openvino]' on the driver and on every worker, or set embedding.engine: torch",
        ) from None
    backbone: Any = getattr(model[0], "auto_model", None)
    if backbone is None:
        raise ConfigError(
            f"embedding.engine openvino needs a transformer; the model begins with {type(model[0]).__name__}",
            "set embedding.engine: torch",
        )
    example = {
        name: value
        for name, value in model.preprocess(["a b c", "d"]).items()
        if torch.is_tensor(value)
    }
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in example]

    class Plain(torch.nn.Module):  # type: ignore[misc]  # torch ships no types that mypy reads here
        """The backbone with tensors in and one tensor out, as tracing wants it."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone.requires_grad_(False)  # torch's own signature

        def forward(self, *given: Any) -> Any:
            return self.backbone(**dict(zip(names, given, strict=True))).last_hidden_state

    try:
        traced = openvino.convert_model(
            Plain(), example_input=tuple(example[name] for name in names)
        )
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"OpenVINO cannot trace this model: {str(error).splitlines()[0][:200]}",
            "set embedding.engine: torch",
        ) from error
    hint = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[dtype]
    compiled = openvino.Core().compile_model(
        traced,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        },
    )

    def forward(features: dict[str, Any], **_more: object) -> dict[str, Any]:
        made = compiled([features[name].numpy() for name in names])[0]
        return {**features, "token_embeddings": torch.from_numpy(made)}

    model[0].forward = forward
