"""CSV files as programs and people leave them: Excel, Spark, pandas, PostgreSQL, downloads.

Every row is read as its writer meant it, or becomes a reject with its bytes, or the file is
refused with a remedy.
"""

import csv
import gzip
import io

import pyarrow as pa
import pytest
from pydantic import ValidationError

from cfray.errors import SourceError
from cfray.formats.dialects import rank_dialects
from cfray.job.file import read_job
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.files.csv import Csv

CONTEXT = Context(batch_bytes=300)


def items(source):
    return [item for shard in source.shards(CONTEXT) for item in source.read(shard, CONTEXT)]


def rows(source):
    return [
        row for item in items(source) if not isinstance(item, Reject) for row in item.to_pylist()
    ]


def rejects(source):
    return [item for item in items(source) if isinstance(item, Reject)]


def notes(source):
    return source.describe(CONTEXT, source.shards(CONTEXT)).notes


def refusal(source):
    with pytest.raises(SourceError) as refused:
        items(source)
    assert refused.value.transient is False
    return refused.value


@pytest.fixture
def write(tmp_path):
    def write_file(data, name="a.csv", **options):
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return Csv(**{"uri": str(tmp_path), "shard_bytes": 30, **options})

    return write_file


class TestTornQuotes:
    @pytest.mark.parametrize("shard_bytes", [10, 10_000])
    @pytest.mark.parametrize("newlines_in_values", [True, False])
    @pytest.mark.parametrize(
        "row",
        [
            b'2,"abc"def',
            b'2,"a" "b"',
            b'"2"x,y',
            b'2,""x',
            b'2,"a""b"c',
            b'2,"a" ',
            b'2,"a"b"c"',
            b'2,"say \\"x\\""',
        ],
    )
    def test_text_behind_a_closing_quote_sends_the_row_to_quarantine(
        self, write, row, shard_bytes, newlines_in_values
    ):
        source = write(
            b"a,b\n1,x\n" + row + b"\n3,y\n",
            shard_bytes=shard_bytes,
            newlines_in_values=newlines_in_values,
        )
        assert [list(item.values()) for item in rows(source)] == [["1", "x"], ["3", "y"]]
        (reject,) = rejects(source)
        assert (reject.content, reject.position) == (row, "a.csv:byte 8")
        assert "text follows a closing quote" in reject.reason

    def test_a_reason_names_the_key_that_helps(self, write):
        backslash, plain = rejects(write('a,b\n1,"say \\"x\\""\n2,"Title" is\n'))
        assert r'source.escape: "\\"' in backslash.reason
        assert "source.quote: none" in plain.reason

    def test_a_row_that_swallowed_others_keeps_their_bytes(self, write):
        data = b'a\tb\n1\t"An open quote\n2\tx\n3\t"Quoted" start\n4\ty\n'
        source = write(data, delimiter="\t")
        assert [list(item.values()) for item in rows(source)] == [["4", "y"]]
        (reject,) = rejects(source)
        assert reject.content == b'1\t"An open quote\n2\tx\n3\t"Quoted" start'

    def test_rows_are_named_in_a_large_run(self, write):
        lines = [b'%d,"x"y' % i if i % 997 == 5 else b'%d,"x"' % i for i in range(20_000)]
        source = write(b"a,b\n" + b"\n".join(lines), shard_bytes=10**9)
        found = [
            item for shard in source.shards(Context()) for item in source.read(shard, Context())
        ]
        torn = [item.content for item in found if isinstance(item, Reject)]
        assert torn == [line for i, line in enumerate(lines) if i % 997 == 5]
        assert sum(item.num_rows for item in found if not isinstance(item, Reject)) == 20_000 - 21


class TestHeaders:
    def test_a_column_without_a_name_gets_one_of_its_own_and_is_stated(self, write):
        source = write(",id,column_1, \n0,a,b,c\n")
        assert rows(source) == [{"column_1_": "0", "id": "a", "column_1": "b", "column_4": "c"}]
        assert any(
            "column 1 has no name" in note and "'column_1_'" in note for note in notes(source)
        )
        assert any("column 4 has no name" in note for note in notes(source))

    def test_what_pandas_writes_with_its_index(self, write):
        pandas = pytest.importorskip("pandas")
        text = pandas.DataFrame({"id": ["a", "b"], "n": [1, 2]}).to_csv()
        assert rows(write(text)) == [
            {"column_1": "0", "id": "a", "n": "1"},
            {"column_1": "1", "id": "b", "n": "2"},
        ]

    def test_a_repeated_name_keeps_both_columns_and_is_stated(self, write):
        source = write("id,score,score,score#1\n1,2,3,4\n")
        assert rows(source) == [{"id": "1", "score#2": "2", "score#3": "3", "score#1": "4"}]
        assert any("'score' 2 times" in note for note in notes(source))

    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    def test_the_header_of_a_joined_file_is_no_row(self, write, mark):
        source = write(f'{mark}id,"t"\r\n1,id\r\n{mark}id,"t"\r\n2,"x id,"\r\nid,t\r\nid,"t"')
        assert rows(source) == [
            {"id": "1", "t": "id"},
            {"id": "2", "t": "x id,"},
            {"id": "id", "t": "t"},
        ]
        assert [item.reason for item in rejects(source)] == [
            "row: the row repeats the header; the file was joined from several"
        ] * 2

    def test_a_row_of_one_column_may_be_called_like_it(self, write):
        assert rows(write("t\nx\nt\n")) == [{"t": "x"}, {"t": "t"}]

    def test_a_file_without_a_header_has_the_names_of_the_job_file(self, write):
        source = write("\ufeff0,a\r\n1,b\r\n", columns=["id", "t"], types={"id": "int64"})
        assert rows(source) == [{"id": 0, "t": "a"}, {"id": 1, "t": "b"}]
        assert source.describe(CONTEXT, source.shards(CONTEXT)).rows == 2

    def test_a_header_that_the_job_file_repeats_is_no_row(self, write):
        error = refusal(write("id,t\n0,a\n", columns=["id", "t"]))
        assert "the file has a header" in error.what
        assert "remove source.columns" in error.remedy

    def test_names_that_no_row_has_are_refused(self, write):
        error = refusal(write("0,a,x\n1,b,y\n", columns=["id", "t"]))
        assert "2 names, but the first row of a.csv has 3 fields" in error.what

    def test_a_short_first_row_is_a_reject_where_others_fit(self, write):
        source = write("0\n1,b\n", columns=["id", "t"])
        assert rows(source) == [{"id": "1", "t": "b"}]
        assert rejects(source)[0].reason == "row: 1 fields, but source.columns has 2"

    def test_a_header_of_one_endless_name_is_refused(self, write):
        assert "header of a.csv cannot be read" in refusal(write("x" * 200_000 + "\n1\n")).what

    def test_files_without_a_header_are_refused_with_a_remedy(self, write):
        write("1,a\n", "a.csv")
        assert "source.columns" in refusal(write("2,b\n", "b.csv")).remedy


class TestExcel:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
    @pytest.mark.parametrize("line_end", ["\r\n", "\n", "\r"])
    @pytest.mark.parametrize("beginning", ["sep=;", "SEP=;", '"sep=;"', "sep=; "])
    def test_the_first_line_names_the_delimiter(self, write, encoding, line_end, beginning):
        lines = [beginning, "id;title;price", '1;"x; y\r\nz";1,50', "2;ü;-2,25", ""]
        mark = "\ufeff" if encoding == "utf-16-be" else ""
        source = write(
            (mark + line_end.join(lines)).encode(encoding), types={"price": "double"}, decimal=","
        )
        assert rows(source) == [
            {"id": "1", "title": "x; y\r\nz", "price": 1.5},
            {"id": "2", "title": "ü", "price": -2.25},
        ]
        assert rejects(source) == []
        assert any("sep=;" in note for note in notes(source))

    def test_another_delimiter_in_the_job_file_is_refused(self, write):
        error = refusal(write("sep=;\na;b\n1;2\n", delimiter="|"))
        assert "sep=;" in error.what
        assert "'|'" in error.what

    def test_the_line_without_a_header_behind_it(self, write):
        source = write("sep=\t\n1\tx\n", columns=["id", "t"])
        assert rows(source) == [{"id": "1", "t": "x"}]

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
    def test_a_marked_encoding_needs_no_key(self, write, encoding):
        source = write("id,t\n1,ä\n2,€\n".encode(encoding))
        assert rows(source) == [{"id": "1", "t": "ä"}, {"id": "2", "t": "€"}]
        assert any(encoding in note for note in notes(source))

    def test_utf_16_without_a_mark_is_refused_by_name(self, write):
        error = refusal(write("id,t\n1,a\n".encode("utf-16-le")))
        assert "zero bytes" in error.what
        assert "utf-16-le" in error.remedy
        assert rows(write("id,t\n1,a\n".encode("utf-16-le"), encoding="utf-16-le")) == [
            {"id": "1", "t": "a"}
        ]

    @pytest.mark.parametrize(
        ("text", "type_name", "value"),
        [
            ("1,5", "double", 1.5),
            ("-0,25", "float", -0.25),
            ("1e3", "double", 1000.0),
            ("7", "double", 7.0),
        ],
    )
    def test_decimal_commas_are_read_in_typed_columns(self, write, text, type_name, value):
        source = write(f"id;p\n1;{text}\n", delimiter=";", decimal=",", types={"p": type_name})
        assert rows(source) == [{"id": "1", "p": value}]

    @pytest.mark.parametrize("text", ["1.234,5", "1.5", "1,2,3", "x"])
    def test_a_number_with_another_decimal_is_a_reject(self, write, text):
        source = write(f"id;p\n1;{text}\n", delimiter=";", decimal=",", types={"p": "double"})
        assert rows(source) == []
        assert repr(text) in rejects(source)[0].reason

    def test_a_decimal_comma_is_text_where_nothing_is_declared(self, write):
        assert rows(write("id;p\n1;1,50\n", delimiter=";", decimal=",")) == [
            {"id": "1", "p": "1,50"}
        ]


class TestEscapes:
    def test_what_spark_writes(self, write):
        source = write(
            'id,t\n1,"The \\"best\\" of \\\\ it, C:\\new"\n2,C:\\new\\\\server\n3,"ends\\\\"\n4,x\\\n',
            escape="\\",
        )
        assert [row["t"] for row in rows(source)] == [
            'The "best" of \\ it, C:\\new',
            "C:\\new\\\\server",
            "ends\\",
            "x\\",
        ]
        assert rejects(source) == []

    @pytest.mark.parametrize("shard_bytes", [1, 7, 10_000])
    def test_what_postgresql_writes_as_text(self, write, shard_bytes):
        data = b'1\ta\\tb\\nc\t\\N\n2\t\\\\N "x"\t\n3\tx\\\ny\tC:\\\\new\n4\t\\f\\v\\b\\0\tz\n'
        source = write(
            data,
            delimiter="\t",
            quote="none",
            escape="\\",
            null="\\N",
            columns=["id", "t", "u"],
            shard_bytes=shard_bytes,
        )
        assert [tuple(row.values()) for row in rows(source)] == [
            ("1", "a\tb\nc", None),
            ("2", '\\N "x"', ""),
            ("3", "x\ny", "C:\\new"),
            ("4", "\f\v\b\0", "z"),
        ]

    def test_a_row_with_escapes_that_does_not_fit_is_a_reject(self, write):
        mark = "\U000f0000"
        source = write(
            f"1,x\\,{mark}\n2\\,\n3,z\\\n", quote="none", escape="\\", columns=["a", "b"]
        )
        assert rows(source) == [{"a": "1", "b": f"x,{mark}"}, {"a": "3", "b": "z\n"}]
        assert [(item.content, item.reason) for item in rejects(source)] == [
            (b"2\\,", "row: 1 fields, but source.columns has 2"),
        ]

    def test_an_escaped_null_is_a_text(self, write):
        source = write(
            "\\\\N\t1\n\\N\t2\n",
            delimiter="\t",
            quote="none",
            escape="\\",
            null="\\N",
            columns=["a", "b"],
        )
        assert [row["a"] for row in rows(source)] == ["\\N", None]

    def test_an_escape_that_is_the_quote_means_doubled_quotes(self, write):
        assert rows(write('a,b\n1,"x ""y"" z"\n', escape='"')) == [{"a": "1", "b": 'x "y" z'}]

    def test_an_escape_in_another_encoding_is_no_part_of_a_character(self, write):
        # the second byte of this character is a backslash in Shift JIS
        data = 'a,b\n1,"表\\"x"\n'.encode("shift_jis")
        assert rows(write(data, encoding="shift_jis", escape="\\")) == [{"a": "1", "b": '表"x'}]

    @pytest.mark.parametrize("size", range(1, 12))
    def test_a_pair_is_not_torn_at_the_end_of_a_block(self, write, size):
        source = write('a,b\n1,"x\\"\\\\"\n2,"\\\\\\"\n"\n', escape="\\")
        context = Context(batch_bytes=size)
        found = [
            row
            for shard in source.shards(context)
            for item in source.read(shard, context)
            for row in item.to_pylist()
        ]
        assert [row["b"] for row in found] == ['x"\\', '\\"\n']


class TestNull:
    @pytest.mark.parametrize(
        ("null", "values"),
        [
            (None, ["", "", "\\N", "\\N", "NA"]),
            ("", [None, "", "\\N", "\\N", "NA"]),
            ("\\N", ["", "", None, "\\N", "NA"]),
            (["", "NA"], [None, "", "\\N", "\\N", None]),
            ('"\\N"', ["", "", None, None, "NA"]),
        ],
    )
    def test_only_the_named_text_is_null(self, write, null, values):
        source = write('a,b\n1,\n2,""\n3,\\N\n4,"\\N"\n5,NA\n', null=null)
        assert [row["b"] for row in rows(source)] == values
        description = source.describe(CONTEXT, source.shards(CONTEXT))
        assert description.blank_is_null is (null is None)

    def test_a_typed_column_takes_it_too(self, write):
        source = write("a,b\n1,\\N\n2,\n3,4\n", null="\\N", types={"b": "int64"})
        assert [row["b"] for row in rows(source)] == [None, None, 4]


class TestOtherContent:
    @pytest.mark.parametrize(
        ("data", "what", "remedy"),
        [
            ('{"id": 1}\n{"id": 2}\n', "JSON objects", "source.kind: jsonl"),
            ('[{"id": 1},\n{"id": 2}]', "a JSON array", "source.kind: json"),
            ("<!DOCTYPE html>\n<html>", "an HTML page", "download"),
            ("\n<html><head></head>", "an HTML page", "download"),
            ('<?xml version="1.0"?>\n<rows/>', "XML", "convert"),
            ("<rows>\n <row/></rows>", "XML", "convert"),
            ("", "empty", "export"),
            ("\n\r\n\n", "no line that is not blank", "first line"),
        ],
    )
    def test_is_refused_by_name(self, write, data, what, remedy):
        error = refusal(write(data))
        assert what in error.what
        assert remedy in error.remedy

    def test_an_empty_file_among_others_is_no_row(self, write):
        write("", "a.csv")
        source = write("id\n1\n", "b.csv")
        assert rows(source) == [{"id": "1"}]
        assert any("a.csv" in note for note in notes(source))

    def test_a_compressed_file_is_known_by_its_bytes(self, write):
        source = write(gzip.compress(b'id,t\n1,"x""y"\n'))
        assert rows(source) == [{"id": "1", "t": 'x"y'}]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"quote": '""'}, "one ASCII character"),
        ({"quote": "é"}, "one ASCII character"),
        ({"quote": ","}, "must be different"),
        ({"escape": ","}, "must be different"),
        ({"escape": "n"}, "no letter"),
        ({"columns": ["a", "a"]}, "'a'"),
        ({"columns": ["a", " "]}, "' '"),
        ({"null": []}, "names no text"),
        ({"decimal": ";"}, "decimal"),
    ],
)
def test_a_wrong_option_is_refused_with_the_job_file(options, reason):
    with pytest.raises(ValidationError, match=reason):
        Csv(uri="x.csv", **options)


class TestRank:
    @pytest.mark.parametrize(
        ("data", "source"),
        [
            (b"id,t\n1,a\n2,b\n", {}),
            (b"id\tt\n1\ta, b\n2\tc\n", {"delimiter": "\t"}),
            (b"id;t;p\n1;a;1,5\n2;b;2,5\n", {"delimiter": ";"}),
            (b"sep=;\nid;t\n1;a\n2;b\n", {}),
            (b'id\tt\n1\t"A" is\n2\t"open\n3\tx\n', {"delimiter": "\t", "quote": "none"}),
            (b'id,t\n1,"a \\"b\\", c"\n2,d\n', {"escape": "\\"}),
            (b"'id','t'\n'1','a, b'\n", {"quote": "'"}),
            (b"1,some text\n2,more text\n", {"columns": ["column_1", "column_2"]}),
            (b"d001,Some\nd002,More\n", {"columns": ["column_1", "column_2"]}),
            (
                b'1\ta\\tb\t\\N\n2\tc"\td\n',
                {
                    "delimiter": "\t",
                    "quote": "none",
                    "escape": "\\",
                    "null": "\\N",
                    "columns": ["column_1", "column_2", "column_3"],
                },
            ),
            ("id;ü\n1;ä\n".encode("utf-16"), {"delimiter": ";"}),
            ("id;u\n1;ä\n".encode("utf-16-le"), {"delimiter": ";", "encoding": "utf-16-le"}),
            ("id;u\n1;ä€\n".encode("cp1252"), {"delimiter": ";", "encoding": "cp1252"}),
            (b",id,t\n0,a,x\n1,b,y\n", {}),
            (b'id,t\n1,\n2,""\n', {"null": ""}),
            (b'id,t\n1,""\n2,"x"\n', {}),
            (b"id,t\n1,\n2,x\n", {}),
            (b"id\x01t\n1\x01a b\n2\x01c d\n", {"delimiter": "\x01"}),
            (b"code;t;\r\nK1;a;\r\nK2;b;\r\n", {"delimiter": ";"}),
            (b"key,,t\nk1,x,some longer text\nk2,,more text\nk3,y,and more\n", {}),
            (b"john1,,a b\njohn2,smith,c d\n", {"columns": ["column_1", "column_2", "column_3"]}),
            (b"# made today\n# by me\nid,t\n1,a\n2,b\n", {"skip_lines": 2}),
            (b"##v1\n#id\tt\n1\ta\n2\tb\n", {"skip_lines": 1, "delimiter": "\t"}),
            (b"#id\tt\n1\ta\n2\tb\n", {"delimiter": "\t"}),
            (b"id,t\n1,a\n2,b\nid,t\n3,c\nid,t\n4,d\n", {}),
            (b"id, n, t\n1, a, b c\n2, d, e f\n3, g, h i\n", {}),
            (b'id, t\n1, "a, b"\n2, "c, d, e"\n3, "f, g, h, i"\n4, "j"\n', {}),
            (b"country,1990,1991\nA,0.5,2\nB,1.5,3\nC,2.5,7\n", {}),
            (b",0,1,2\n0,0.5,2,1\n1,1.5,3,8\n2,2.5,7,9\n", {}),
            (b"7,8,9\n1,3,2\n5,2,6\n6,7,8\n", {"columns": ["column_1", "column_2", "column_3"]}),
            (b"Report of 2024\n\nid,title,t\n1,a,b\n2,c,d\n3,e,f\n4,g,h\n", {"skip_lines": 2}),
        ],
    )
    def test_the_records_agree_in_the_first(self, data, source):
        assert rank_dialects(data)[0].source == source

    @pytest.mark.parametrize("bad", ['4,"b"x,"y"', "4", "4,a,b,c"])
    def test_a_damaged_row_does_not_make_quotes_plain_characters(self, bad):
        lines = ["id,n,t", *(f'{n},"a, {n}","b, {n}"' for n in range(20)), bad]
        ranked = rank_dialects("\n".join(lines).encode())
        assert ranked[0].source == {}
        assert all(
            dialect.source.get("quote") != "none"
            for dialect in ranked
            if "delimiter" not in dialect.source
        )

    def test_a_field_longer_than_the_head_is_a_quoted_field(self):
        text = io.StringIO(newline="")
        csv.writer(text).writerows([["id", "t"], [1, 'She said "no", then\n' * 40_000]])
        assert rank_dialects(text.getvalue().encode()[: 256 * 1024])[0].source == {}

    def test_a_text_without_records_has_no_dialect(self):
        assert rank_dialects(b"") == []
        assert rank_dialects(b"\n\n") == []

    def test_a_head_that_is_cut_in_a_quoted_field_agrees(self):
        text = io.StringIO(newline="")
        csv.writer(text).writerows([["id", "t"], *[[i, "x, y\n" * 4000] for i in range(40)]])
        best = rank_dialects(text.getvalue().encode()[: 256 * 1024])[0]
        assert best.source == {}
        assert best.agreeing == best.records

    def test_every_row_of_arrow_types_survives_a_null(self, write):
        source = write("a,b\nx,\\N\n", null="\\N")
        (batch,) = items(source)
        assert batch.schema == pa.schema([("a", pa.string()), ("b", pa.string())]).with_metadata(
            batch.schema.metadata
        )


@pytest.mark.parametrize("quote", ["none", None, False])
def test_no_quote_may_be_said_as_yaml_says_it(write, quote):
    assert rows(write('a,b\n"x","y\n', quote=quote)) == [{"a": '"x"', "b": '"y'}]


def test_a_key_that_yaml_takes_for_null_is_a_word(tmp_path):
    (tmp_path / "a.csv").write_text("id,no\n1,\\N\n")
    job_file = tmp_path / "job.yaml"
    job_file.write_text(
        'name: a\nsource: {kind: csv, uri: a.csv, null: "\\\\N", types: {no: int64}}\n'
        "mapping: {id: id}\ntarget: {uri: a.lance}\n"
    )
    source = read_job(job_file).source
    assert source.null == "\\N"
    assert rows(source) == [{"id": "1", "no": None}]


class TestSkippedLines:
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_the_rows_begin_behind_them(self, write, end, encoding):
        text = end.join(['# a "remark, of 2 lines', "#", "id,t", *(f"{n},x {n}" for n in range(9))])
        source = write((text + end).encode(encoding), skip_lines=2)
        assert rows(source) == [{"id": f"{n}", "t": f"x {n}"} for n in range(9)]
        assert any("its first 2 lines are not read" in note for note in notes(source))

    def test_a_file_without_a_header_may_have_some(self, write):
        source = write("# a\n1,x\n2,y\n", skip_lines=1, columns=["id", "t"])
        assert rows(source) == [{"id": "1", "t": "x"}, {"id": "2", "t": "y"}]
        assert any("its first line is not read" in note for note in notes(source))

    def test_of_a_compressed_file_they_are_skipped_too(self, write):
        source = write(gzip.compress(b"# a\nid,t\n1,x\n"), "a.csv.gz", skip_lines=1)
        assert rows(source) == [{"id": "1", "t": "x"}]

    def test_more_than_the_file_has_are_refused(self, write):
        assert "fewer than 5 lines" in refusal(write("# a\nid,t\n1,x\n", skip_lines=5)).what
