"""PostgreSQL's numeric in binary form, as the text that the server itself would write.

Source: PostgreSQL, src/backend/utils/adt/numeric.c, ``numeric_send``
"""

from __future__ import annotations

import struct

from cfray.sources.postgres.cells import BadCopyError

_SPECIAL = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}
_NEGATIVE = 0x4000
#: Decimal digits of each digit, which is to base 10,000.
_DIGITS = 4


def numeric_text(value: bytes) -> str:
    """Write a numeric as PostgreSQL does.

    Raises:
        BadCopyError: the bytes are no numeric.
    """
    if len(value) < 8:
        raise BadCopyError("a numeric is cut short")
    count, weight, sign, scale = struct.unpack_from(">hhHh", value)
    if sign in _SPECIAL:
        return _SPECIAL[sign]
    if sign not in (0, _NEGATIVE) or len(value) != 8 + 2 * count:
        raise BadCopyError("a numeric does not have as many digits as it says")
    digits = struct.unpack_from(f">{count}h", value, 8)
    whole = "".join(f"{digit:04d}" for digit in digits[: weight + 1])
    # digits that are zero at the end are left out
    whole += "0" * (_DIGITS * max(0, weight + 1 - count))
    fraction = "0" * (_DIGITS * max(0, -weight - 1))
    fraction += "".join(f"{digit:04d}" for digit in digits[max(0, weight + 1) :])
    text = whole.lstrip("0") or "0"
    if scale:
        text += "." + fraction.ljust(scale, "0")[:scale]
    return f"-{text}" if sign == _NEGATIVE else text
