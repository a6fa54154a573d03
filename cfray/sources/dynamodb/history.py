"""Which exports make a table: a full one, and the incremental ones that follow it without a gap.

An incremental export has one line for each item that changed in its time: the item as it was at
the end, or its keys alone where it was deleted by then.  So an item's last state is in the last
export that names its key.  Which keys an incremental export names is found once, when the plan is
made, and written down as digests; a worker holds about 100 bytes in memory for each.

Source: Amazon DynamoDB Developer Guide, "DynamoDB table export output format" and "Requesting a
table export".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import orjson

from cfray.errors import SourceError
from cfray.runtime.filesystems import Folder
from cfray.sources.base import Context
from cfray.sources.dynamodb.lines import read_lines
from cfray.sources.dynamodb.manifest import Export, find_exports
from cfray.sources.dynamodb.settings import DynamoDBSettings
from cfray.sources.dynamodb.types import UnreadableItem, WireItem, WireValue, read_number

#: Bytes of a key's digest: two of a million million keys share one with a chance of 1e-15.
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class History:
    """The exports that make one table.

    Attributes:
        full: the full export.
        changes: incremental exports that follow it, by time.
        unused: incremental exports whose changes another export has.
    """

    full: Export
    changes: tuple[Export, ...] = ()
    unused: tuple[Export, ...] = ()


def choose_histories(settings: DynamoDBSettings) -> list[History]:
    """Find the exports of the tables that are read, sorted by table.

    Raises:
        SourceError: there is none; a table has several full exports, or none; exports are of two
            tables of one name; changes between two exports are missing; or the job file names no
            key.
    """
    assert settings.uri is not None
    exports: dict[str, list[Export]] = {}
    for export in find_exports(settings.uri):
        exports.setdefault(export.table, []).append(export)
    names = settings.choose_collections(exports)
    histories = [_order(settings.uri, exports[name]) for name in names]
    if not settings.key:
        raise SourceError(
            f"an export does not say what the key of its table is ({', '.join(names)})",
            "name the key attributes in the job file: source.key: [partition key], or "
            "[partition key, sort key]",
        )
    return histories


def _order(uri: str, exports: list[Export]) -> History:
    """Put the exports of a table into their order."""
    table = exports[0].table
    full_exports = [export for export in exports if export.is_full]
    incremental = sorted(
        (export for export in exports if not export.is_full),
        key=lambda export: (export.until, export.since, export.folder),
    )
    if not full_exports:
        raise SourceError(
            f"{incremental[0].folder} is an incremental export ({incremental[0].since} to "
            f"{incremental[0].until}): it holds changes, not the table {table}",
            "lay the full export that it follows beside it, and name the folder of both in "
            "source.uri; or export the table in full",
        )
    if len(full_exports) > 1:
        raise SourceError(
            f"{uri} holds several exports of the table {table}: "
            f"{full_exports[0].folder} and {full_exports[1].folder}",
            "name the folder of one of them in source.uri",
        )
    [full] = full_exports
    for export in incremental:
        if export.identity != full.identity:
            raise SourceError(
                f"{export.folder} is an export of another table {table} ({export.identity}) than "
                f"{full.folder} ({full.identity}): the one was deleted and made again, or they "
                "are of two accounts or regions",
                "name the folder of one of them in source.uri",
            )
    changes: list[Export] = []
    unused: list[Export] = []
    covered = full.until
    for export in incremental:
        if export.until <= covered:
            unused.append(export)
            continue
        if export.since > covered:
            raise SourceError(
                f"the changes of the table {table} between {covered} and {export.since} are "
                f"missing: {export.folder} begins after them",
                "lay the incremental export of that time beside the others",
            )
        changes.append(export)
        covered = export.until
    return History(full, tuple(changes), tuple(unused))


def write_changed_keys(export: Export, key: tuple[str, ...], context: Context) -> str:
    """Write down which keys an incremental export names, and give the name of the file.

    Raises:
        SourceError: a line cannot be read, or its keys are not those that the job file names.
    """
    digests: set[bytes] = set()
    for data in export.files:
        for line in read_lines(data, export.format):
            keys = line.keys
            if keys is None or keys.keys() != set(key):
                reason = line.fault or f"its keys are {sorted(keys or ())}, not {sorted(key)}"
                raise SourceError(
                    f"{data.file.uri}, line {line.number}: {reason}",
                    "correct source.key, or download the export again: an unknown change would "
                    "leave an old item in its place",
                )
            digests.add(_digest(keys, key))
    name = f"changed-{hashlib.sha256(export.folder.encode()).hexdigest()[:16]}.bin"
    Folder(context.scratch).publish(name, b"".join(sorted(digests)))
    return name


@dataclass(frozen=True, slots=True)
class ChangedKeys:
    """The keys that later exports name.

    Attributes:
        key: names of the key attributes.
        digests: of the keys.
    """

    key: tuple[str, ...]
    digests: frozenset[bytes]

    @classmethod
    def read(cls, names: Iterable[str], key: tuple[str, ...], context: Context) -> Self:
        """Read what ``write_changed_keys`` wrote.

        Raises:
            SourceError: the scratch folder beside the target has lost a file.
        """
        digests: set[bytes] = set()
        for name in names:
            content = Folder(context.scratch).read(name)
            if content is None:
                raise SourceError(
                    f"the list of changed keys {context.scratch}/{name} is gone",
                    "restore the folder beside the target, or start anew with another target",
                )
            digests.update(
                content[start : start + _DIGEST_BYTES]
                for start in range(0, len(content), _DIGEST_BYTES)
            )
        return cls(key, frozenset(digests))

    def names_item(self, item: WireItem) -> bool:
        """Tell whether a later export names the item.

        Raises:
            UnreadableItem: the item lacks a key attribute.
        """
        return bool(self.digests) and _digest(item, self.key) in self.digests


def _digest(item: WireItem, key: tuple[str, ...]) -> bytes:
    try:
        values = [_normal(item[name]) for name in key]
    except KeyError as error:
        raise UnreadableItem(f"the item has no key attribute {error.args[0]}") from None
    return hashlib.blake2b(orjson.dumps(values), digest_size=_DIGEST_BYTES).digest()


def _normal(value: WireValue) -> WireValue:
    """Write a key in one way: the same number has the same digits in both formats."""
    number = read_number(value["N"]) if "N" in value else None
    return value if number is None else {"N": repr(number)}
