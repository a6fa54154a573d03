"""Which values of a field are vectors, how wide they are, and in which form they are written.

Reads with the code that a run reads with.  Lists and texts of numbers say what they are; bytes and
base64 could be anything, so they count only where they decode to numbers as vectors have them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.records import vectors
from cfray.records.record import VARIANT, variant_texts
from cfray.records.vector_forms import BYTE_FORMS, VectorForm

#: Fewest numbers of a vector that is not named like one: shorter lists are coordinates or ratings.
MIN_DIMENSION = 8
#: Fewest numbers of a vector that is named like one, or that says itself that it is a list.
_FEWEST = 2
#: Forms that are tried, by the kind of the field, in this order.
_FORMS: dict[str, tuple[VectorForm, ...]] = {
    "text": ("auto", "separated", "npy", "base64", "doubles", "halves"),
    "binary": ("auto", "npy", "floats", "doubles", "halves"),
    "numbers": ("auto",),
    "list": ("auto",),
    "other": ("auto",),
}
#: Magnitudes of the numbers of vectors, zero apart, and lengths of vectors; bytes that are no
#: vectors, or are read in another number type, give numbers of all magnitudes.
_MAGNITUDES = (1e-9, 1e5)
_LENGTHS = (1e-2, 1e4)
#: Share of the values that must be vectors before a form is taken.
_MOSTLY = 0.95
#: Values of a field that are looked at to rule a form out.
_LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class Probe:
    """What reading a field as vectors gives.

    Attributes:
        dimension: numbers in most of its vectors; 0 if it holds none.
        vectors: records whose vector has that dimension and only finite numbers.
        empty: records that have an empty vector.
        form: the form to declare (``as``); empty where it need not be declared.
        widths: (width, records) of all its vectors, the commonest width first.
    """

    dimension: int = 0
    vectors: int = 0
    empty: int = 0
    form: str = ""
    widths: tuple[tuple[int, int], ...] = ()


def probe_vectors(columns: Sequence[pa.Array], kind: str) -> Probe:
    """Read a field as vectors.

    Args:
        columns: the field's columns; they may hold variants.
        kind: the field's kind.
    """
    for form in _FORMS.get(kind, ()):
        probe = _read(columns, form)
        if probe.dimension:
            return probe
    return Probe()


def _read(columns: Sequence[pa.Array], form: VectorForm) -> Probe:
    heads = [column.filter(column.is_valid()).slice(0, _LOOKED_AT) for column in columns]
    if form != "auto" and any(map(_are_digits, heads)):
        return Probe()
    if not any(vectors.widths_of(head, form) for head in heads):
        return Probe()
    widths: Counter[int] = Counter()
    for column in columns:
        widths.update(vectors.widths_of(column, form))
    dimension = max(widths, key=lambda width: (widths[width], width))
    if dimension < (_FEWEST if form == "auto" else MIN_DIMENSION):
        return Probe()
    count = empty = plausible = 0
    for column in columns:
        read = vectors.read_vectors(column, dimension, form)
        is_vector = ~read.missing
        is_vector[list(read.faults)] = False
        count += int(is_vector.sum())
        empty += 0 if read.empty is None else int(read.empty.sum())
        plausible += _count_plausible(read.values[is_vector])
    if form in BYTE_FORMS and form != "npy" and plausible < _MOSTLY * max(count, 1):
        return Probe()
    declared = "" if form == "auto" else _declared(columns, form)
    return Probe(dimension, count, empty, declared, tuple(widths.most_common()))


def _are_digits(column: pa.Array) -> bool:
    """Tell texts of hexadecimal digits: ids, UUIDs and digests, which base64 could be, too."""
    if column.type.equals(VARIANT):
        column = variant_texts(column)
    if not pa.types.is_string(column.type) or not len(column):
        return False
    return bool(pc.all(pc.match_substring_regex(column, r"^\{?[0-9A-Fa-f-]+\}?$")).as_py())


def _count_plausible(values: npt.NDArray[np.float32]) -> int:
    """Count the vectors whose numbers and length are as those of vectors are."""
    with np.errstate(over="ignore", invalid="ignore"):
        magnitudes = np.abs(values)
        lengths = np.linalg.norm(values.astype(np.float64), axis=1)
    smallest, largest = _MAGNITUDES
    fits = ((magnitudes >= smallest) & (magnitudes <= largest)) | (magnitudes == 0)
    shortest, longest = _LENGTHS
    return int((fits.all(axis=1) & (lengths >= shortest) & (lengths <= longest)).sum())


def _declared(columns: Sequence[pa.Array], form: VectorForm) -> str:
    r"""Name the form as the job file does: hexadecimal digits behind ``\x`` are no base64."""
    if form != "base64":
        return form
    for column in columns:
        texts = variant_texts(column) if column.type.equals(VARIANT) else column
        for text in texts.drop_null().slice(0, 1).to_pylist():
            return "floats" if str(text)[:2].lower() in ("\\x", "0x") else "base64"
    return form
