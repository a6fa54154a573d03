"""What the sections of a job file are made from: a strict model, locations and byte sizes."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from cfray.runtime import filesystems

MIB = 1024 * 1024

_BYTES_PER_UNIT = {
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "B": 1,
}


class Strict(BaseModel):
    """A frozen model that refuses unknown keys, and whose errors quote no value.

    A value may be an address with a password in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def parse_byte_size(value: object) -> object:
    """Read ``256MiB``, ``1.5 GB`` or a plain number of bytes.

    Returns:
        The number of bytes; a value that is no text as it is, for pydantic to judge.

    Raises:
        ValueError: the text is no size.
    """
    if not isinstance(value, str):
        return value
    text = value.strip().replace(" ", "")
    for unit, factor in _BYTES_PER_UNIT.items():
        if text.lower().endswith(unit.lower()):
            try:
                return int(float(text[: -len(unit)]) * factor)
            except ValueError:
                break
    if text.isdigit():
        return int(text)
    raise ValueError(f"{value!r} is not a size; write a number of bytes, or 256MiB or 2GB")


ByteSize = Annotated[int, BeforeValidator(parse_byte_size), Field(ge=1)]

#: A path or URI as the job file gives it; it holds no secret.
Location = Annotated[str, Field(min_length=1), AfterValidator(filesystems.check_location)]
