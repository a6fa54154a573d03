"""The search for duplicates on the workers finds what a plain loop over all rows finds.

It does so whatever dies meanwhile, and leaves no file behind.
"""

from __future__ import annotations

import os
import signal
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfray.conversion import chunk_frames
from cfray.copying import identities
from cfray.copying.duplicates import find_duplicates
from cfray.copying.identities import SearchLimits
from cfray.errors import TargetError
from cfray.frames.schema import RELATIONSHIP
from cfray.job.mapping import SourceShape
from cfray.runtime.filesystems import open_filesystem, storage_options
from cfray.sources.base import Shard
from cfray.target.commit import Target
from cfray.target.ledger import LEDGER_KEY, Entry, EntryKind, Ledger
from cfray.target.state import Plan, State

#: No target is small, and a few rows fill a bucket and a file.
TINY = SearchLimits(driver_rows=-1, bucket_rows=5, file_items=3)
SCHEMA = pa.schema(
    [
        pa.field("number", pa.int64()),
        pa.field("uuid", pa.string(), nullable=False),
        pa.field("relationships", pa.list_(RELATIONSHIP)),
        chunk_frames.FIELD,
    ]
)
SHAPE = SourceShape("files", "file:///x", 4, fixed=False, types={}, vectors={}, id_tag="i")

#: Eight uuids, two pairs of them alike in 64 bits, and texts that other writers may have written.
UUIDS = [str(uuid.UUID(int=number << 60)) for number in range(1, 7)] + [
    str(uuid.UUID(int=(1 << 60) + 1)),
    str(uuid.UUID(int=(255 << 120) + 5)),
]
ROW_UUIDS = st.sampled_from([*UUIDS, UUIDS[-1].upper(), "not a uuid", ""])
REFERENCES = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["parent", "reference", "member_of"]),
        "id": st.sampled_from([*UUIDS, UUIDS[-1].upper(), "x" * 36, "é" * 36, "not a uuid", None]),
    }
)
ROWS = st.fixed_dictionaries(
    {
        "uuid": ROW_UUIDS,
        "relationships": st.none() | st.lists(REFERENCES, max_size=3),
        chunk_frames.FIELD.name: st.sampled_from([None, None, None, UUIDS[0]]),
        "deleted": st.sampled_from([False] * 5 + [True]),
    }
)
#: A part of the dataset: who committed it, and its rows.
PARTS = st.tuples(
    st.sampled_from(["shard", "shard", "replay", "foreign"]), st.lists(ROWS, min_size=1)
)


@dataclass(frozen=True)
class Corpus:
    """A dataset, and the rows in it with their row ids and what orders them."""

    target: Target
    plan: Plan
    rows: list[dict[str, Any]]


def write(uri: str, parts: list[tuple[str, list[dict[str, Any]]]], epoch: int = 1) -> Corpus:
    """Write the parts as one fragment each; shards are committed in the reverse of their order."""
    create(SCHEMA.empty_table(), uri)
    shard_number = sum(writer == "shard" for writer, _ in parts)
    shards = [Shard(f"shard {number}", {}) for number in range(shard_number)]
    entries: dict[str, Entry] = {}
    rows: list[dict[str, Any]] = []
    for writer, part in parts:
        start = len(rows)
        if writer == "shard":
            shard_number -= 1
            name, order = str(shard_number), shard_number
            entries[name] = Entry(EntryKind.SHARD, start, len(part), "n")
        elif writer == "replay":
            name, order = f"replay-{start}", len(shards)
            entries[name] = Entry(EntryKind.REPLAY, start, len(part), "n")
        else:
            name, order = "", len(shards)
        label = f"shard {name}" if writer == "shard" else name
        rows += [
            {
                **row,
                "number": start + frame,
                "order": (order, start + frame),
                "position": f"{label}, frame {frame}" if label else f"row id {start + frame}",
            }
            for frame, row in enumerate(part)
        ]
        append(rows[start:], uri)
    deleted = [str(row["number"]) for row in rows if row["deleted"]]
    dataset = lance.dataset(uri, storage_options=storage_options(uri))
    if deleted:
        dataset.delete(f"number IN ({','.join(deleted)})")
    ledger = Ledger(epoch, 1, len(rows), ("f",), entries)
    dataset.update_schema_metadata({LEDGER_KEY: ledger.to_json()}, replace=False)
    plan = Plan(shards, SHAPE, "files", len(rows), exact=True, size=0)
    return Corpus(Target(uri, epoch), plan, [row for row in rows if not row["deleted"]])


def create(table: pa.Table, uri: str) -> None:
    lance.write_dataset(
        table,
        uri,
        enable_stable_row_ids=True,
        data_storage_version="2.2",
        storage_options=storage_options(uri),
    )


def append(rows: list[dict[str, Any]], uri: str) -> None:
    columns = [{name: row[name] for name in SCHEMA.names} for row in rows]
    table = pa.Table.from_pylist(columns, schema=SCHEMA)
    lance.write_dataset(table, uri, mode="append", storage_options=storage_options(uri))


def plain_search(rows: list[dict[str, Any]]) -> tuple[dict[int, str], int]:
    """Find duplicates and dangling references with one loop over all rows."""
    documents = sorted(
        (row for row in rows if row[chunk_frames.FIELD.name] is None), key=lambda row: row["order"]
    )
    first: dict[str, dict[str, Any]] = {}
    duplicates: dict[int, str] = {}
    for row in documents:
        if first.setdefault(row["uuid"], row) is not row:
            position = first[row["uuid"]]["position"]
            duplicates[row["number"]] = f"same identity as the record at {position}"
    references = [item for row in rows for item in row["relationships"] or []]
    dangling = sum(
        item["type"] != "member_of"
        and item["id"] is not None
        and len(item["id"]) == 36
        and item["id"] not in first
        for item in references
    )
    return duplicates, dangling


def scratch_files(target: Target) -> list[str]:
    system, path = open_filesystem(State(target.uri).scratch.uri)
    selector = pafs.FileSelector(path, allow_not_found=True, recursive=True)
    return [info.path for info in system.get_file_info(selector)]


def check(corpus: Corpus, limits: SearchLimits, *, references: bool = True) -> None:
    """Search, and compare with the plain loop."""
    found = find_duplicates(corpus.target, corpus.plan, references=references, limits=limits)
    duplicates, dangling = plain_search(corpus.rows)
    assert found.duplicates == duplicates
    assert list(found.duplicates) == sorted(duplicates)
    assert found.dangling == (dangling if references else 0)
    assert scratch_files(corpus.target) == []


@settings(max_examples=30)
@given(st.lists(PARTS, max_size=6), st.booleans())
def test_workers_find_what_a_plain_loop_finds(shared_ray, tmp_path_factory, parts, references):
    shared_ray.join()
    corpus = write(str(tmp_path_factory.mktemp("corpus") / "t.lance"), parts)
    check(corpus, TINY, references=references)


@given(st.lists(PARTS, max_size=6), st.booleans())
def test_the_driver_alone_finds_what_a_plain_loop_finds(tmp_path_factory, parts, references):
    corpus = write(str(tmp_path_factory.mktemp("corpus") / "t.lance"), parts)
    check(corpus, SearchLimits(), references=references)


def a_row(number: int, *references: int) -> dict[str, Any]:
    relationships = [{"type": "parent", "id": str(uuid.UUID(int=to))} for to in references]
    return {
        "uuid": str(uuid.UUID(int=number)),
        "relationships": relationships,
        chunk_frames.FIELD.name: None,
        "deleted": False,
    }


#: Four shards of twelve rows; numbers 7, 14 and so on stand twice, and 100 nowhere.
SOME_PARTS = [
    ("shard", [a_row(number % 42, number // 2, 100) for number in range(start, start + 12)])
    for start in range(0, 48, 12)
]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write(str(tmp_path / "t.lance"), SOME_PARTS)


@dataclass(frozen=True)
class KilledOnce:
    """Work whose first worker is killed, before it does anything or when all its files are there."""

    work: Any
    marks: Path
    when: str

    def __call__(self, item: Any) -> Any:
        result = self.work(item) if self.when == "after its files" else None
        try:
            (self.marks / type(self.work).__name__).touch(exist_ok=False)
        except FileExistsError:
            return result or self.work(item)
        os.kill(os.getpid(), signal.SIGKILL)
        return None


@pytest.mark.parametrize("when", ["before its files", "after its files"])
def test_a_worker_killed_in_each_step_changes_nothing(
    shared_ray, monkeypatch, corpus, tmp_path_factory, when
):
    shared_ray.join()
    run_tasks, marks = identities.run_tasks, tmp_path_factory.mktemp("marks")
    monkeypatch.setattr(
        identities,
        "run_tasks",
        lambda work, items, options: run_tasks(KilledOnce(work, marks, when), items, options),
    )
    check(corpus, TINY)
    assert sorted(path.name for path in marks.iterdir()) == ["Scatter", "SearchBucket"]


@dataclass(frozen=True)
class FilesRemoved:
    """Work that finds the files of the first step gone, as when another run removed them."""

    work: Any

    def __call__(self, item: Any) -> Any:
        if isinstance(self.work, identities.SearchBucket):
            for name in self.work.folder.list_names():
                self.work.folder.remove(name)
        return self.work(item)


def test_files_that_are_gone_end_the_search_with_an_error_and_leave_nothing(
    shared_ray, monkeypatch, corpus
):
    shared_ray.join()
    run_tasks = identities.run_tasks
    monkeypatch.setattr(
        identities,
        "run_tasks",
        lambda work, items, options: run_tasks(FilesRemoved(work), items, options),
    )
    with pytest.raises(TargetError, match="could not read"):
        find_duplicates(corpus.target, corpus.plan, references=True, limits=TINY)
    assert scratch_files(corpus.target) == []


def test_what_a_killed_run_left_goes_and_what_a_later_run_needs_stays(shared_ray, tmp_path):
    shared_ray.join()
    corpus = write(str(tmp_path / "t.lance"), SOME_PARTS, epoch=5)
    scratch = State(corpus.target.uri).scratch
    for name in ("identities-4", "identities-6", "starts-4"):
        scratch.child(name).publish("file", b"x")
    find_duplicates(corpus.target, corpus.plan, references=True, limits=TINY)
    assert [scratch.child(f"{name}").exists() for name in ("identities-4", "identities-5")] == [
        False
    ] * 2
    assert [scratch.child(f"{name}").exists() for name in ("identities-6", "starts-4")] == [
        True
    ] * 2


def test_a_small_target_is_searched_without_a_task(monkeypatch, corpus):
    def refuse(*_):
        raise AssertionError("a task was started")

    monkeypatch.setattr(identities, "run_tasks", refuse)
    check(corpus, SearchLimits())


def test_a_target_on_an_object_store_is_searched_and_left_clean(monkeypatch, s3_place):
    # in this process: the workers of the shared Ray do not know the store
    monkeypatch.setattr(identities, "run_tasks", lambda work, items, options: map(work, items))
    monkeypatch.setattr(identities, "cores", lambda: 2)
    check(write(f"{s3_place}/t.lance", SOME_PARTS), TINY)
