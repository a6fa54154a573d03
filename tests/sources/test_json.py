"""A JSON source reads each element of an array as a record or a reject.

A file that is no JSON must stop the run: nobody knows which records it lacks.
"""

import gzip
import json
import math
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfray.errors import SourceError
from cfray.formats.lines import HEAD, record_limit
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.files.json import JsonFile
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
    st.text(max_size=3), st.one_of(SCALARS, st.lists(SCALARS, max_size=4)), max_size=4
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


def read(source, context=CONTEXT):
    """Read all shards; return their rows and their rejects."""
    rows, rejects = [], []
    for shard in source.shards(context):
        for item in source.read(shard, context):
            if isinstance(item, Reject):
                rejects.append(item)
            else:
                rows += [
                    {k: value_of(v) for k, v in row.items() if v is not None}
                    for row in item.to_pylist()
                ]
    return rows, rejects


def write_source(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return JsonFile(uri=str(path))


class TestJsonFile:
    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(OBJECTS, max_size=20),
        st.sampled_from([None, 2]),
        st.sampled_from(["", "\ufeff", " \n"]),
    )
    def test_what_was_written_comes_out_once_and_in_order(
        self, tmp_path_factory, objects, indent, margin
    ):
        path = tmp_path_factory.mktemp("x") / "a.json"
        rows, rejects = read(
            write_source(path, margin + json.dumps(objects, indent=indent) + "\r\n ")
        )
        assert repr([sorted(row.items()) for row in rows]) == repr(
            [sorted(item.items()) for item in objects]
        )
        assert rejects == []

    @pytest.mark.parametrize(
        "text", ['{"a": {"b": [1, 2]}, "c": "x"}', '\ufeff\n{"a": {"b": [1, 2]},\n "c": "x"}\n']
    )
    def test_a_file_of_one_object_is_one_record(self, tmp_path, text):
        assert read(write_source(tmp_path / "a.json", text)) == (
            [{"a": {"b": [1, 2]}, "c": "x"}],
            [],
        )

    def test_reads_the_same_twice_and_travels_to_workers(self, tmp_path):
        source = write_source(tmp_path / "a.json", json.dumps([{"i": i} for i in range(100)] + [7]))
        (shard,) = source.shards(CONTEXT)
        assert source.shards(CONTEXT) == [shard]
        assert shard.splittable is False
        first, second = (list(source.read(shard, CONTEXT)) for _ in range(2))
        assert first == second
        assert len(first) > 2
        assert pickle.loads(pickle.dumps((source, shard))) == (source, shard)

    def test_each_bad_element_becomes_a_reject_with_its_bytes_and_index(self, tmp_path):
        reasons = {
            b"7": "no object",
            b'"a, b"': "no object",
            b"[{}]": "source.orient: header",
            b'{"k": 1, "k": 2}': "duplicate key 'k'",
            b'{"n": 1e400}': "beyond float64",
            b'{"n": "\\ud800"}': "lone surrogate",
            b'{"n": "\xff"}': "invalid UTF-8",
        }
        rows, rejects = read(
            write_source(
                tmp_path / "a.json", b'[{"ok":1} , ' + b', {"ok":1},\n'.join(reasons) + b"]"
            )
        )
        assert rows == [{"ok": 1}] * len(reasons)
        assert [reject.content for reject in rejects] == list(reasons)
        assert [reject.position for reject in rejects] == [
            f"a.json:element {2 * i + 1}" for i in range(len(reasons))
        ]
        for reject, reason in zip(rejects, reasons.values(), strict=True):
            assert reason in reject.reason

    def test_numbers_are_exact_and_bare_words_are_floats(self, tmp_path):
        rows, _ = read(
            write_source(
                tmp_path / "a.json", '[{"n": 18446744073709551617, "v": [NaN, 0.1, -Infinity]}]'
            )
        )
        assert rows[0]["n"] == 2**64 + 1
        assert math.isnan(rows[0]["v"][0])
        assert rows[0]["v"][1:] == [0.1, -math.inf]

    @pytest.mark.parametrize("position", ["first", "last"])
    def test_an_element_over_the_limit_is_rejected_by_its_head(self, tmp_path, position):
        large = json.dumps({"t": "y" * 5 * record_limit(1000)})
        elements = [large, '{"a":1}'] if position == "first" else ['{"a":1}', large]
        rows, rejects = read(
            write_source(tmp_path / "a.json", f"[{','.join(elements)}]"), Context(max_record=1000)
        )
        assert rows == [{"a": 1}]
        assert [reject.content for reject in rejects] == [large.encode()[:HEAD]]
        assert rejects[0].position == f"a.json:element {elements.index(large)}"

    @pytest.mark.parametrize("beginning", ["", "[", '[{"a":1},'])
    def test_a_cut_element_over_the_limit_is_a_terminal_error(self, tmp_path, beginning):
        with pytest.raises(SourceError, match=r"ends before|cut or corrupt"):
            read(
                write_source(
                    tmp_path / "a.json", beginning + '{"t": "' + "y" * 2 * record_limit(1000)
                ),
                Context(max_record=1000),
            )

    def test_compressed_files_are_read(self, tmp_path):
        assert read(write_source(tmp_path / "a.json.gz", gzip.compress(b'[{"a":1}]'))) == (
            [{"a": 1}],
            [],
        )

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("  \n", "begins neither"),
            ("7", "begins neither"),
            ("null", "begins neither"),
            ('[{"a":1}', "element 0 at byte 1 is followed by no comma"),
            ('[{"a":1},', "ends before its array does, behind 1 elements"),
            ("[", "ends before its array does"),
            ('[{"a":1},{"a":', "element 1 at byte 9"),
            ('[{"a":1},]', "element 1 at byte 9 is empty"),
            ('[,{"a":1}]', "element 0 at byte 1 is empty"),
            ('[{"a":1} {"b":2}]', "element 0 at byte 1"),
            ('[{"a":1}}', "element 0 at byte 1"),
            ("[{'a':1}]", "element 0 at byte 1"),
            ('[{"a":1}] x', "goes on at byte 9"),
            ('{"a":1} x {"a":2}', "goes on at byte 7"),
            ('{"a":1}, {"a":2}', "goes on at byte 7"),
            ('{"a":1', "element 0"),
            ('[{"a":"x]', "element 0"),
        ],
    )
    def test_a_file_that_is_no_json_is_a_terminal_error(self, tmp_path, text, reason):
        with pytest.raises(SourceError) as error:
            read(write_source(tmp_path / "a.json", text))
        assert reason in error.value.what
        assert "a.json" in error.value.what
        assert "trusted" in error.value.remedy
        assert error.value.transient is False


class TestContract(FileContract):
    suffix = ".json"
    cannot_count = "only reading a file tells how many elements it has"
    cannot_split = "where an element ends is known only from the file's start"
    expected = staticmethod(as_json)

    def write(self, path, some_rows):
        path.write_text(json.dumps(some_rows, indent=len(some_rows) % 2 or None), "utf8")

    def source_at(self, uri, **options):
        return JsonFile(uri=str(uri), **options)
