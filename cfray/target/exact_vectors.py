"""The records from which a map was learned, and the vectors that the new model made of them.

A map is learned from pairs: records whose old vector and new vector are both known.  They
are drawn uniformly: of all records with a text and a vector, those with the smallest hash
of their uuid, so that any machine draws the same records.  Their exact new vectors are
kept beside the map and go to the target as they are.
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
from cfray.target.documents import RESTORE, parse_document
from cfray.target.state import State

#: numpy type of a uuid as 36 ASCII bytes.
_UUID = "S36"


@dataclass(frozen=True)
class ExactVectors:
    """The new model's vectors of the pairs, by uuid.

    Attributes:
        uuids: sorted, as 36 ASCII bytes each.
        vectors: ``(n, d)`` float32 in the same order.
    """

    uuids: npt.NDArray[np.bytes_]
    vectors: Floats

    def find(self, uuids: pa.StringArray) -> tuple[npt.NDArray[np.int64], Floats]:
        """Give the rows of these uuids whose vectors are known, and these vectors."""
        wanted_uuids = np.array(uuids.to_pylist(), _UUID)
        if not len(self.uuids):
            return np.empty(0, np.int64), self.vectors
        indices = np.minimum(np.searchsorted(self.uuids, wanted_uuids), len(self.uuids) - 1)
        rows = np.flatnonzero(self.uuids[indices] == wanted_uuids)
        return rows, self.vectors[indices[rows]]

    @staticmethod
    def save(state: State, map_id: str, uuids: pa.StringArray, vectors: Floats) -> None:
        """Write vectors beside their map."""
        order = np.argsort(np.array(uuids.to_pylist(), _UUID))
        numbers = pa.array(np.ascontiguousarray(vectors[order]).reshape(-1))
        lists = pa.FixedSizeListArray.from_arrays(numbers, vectors.shape[1])
        table = pa.table({"uuid": uuids.take(pa.array(order)), "vector": lists})
        sink = io.BytesIO()
        # each page has a checksum (CRC-32): a flipped bit would pass for another vector
        pq.write_table(table, sink, compression="none", write_page_checksum=True)
        state.maps.publish(_file_name(map_id), sink.getvalue())

    @staticmethod
    def load(state: State, map_id: str) -> ExactVectors:
        """Read the vectors beside a map.

        Raises:
            TargetError: the file is missing or damaged.
        """
        return _load(state.target, map_id)


def _file_name(map_id: str) -> str:
    return f"{map_id}.pairs.parquet"


# a worker maps the batches of one target, and an embed reads the map before it and its new map
@lru_cache(maxsize=2)
def _load(target: str, map_id: str) -> ExactVectors:
    folder = State(target).maps
    location = f"{folder.uri}/{_file_name(map_id)}"
    data = folder.read(_file_name(map_id))
    if data is None:
        raise TargetError(f"{location} is missing", RESTORE)
    return parse_document(data, location, _parse)


def _parse(data: bytes) -> ExactVectors:
    table = pq.read_table(io.BytesIO(data), page_checksum_verification=True).combine_chunks()
    column = table["vector"].chunk(0)
    uuids = np.array(table["uuid"].to_pylist(), _UUID)
    return ExactVectors(uuids, column.values.to_numpy().reshape(len(column), -1))
