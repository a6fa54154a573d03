"""Vectors as bytes, and as texts and objects that stand for bytes.

They are bare numbers, or what ``numpy.save`` writes.  Bytes do not say what they are, so their form
must be declared.  Nothing here is guessed.
"""

from __future__ import annotations

import ast
import base64
import io
from typing import TypeGuard

import numpy as np

from cfray.records.vector_forms import BYTE_FORMS, Numbers, UnreadableVectorError, VectorForm

#: Number type of the forms that are bare numbers.
_NUMBER_TYPES = {"floats": "<f4", "base64": "<f4", "doubles": "<f8", "halves": "<f2"}
#: First bytes of a file that ``numpy.save`` writes.
_NPY = b"\x93NUMPY"


def numbers_of_bytes(blob: bytes, form: VectorForm) -> Numbers:
    """Read the bytes of one vector, ``(d,)`` in the number type that its form names.

    Raises:
        UnreadableVectorError: the form names no bytes, or these bytes do not have it.
    """
    if not blob:
        return None
    if form not in BYTE_FORMS:
        raise UnreadableVectorError(
            f"vector is {len(blob)} bytes: the job file must say what they are, for example "
            "mapping.vector: {path: ..., as: "
            + ("npy" if blob.startswith(_NPY) else "floats")
            + "}"
        )
    if form == "npy":
        return _npy_numbers(blob)
    if blob.startswith(_NPY):
        raise UnreadableVectorError(
            "vector is what numpy.save writes, not bare numbers: write as: npy"
        )
    number_type = np.dtype(_NUMBER_TYPES[form])
    if len(blob) % number_type.itemsize:
        raise UnreadableVectorError(
            f"vector is {len(blob)} bytes, which {number_type.itemsize}-byte numbers "
            f"(as: {form}) do not fill"
        )
    return np.frombuffer(blob, number_type)


def bytes_of_text(text: str, form: VectorForm) -> bytes:
    r"""Read a text that stands for bytes.

    It is base64, hexadecimal digits behind ``\x`` or ``0x`` (PostgreSQL, SQL Server), or what
    Python prints for bytes: ``b'\x00'``.

    Raises:
        UnreadableVectorError: it is none of these.
    """
    if text[0] == '"' and text[-1] == '"' and len(text) > 1:
        text = text[1:-1]
    try:
        if text[:2].lower() in ("\\x", "0x"):
            return bytes.fromhex(text[2:])
        if text[:2] in ("b'", 'b"'):
            return bytes(ast.literal_eval(text))
        standard = text.replace("-", "+").replace("_", "/")
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (ValueError, TypeError, SyntaxError):
        raise UnreadableVectorError(f"vector is not base64 (as: {form})") from None


def bytes_of_json(value: object, form: VectorForm) -> bytes:
    """Read an object that stands for bytes: of MongoDB's extended JSON, or a Buffer of Node.js.

    Raises:
        UnreadableVectorError: it is anything else.
    """
    if isinstance(value, dict):
        binary, data = value.get("$binary"), value.get("data")
        text = binary.get("base64") if isinstance(binary, dict) else binary
        if isinstance(text, str):
            return bytes_of_text(text, form) if text else b""
        if value.get("type") == "Buffer" and _are_bytes(data):
            return bytes(data)
    raise UnreadableVectorError(f"vector is not bytes or a text of them (as: {form})")


def _are_bytes(data: object) -> TypeGuard[list[int]]:
    return isinstance(data, list) and all(type(item) is int and 0 <= item < 256 for item in data)


def _npy_numbers(blob: bytes) -> Numbers:
    """Read what ``numpy.save`` writes: one row of real numbers."""
    try:
        numbers = np.load(io.BytesIO(blob), allow_pickle=False)
    except (ValueError, EOFError, OSError):
        raise UnreadableVectorError(
            f"vector is {len(blob)} bytes that are not what numpy.save writes (as: npy)"
        ) from None
    if not isinstance(numbers, np.ndarray) or numbers.dtype.kind not in "fiu":
        raise UnreadableVectorError("vector is an array of something else than numbers (as: npy)")
    if numbers.ndim > 1 and numbers.size != numbers.shape[-1]:
        raise UnreadableVectorError(
            f"vector is an array of the shape {numbers.shape}: a record has one primary vector"
        )
    return numbers.reshape(-1) if numbers.size else None
