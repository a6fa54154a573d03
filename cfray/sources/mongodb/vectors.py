"""Read the vectors that MongoDB keeps as binary values of subtype 9.

Two bytes stand before the numbers: the type of the numbers, and how many bits of the last
byte are padding.  A vector of bits stays bytes: no list of numbers says what its padding is.

Source: https://github.com/mongodb/specifications/blob/master/source/bson-binary-vector/bson-binary-vector.md
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.records.values import json_texts

_INT8, _FLOAT32 = 0x03, 0x27


@dataclass(frozen=True, slots=True)
class BinaryVector:
    """A vector of numbers.

    Attributes:
        type_name: of the list that it becomes; no array of MongoDB's has it.
        text: its canonical JSON, with each number as the shortest text of its own width.
        numbers: as float64, which holds each of them exactly.
    """

    type_name: str
    text: str | None
    numbers: npt.NDArray[np.float64]


def read_vector(content: bytes) -> BinaryVector | None:
    """Read a binary value of subtype 9; None where it is no vector of whole numbers of bytes."""
    if len(content) < 2 or content[1]:
        return None
    if content[0] == _INT8:
        small = np.frombuffer(content, np.int8, offset=2)
        return BinaryVector("list<int8>", _text(small), small.astype(np.float64))
    if content[0] == _FLOAT32 and (len(content) - 2) % 4 == 0:
        floats = np.frombuffer(content, "<f4", offset=2)
        return BinaryVector("list<float>", None, floats.astype(np.float64))
    return None


def _text(numbers: npt.NDArray[np.generic]) -> str:
    offsets = pa.array([0, len(numbers)], pa.int32())
    text: str = json_texts(pa.ListArray.from_arrays(offsets, pa.array(numbers)))[0].as_py()
    return text


def width_of_vector(content: bytes) -> int | None:
    """Say how many numbers a binary value of subtype 9 holds; None where it is no such vector."""
    vector = read_vector(content)
    return None if vector is None else len(vector.numbers)
