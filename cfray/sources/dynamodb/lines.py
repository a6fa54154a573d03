"""The lines of an export's files: each an item of the table, or what became of an item.

A file is read once: while its lines are decoded its checksum is computed and they are counted, and
a difference from the manifest ends the read.  A line of an incremental export has the keys of an
item and, unless it was deleted, its new image.

Source: Amazon DynamoDB Developer Guide, "DynamoDB table export output format".
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from cfray.errors import SourceError
from cfray.runtime.models import MIB
from cfray.sources.dynamodb import ion
from cfray.sources.dynamodb.manifest import DataFile
from cfray.sources.dynamodb.types import UnreadableItem, WireItem
from cfray.sources.files.listing import open_file

#: Bytes of a file that are read at once.
_BLOCK = MIB
#: ``zlib``'s number for streams with gzip's head.
_GZIP = 31


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file.

    Attributes:
        number: of the line that is no blank, from 1.
        content: its bytes.
        item: the item; None where it was deleted, or where the line cannot be read.
        keys: the key attributes, where the line names them itself.
        fault: why the line cannot be read; empty where it can.
    """

    number: int
    content: bytes
    item: WireItem | None = None
    keys: WireItem | None = None
    fault: str = ""


def read_lines(data: DataFile, output_format: str) -> Iterator[Line]:
    """Read the lines of a file.

    Raises:
        SourceError: the file changed since the plan, or is not what the manifest says.
    """
    parse = ion.line_parser() if output_format == "ION" else _parse_json
    count = 0
    for count, content in enumerate(_inflate(data), start=1):
        try:
            yield _read_line(count, content, parse)
        except UnreadableItem as error:
            yield Line(count, content, fault=str(error))
    if count != data.items:
        raise SourceError(
            f"{data.file.uri} holds {count:,} items, the manifest counts {data.items:,}",
            "download the export again, whole, or export the table again",
        )


def _read_line(number: int, content: bytes, parse: Callable[[bytes], Any]) -> Line:
    value = parse(content)
    if isinstance(value, Mapping) and _is_item(value.get("Item")):
        return Line(number, content, value["Item"])
    if not isinstance(value, Mapping) or not _is_item(value.get("Keys")):
        raise UnreadableItem("the line holds no Item, and no Keys")
    image = value.get("NewImage")
    if image is not None and not _is_item(image):
        raise UnreadableItem("the NewImage of the line is no item")
    return Line(number, content, image or None, value["Keys"])


def _is_item(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(member, dict) for member in value.values())


def _parse_json(line: bytes) -> object:
    """Read a line of DynamoDB JSON."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise UnreadableItem(f"the line is no JSON: {error}") from None


def _inflate(data: DataFile) -> Iterator[bytes]:
    """Decompress a file line by line; at its end compare its checksum with the manifest's.

    Raises:
        SourceError: it changed since the plan, or its bytes are not those that DynamoDB wrote.
    """
    digest = hashlib.md5(usedforsecurity=False)
    rest = b""
    damage = ""
    with open_file(data.file, decompress=False) as stream:
        inflate = zlib.decompressobj(_GZIP)
        while block := bytes(stream.read(_BLOCK)):
            digest.update(block)
            try:
                while block and not damage:
                    if inflate.eof:
                        inflate = zlib.decompressobj(_GZIP)
                    lines = (rest + inflate.decompress(block)).split(b"\n")
                    block, rest = inflate.unused_data, lines.pop()
                    yield from filter(bytes.strip, lines)
            except zlib.error as error:
                damage = f"{error}"
        if data.file.size and not inflate.eof:
            damage = damage or "its gzip stream is cut"
    if base64.b64encode(digest.digest()).decode() != data.md5:
        damage = "its checksum is not the one in the manifest"
    if damage:
        raise SourceError(
            f"{data.file.uri} is not what DynamoDB wrote: {damage}",
            "download the file again, or export the table again",
        )
    if rest.strip():
        yield rest
