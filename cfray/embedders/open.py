"""Open the embedder that a job file names.

Only this module knows which kinds of embedders exist.
"""

from __future__ import annotations

from cfray.embedders.base import Embedder
from cfray.embedders.cache import Cache
from cfray.embedders.endpoint import Budgets, EndpointEmbedder
from cfray.embedders.sentence_transformers import SentenceTransformersEmbedder
from cfray.embedders.spec import Embedding
from cfray.embedders.texts import TextEmbedder


def open_embedder(
    spec: Embedding,
    budgets: Budgets,
    *,
    dimension: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> Embedder:
    """Load the model, or reach the server, that the job names.

    Args:
        spec: the job's section.
        budgets: of requests and tokens, for a server.
        dimension: width of a server's vectors, where it is known; None: the server is asked for a
            vector, which also shows that it is up.
        device: ``cpu`` or ``cuda``.
        threads: of the engine; None: the engine's default.

    Raises:
        CfrayError: the model cannot be loaded, or the server not be reached.
    """
    if spec.endpoint is not None:
        prompts = {"prompt": spec.prompt, "query_prompt": spec.query_prompt}
        return EndpointEmbedder(
            spec.endpoint,
            **prompts,
            budgets=budgets,
            on_long_text=spec.on_long_text,
            dimension=dimension,
        )
    return SentenceTransformersEmbedder(spec, spec.dtype, device=device, threads=threads)


def open_text_embedder(embedder: Embedder, spec: Embedding) -> TextEmbedder:
    """Put the job's rules for texts, and its cache, around an embedder.

    Raises:
        ConfigError: the cache's filesystem is unknown.
        TargetError: the folder of the cache cannot be read.
    """
    cache = (
        None
        if spec.cache is None
        else Cache(spec.cache, embedder.identity.key, embedder.identity.dimension)
    )
    return TextEmbedder(embedder, spec, cache)
