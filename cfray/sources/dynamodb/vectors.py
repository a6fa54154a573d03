"""Attributes that hold vectors, as the job file declares them, made columns of numbers.

A vector is a list of numbers, or bytes of packed numbers.  Bytes do not say what they are: where
the job file does not, the read ends, for each guess would give numbers.  An item whose declared
vector is missing, or is something else, is refused with its reason.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cfray.errors import SourceError
from cfray.formats.points import to_float32
from cfray.sources.dynamodb.settings import VectorAttribute
from cfray.sources.dynamodb.types import UnreadableItem, WireItem, WireValue, number_texts

Numbers: TypeAlias = npt.NDArray[np.generic]

_ARROW_TYPES = {"float32": pa.float32(), "float64": pa.float64(), "float16": pa.float16()}


@dataclass(frozen=True, slots=True)
class VectorReader:
    """Reads the vectors of one attribute.

    Attributes:
        name: of the attribute.
        declared: what the job file says of it.
    """

    name: str
    declared: VectorAttribute

    @property
    def number_type(self) -> pa.DataType:
        """Give the Arrow type of the column's numbers."""
        return _ARROW_TYPES[self.declared.dtype or "float32"]

    @property
    def column_type(self) -> pa.DataType:
        """Give the Arrow type of the column."""
        return pa.list_(self.number_type, self.declared.dimension or -1)

    def read(self, item: WireItem) -> Numbers | None:
        """Read an item's vector; None where it has none and need not have one.

        Lists of numbers are read as float64, and rounded where the column is built.

        Raises:
            UnreadableItem: the vector is missing, or is no vector of the declared kind.
            SourceError: it is packed, and the job file does not say how.
        """
        value = item.get(self.name)
        if value is None or "NULL" in value:
            self._check_optional("is null" if value else "is missing")
            return None
        if "L" in value:
            numbers = self._read_list(value["L"])
        elif "B" in value:
            numbers = self._read_bytes(value["B"])
        else:
            kind = next(iter(value), "")
            raise UnreadableItem(
                f"the vector {self.name} is of type {kind}, and no list of numbers or bytes"
            )
        if not len(numbers):
            self._check_optional("is empty")
            return None
        width = self.declared.dimension
        if width and len(numbers) != width:
            raise UnreadableItem(
                f"the vector {self.name} has {len(numbers)} numbers, the job file declares {width}"
            )
        return numbers

    def _check_optional(self, what: str) -> None:
        if not self.declared.optional:
            raise UnreadableItem(f"the vector {self.name} {what}")

    def _read_list(self, values: Sequence[WireValue]) -> Numbers:
        texts = number_texts(values)
        if texts is None:
            raise UnreadableItem(f"the vector {self.name} holds something else than numbers")
        return np.fromiter(map(float, texts), np.float64, len(texts))

    def _read_bytes(self, text: str) -> Numbers:
        if self.declared.dtype is None:
            raise SourceError(
                f"the attribute {self.name} holds bytes: the job file must say what they are",
                f"declare source.vectors: {{{self.name}: {{dtype: float32, byte_order: little, "
                "dimension: N}}, as the program that wrote them packs them",
            )
        number_type = np.dtype(self.declared.dtype)
        try:
            content = base64.b64decode(text, validate=True)
        except binascii.Error:
            raise UnreadableItem(f"the vector {self.name} is no base64") from None
        if len(content) % number_type.itemsize:
            raise UnreadableItem(
                f"the vector {self.name} is {len(content)} bytes, which numbers of "
                f"{number_type.itemsize} bytes do not fill"
            )
        stored_type = number_type.newbyteorder(self.declared.byte_order)
        numbers: Numbers = np.frombuffer(content, stored_type).astype(number_type)
        return numbers

    def build_column(self, vectors: Sequence[Numbers | None]) -> pa.Array:
        """Put the vectors of a batch into a column; an item without a vector is null."""
        lengths = np.fromiter((0 if v is None else len(v) for v in vectors), np.int64, len(vectors))
        is_missing = np.fromiter((v is None for v in vectors), np.bool_, len(vectors))
        width = self.declared.dimension
        if width:
            vectors = [np.zeros(width) if vector is None else vector for vector in vectors]
        numbers = [self._narrow(vector) for vector in vectors if vector is not None]
        number_type = self.number_type.to_pandas_dtype()
        flat = np.concatenate(numbers) if numbers else np.zeros(0, number_type)
        values, mask = pa.array(flat, self.number_type), pa.array(is_missing)
        if width:
            return pa.FixedSizeListArray.from_arrays(values, width, mask=mask)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), values, mask=mask)

    def _narrow(self, vector: Numbers) -> Numbers:
        """Round the numbers of a list to the column's type, as the program that wrote them did."""
        number_type = np.dtype(self.number_type.to_pandas_dtype())
        if vector.dtype == np.float64 and number_type == np.float32:
            with np.errstate(over="ignore"):
                return to_float32(vector.astype(np.float64))
        with np.errstate(over="ignore"):
            return vector.astype(number_type)
