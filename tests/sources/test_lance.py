"""A Lance source reads the fragments of the version that the plan pinned.

Whatever another writer does to the dataset meanwhile, the rows stay those of that version.
"""

import itertools

import lance
import pyarrow as pa
import pytest
from pydantic import ValidationError

from cfray.errors import SourceError
from cfray.sources.files.lance import Lance
from tests.sources.contract import SourceContract
from tests.sources.corpus import CONTEXT, CORPUS, SCHEMA, SHARD_BYTES, make_row, row_counts, rows


def table(some_rows):
    return pa.Table.from_pylist(some_rows, SCHEMA)


class TestLance(SourceContract):
    cannot_tell_missing = "a Lance dataset has a schema: an absent value is null"

    @pytest.fixture
    def seed(self, tmp_path):
        numbers = itertools.count()

        def write_dataset(some_rows):
            path = tmp_path / f"{next(numbers)}.lance"
            lance.write_dataset(table(some_rows), path, max_rows_per_file=10)
            return Lance(uri=str(path), shard_bytes=SHARD_BYTES)

        return write_dataset


@pytest.fixture
def source(tmp_path):
    lance.write_dataset(table(CORPUS), tmp_path / "a.lance", max_rows_per_file=10)
    return Lance(uri=str(tmp_path / "a.lance"), shard_bytes=SHARD_BYTES)


def append(dataset):
    lance.write_dataset(table([make_row(999)]), dataset.uri, mode="append")


def compact(dataset):
    dataset.optimize.compact_files()


@pytest.mark.parametrize(
    "change",
    [append, lambda dataset: dataset.delete("n < 30"), compact],
    ids=["append", "delete", "compact"],
)
def test_rows_of_later_versions_are_not_seen_and_rows_of_the_pinned_one_stay(source, change):
    shards = source.shards(CONTEXT)
    before = rows(source, shards)
    change(lance.dataset(source.uri))
    assert rows(source, shards) == before
    assert row_counts(before) == row_counts(rows(source.model_copy(update={"version": 1})))


def test_a_later_version_is_another_mark_unless_the_job_file_names_one(source):
    pinned = source.model_copy(update={"version": 1})
    before, of_pinned = source.marks(CONTEXT), pinned.marks(CONTEXT)
    lance.dataset(source.uri).delete("n < 3")
    assert before == of_pinned == pinned.marks(CONTEXT) == {"the dataset": "version 1"}
    assert source.marks(CONTEXT) == {"the dataset": "version 2"}


def test_deleted_rows_are_neither_read_nor_counted(source):
    lance.dataset(source.uri).delete("n % 2 = 0")
    shards = source.shards(CONTEXT)
    assert (
        sum(shard.rows for shard in shards)
        == len(rows(source, shards))
        == sum(row["n"] % 2 for row in CORPUS)
    )


def test_a_version_that_is_not_there_is_an_error_with_a_remedy(source):
    with pytest.raises(SourceError, match="version 7") as refused:
        source.model_copy(update={"version": 7}).shards(CONTEXT)
    assert "source.version" in refused.value.remedy


def test_a_version_that_was_cleaned_up_after_the_plan_is_a_terminal_error(source):
    shards = source.shards(CONTEXT)
    dataset = lance.dataset(source.uri)
    dataset.delete("n < 30")
    dataset.cleanup_old_versions(retain_versions=1, delete_unverified=True)
    with pytest.raises(SourceError, match=r"a\.lance, version 1") as refused:
        rows(source, shards)
    assert refused.value.transient is False


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: path.write_bytes(b""),
    ],
)
def test_a_data_file_that_is_gone_or_cut_is_a_terminal_error(source, tmp_path, damage):
    shards = source.shards(CONTEXT)
    for path in (tmp_path / "a.lance/data").iterdir():
        damage(path)
    with pytest.raises(SourceError, match=r"a\.lance") as refused:
        rows(source, shards)
    assert refused.value.transient is False
    assert refused.value.remedy


def test_blobs_are_read_as_their_bytes(tmp_path):
    schema = pa.schema(
        [
            ("id", pa.string()),
            pa.field("raw", pa.large_binary(), metadata={b"lance-encoding:blob": b"true"}),
        ]
    )
    table = pa.table(
        {
            "id": ["a", "b", "c"],
            "raw": pa.array([b"\x00\xff" * 1000, None, b""], pa.large_binary()),
        },
        schema=schema,
    )
    lance.write_dataset(table, tmp_path / "b.lance")
    assert [row["raw"] for row in rows(Lance(uri=str(tmp_path / "b.lance")))] == [
        b"\x00\xff" * 1000,
        None,
        b"",
    ]


def test_an_address_with_a_secret_is_refused_and_never_quoted():
    with pytest.raises(ValidationError, match="holds a credential") as refused:
        Lance(uri="s3://KEY:hush@bucket/a.lance")
    assert "hush" not in str(refused.value)
