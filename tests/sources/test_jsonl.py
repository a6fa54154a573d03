"""A JSON Lines source reads each line as a record or a reject, in exactly one shard.

A reject carries the bytes of its line and their offset, and no value is rounded.
"""

import gzip
import json
import math
import os
import pickle

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfray.errors import SourceError
from cfray.formats.lines import HEAD, record_limit
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.files.jsonl import JsonLines
from tests.sources.contract import FileContract
from tests.sources.corpus import as_json

CONTEXT = Context(batch_bytes=300)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
)
OBJECTS = st.dictionaries(
    st.text(max_size=3),
    st.one_of(
        SCALARS,
        st.lists(SCALARS, max_size=4),
        st.lists(st.floats(width=32), min_size=1, max_size=5),
    ),
    max_size=4,
)


def value_of(entry):
    """Convert a variant to the JSON value that it was read from."""
    if entry["text"] is None:
        return (
            [int(x) for x in entry["numbers"]]
            if entry["type"] == "list<int64>"
            else entry["numbers"]
        )
    return entry["text"] if entry["type"] == "string" else json.loads(entry["text"])


def rows_of(batch):
    return [{k: value_of(v) for k, v in row.items() if v is not None} for row in batch.to_pylist()]


def read(source, context=CONTEXT):
    """Read all shards; return their rows and their rejects."""
    rows, rejects = [], []
    for shard in source.shards(context):
        for item in source.read(shard, context):
            rejects.append(item) if isinstance(item, Reject) else rows.extend(rows_of(item))
    return rows, rejects


def write_source(path, *texts):
    path.write_bytes(b"".join(text if isinstance(text, bytes) else text.encode() for text in texts))
    return JsonLines(uri=str(path), shard_bytes=100)


class TestJsonLines:
    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(OBJECTS, max_size=25),
        st.integers(1, 200),
        st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\r\n"]),
        st.sampled_from([("", ""), ("\ufeff", "\n"), ("\n", "\r\n")]),
    )
    def test_what_was_written_comes_out_once_and_in_order(
        self, tmp_path_factory, objects, shard_bytes, separator, margins
    ):
        path = tmp_path_factory.mktemp("x") / "a.jsonl"
        text = margins[0] + separator.join(json.dumps(item) for item in objects) + margins[1]
        path.write_text(text, "utf8", newline="")
        rows, rejects = read(JsonLines(uri=str(path), shard_bytes=shard_bytes))
        assert repr([sorted(row.items()) for row in rows]) == repr(
            [sorted(item.items()) for item in objects]
        )
        assert rejects == []

    def test_plans_and_reads_the_same_twice(self, tmp_path):
        source = write_source(
            tmp_path / "a.jsonl",
            *[json.dumps({"id": i, "text": "x" * (i % 40)}) + "\n" for i in range(200)],
            "broken\n",
        )
        shards = source.shards(CONTEXT)
        assert len(shards) > 20
        assert source.shards(CONTEXT) == shards
        assert len({shard.id for shard in shards}) == len(shards)
        for shard in shards:
            first, second = (list(source.read(shard, CONTEXT)) for _ in range(2))
            assert first == second

    def test_source_and_shards_travel_to_workers(self, tmp_path):
        source = write_source(tmp_path / "a.jsonl", '{"a":1}\n' * 50)
        shards = source.shards(CONTEXT)
        assert pickle.loads(pickle.dumps((source, shards))) == (source, shards)
        assert json.loads(json.dumps(dict(shards[0].where))) == shards[0].where

    def test_each_bad_line_becomes_a_reject_with_its_bytes_and_position(self, tmp_path):
        reasons = {
            b'{"a": "\xff"}': "invalid UTF-8 at its byte 7",
            b"hello": "not JSON",
            b"[1, 2]": "no object",
            b"null": "no object",
            b'{"key": 1, "b": 2, "key": 1}': "duplicate key 'key'",
            b'{"a": {"k": 1, "k" : 2}}': "duplicate key 'k'",
            b'{"a": 1e400}': "1e400 is beyond float64",
            b'{"a": "\\ud800"}': "lone surrogate",
            b'{"a": 1, "text": "cut in the mid': "not JSON",
        }
        source = write_source(tmp_path / "a.jsonl", b'{"ok":1}\n' + b'\n{"ok":2}\n'.join(reasons))
        rows, rejects = read(source)
        assert rows == [{"ok": 1}] + [{"ok": 2}] * (len(reasons) - 1)
        assert [reject.content for reject in rejects] == list(reasons)
        data = (tmp_path / "a.jsonl").read_bytes()
        for reject, reason in zip(rejects, reasons.values(), strict=True):
            assert reason in reject.reason
            name, _, offset = reject.position.rpartition(":byte ")
            assert name == "a.jsonl"
            assert data[int(offset) :].startswith(reject.content)

    def test_numbers_keep_value_and_type(self, tmp_path):
        numbers = [
            1,
            1.0,
            -0.0,
            2**53 + 1,
            2**63,
            2**64,
            10**40,
            0.1,
            1e-320,
            1.7976931348623157e308,
        ]
        rows, rejects = read(
            write_source(
                tmp_path / "a.jsonl", *[json.dumps({"n": n, "l": [n, 0.5]}) + "\n" for n in numbers]
            )
        )
        assert repr([row["n"] for row in rows]) == repr(numbers)
        assert repr([row["l"] for row in rows]) == repr([[n, 0.5] for n in numbers])
        assert rejects == []

    def test_bare_words_are_floats(self, tmp_path):
        rows, _ = read(
            write_source(tmp_path / "a.jsonl", '{"v": [NaN, 1.0]}\n{"v": [Infinity, -Infinity]}\n')
        )
        assert math.isnan(rows[0]["v"][0])
        assert rows[1]["v"] == [math.inf, -math.inf]

    def test_a_line_over_the_limit_is_rejected_by_its_head(self, tmp_path):
        context = Context(max_record=1000)
        limit = record_limit(1000)
        fitting_line = json.dumps({"t": "x" * (limit - 100)})
        large_line = json.dumps({"t": "y" * 9_000_000})
        rows, rejects = read(
            write_source(
                tmp_path / "a.jsonl", f'{{"a":1}}\n{fitting_line}\n{large_line}\n{{"a":2}}\n'
            ),
            context,
        )
        assert [len(str(row)) for row in rows] == [8, limit - 91, 8]
        assert [reject.content for reject in rejects] == [large_line.encode()[:HEAD]]
        assert "limits.max_document" in rejects[0].reason
        assert str(len(large_line) + 1) in rejects[0].reason

    def test_a_large_line_among_small_ones_is_one_record(self, tmp_path):
        large = {"t": "x" * 10_000_000}
        rows, rejects = read(
            write_source(
                tmp_path / "a.jsonl", '{"a":1}\n' * 100, json.dumps(large), "\n", '{"a":2}\n' * 100
            ),
            Context(),
        )
        assert rows == [{"a": 1}] * 100 + [large] + [{"a": 2}] * 100
        assert rejects == []

    def test_batches_are_cut_by_bytes(self, tmp_path):
        source = write_source(
            tmp_path / "a.jsonl", *[json.dumps({"t": "x" * 100}) + "\n" for _ in range(100)]
        )
        single_shard = source.model_copy(update={"shard_bytes": 10**6})
        batches = list(
            single_shard.read(single_shard.shards(CONTEXT)[0], Context(batch_bytes=1000))
        )
        assert [batch.num_rows for batch in batches] == [10] * 10

    def test_batches_of_ever_new_keys_stay_small(self, tmp_path):
        source = write_source(tmp_path / "a.jsonl", *[f'{{"k{i}":1}}\n' for i in range(2000)])
        single_shard = source.model_copy(update={"shard_bytes": 10**6})
        batches = list(
            single_shard.read(single_shard.shards(CONTEXT)[0], Context(batch_bytes=20_000))
        )
        assert sum(batch.num_rows for batch in batches) == 2000
        assert max(batch.num_rows * batch.num_columns for batch in batches) * 16 < 3 * 20_000

    def test_empty_and_blank_files_have_no_records(self, tmp_path):
        (tmp_path / "a.jsonl").write_bytes(b"")
        (tmp_path / "b.jsonl").write_bytes(b"\n \r\n")
        (tmp_path / "c.jsonl").write_bytes(b"\xef\xbb\xbf")
        assert read(JsonLines(uri=str(tmp_path))) == ([], [])

    def test_an_object_without_keys_is_a_record(self, tmp_path):
        assert read(write_source(tmp_path / "a.jsonl", "{}\n{}\n")) == ([{}, {}], [])


class TestCompressed:
    LINES = b"".join(json.dumps({"id": i}).encode() + b"\n" for i in range(500))

    @pytest.mark.parametrize(
        ("suffix", "compress"),
        [("gz", gzip.compress), ("zst", lambda data: pa.Codec("zstd").compress(data).to_pybytes())],
    )
    def test_a_compressed_file_of_several_members_is_one_part(self, tmp_path, suffix, compress):
        source = write_source(
            tmp_path / f"a.jsonl.{suffix}", compress(self.LINES[:1000]), compress(self.LINES[1000:])
        )
        shards = source.shards(CONTEXT)
        assert [shard.splittable for shard in shards] == [False]
        rows, rejects = read(JsonLines(uri=str(tmp_path), shard_bytes=100))
        assert [row["id"] for row in rows] == list(range(500))
        assert rejects == []

    def test_a_cut_file_is_a_terminal_error(self, tmp_path):
        source = write_source(tmp_path / "a.jsonl.gz", gzip.compress(self.LINES)[:-100])
        with pytest.raises(SourceError) as caught:
            read(source)
        assert caught.value.transient is False
        assert "a.jsonl.gz" in caught.value.what

    def test_positions_count_decompressed_bytes(self, tmp_path):
        _, rejects = read(write_source(tmp_path / "a.jsonl.gz", gzip.compress(self.LINES + b"x\n")))
        assert rejects[0].position == f"a.jsonl.gz:byte {len(self.LINES)}"


class TestPins:
    def test_a_file_that_changed_since_the_plan_is_refused(self, tmp_path):
        source = write_source(tmp_path / "a.jsonl", '{"a":1}\n' * 50)
        shards = source.shards(CONTEXT)
        os.utime(tmp_path / "a.jsonl", ns=(1, 1))
        with pytest.raises(SourceError, match="changed since the plan"):
            list(source.read(shards[0], CONTEXT))


class TestContract(FileContract):
    suffix = ".jsonl"
    cannot_count = "only reading a range tells how many lines it has"
    cannot_see_a_cut = (
        "a text file may end anywhere: a cut line is a reject, not the end of the run"
    )
    expected = staticmethod(as_json)

    def write(self, path, some_rows):
        path.write_text(
            "".join(
                json.dumps(row, ensure_ascii=len(row["id"]) % 2 == 0) + "\n" for row in some_rows
            ),
            "utf8",
        )

    def source_at(self, uri, **options):
        return JsonLines(uri=str(uri), **options)
