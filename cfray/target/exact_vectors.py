"""Pairs: records whose old vector and new model's vector are both known.

Which a map is learned from.

Drawn uniformly: of every row that has a text and a vector, those with the
smallest hash of their uuid, so that any machine draws the same ones.  Their
exact new vectors are kept beside the map and go to the target as they are.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from cfray.errors import TargetError
from cfray.records.vectors import Floats
from cfray.target.state import State


@dataclass(frozen=True)
class ExactVectors:
    """The new model's own vectors of the pairs, by uuid.

    Attributes:
        uuids: sorted, as 36 ASCII bytes each.
        vectors: ``(n, d)`` float32 in the same order.
    """

    uuids: npt.NDArray[np.bytes_]
    vectors: Floats

    def find(self, uuids: pa.StringArray) -> tuple[npt.NDArray[np.int64], Floats]:
        """Give the rows whose vectors are known, and these vectors."""
        wanted = np.array(uuids.to_pylist(), "S36")
        if not len(self.uuids):
            return np.empty(0, np.int64), self.vectors
        places = np.minimum(np.searchsorted(self.uuids, wanted), len(self.uuids) - 1)
        rows = np.flatnonzero(self.uuids[places] == wanted)
        return rows, self.vectors[places[rows]]

    @staticmethod
    def save(state: State, map_id: str, uuids: pa.StringArray, vectors: Floats) -> None:
        """Write them beside the map."""
        order = np.argsort(np.array(uuids.to_pylist(), "S36"))
        lists = pa.FixedSizeListArray.from_arrays(
            pa.array(np.ascontiguousarray(vectors[order]).reshape(-1)), vectors.shape[1]
        )
        sink = io.BytesIO()
        pq.write_table(
            pa.table({"uuid": uuids.take(pa.array(order)), "vector": lists}),
            sink,
            compression="none",
        )
        state.maps.publish(f"{map_id}.pairs.parquet", sink.getvalue())

    @staticmethod
    def load(state: State, map_id: str) -> ExactVectors:
        """Read them.

        Raises:
            TargetError: they are gone.
        """
        return _loaded(state.target, map_id)


@lru_cache(maxsize=2)
def _loaded(target: str, map_id: str) -> ExactVectors:
    data = State(target).maps.read(f"{map_id}.pairs.parquet")
    if data is None:
        raise TargetError(
            f"{target}.cfray/maps/{map_id}.pairs.parquet is missing",
            "restore the folder beside the target from a backup",
        )
    table = pq.read_table(io.BytesIO(data)).combine_chunks()
    column = table["vector"].chunk(0)
    return ExactVectors(
        np.array(table["uuid"].to_pylist(), "S36"),
        column.values.to_numpy().reshape(len(column), -1),
    )
