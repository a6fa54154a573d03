"""Open the embedder a job file names: the one place that knows which kinds there are."""

from __future__ import annotations

from cfray.embedders.base import Embedder
from cfray.embedders.cache import Cache
from cfray.embedders.endpoint import Budgets, EndpointEmbedder
from cfray.embedders.sentence_transformers import SentenceTransformersEmbedder
from cfray.embedders.spec import Embedding
from cfray.embedders.texts import Texts


def open_embedder(
    spec: Embedding,
    budgets: Budgets,
    *,
    dimension: int | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> Embedder:
    """Load the model, or reach the server.

    Args:
        spec: the job's section.
        budgets: of requests and tokens, for a server.
        dimension: width of a server's vectors, where it is known; None: it is asked for one, which
            also shows that it is up.
        device: ``cpu`` or ``cuda``.
        threads: of the engine; None leaves them alone.

    Raises:
        CfrayError: it cannot be had; says what to do.
    """
    if spec.endpoint is not None:
        prompts = {"prompt": spec.prompt, "query_prompt": spec.query_prompt}
        return EndpointEmbedder(
            spec.endpoint,
            **prompts,
            throttle=budgets,
            on_long_text=spec.on_long_text,
            dimension=dimension,
        )
    return SentenceTransformersEmbedder(spec, spec.dtype, device=device, threads=threads)


def texts(embedder: Embedder, spec: Embedding) -> Texts:
    """Put the job's rules, and its cache, around an embedder."""
    cache = (
        None
        if spec.cache is None
        else Cache(spec.cache, embedder.identity.key, embedder.identity.dimension)
    )
    return Texts(embedder, spec, cache)
