"""Items of an export in Amazon Ion, made the values that DynamoDB JSON has.

The parser is Amazon's own package ``amazon.ion``.  DynamoDB writes sets as lists with the
annotations ``$dynamodb_SS``, ``$dynamodb_NS`` and ``$dynamodb_BS``, numbers as decimals and binary
values as blobs.

Source: Amazon DynamoDB Developer Guide, "DynamoDB table export output format", "Amazon Ion".
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from cfray.runtime.sdk import import_sdk
from cfray.sources.dynamodb.types import UnreadableItem

#: Bytes that the parser needs beside the longest text of a line.
_ROOM = 1024
_SETS = {"$dynamodb_SS": "SS", "$dynamodb_NS": "NS", "$dynamodb_BS": "BS"}


def line_parser() -> Callable[[bytes], object]:
    """Give a function that reads a line into what DynamoDB JSON has.

    Raises:
        ConfigError: the parser is not installed; the remedy names the extra.
    """
    simpleion = import_sdk("amazon.ion.simpleion", "dynamodb")
    exceptions = import_sdk("amazon.ion.exceptions", "dynamodb")
    bare = simpleion.IonPyValueModel.MAY_BE_BARE

    def parse(line: bytes) -> object:
        try:
            # without this room the parser refuses texts of more than a few KB
            room = len(line) + _ROOM
            value = simpleion.loads(line.decode(), value_model=bare, text_buffer_size_limit=room)
        except (exceptions.IonException, ValueError, TypeError) as error:
            raise UnreadableItem(f"the line is no Ion: {error}") from None
        return _read_images(value)

    return parse


def _read_images(value: Any) -> object:
    """Write the images of a line as DynamoDB JSON has them."""
    if not isinstance(value, Mapping):
        return None
    if isinstance(value.get("Record"), Mapping):
        return _read_images(value["Record"])
    return {
        image: {str(name): to_wire(member) for name, member in value[image].items()}
        for image in ("Item", "Keys", "NewImage")
        if isinstance(value.get(image), Mapping)
    }


def to_wire(value: Any) -> dict[str, Any]:
    """Write a value of Ion as DynamoDB JSON has it.

    Raises:
        UnreadableItem: DynamoDB writes no such value.
    """
    for kinds, write in _WRITERS:
        if isinstance(value, kinds):
            return write(value)
    raise UnreadableItem(f"an Ion value of type {type(value).__name__} is none of DynamoDB's")


def _write_list(values: Any) -> dict[str, Any]:
    annotations = [symbol.text for symbol in getattr(values, "ion_annotations", ())]
    members = [to_wire(member) for member in values]
    kind = next((_SETS[name] for name in annotations if name in _SETS), None)
    if kind is None:
        return {"L": members}
    return {kind: [member[kind[0]] for member in members]}


#: Python types, the more special first, and how a value of them is written.
_WRITERS: tuple[tuple[type | tuple[type, ...], Callable[[Any], dict[str, Any]]], ...] = (
    (str, lambda value: {"S": str(value)}),
    (Decimal, lambda value: {"N": format(value, "f")}),
    (type(None), lambda _: {"NULL": True}),
    (bool, lambda value: {"BOOL": value}),
    (int, lambda value: {"N": str(value)}),
    ((list, tuple), _write_list),
    (
        Mapping,
        lambda value: {"M": {str(name): to_wire(member) for name, member in value.items()}},
    ),
    ((bytes, bytearray), lambda value: {"B": base64.b64encode(bytes(value)).decode()}),
)
