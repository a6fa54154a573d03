"""JSON Lines: one object a line.

A stream of any length is decoded in bounded memory: blocks are cut at line feeds, batches at
bytes, and a line over the limit is skipped without being loaded.  A line that is no object,
or whose meaning JSON cannot keep, becomes a Reject with its bytes; it never stops the file
and is never repaired.  Several objects on one line, as files joined without a line break have
them at the seam, are that many records; what JSON allows between values is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa

from cfray.formats.json_structure import ElementEnds
from cfray.formats.jsontext import InexactJson, between_values, parse_json
from cfray.formats.lines import BOM, OversizedRecord, RecordRun
from cfray.records.record import Reject, from_objects
from cfray.runtime.models import MIB

#: Bytes of text that a batch has at most: its Python objects still fit a cache; with 16 MiB a
#: worker reads 40 % fewer rows a second (measured).
_MAX_BATCH_BYTES = 4 * MIB
#: Bytes that an absent key costs in a column at the least: its offsets and validity bits.
_CELL_BYTES = 16


class BatchBuilder:
    """Objects on their way into record batches, cut by bytes."""

    def __init__(self, batch_bytes: int) -> None:
        """Aim at ``batch_bytes`` of JSON text a batch, or less where that is faster."""
        self._target_bytes = min(batch_bytes, _MAX_BATCH_BYTES)
        self._objects: list[dict[str, object]] = []
        self._names: set[str] = set()
        self._size = 0

    def add(self, item: dict[str, object], size: int) -> Iterator[pa.RecordBatch]:
        """Take an object of ``size`` bytes of text; give a batch if one is full.

        Objects with ever new keys make sparse columns, so empty cells count as bytes too.
        """
        self._objects.append(item)
        self._names.update(item)
        self._size += size
        if (
            self._size >= self._target_bytes
            or len(self._names) * len(self._objects) * _CELL_BYTES >= self._target_bytes
        ):
            yield from self.flush()

    def flush(self) -> Iterator[pa.RecordBatch]:
        """Give the objects that were added since the last batch, if there are any."""
        if self._objects:
            yield from_objects(self._objects)
        self._objects, self._names, self._size = [], set(), 0


def decode(
    runs: Iterable[RecordRun | OversizedRecord],
    name: str,
    batch_bytes: int,
    path: tuple[str, ...] = (),
) -> Iterator[pa.RecordBatch | Reject]:
    """Turn whole lines into batches and rejects.

    Args:
        runs: whole lines, from ``lines.gather_records``.
        name: of the file, for positions.
        batch_bytes: bytes of text that a batch aims at.
        path: keys under which each line holds a record or an array of them.
    """
    batches = BatchBuilder(batch_bytes)
    for run in runs:
        if isinstance(run, OversizedRecord):
            # Ordinals count the lines of the file, so the lines before this one come first.
            yield from batches.flush()
            yield run.reject(name, "line")
            continue
        for offset, record in run.records():
            line = _content(offset, record)
            if not line.strip(b" \t\r"):
                continue
            try:
                value = parse_json(line)
            except InexactJson as error:
                values = _split_values(line, path)
                rows = f"line: {error}" if values is None else values
            else:
                if isinstance(value, dict) and not path:
                    yield from batches.add(value, len(line))
                    continue
                rows = _find_records(value, path)
            if isinstance(rows, str):
                yield from batches.flush()
                yield Reject(rows, f"{name}:byte {offset}", line)
                continue
            for row in rows:
                yield from batches.add(row, len(line) // len(rows))
    yield from batches.flush()


def _content(offset: int, record: bytes) -> bytes:
    line = record.removesuffix(b"\n").removesuffix(b"\r")
    return line.removeprefix(BOM) if offset == 0 else line


def _split_values(line: bytes, path: tuple[str, ...]) -> list[dict[str, object]] | None:
    """Read the records of a line of several objects; None where it holds anything else."""
    values: list[dict[str, object]] = []
    start = 0
    ends = ElementEnds()(line)
    for end in ends:
        text = between_values(line[start:end])
        start = end
        if not text.startswith(b"{"):
            return None
        try:
            value = parse_json(text)
        except InexactJson:
            return None
        records = _find_records(value, path)
        if isinstance(records, str):
            return None
        values += records
    return None if between_values(line[start:]) else values


def _find_records(value: object, path: tuple[str, ...]) -> list[dict[str, object]] | str:
    """Give the records under a path of keys, or the reason why there are none."""
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return f"line has nothing under {'.'.join(path)}"
        value = value[key]
    items = value if isinstance(value, list) and path else [value]
    records = [item for item in items if isinstance(item, dict)]
    if len(records) < len(items):
        where = f"what stands under {'.'.join(path)}" if path else "line"
        return f"{where} is JSON, but no object"
    return records
