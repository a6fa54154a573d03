"""Vectors as texts and as JSON values, decoded exactly.

People keep vectors as JSON text, as what numpy or PostgreSQL prints, as base64.  Whatever cannot be
read whole is refused with a reason that names the remedy: a vector is never guessed and never cut.
"""

from __future__ import annotations

import json
import re

import numpy as np
import numpy.typing as npt
import orjson

from cfray.records.vector_bytes import bytes_of_text, numbers_of_bytes
from cfray.records.vector_forms import BYTE_FORMS, Numbers, UnreadableVectorError, VectorForm

#: MongoDB's extended JSON, version 2: a number is an object with one of these keys and a text.
_EXTENDED = {"$numberDouble", "$numberInt", "$numberLong", "$numberDecimal"}
#: What numpy 2 and PyTorch print around the numbers: ``np.float32(0.1)``, ``array([0.1])``.
_SCALAR = re.compile(r"(?:np|numpy)\.\w+\(([^()]*)\)")
_CALL = re.compile(r"(?:(?:np|numpy|torch|jnp)\.)?(?:array|Array|tensor)\((.*)\)", re.DOTALL)
_ELLIPSIS = re.compile(r"\.\.\.|…")
_SEPARATORS = re.compile(r"\s*[,;]\s*|\s+")
_NUMBER = re.compile(
    r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf|infinity)", re.IGNORECASE
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_NO_LIST = "vector is not a list of numbers"
#: Characters that base64 of a vector has at least: four float32 numbers give 24.
_SHORT_BASE64 = 20


def numbers_of_text(text: str, form: VectorForm) -> Numbers:
    """Read the text of one vector.

    Raises:
        UnreadableVectorError: it is none, or not in this form.
    """
    text = text.strip()
    if not text:
        return None
    if form in BYTE_FORMS:
        return numbers_of_bytes(bytes_of_text(text, form), form)
    if form == "separated":
        return _separated(text)
    return _bracketed(text) if form == "numpy" else _json_numbers(text, form)


def _json_numbers(text: str, form: VectorForm) -> Numbers:
    """Read JSON, or under ``auto`` any list in brackets."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            # reads NaN and Infinity, too, which are refused with a reason that names them
            value = json.loads(text)
        except (ValueError, RecursionError):
            if form == "json":
                raise UnreadableVectorError(_why_no_list(text)) from None
            return _bracketed(text)
    if not isinstance(value, str):
        return numbers_of_json(value)
    if value[:1] not in ("[", "{", ""):
        raise UnreadableVectorError(_why_no_list(value))
    return numbers_of_text(value, form)  # JSON was written into JSON


def numbers_of_json(value: object) -> Numbers:
    """Read parsed JSON as one vector.

    That is a list of numbers, a list of one such list, or an object whose keys are 0 to d-1 (what
    ``JSON.stringify`` makes of a Float32Array).  A number may be one of extended JSON.

    Raises:
        UnreadableVectorError: it is anything else.
    """
    if value is None:
        return None
    if isinstance(value, dict):
        value = _indexed_values(value)
    if not isinstance(value, list):
        raise UnreadableVectorError(f"{_NO_LIST} (it is {_json_name(value)})")
    if not value:
        return None
    if isinstance(value[0], list):
        if len(value) > 1:
            raise UnreadableVectorError(
                f"vector is a list of {len(value)} lists: a record has one primary vector"
            )
        return numbers_of_json(value[0])
    if any(type(item) not in (int, float) for item in value):
        return [_number_of_json(item) for item in value]
    return value


def loses_digits(numbers: npt.NDArray[np.float64]) -> bool:
    """Tell whether float64 numbers say more than float32 can hold.

    A text of a float32 has at most 9 digits (IEEE 754, 5.12.2) or is written out as the float64 of
    the same value; a number that is neither loses digits when it is rounded.
    """
    finite = numbers[np.isfinite(numbers)]
    with np.errstate(over="ignore"):
        floats = finite.astype(np.float32)
    wide = finite != floats.astype(np.float64)
    return any(
        all(float(f"{narrow:.{digits}g}") != number for digits in range(1, 10))
        for number, narrow in zip(finite[wide].tolist(), floats[wide].tolist(), strict=True)
    )


def _indexed_values(value: dict[str, object]) -> list[object]:
    """Give the values of an object with the keys 0 to d-1 in the order of the numbers."""
    keys = [str(index) for index in range(len(value))]
    if any(key not in value for key in keys):
        names = ", ".join(sorted(value)[:5])
        raise UnreadableVectorError(
            f"vector is an object whose keys are not the numbers from 0 to d-1 ({names}): name "
            "the field that holds the numbers"
        )
    return [value[key] for key in keys]


def _number_of_json(item: object) -> float:
    """Read an item of a list, which may be a number of extended JSON."""
    if type(item) in (int, float):
        return item  # type: ignore[return-value]  # checked in the line before
    if isinstance(item, dict) and len(item) == 1 and item.keys() <= _EXTENDED:
        (text,) = item.values()
        if isinstance(text, str):
            return _number_of_text(text)
    if item is None:
        raise UnreadableVectorError("vector holds a null where a number should be")
    raise UnreadableVectorError(f"{_NO_LIST} (it holds {_json_name(item)})")


def _number_of_text(text: str) -> float:
    if not _NUMBER.fullmatch(text.strip()):
        raise UnreadableVectorError(f"{_NO_LIST} (it holds a text that is no number)")
    return float(text)


def _bracketed(text: str) -> Numbers:
    """Read numbers in brackets, as numpy, PyTorch, Python's tuples and PostgreSQL print them."""
    if _ELLIPSIS.search(text):
        raise UnreadableVectorError(_why_no_list(text))
    inner = _SCALAR.sub(r"\1", text)
    call = _CALL.fullmatch(inner)
    if call:
        # what follows the numbers are names such as dtype=float32
        inner = re.sub(r",\s*[a-z_]+=.*$", "", call[1], flags=re.DOTALL).strip()
    depth = 0
    while depth < 3 and len(inner) > 1 and inner[0] + inner[-1] in ("[]", "{}", "()"):
        inner = inner[1:-1].strip()
        depth += 1
    if not depth or any(bracket in inner for bracket in "[]{}()"):
        raise UnreadableVectorError(_why_no_list(text))
    return _separated(inner.strip(",")) if inner else None


def _separated(text: str) -> Numbers:
    """Read numbers with white space, commas or semicolons between them.

    Two kinds of separators in one text mean that one of them is a decimal comma.
    """
    separators = {separator.strip() for separator in _SEPARATORS.findall(text.strip())}
    if len(separators) > 1:
        raise UnreadableVectorError(
            "vector has numbers with several separators, or with decimal commas: write them with "
            "a point"
        )
    return [_number_of_text(item) for item in _SEPARATORS.split(text.strip())]


def _json_name(value: object) -> str:
    """Name the kind of a JSON value for a reason."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    names: dict[type, str] = {str: "a text", dict: "an object", list: "a list"}
    return names.get(type(value), "null")


def _why_no_list(text: str) -> str:
    """Say why a text is no vector, as far as its look tells."""
    if text[:1] in ("[", "{", "(") and _ELLIPSIS.search(text):
        return (
            "vector is shortened: '...' stands for numbers that are missing; export it whole "
            "(numpy.set_printoptions(threshold=sys.maxsize), or json.dumps of its list)"
        )
    if text[:1] in ("[", "{") and text[-1] not in "]}":
        return "vector is cut off: its closing bracket is missing"
    if text[:2].lower() in ("\\x", "0x", "b'", 'b"'):
        return "vector is a text of bytes: write mapping.vector: {path: ..., as: floats}"
    items = _SEPARATORS.split(text)
    if len(items) > 1 and all(_NUMBER.fullmatch(item) for item in items):
        return (
            "vector is numbers without brackets: write mapping.vector: {path: ..., as: separated}"
        )
    if len(text) > _SHORT_BASE64 and _BASE64.fullmatch(text) and not text.isalpha():
        return (
            "vector is a text that looks like base64: if it is, write mapping.vector: {path: ..., "
            "as: base64}"
        )
    return _NO_LIST
