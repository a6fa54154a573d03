"""The vectors that a source holds: what they look like, and whether a model made them.

Looks at the plan's sample, on the driver; a run that keeps its source's vectors never looks again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.embedders.spec import Expect
from cfray.errors import ConfigError
from cfray.records.vectors import Vectors, cosines, matrix


def describe_vectors(sample: list[Vectors]) -> list[str]:
    """Say of the sample's vectors how long they are, and how many are zero or repeated.

    Vectors that cannot be read are left out: their records go to quarantine.
    """
    matrices = [np.delete(batch.values, list(batch.faults), axis=0) for batch in sample]
    matrices = [values for values in matrices if len(values)]
    if not matrices or matrices[0].shape[1] == 1:
        return []
    vectors = np.concatenate(matrices)
    # in float64: the square of a large float32 is infinite
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    is_vector = lengths > 0
    if not is_vector.any():
        return []
    rows = pa.array([vector.tobytes() for vector in vectors[is_vector]], pa.binary())
    repeated = 1 - len(pc.unique(rows)) / len(rows)
    shortest, longest = lengths[is_vector].min(), lengths[is_vector].max()
    return [
        (
            f"vectors of the sample: lengths {shortest:.3f} to {longest:.3f}, "
            f"{(~is_vector).mean():.1%} zero or missing, {repeated:.1%} repeat an earlier vector"
        )
    ]


def compare_with_model(
    expect: Expect, frames: list[pa.RecordBatch]
) -> tuple[dict[str, float], str]:
    """Embed some texts with the expected model, and compare with the vectors stored for them.

    Returns:
        ``sample``, ``median``, ``least`` and ``needed`` as ``Plan.expected`` holds them, and a
        sentence for the operator.

    Raises:
        ConfigError: no record has a text and a vector, or the vectors have another width than the
            model's.
    """
    from cfray.embedders.sentence_transformers import SentenceTransformersEmbedder
    from cfray.embedders.spec import Embedding

    texts, stored = _texts_with_vectors(frames, expect.sample)
    if not texts:
        raise ConfigError(
            "embedding.expect: no record of the sample has a text and a vector",
            "map both, or leave expect out",
        )
    model = SentenceTransformersEmbedder(Embedding(policy="regenerate", model=expect.model), "fp32")
    if model.identity.dimension != stored.shape[1]:
        raise ConfigError(
            f"embedding.expect: {expect.model} makes vectors of {model.identity.dimension} "
            f"numbers, the stored vectors have {stored.shape[1]}",
            "another model made the stored vectors: correct expect.model",
        )
    similarities = cosines(model.encode(texts, model.count_tokens(texts)), stored)
    median, least = float(np.median(similarities)), float(similarities.min())
    comparison = {
        "sample": len(texts),
        "median": round(median, 5),
        "least": round(least, 5),
        "needed": expect.min_cosine,
    }
    note = (
        f"stored vectors against {expect.model}: cosine {median:.4f} (median), {least:.4f} (least) "
        f"of {len(texts)} records"
    )
    if median < expect.min_cosine:
        note += f": THEY WERE NOT MADE BY IT (at least {expect.min_cosine} was expected)"
    return comparison, note


def _texts_with_vectors(
    frames: list[pa.RecordBatch], count: int
) -> tuple[list[str], npt.NDArray[np.float32]]:
    """Choose records that have a text and a vector, spread evenly over the sample."""
    texts: list[str] = []
    stored: list[npt.NDArray[np.float32]] = []
    for batch in frames:
        vectors = matrix(batch.column("vector"))
        for row, text in enumerate(batch.column("text_content").to_pylist()):
            if text and text.strip() and vectors[row].any():
                texts.append(text)
                stored.append(vectors[row])
    if not texts:
        return [], np.zeros((0, 1), np.float32)
    rows = np.linspace(0, len(texts) - 1, min(count, len(texts))).astype(int).tolist()
    return [texts[row] for row in rows], np.stack([stored[row] for row in rows])
