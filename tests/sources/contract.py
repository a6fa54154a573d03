"""The contract of all sources, as tests that each store's test class inherits.

A subclass says how its store is filled without cfray, and why the store cannot do what a test
asks; it must not override a test to switch it off.
"""

import gzip
import json
import os
import pickle
import subprocess
import sys
from dataclasses import asdict, replace

import pyarrow as pa
import pytest

from cfray.errors import SourceError
from cfray.records.record import is_variant
from cfray.sources.base import Context, Shard
from tests.sources.corpus import (
    CONTEXT,
    CORPUS,
    INTEGERS,
    ODD_IDS,
    SHARD_BYTES,
    as_typed,
    items,
    make_row,
    plain_rows,
    row_counts,
    rows,
)


class SourceContract:
    """The contract; a subclass provides ``seed`` and ``expected``.

    ``seed`` is a fixture: a function that writes rows and returns their source, with several
    shards. ``expected`` converts a row that was written to the row that is read.
    """

    #: Why the store cannot do what a test asks; empty where it can.
    cannot_tell_null = ""
    cannot_tell_missing = ""
    cannot_count = ""
    cannot_nest = ""

    expected = staticmethod(as_typed)

    def nowhere(self, tmp_path):
        """Return options of a source with nothing to read, and the key that the remedy names."""
        return {"uri": str(tmp_path / "nowhere")}, "source.uri"

    @pytest.fixture
    def source(self, seed):
        return seed(CORPUS)

    def test_every_row_is_in_exactly_one_shard(self, source):
        assert len(source.shards(CONTEXT)) > 2
        assert row_counts(rows(source)) == row_counts(map(self.expected, CORPUS))

    def test_a_retried_shard_reads_the_same_rows_in_the_same_order(self, source):
        for shard in source.shards(CONTEXT):
            assert rows(source, [shard]) == rows(source, [shard])

    def test_planning_twice_gives_equal_shards(self, source):
        assert source.shards(CONTEXT) == source.shards(CONTEXT)

    def test_shard_ids_are_unique_and_do_not_depend_on_who_asks(self, source, tmp_path):
        names = [shard.id for shard in source.shards(CONTEXT)]
        assert len(set(names)) == len(names)
        assert [
            shard.id
            for shard in source.shards(
                Context(scratch=str(tmp_path / "elsewhere"), batch_bytes=10**6)
            )
        ] == names
        program = (
            "import pickle, sys; source, context = pickle.load(sys.stdin.buffer); "
            "print([shard.id for shard in source.shards(context)])"
        )
        environment = {**os.environ, "PYTHONHASHSEED": "7"}
        finished = subprocess.run(
            [sys.executable, "-c", program],
            input=pickle.dumps((source, CONTEXT)),
            capture_output=True,
            check=True,
            cwd=tmp_path,
            env=environment,
        )
        assert finished.stdout.decode().strip() == repr(names)

    def test_shards_claim_only_row_counts_that_are_true(self, source):
        shards = source.shards(CONTEXT)
        claims = [shard for shard in shards if shard.rows is not None]
        assert bool(claims) is not bool(self.cannot_count)
        assert [shard.rows for shard in claims] == [len(rows(source, [shard])) for shard in claims]
        description = source.describe(CONTEXT, shards)
        assert description.rows == (len(CORPUS) if description.exact else description.rows)
        assert description.exact or len(claims) < len(shards)

    def test_source_and_shards_travel_to_workers_and_into_the_plan(self, source):
        shards = source.shards(CONTEXT)
        assert pickle.loads(pickle.dumps((source, shards))) == (source, shards)
        assert [Shard(**json.loads(json.dumps(asdict(shard)))) for shard in shards] == shards

    def test_the_schema_it_describes_is_the_schema_it_reads(self, source):
        description = source.describe(CONTEXT, source.shards(CONTEXT)).schema
        batches = [item for _, item in items(source)]
        assert all(
            batch.schema == description
            if description is not None
            else any(map(is_variant, batch.schema))
            for batch in batches
        )

    def test_batches_are_bounded_in_bytes(self, seed):
        sizes = [10] * 150 + [3_000] * 8 + [10] * 150 + [20_000] + [10] * 60 + [900] * 30
        source = seed([{"id": f"u{n}", "text": "x" * size} for n, size in enumerate(sizes)])
        source = source.model_copy(update={"shard_bytes": 10**7})
        batches = [plain_rows(item) for _, item in items(source)]
        text_sizes = [
            [
                len(row["text"][1] if isinstance(row["text"], tuple) else row["text"])
                for row in batch
            ]
            for batch in batches
        ]
        assert sorted(size for batch in text_sizes for size in batch) == sorted(sizes)
        assert max(sum(batch) - max(batch) for batch in text_sizes) <= CONTEXT.batch_bytes
        assert len(batches) < len(sizes) / 2, "batches of single small rows"

    def test_an_empty_source_has_no_row_or_is_refused_with_a_remedy(self, seed):
        try:
            empty_rows, remedy = rows(seed([])), "none needed"
        except SourceError as refused:
            empty_rows, remedy = [], refused.remedy
        assert empty_rows == []
        assert remedy

    def test_a_source_of_one_row_has_one_row(self, seed):
        assert rows(seed(CORPUS[:1])) == [self.expected(CORPUS[0])]

    def test_odd_ids_come_back_to_the_letter(self, seed):
        odd_rows = [make_row(n, id=odd_id) for n, odd_id in enumerate(ODD_IDS)]
        assert row_counts(rows(seed(odd_rows))) == row_counts(map(self.expected, odd_rows))

    def test_integers_are_exact(self, seed):
        integer_rows = [make_row(n, n=value) for n, value in enumerate(INTEGERS)]
        assert row_counts({"n": row["n"]} for row in rows(seed(integer_rows))) == row_counts(
            {"n": self.expected(row)["n"]} for row in integer_rows
        )

    def test_nested_values_come_back_whole(self, seed):
        if self.cannot_nest:
            pytest.skip(self.cannot_nest)
        nested = {"by": None, "at": {"x": 2**53 + 1, "names": ["", None, "ü\n"]}}
        assert (
            rows(seed([make_row(1, meta=nested)]))[0]["meta"]
            == self.expected(make_row(1, meta=nested))["meta"]
        )

    def test_null_empty_and_the_word_null_are_told_apart(self, seed):
        if self.cannot_tell_null:
            pytest.skip(self.cannot_tell_null)
        read_rows = rows(
            seed([make_row(1, text=None), make_row(2, text=""), make_row(3, text="null")])
        )
        assert len({repr(row["text"]) for row in read_rows}) == 3

    def test_missing_is_told_from_null(self, seed):
        if self.cannot_tell_missing:
            pytest.skip(self.cannot_tell_missing)
        row_without_text = {key: value for key, value in make_row(2).items() if key != "text"}
        read_rows = rows(seed([make_row(1, text=None), row_without_text]))
        read_rows.sort(key=lambda row: repr(row["n"]))
        assert ["text" in row for row in read_rows] == [True, False]

    def test_a_location_without_data_is_an_error_with_a_remedy(self, source, tmp_path):
        update, key = self.nowhere(tmp_path)
        with pytest.raises(SourceError) as refused:
            source.model_copy(update=update).shards(CONTEXT)
        assert "nowhere" in refused.value.what
        assert key in refused.value.remedy


class FileContract(SourceContract):
    """The contract of exports in files; a subclass provides ``suffix``, ``write``, ``source_at``.

    ``write`` writes a file of rows; ``source_at`` returns the source of a location.
    """

    suffix = ""
    cannot_split = ""
    cannot_compress = ""
    cannot_see_a_cut = ""

    def write(self, path, some_rows):
        raise NotImplementedError

    def source_at(self, uri, **options):
        raise NotImplementedError

    @pytest.fixture
    def folder(self, tmp_path):
        return tmp_path / "export"

    @pytest.fixture
    def seed(self, folder):
        def write_three_files(some_rows):
            folder.mkdir()
            step = max(1, -(-len(some_rows) // 3))
            for number, start in enumerate(range(0, max(1, len(some_rows)), step)):
                self.write(folder / f"part-{number}{self.suffix}", some_rows[start : start + step])
            return self.source_at(folder, shard_bytes=SHARD_BYTES)

        return write_three_files

    def write_single_file(self, folder, some_rows=CORPUS):
        folder.mkdir(exist_ok=True)
        path = folder / f"single{self.suffix}"
        self.write(path, some_rows)
        return path, self.source_at(path, shard_bytes=SHARD_BYTES)

    def assert_refused(self, source, path, shards=None):
        """Assert that reading raises a terminal error that names the file."""
        with pytest.raises(SourceError) as error:
            rows(source, shards)
        assert error.value.transient is False
        assert path.name in error.value.what
        assert error.value.remedy

    def test_one_file_is_split_where_the_format_allows_it(self, folder):
        _, source = self.write_single_file(folder)
        shards = source.shards(CONTEXT)
        assert (len(shards) == 1) is bool(self.cannot_split)
        assert {shard.splittable for shard in shards} == {not self.cannot_split}

    def test_tiny_files_are_grouped_into_one_shard(self, folder):
        folder.mkdir()
        for number in range(6):
            self.write(folder / f"{number}{self.suffix}", [CORPUS[number]])
        source = self.source_at(folder, shard_bytes=10**6)
        assert len(source.shards(CONTEXT)) == 1
        assert rows(source) == [self.expected(row) for row in CORPUS[:6]]

    def test_an_empty_file_among_others_is_no_row(self, folder):
        _, source = self.write_single_file(folder)
        self.write(folder / f"none{self.suffix}", [])
        assert row_counts(rows(self.source_at(folder, shard_bytes=SHARD_BYTES))) == row_counts(
            rows(source)
        )

    def test_folder_glob_and_single_files_agree(self, source, folder):
        (folder / "notes.txt").write_text("not part of the export")
        rows_of_files = [
            row
            for path in sorted(folder.glob(f"*{self.suffix}"))
            for row in rows(self.source_at(path, shard_bytes=SHARD_BYTES))
        ]
        assert (
            rows(source)
            == rows(self.source_at(folder / f"*{self.suffix}", shard_bytes=SHARD_BYTES))
            == rows_of_files
        )

    @pytest.mark.parametrize(
        ("suffix", "compress"),
        [
            (".gz", gzip.compress),
            (".zst", lambda data: pa.Codec("zstd").compress(data).to_pybytes()),
        ],
    )
    def test_a_compressed_file_equals_the_plain_one_or_is_refused(self, folder, suffix, compress):
        plain_path, source = self.write_single_file(folder)
        path = folder / f"compressed{self.suffix}{suffix}"
        path.write_bytes(compress(plain_path.read_bytes()))
        compressed = self.source_at(path, shard_bytes=SHARD_BYTES)
        if self.cannot_compress:
            self.assert_refused(compressed, path)
        else:
            assert rows(compressed) == rows(source)
            path.write_bytes(path.read_bytes()[:-20])
            self.assert_refused(compressed, path)

    def test_a_file_that_changed_after_the_plan_is_a_terminal_error(self, folder):
        path, source = self.write_single_file(folder)
        shards = source.shards(CONTEXT)
        self.write(path, CORPUS[:-1])
        self.assert_refused(source, path, shards)

    def test_a_file_touched_after_the_plan_is_a_terminal_error(self, folder):
        path, source = self.write_single_file(folder)
        shards = source.shards(CONTEXT)
        os.utime(path, ns=(1, 1))
        self.assert_refused(source, path, shards)

    def test_a_file_deleted_after_the_plan_is_a_terminal_error(self, folder):
        path, source = self.write_single_file(folder)
        shards = source.shards(CONTEXT)
        path.unlink()
        self.assert_refused(source, path, shards)

    @pytest.mark.parametrize("end", [0, 3, 0.5, 0.9, -1])
    def test_a_truncated_file_is_a_terminal_error(self, folder, end):
        if self.cannot_see_a_cut:
            pytest.skip(self.cannot_see_a_cut)
        path, source = self.write_single_file(folder)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * end) if isinstance(end, float) else end])
        self.assert_refused(source, path)

    def test_bytes_of_another_format_are_a_terminal_error(self, folder):
        if self.cannot_see_a_cut:
            pytest.skip(self.cannot_see_a_cut)
        path, source = self.write_single_file(folder)
        path.write_bytes(b"\x00\x01 no such format \xff" * 500)
        self.assert_refused(source, path)

    def test_damage_behind_the_plan_is_a_terminal_error(self, folder):
        if self.cannot_see_a_cut:
            pytest.skip(self.cannot_see_a_cut)
        path, source = self.write_single_file(folder)
        shards = source.shards(CONTEXT)
        path.write_bytes(b"\xff" * path.stat().st_size)
        repinned = [_pin_again(shard, path) for shard in shards]
        self.assert_refused(source, path, repinned)


def _pin_again(shard, path):
    """Return the shard with the present time of its file, so that the pin shows no damage."""
    byte_ranges = [
        {**byte_range, "file": {**byte_range["file"], "modified": path.stat().st_mtime_ns}}
        for byte_range in shard.where["parts"]
    ]
    return replace(shard, where={"parts": byte_ranges})
