"""What the vectors of the target look like, by a sample: lengths, oddities, a picture of them.

A person who signs off sees here what no check can judge: vectors of zeros, one vector in many
rows, a collection whose vectors lie apart because another model made them.  So this adds no check
and fails no target, and it takes no text and no id of a row into the report.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pyarrow as pa
from lance import LanceDataset

from cfray.proving.neighbours import Floats64, draw_row_ids
from cfray.records.vectors import Floats, Mask, has_number, matrix
from cfray.report.run import Run
from cfray.runtime.error_text import describe_error
from cfray.target.origins import RowOrigins

#: Rows that are looked at.
_SAMPLE = 2_000
#: Row ids drawn beyond these: headers are no documents, and some rows may have left.
_SPARE = 500
#: Rows of the picture.  The decomposition of 500 x 1,536 numbers takes 0.1 s of a core, that of the
#: whole sample 1.8 s.
_POINTS = 500


def describe_vectors(run: Run) -> None:
    """Describe the vectors of a sample of documents in the report; the same rows, the same sample.

    Nothing is said of a target without documents, nor of one whose column ``vector`` is missing or
    has another type: the check of the types names that.
    """
    run.report.vectors = {}
    dataset = run.target.open()
    if not _has_vectors(dataset.schema):
        return
    try:
        sample = _draw(run, dataset)
        column = sample.column("vector").combine_chunks()
        vectors = matrix(column)
    except (OSError, ValueError, pa.ArrowException) as error:
        # the check of the content says what is damaged
        reason = describe_error(error)[:200]
        run.report.notes.append(f"the vectors are not described, for they cannot be read: {reason}")
        return
    if len(vectors):
        is_null = column.is_null().to_numpy(zero_copy_only=False)
        collections = [name or "" for name in sample.column("collection").to_pylist()]
        run.report.vectors = vector_facts(vectors, is_null, collections)


def vector_facts(vectors: Floats, is_null: Mask, collections: list[str]) -> dict[str, Any]:
    """Work out the facts of a sample, as ``Report.vectors`` holds them.

    Vectors that are null, not finite or zero are counted as that.  Lengths, repetitions and the
    picture are of the other vectors.

    Args:
        vectors: ``(n, d)`` float32; a number that is null is NaN.
        is_null: ``(n,)`` rows without a vector.
        collections: of the rows; empty for a row of no collection.
    """
    is_finite = np.isfinite(vectors).all(axis=1)
    is_zero = ~has_number(vectors)
    chosen = np.flatnonzero(is_finite & ~is_zero & ~is_null)
    # float64: the square of a large float32 is infinite; adding 0 makes -0 equal to 0
    usable = vectors[chosen].astype(np.float64) + 0.0
    norms = np.linalg.norm(usable, axis=1)
    points = project(usable[:_POINTS]).round(4) + 0.0
    return {
        "sampled": len(vectors),
        "dimension": vectors.shape[1],
        "norm_smallest": _rounded(norms.min()) if len(norms) else None,
        "norm_median": _rounded(np.median(norms)) if len(norms) else None,
        "norm_largest": _rounded(norms.max()) if len(norms) else None,
        "zero": int(np.count_nonzero(is_zero & ~is_null)),
        "null": int(np.count_nonzero(is_null)),
        "not_finite": int(np.count_nonzero(~is_finite & ~is_null)),
        "repeated": len(usable) - len({vector.tobytes() for vector in usable}),
        "projection": [
            {"collection": collections[row], "x": x, "y": y}
            for row, (x, y) in zip(chosen.tolist(), points.tolist(), strict=False)
        ],
    }


def project(vectors: Floats64) -> Floats64:
    """Place vectors by the first two principal components, with one scale for both.

    Args:
        vectors: ``(n, d)`` float64, finite; equal ones become zeros where the numbers are those of
            float32, whose mean is exact here.

    Returns:
        ``(n, 2)`` from -1 to 1; zeros in a direction in which the vectors do not differ.
    """
    points = np.zeros((len(vectors), 2))
    if not len(vectors):
        return points
    left, sizes, directions = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    count = min(2, len(sizes))
    # a direction and its opposite are equally good: the largest number of a direction is positive
    largest_numbers = np.abs(directions[:count]).argmax(axis=1)
    signs = np.sign(directions[np.arange(count), largest_numbers])
    points[:, :count] = left[:, :count] * sizes[:count] * signs
    farthest = np.abs(points).max()
    return points / farthest if farthest else points


def _has_vectors(schema: pa.Schema) -> bool:
    """Tell whether the column ``vector`` is there, as cfray writes it."""
    if "vector" not in schema.names:
        return False
    kind = schema.field("vector").type
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_float32(kind.value_type))


def _draw(run: Run, dataset: LanceDataset) -> pa.Table:
    """Draw documents, in an order that says nothing; the same for the same rows of a target."""
    ledger = run.target.ledger()
    seed = zlib.crc32(ledger.digest.encode())
    row_ids = draw_row_ids(RowOrigins(run.plan, ledger), _SAMPLE + _SPARE, seed)
    columns = ["vector", "collection"]
    if not row_ids:
        return dataset.schema.empty_table().select(columns)
    condition = f"_rowid IN ({','.join(map(str, row_ids))}) AND record_type = 'document'"
    table = dataset.to_table(columns=columns, filter=condition, with_row_id=True)
    # rows that were written again since are read in another order
    order = np.argsort(table.column("_rowid").to_numpy())
    return table.take(np.random.default_rng(0).permutation(order)[:_SAMPLE])


def _rounded(number: float) -> float:
    """Round to six significant digits."""
    return float(f"{number:.6g}")
