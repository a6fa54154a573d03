"""Damage to a finished target, as another writer or a disk does it, and what must be found of it.

A damage chooses its rows from the target, so it fits what was migrated from any source; where no
row has what it needs, ``NothingToDamage`` says so.  Rows are read and damaged with pylance alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import lance
import numpy as np
import pyarrow as pa

from tests.scenarios import runs
from tests.scenarios.runs import Job, Runner

Row: TypeAlias = dict[str, Any]
#: A row that differs, as the file of differences has it: its id, its side, its fields.
Named: TypeAlias = tuple[str, str, list[str]]

AGAINST_SOURCE = ("--against", "source", "--json")
#: Keys of custom_metadata that are cfray's own.
_OWN_KEYS = ("original_id", "cfray.types")


class NothingToDamage(Exception):
    """The target has no row, and no file, that a damage could be done to."""


@dataclass(frozen=True)
class Found:
    """What must be found of a damage.

    Attributes:
        rows: that differ.
        files: names of the data or blob files that are not what was written.
    """

    rows: list[Named] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


class Target:
    """A target that is to be damaged; each of its rows is chosen once."""

    def __init__(self, uri: str) -> None:
        """Read the documents as they are before any damage."""
        self.uri = uri
        rows = self.read("record_type = 'document'").to_pylist()
        self.free = sorted(rows, key=lambda row: row["uuid"])

    @property
    def dataset(self) -> lance.LanceDataset:
        """Open the latest version."""
        return lance.dataset(self.uri)

    def read(self, condition: str) -> pa.Table:
        """Read some rows without ``raw_data``, which Lance gives as descriptions."""
        dataset = self.dataset
        names = [name for name in dataset.schema.names if name != "raw_data"]
        return dataset.to_table(columns=names, filter=condition)

    def choose(self, need: str, *wishes: Callable[[Row], object]) -> Row:
        """Choose a row by the first of some wishes that a row fulfils.

        Raises:
            NothingToDamage: none is fulfilled.
        """
        for wish in wishes:
            for row in self.free:
                if wish(row):
                    self.free.remove(row)
                    return row
        raise NothingToDamage(f"no row of the target has {need}")

    def data_files(self) -> list[Path]:
        """List the data files of the latest version."""
        return [
            Path(self.uri, "data", file.path)
            for fragment in self.dataset.get_fragments()
            for file in fragment.metadata.files
        ]


def replaced(target: str, condition: str, change: Callable[[Row], None]) -> None:
    """Change a row in place, as another writer would; what is not changed keeps its bits."""
    table = Target(target).read(condition)
    (before,), (after,) = table.to_pylist(), table.to_pylist()
    change(after)
    for place, column in enumerate(table.schema):
        if after[column.name] != before[column.name]:
            values = pa.array([after[column.name]], column.type)
            table = table.set_column(place, column, values)
    lance.dataset(target).merge_insert("uuid").when_matched_update_all().execute(table)


def metadata_of(row: Row) -> dict[str, str | None]:
    """Give the custom metadata of a row."""
    return {entry["key"]: entry["value"] for entry in row["custom_metadata"] or []}


def _id_of(row: Row) -> str:
    return metadata_of(row)["original_id"]


def _is(row: Row) -> str:
    return f"uuid = '{row['uuid']}'"


def _changed(target: Target, row: Row, changed: str, change: Callable[[Row], None]) -> Found:
    """Change a row, and say in which field it differs now."""
    replaced(target.uri, _is(row), change)
    return Found([(_id_of(row), "both", [changed])])


def _keys(row: Row, fits: Callable[[str | None], object]) -> list[str]:
    """List the keys of a row's metadata whose value fits."""
    return [key for key, value in metadata_of(row).items() if key not in _OWN_KEYS and fits(value)]


def _types_of(target: Target, row: Row) -> dict[str, str]:
    """Give the types of a row's metadata: those of the target, then the row's own."""
    declared = json.loads(target.dataset.schema.metadata[b"cfray.types"])
    return {**declared, **json.loads(metadata_of(row).get("cfray.types") or "{}")}


# of rows


def delete_a_row(target: Target) -> Found:
    row = target.choose("an id", _id_of)
    target.dataset.delete(_is(row))
    return Found([(_id_of(row), "source", [])])


def double_a_row(target: Target) -> Found:
    row = target.choose("an id", _id_of)
    lance.write_dataset(target.read(_is(row)), target.uri, mode="append")
    return Found([(_id_of(row), "target", [])])


def change_a_letter(target: Target) -> Found:
    row = target.choose("text", lambda row: row["text_content"])

    def change(row: Row) -> None:
        text = row["text_content"]
        middle = len(text) // 2
        letter = "x" if text[middle] != "x" else "y"
        row["text_content"] = text[:middle] + letter + text[middle + 1 :]

    return _changed(target, row, "text_content", change)


def flip_a_bit_of_a_vector(target: Target) -> Found:
    row = target.choose("a vector", lambda row: any(row["vector"]), lambda row: row["vector"])

    def flip(row: Row) -> None:
        numbers = np.array(row["vector"], np.float32)
        numbers.view(np.uint32)[len(numbers) // 2] ^= 1
        row["vector"] = numbers.tolist()

    return _changed(target, row, "vector", flip)


def make_a_number_a_text(target: Target) -> Found:
    def numbers(row: Row) -> list[str]:
        types = _types_of(target, row)
        keys = _keys(row, lambda value: re.fullmatch(r"-?\d+(\.\d+)?", value or ""))
        return [key for key in keys if types.get(key) != "string"]

    row = target.choose("a number in its metadata", numbers)
    key, *_ = numbers(row)

    def change(row: Row) -> None:
        for entry in row["custom_metadata"]:
            if entry["key"] == key:
                entry["value"] = f'"{entry["value"]}"'

    return _changed(target, row, f"custom_metadata.{key}", change)


def change_a_metadata_type(target: Target) -> Found:
    """Another type is noted at the row itself, and the value is as it was."""
    row = target.choose("metadata", lambda row: _keys(row, bool))
    key, *_ = _keys(row, bool)
    types = json.loads(metadata_of(row).get("cfray.types") or "{}")
    types[key] = "string" if _types_of(target, row).get(key) != "string" else "int64"

    def change(row: Row) -> None:
        others = [entry for entry in row["custom_metadata"] if entry["key"] != "cfray.types"]
        row["custom_metadata"] = [*others, {"key": "cfray.types", "value": json.dumps(types)}]

    return _changed(target, row, "custom_metadata.cfray.types", change)


def _lose(target: Target, row: Row, key: str) -> Found:
    def lose(row: Row) -> None:
        row["custom_metadata"] = [entry for entry in row["custom_metadata"] if entry["key"] != key]

    return _changed(target, row, f"custom_metadata.{key}", lose)


def lose_a_metadata_key(target: Target) -> Found:
    row = target.choose("metadata", lambda row: _keys(row, bool))
    return _lose(target, row, _keys(row, bool)[-1])


def make_a_null_missing(target: Target) -> Found:
    def nulls(row: Row) -> list[str]:
        types = _types_of(target, row)
        empty = _keys(row, lambda value: value is None)
        return empty or [key for key in _keys(row, bool) if types.get(key) == "null"]

    row = target.choose(
        "a null in its metadata: in its source a null is none, or is a missing value", nulls
    )
    return _lose(target, row, nulls(row)[0])


def make_a_null_an_empty_text(target: Target) -> Found:
    def nulls(row: Row) -> list[str]:
        return [name for name in ("author", "status", "version") if row[name] is None]

    row = target.choose("a null in a column of text", nulls)
    column, *_ = nulls(row)
    return _changed(target, row, column, lambda row: row.update({column: ""}))


def redirect_a_relationship(target: Target) -> Found:
    """A reference of the record's own, where there is one; else the membership that cfray adds."""
    row = target.choose(
        "a relationship",
        lambda row: row["relationships"] and row["relationships"][0]["type"] != "member_of",
        lambda row: row["relationships"],
    )

    def redirect(row: Row) -> None:
        row["relationships"][0]["id"] = "00000000-0000-0000-0000-000000000000"

    return _changed(target, row, "relationships", redirect)


def swap_two_vectors(target: Target) -> Found:
    left = target.choose("a vector that is not zero", lambda row: any(row["vector"]))
    right = target.choose(
        "another vector than the others",
        lambda row: any(row["vector"]) and row["vector"] != left["vector"],
    )
    founds = [
        _changed(target, row, "vector", lambda row, other=other: row.update(vector=other["vector"]))
        for row, other in ((left, right), (right, left))
    ]
    return Found([named for found in founds for named in found.rows])


def remove_a_header(target: Target) -> Found:
    headers = target.read("record_type = 'collection_header'").to_pylist()
    header = min(headers, key=lambda row: row["uuid"])
    target.dataset.delete(_is(header))
    return Found([(f"the header of {header['title']}", "source", [])])


# of files


def flip_a_byte_of_a_data_file(target: Target) -> Found:
    """A byte of a vector, where there is one: else its place would not say which row must be named."""
    contents = {path: path.read_bytes() for path in target.data_files()}
    for row in [row for row in target.free if any(row["vector"])]:
        needle = np.array(row["vector"], np.float32).tobytes()
        places = [(path, data.find(needle)) for path, data in contents.items() if needle in data]
        if len(places) == 1 and contents[places[0][0]].count(needle) == 1:
            ((path, place),) = places
            _flip(path, place + 1)
            return Found([(_id_of(row), "both", ["vector"])], [path.name])
    raise NothingToDamage("no row of the target has a vector of its own")


def flip_a_byte_of_a_text_in_a_data_file(target: Target) -> Found:
    """A byte that no row's hash need cover, such as one of ``raw_data``: only its file is named."""
    contents = {path: path.read_bytes() for path in target.data_files()}
    for row in [row for row in target.free if len(row["text_content"] or "") > 8]:
        needle = row["text_content"].encode()
        for path, data in contents.items():
            if needle in data:
                _flip(path, data.rindex(needle) + 5)
                return Found(files=[path.name])
    raise NothingToDamage("no text of the target stands in a data file as it is")


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def remove_a_blob_file(target: Target) -> Found:
    """Large values of ``raw_data`` lie in files of their own, which Lance does not miss."""
    for path in target.data_files():
        for blob in sorted(path.with_suffix("").glob("*.blob")):
            blob.unlink()
            return Found(files=[blob.name])
    raise NothingToDamage("no value of raw_data is so large that it lies in a file of its own")


Damage: TypeAlias = Callable[[Target], Found]
OF_ROWS: tuple[Damage, ...] = (
    *(delete_a_row, double_a_row, change_a_letter, flip_a_bit_of_a_vector),
    *(make_a_number_a_text, change_a_metadata_type, lose_a_metadata_key, make_a_null_missing),
    *(make_a_null_an_empty_text, redirect_a_relationship, swap_two_vectors, remove_a_header),
)
OF_FILES: tuple[Damage, ...] = (
    *(flip_a_byte_of_a_data_file, flip_a_byte_of_a_text_in_a_data_file, remove_a_blob_file),
)


# what is found


def differences(job: Job) -> list[Row]:
    """Read every difference of the last verification; an id may hold U+2028, which ends no line."""
    path = job.report()["differences_file"]
    return [json.loads(line) for line in Path(path).read_text().split("\n") if line] if path else []


def named(job: Job) -> list[Named]:
    """Give what the last verification named, in order."""
    return sorted((row["id"], row["side"], sorted(row["fields"])) for row in differences(job))


def documents(target: str) -> set[tuple[str, str, str]]:
    """Give every value of every document: its uuid, its column, what it is.

    The text of a float tells -0.0 from 0.0, and every float32 from the next.
    """
    scanner = lance.dataset(target).scanner(
        filter="record_type = 'document'", blob_handling="all_binary"
    )
    rows = scanner.to_table().to_pylist()
    assert len(rows) == len({row["uuid"] for row in rows})
    return {(row["uuid"], name, repr(value)) for row in rows for name, value in row.items()}


def check_repaired(job: Job, finished: Job) -> None:
    """Compare every row of a target with what it was, all columns of it."""
    assert "repaired: " in " ".join(job.report()["notes"])
    differing = documents(job.target) ^ documents(finished.target)
    assert sorted((uuid, name, value[:200]) for uuid, name, value in differing) == []
    assert runs.headers(job.target) == runs.headers(finished.target)


def check_found_and_repaired_together(
    cfray: Runner, finished: Job, job: Job, **settings: str
) -> dict[Damage, str]:
    """Damage many rows of a copy at once; one command must name all of them and put them right.

    Returns:
        the damages that were not done, and why.
    """
    target = Target(job.target)
    rows: list[Named] = []
    left_out: dict[Damage, str] = {}
    for damage in OF_ROWS:
        try:
            rows += damage(target).rows
        except NothingToDamage as reason:
            left_out[damage] = str(reason)
    ended = cfray.run("verify", job.path, *AGAINST_SOURCE, "--repair", **settings)
    ended.ended_with(finished.report()["exit_code"])
    assert named(job) == sorted(rows)
    check_repaired(job, finished)
    return left_out


def check_found_and_repaired_alone(
    cfray: Runner, finished: Job, job: Job, damage: Damage, **settings: str
) -> None:
    """Do one damage to a copy: it must be named with exit code 4, and be put right.

    Raises:
        NothingToDamage: the target has nothing that it could be done to.
    """
    found = damage(Target(job.target))
    ended = cfray.run("verify", job.path, *AGAINST_SOURCE, **settings).ended_with(4)
    details = " ".join(
        check["detail"] for check in ended.document()["checks"] if check["status"] == "fail"
    )
    for name in found.files:
        assert name in details
    if found.rows:
        assert named(job) == sorted(found.rows)
    for name, _, fields in found.rows:
        assert repr(name) in details
        assert all(changed in details for changed in fields)
    ended = cfray.run("verify", job.path, *AGAINST_SOURCE, "--repair", **settings)
    ended.ended_with(finished.report()["exit_code"])
    check_repaired(job, finished)
