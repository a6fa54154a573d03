"""JSON files as programs and people leave them: wrappers, pages, pandas, joined and cut files.

Every record is read as its writer meant it, or becomes a reject with its bytes, or the file is
refused with a remedy.
"""

import gzip
import json

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cfray.errors import SourceError
from cfray.formats import json_structure
from cfray.formats.dialects import rank_json
from cfray.formats.json_layouts import jsonl_layout
from cfray.formats.lines import record_limit
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.files.json import JsonFile
from cfray.sources.files.jsonl import JsonLines

CONTEXT = Context(batch_bytes=300)
KINDS = {"json": JsonFile, "jsonl": JsonLines}
ROWS = [{"id": n, "t": f'a "{n}" \\ é', "v": [0.5, n]} for n in range(9)]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.text(st.sampled_from('"\\[]{},: \né')),
)
OBJECTS = st.dictionaries(
    st.text(st.sampled_from('"\\[]{},:ab'), min_size=1, max_size=4),
    st.one_of(
        SCALARS,
        st.lists(SCALARS, max_size=3),
        st.dictionaries(st.text(max_size=2), SCALARS, max_size=2),
    ),
    max_size=3,
)
SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def value_of(entry):
    if entry["text"] is None:
        numbers = entry["numbers"]
        return [int(x) for x in numbers] if entry["type"] == "list<int64>" else numbers
    return entry["text"] if entry["type"] == "string" else json.loads(entry["text"])


def read(source, context=CONTEXT):
    rows, rejects = [], []
    for shard in source.shards(context):
        for item in source.read(shard, context):
            if isinstance(item, Reject):
                rejects.append(item)
            else:
                rows += [
                    {key: value_of(value) for key, value in row.items() if value is not None}
                    for row in item.to_pylist()
                ]
    return rows, rejects


def notes(source):
    return source.describe(CONTEXT, source.shards(CONTEXT)).notes


def refusal(source):
    with pytest.raises(SourceError) as refused:
        read(source)
    assert refused.value.transient is False
    return refused.value


@pytest.fixture
def write(tmp_path):
    def write_file(kind, data, **options):
        path = tmp_path / f"a.{kind}"
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return KINDS[kind](uri=str(path), shard_bytes=40, **options)

    return write_file


def joined(separator, rows=ROWS, **options):
    return separator.join(json.dumps(row, **options) for row in rows)


class TestSeveralValues:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        "text",
        [
            joined("\n"),
            joined("\n") + "\n",
            joined("\r\n"),
            joined(""),
            joined(" "),
            joined("\ufeff"),
            joined("\n\ufeff"),
            joined("\n", indent=2),
            joined("", indent=1) + "\n",
            "\x1e" + joined("\n\x1e") + "\n",
            "\x1e" + joined("\n\x1e", indent=2) + "\n",
            joined("\n\0\0") + "\0" * 50,
            "\ufeff" + joined("\n"),
            json.dumps(ROWS),
            json.dumps(ROWS, indent=1),
            json.dumps(ROWS[:3]) + json.dumps(ROWS[3:]),
            json.dumps(ROWS[:3]) + "\n[]\n" + json.dumps(ROWS[3:]) + "\n",
        ],
    )
    def test_are_read_one_after_the_other(self, write, kind, text):
        for data in (text.encode(), gzip.compress(text.encode())):
            assert read(write(kind, data)) == (ROWS, [])

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]
    )
    def test_other_unicode_encodings_are_known(self, write, kind, encoding):
        text = (
            joined("\n", ensure_ascii=False)
            if kind == "jsonl"
            else json.dumps(ROWS, ensure_ascii=False)
        )
        for data in (text.encode(encoding), gzip.compress(text.encode(encoding))):
            assert read(write(kind, data)) == (ROWS, [])

    @SETTINGS
    @given(
        st.lists(OBJECTS, min_size=1, max_size=8),
        st.sampled_from(["", " ", "\n", "\ufeff"]),
        st.sampled_from([None, 1]),
    )
    def test_no_object_is_lost_at_a_seam(self, write, rows, separator, indent):
        assume(indent is None or all(rows))  # {} stands on one line even so
        text = joined(separator, rows, indent=indent)
        for kind in KINDS:
            read_rows, rejects = read(write(kind, text))
            assert [json.dumps(row, sort_keys=True) for row in read_rows] == [
                json.dumps(row, sort_keys=True) for row in rows
            ]
            assert rejects == []

    def test_a_seam_inside_json_lines_loses_nothing(self, write):
        source = write(
            "jsonl", '{"id":1}\n{"id":2}{"id":3}\n\ufeff{"id":4}\n{"id":5}\ufeff{"id":6}\n'
        )
        assert read(source) == ([{"id": n} for n in range(1, 7)], [])

    @pytest.mark.parametrize(
        "line",
        [
            '{"id":7}x',
            '{"id":7}{"id":8',
            '{"id":7},{"id":8}',
            '{"id":7}[1]',
            '{"a":1,"a":2}{"b":1}',
        ],
    )
    def test_a_line_that_is_not_only_objects_is_one_reject(self, write, line):
        rows, rejects = read(write("jsonl", f'{{"id":1}}\n{line}\n{{"id":2}}\n'))
        assert rows == [{"id": 1}, {"id": 2}]
        assert [reject.content for reject in rejects] == [line.encode()]

    def test_a_torn_first_line_is_a_reject_and_no_layout(self, write):
        rows, rejects = read(write("jsonl", '{"id":1,"t":"x\n{"id":2}\n{"id":3}\n'))
        assert rows == [{"id": 2}, {"id": 3}]
        assert [reject.content for reject in rejects] == [b'{"id":1,"t":"x']

    def test_a_cut_record_of_a_sequence_is_a_reject(self, write):
        rows, rejects = read(write("jsonl", '\x1e{"id":1}\n\x1e{"id":2,\n\x1e{\n"id":3}\n'))
        assert rows == [{"id": 1}, {"id": 3}]
        assert [reject.content.strip(b"\x1e\n") for reject in rejects] == [b'{"id":2,']

    def test_a_bad_value_among_pretty_ones_is_a_reject_with_its_place(self, write):
        text = '{\n"id": 1\n}\n{\n"id": 2, "id": 3\n}\n{\n\'id\': 4\n}\n{\n"id": 5\n}\n'
        rows, rejects = read(write("jsonl", text))
        assert rows == [{"id": 1}, {"id": 5}]
        for reject in rejects:
            offset = int(reject.position.removeprefix("a.jsonl:byte "))
            assert text.encode()[offset:].lstrip().startswith(reject.content)
        assert len(rejects) == 2

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_cut_value_stops_the_run_where_nothing_shows_the_next_one(self, write, kind):
        error = refusal(write(kind, '[{"id": 1},\n{"id":'))
        assert f"a.{kind}" in error.what

    def test_a_file_without_line_breaks_is_read_in_bounded_memory(self, write):
        text = joined("", [{"id": n, "t": "x" * 1000} for n in range(5000)])
        context = Context(max_record=1000)
        assert len(text) > 4 * record_limit(1000)
        rows, rejects = read(write("jsonl", text), context)
        assert len(rows) == 5000
        assert rejects == []


class TestRecordsUnderAKey:
    @pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
    @SETTINGS
    @given(rows=st.lists(OBJECTS, max_size=5), beside=OBJECTS, indent=st.sampled_from([None, 1]))
    def test_are_found_however_the_stream_is_cut(self, size, rows, beside, indent):
        text = json.dumps(
            {**beside, "wanted": {"x": beside, "rows": rows}, "z": 1}, indent=indent
        ).encode()
        blocks = [text[start : start + size] for start in range(0, len(text), size)]
        containers = json_structure.find_containers(blocks, ("wanted", "rows"))
        (container,) = containers.under_key
        assert json.loads(text[container.start : container.end]) == rows
        assert set(containers.beside) == {*beside, "wanted.x", "z"}
        assert containers.is_whole

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    def test_are_read_and_what_stands_beside_them_is_named(self, write, encoding):
        text = json.dumps({"total": 9, "response": {"q": "x", "hits": ROWS}, "next": {"a": [1]}})
        for data in (text.encode(encoding), gzip.compress(text.encode(encoding))):
            source = write("json", data, records="response.hits")
            assert read(source) == (ROWS, [])
            (note,) = [note for note in notes(source) if "beside the records" in note]
            assert "total: 9" in note
            assert 'response.q: "x"' in note
            assert "next" in note

    def test_pages_are_read_one_after_the_other(self, write):
        text = "\n".join(json.dumps({"data": [row], "next": row["id"]}) for row in ROWS)
        for kind in KINDS:
            source = write(kind, text, records="data")
            assert read(source) == (ROWS, [])
            assert any("next" in note for note in notes(source))
        pretty = "\n".join(json.dumps({"data": [row]}, indent=1) for row in ROWS)
        assert read(write("jsonl", pretty, records="data")) == (ROWS, [])

    def test_a_line_without_the_key_is_a_reject(self, write):
        text = '{"data":[{"id":1}]}\n{"x":1}\n{"data":[7]}\n{"data":{"id":2}}\n{"data":[]}\n'
        rows, rejects = read(write("jsonl", text, records="data"))
        assert rows == [{"id": 1}, {"id": 2}]
        assert [reject.content for reject in rejects] == [b'{"x":1}', b'{"data":[7]}']

    @pytest.mark.parametrize(
        ("text", "records", "what"),
        [
            ('{"data": [], "rows": []}', "items", "stand under: data, rows"),
            ('{"total": 3}', "total", "no array or object"),
            ('[{"id": 1}]', "data", "begins with no object"),
            ('{"data": [1], "data": [2]}', "data", "has the key data twice"),
            ('{"data": [{"id": 1}', "data", "cut or corrupt"),
        ],
    )
    def test_a_wrong_key_is_refused_by_name(self, write, text, records, what):
        error = refusal(write("json", text, records=records))
        assert what in error.what
        assert "a.json" in error.what

    @pytest.mark.parametrize("records", ["", ".", "a..b", "a."])
    def test_a_path_with_an_empty_key_is_refused_with_the_job_file(self, records):
        for kind in KINDS.values():
            with pytest.raises(ValidationError, match=r"response\.hits"):
                kind(uri="x.json", records=records)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("indent", [None, 1])
    def test_an_object_that_is_read_as_one_record_is_said_to_hold_records(
        self, write, kind, indent
    ):
        source = write(kind, json.dumps({"total": 9, "data": ROWS}, indent=indent))
        assert len(read(source)[0]) == 1
        assert any("source.records: data" in note for note in notes(source))
        several = write(kind, joined("\n", [{"id": 1, "parts": ROWS}] * 2))
        assert not any("source.records" in note for note in notes(several))

    def test_an_element_that_is_no_object_is_a_reject_with_its_offset(self, write):
        text = '{"data": [{"id": 1}, 7, {"id": 2, "id": 3}]}'
        rows, rejects = read(write("json", text, records="data"))
        assert rows == [{"id": 1}]
        assert [(r.content, r.position) for r in rejects] == [
            (b"7", "a.json:byte 20"),
            (b'{"id": 2, "id": 3}', "a.json:byte 23"),
        ]


class TestOrient:
    def test_what_pandas_writes(self, write):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(ROWS)
        keyed = [{"$key": str(n), **row} for n, row in enumerate(ROWS)]
        for orient, rows in {
            "records": ROWS,
            "split": ROWS,
            "columns": keyed,
            "index": keyed,
        }.items():
            source = write("json", frame.to_json(orient=orient), orient=orient)
            assert read(source) == (rows, [])
        columns = json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]})
        assert read(write("json", columns, orient="list")) == (ROWS, [])
        assert read(write("json", frame.to_json(orient="table"), records="data"))[0] == [
            {"index": n, **row} for n, row in enumerate(ROWS)
        ]
        assert read(write("json", frame.to_json(orient="records", lines=True))) == (ROWS, [])

    def test_the_index_of_split_is_named_as_not_read(self, write):
        text = json.dumps({"columns": ["id"], "index": [7, 8], "data": [[1], [2]]})
        source = write("json", text, orient="split")
        assert read(source) == ([{"id": 1}, {"id": 2}], [])
        assert any("beside the records: a.json: index" in note for note in notes(source))

    def test_names_may_be_objects_with_a_name(self, write):
        text = json.dumps(
            {"columns": [{"name": "id", "type": "int"}, {"name": "t"}], "data": [[1, "x"], [2]]}
        )
        rows, rejects = read(write("json", text, orient="split"))
        assert rows == [{"id": 1, "t": "x"}]
        assert rejects[0].content == b"[2]"

    def test_a_header_is_no_record(self, write):
        text = json.dumps([["id", "t"], [1, "x"], [2, "y"], 7])
        rows, rejects = read(write("json", text, orient="header"))
        assert rows == [{"id": 1, "t": "x"}, {"id": 2, "t": "y"}]
        assert [reject.reason for reject in rejects] == ["element is JSON, but no array"]

    def test_arrays_without_names_are_rejects_that_name_the_key(self, write):
        _, rejects = read(write("json", "[[1, 2], [3, 4]]"))
        assert all("source.orient: header" in reject.reason for reject in rejects)

    @pytest.mark.parametrize(
        ("orient", "text", "what"),
        [
            ("columns", '{"a": {"0": 1}, "b": {"1": 2}}', "different keys"),
            ("columns", '{"a": 1}', "no object of columns"),
            ("columns", "[1]", "is an array"),
            ("list", "[1]", "is an array"),
            ("list", '{"a": [1, 2], "b": [3]}', "no object of columns"),
            ("list", '{"a": 1}', "no object of columns"),
            ("index", "[1]", "is an array"),
            ("split", '{"data": [[1]]}', "under columns"),
            ("split", '{"columns": [1], "data": [[1]]}', "names under columns"),
        ],
    )
    def test_another_shape_is_refused_by_name(self, write, orient, text, what):
        error = refusal(write("json", text, orient=orient))
        assert what in error.what

    def test_a_member_that_is_no_object_is_a_reject(self, write):
        rows, rejects = read(
            write("json", '{"a": {"t": 1}, "b": 7, "c": {"$key": 1}}', orient="index")
        )
        assert rows == [{"$key": "a", "t": 1}]
        assert [reject.content for reject in rejects] == [b'"b": 7', b'"c": {"$key": 1}']


class TestValues:
    @pytest.mark.parametrize("kind", KINDS)
    def test_are_as_they_stand(self, write, kind):
        text = (
            '{"a": {"$numberLong": "5"}, "b": {"$oid": "65"}, "c": {"$date": "2024-01-01"},'
            ' "d": 1E5, "e": 123456789012345678901234567890, "f": -0.0}'
        )
        (row,), rejects = read(write(kind, text))
        assert rejects == []
        assert repr(row) == repr(json.loads(text))

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ('"\\ud800"', "lone surrogate"),
            ("1e400", "beyond float64"),
            ('{"k": 1, "k": 2}', "duplicate key 'k'"),
        ],
    )
    def test_that_cannot_be_kept_are_rejects(self, write, kind, value, reason):
        rows, rejects = read(write(kind, f'{{"id": 1}}\n{{"v": {value}}}\n{{"id": 2}}\n'))
        assert rows == [{"id": 1}, {"id": 2}]
        assert reason in rejects[0].reason
        assert [reject.content for reject in rejects] == [f'{{"v": {value}}}'.encode()]

    def test_a_zero_byte_in_a_text_is_no_json(self, write):
        text = '{"id": 1}\n{"v": "a\0b"}\n{"id": 2}\n'
        rows, rejects = read(write("jsonl", text))
        assert rows == [{"id": 1}, {"id": 2}]
        assert [reject.content for reject in rejects] == [b'{"v": "a\0b"}']
        error = refusal(write("json", text))
        assert "element 1" in error.what
        assert "kind: jsonl" in error.remedy


class TestOtherContent:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("text", "what", "remedy"),
        [
            ("<!doctype html>\n<html></html>", "an HTML page", "download"),
            ('<?xml version="1.0"?><a/>', "XML", "convert"),
            ("id,title\n1,a\n2,b\n", "look like CSV", "source.kind: csv"),
            ("id\ttitle\n1\ta\n", "look like CSV", "source.kind: csv"),
        ],
    )
    def test_is_refused_by_name(self, write, kind, text, what, remedy):
        for data in (text.encode(), gzip.compress(text.encode()), text.encode("utf-16")):
            error = refusal(write(kind, data))
            assert f"a.{kind}" in error.what
            assert what in error.what
            assert remedy in error.remedy

    @pytest.mark.parametrize("text", ["", "\n \r\n", "\ufeff"])
    def test_an_empty_json_file_is_refused_by_name(self, write, text):
        error = refusal(write("json", text))
        assert "a.json" in error.what
        assert "empty" in error.what

    def test_an_empty_file_among_others_is_no_record(self, write, tmp_path):
        write("json", '[{"id": 1}]')
        (tmp_path / "b.json").write_bytes(b"")
        source = JsonFile(uri=str(tmp_path))
        assert read(source) == ([{"id": 1}], [])
        assert any("b.json" in note for note in notes(source))

    def test_top_level_scalars_are_refused_or_rejects(self, write):
        assert "neither with an array" in refusal(write("json", "1\n2\n")).what
        rows, rejects = read(write("jsonl", '1\n"x"\nnull\n'))
        assert (rows, len(rejects)) == ([], 3)


class TestRank:
    @pytest.mark.parametrize(
        ("text", "source"),
        [
            (joined("\n"), {"kind": "jsonl"}),
            (joined(""), {"kind": "jsonl"}),
            (joined("\n", indent=1), {"kind": "jsonl"}),
            (json.dumps(ROWS), {"kind": "json"}),
            (json.dumps({"total": 1, "data": ROWS}), {"kind": "json", "records": "data"}),
            (
                json.dumps({"hits": {"n": 1, "hits": ROWS}}),
                {"kind": "json", "records": "hits.hits"},
            ),
            (json.dumps({"columns": ["a"], "data": [[1]]}), {"kind": "json", "orient": "split"}),
            (
                json.dumps({"a": {"0": 1, "1": 2}, "b": {"0": 3, "1": 4}}),
                {"kind": "json", "orient": "columns"},
            ),
            (json.dumps({"d1": {"t": 1}, "d2": {"t": 2}}), {"kind": "json", "orient": "index"}),
            (json.dumps([["id", "t"], [1, "x"]]), {"kind": "json", "orient": "header"}),
            (json.dumps({"a": [1, 2], "b": ["x", "y"]}), {"kind": "json", "orient": "list"}),
            (json.dumps({"id": 1, "t": "x"}), {"kind": "json"}),
            ('{"id":1,"t":"x\n{"id":2}\n{"id":3}\n', {"kind": "jsonl"}),
        ],
    )
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le"])
    def test_the_first_reads_the_records(self, text, source, encoding):
        assert rank_json(text.encode(encoding))[0].source == source

    @pytest.mark.parametrize("text", ["", "7", "null", "id,t\n1,2\n", "[1, 2]", "<html>", "{x"])
    def test_other_texts_have_none(self, text):
        assert rank_json(text.encode()) == []

    @given(st.integers(20, 400))
    def test_a_head_that_is_cut_tells_as_much(self, size):
        text = json.dumps({"total": 1, "data": ROWS}).encode()
        ranked = rank_json(text[:size])
        assert not ranked or size < 40 or ranked[0].source == {"kind": "json", "records": "data"}

    @pytest.mark.parametrize(
        ("text", "layout"),
        [
            ('{"a":1}\n{"a":2}', "lines"),
            ('{"a":1}', "lines"),
            ('{"a":1}{"a":2}\n{"a":3}\n', "lines"),
            ('{"a":1}{"a":2}', "values"),
            ('{\n"a":1}\n', "values"),
            ('[{"a":1}]', "values"),
            ("[1]\n[2]\n", "lines"),
            ('\x1e{"a":1}\n', "sequence"),
            ("", "lines"),
            ("x", "lines"),
        ],
    )
    def test_the_layout_of_lines_is_told_by_the_head(self, text, layout):
        assert jsonl_layout(text.encode()) == layout
