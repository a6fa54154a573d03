"""A CSV source reads each row as a record or a reject, in exactly one shard.

Text stays text: a column has another type only where the job file declares it.
"""

import codecs
import csv
import gzip
import io
import json
import pickle

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cfray.errors import SourceError
from cfray.formats.lines import HEAD, record_limit
from cfray.job.mapping import SourceShape
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.files.csv import Csv
from cfray.target.state import Plan
from tests.sources.contract import FileContract
from tests.sources.corpus import SCHEMA, as_typed

CONTEXT = Context(batch_bytes=300)
FIELDS = st.text(
    st.one_of(
        st.sampled_from('",;\n\r\t a\ufeff'),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    max_size=12,
)


def read(source, context=CONTEXT):
    """Read all shards; return their rows and their rejects."""
    rows, rejects = [], []
    for shard in source.shards(context):
        for item in source.read(shard, context):
            if isinstance(item, Reject):
                rejects.append(item)
            else:
                rows += [tuple(row.values()) for row in item.to_pylist()]
    return rows, rejects


def write_source(path, data, **options):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return Csv(**{"uri": str(path), "shard_bytes": 100, **options})


def csv_text(columns, rows, **options):
    text = io.StringIO(newline="")
    writer = csv.writer(text, **options)
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


class TestCsv:
    @settings(max_examples=100, deadline=None)
    @given(
        st.integers(1, 4).flatmap(
            lambda width: st.lists(st.tuples(*[FIELDS] * width), min_size=1, max_size=30)
        ),
        st.integers(1, 200),
        st.sampled_from([",", ";", "\t"]),
        st.sampled_from(
            [
                (csv.QUOTE_MINIMAL, "\r\n"),
                (csv.QUOTE_ALL, "\r\n"),
                (csv.QUOTE_ALL, "\n"),
                (csv.QUOTE_ALL, "\r"),
            ]
        ),
    )
    def test_what_was_written_comes_out_once_and_in_order(
        self, tmp_path_factory, rows, shard_bytes, delimiter, quoting
    ):
        columns = [f"c{i}" for i in range(len(rows[0]))]
        text = csv_text(
            columns, rows, delimiter=delimiter, quoting=quoting[0], lineterminator=quoting[1]
        )
        path = tmp_path_factory.mktemp("x") / "a.csv"
        source = write_source(path, "\ufeff" + text, shard_bytes=shard_bytes, delimiter=delimiter)
        assert read(source) == (rows, [])
        assert sum(shard.rows for shard in source.shards(CONTEXT)) == len(rows)

    def test_plans_and_reads_the_same_twice(self, tmp_path):
        data = csv_text(["id", "t"], [(i, 'x\n"' * (i % 9)) for i in range(300)]) + "short\n"
        source = write_source(tmp_path / "a.csv", data, types={"id": "int32"})
        shards = source.shards(CONTEXT)
        assert len(shards) > 20
        assert source.shards(CONTEXT) == shards
        assert len({shard.id for shard in shards}) == len(shards)
        for shard in shards:
            first, second = (list(source.read(shard, CONTEXT)) for _ in range(2))
            assert first == second
            assert (
                sum(1 if isinstance(item, Reject) else item.num_rows for item in first)
                == shard.rows
            )

    def test_source_and_shards_travel_to_workers(self, tmp_path):
        source = write_source(tmp_path / "a.csv", "a\n" + "1\n" * 100)
        shards = source.shards(CONTEXT)
        assert pickle.loads(pickle.dumps((source, shards))) == (source, shards)
        assert json.loads(json.dumps(dict(shards[0].where))) == shards[0].where

    def test_nothing_is_inferred(self, tmp_path):
        row = ("001", "9007199254740993", "NA", "null", "", "1.0", "2020-01-01", "true", " x ")
        source = write_source(tmp_path / "a.csv", csv_text("abcdefghi", [row]))
        assert read(source) == ([row], [])
        assert source.record_schema(source.find_files()[0], CONTEXT) == pa.schema(
            [(name, pa.string()) for name in "abcdefghi"]
        )

    def test_declared_columns_have_their_type_and_empty_fields_are_null(self, tmp_path):
        types = {"n": "int64", "v": "list<float>"}
        source = write_source(
            tmp_path / "a.csv", 's,n,v\nx,9007199254740993,"[0.5,1]"\n,,""\n', types=types
        )
        assert read(source) == ([("x", 9007199254740993, [0.5, 1.0]), ("", None, None)], [])
        batch = next(iter(source.read(source.shards(CONTEXT)[0], CONTEXT)))
        assert batch.schema == source.record_schema(source.find_files()[0], CONTEXT)
        assert batch.schema.field("v").type == pa.list_(pa.float32())

    def test_each_bad_row_becomes_a_reject_with_its_bytes_and_offset(self, tmp_path):
        reasons = {
            b"1": "1 fields, but the header has 3",
            b'1,2,3,"4\n"': "4 fields, but the header has 3",
            b"1,\xff,0.5": "not valid utf-8",
            b"x,2,0.5": "column 'n' is declared int64, which 'x' is not",
            b"1,2,1e400": "column 'f' is declared double, which '1e400' is not",
            b"1,2," + b"y" * 200: f"which '{'y' * 80}' is not",
            b"x,2,y": "column 'n'",
        }
        data = b"n,s,f\r\n0,ok,0.5\r\n" + b"\r\n\r\n1,ok,1.5\r\n".join(reasons) + b"\r\n2,ok,2.5"
        for shard_bytes in (30, 10_000):
            source = write_source(
                tmp_path / "a.csv",
                data,
                types={"n": "int64", "f": "double"},
                shard_bytes=shard_bytes,
            )
            rows, rejects = read(source)
            assert rows == [(0, "ok", 0.5)] + [(1, "ok", 1.5)] * (len(reasons) - 1) + [
                (2, "ok", 2.5)
            ]
            assert [reject.content for reject in rejects] == list(reasons)
            for reject, reason in zip(rejects, reasons.values(), strict=True):
                assert reason in reject.reason
                assert data[int(reject.position.removeprefix("a.csv:byte ")) :].startswith(
                    reject.content
                )

    def test_row_numbers_hold_in_a_large_run(self, tmp_path):
        lines = [b"bad" if i % 9973 == 5 else b"%d,x" % i for i in range(100_000)]
        rows, rejects = read(
            write_source(tmp_path / "a.csv", b"a,b\n" + b"\n".join(lines), shard_bytes=10**9),
            Context(),
        )
        assert [reject.content for reject in rejects] == [b"bad"] * 11
        assert [int(row[0]) for row in rows] == [i for i in range(100_000) if i % 9973 != 5]

    def test_a_quote_inside_an_unquoted_field_is_a_character(self, tmp_path):
        rows, rejects = read(
            write_source(tmp_path / "a.csv", 'a,b\n5" pipe,x\n6" pipe,y\n"7"" pipe","z\n"\n')
        )
        assert rows == [('5" pipe', "x"), ('6" pipe', "y"), ('7" pipe', "z\n")]
        assert rejects == []

    def test_a_quote_that_is_never_closed_rejects_what_it_swallowed(self, tmp_path):
        rows, rejects = read(write_source(tmp_path / "a.csv", 'a,b\n1,2\n3,"x\n5,6\n7,8\n'))
        assert rows == [("1", "2")]
        assert [(reject.content, reject.position) for reject in rejects] == [
            (b'3,"x\n5,6\n7,8', "a.csv:byte 8")
        ]
        assert "inside a quoted field" in rejects[0].reason

    def test_a_quote_that_is_never_closed_stops_the_run_beyond_the_limit(self, tmp_path):
        source = write_source(tmp_path / "a.csv", 'a,b\n3,"x\n' + "5,6\n" * 400_000)
        with pytest.raises(SourceError, match="never closed"):
            read(source, Context(max_record=1000))

    def test_a_row_over_the_limit_is_rejected_by_its_head(self, tmp_path):
        context = Context(max_record=1000)
        large = '"' + "y,\n" * record_limit(1000) + '",2'
        rows, rejects = read(write_source(tmp_path / "a.csv", f"a,b\n1,2\n{large}\n3,4\n"), context)
        assert rows == [("1", "2"), ("3", "4")]
        assert [reject.content for reject in rejects] == [large.encode()[:HEAD]]
        assert "limits.max_document" in rejects[0].reason

    def test_a_large_row_among_small_ones_is_one_record(self, tmp_path):
        large = "x,\n" * 14_000_000
        rows, rejects = read(
            write_source(tmp_path / "a.csv", f'a,b\n1,2\n"{large}",5\n3,4\n'), Context()
        )
        assert [row[1] for row in rows] == ["2", "5", "4"]
        assert rows[1][0] == large
        assert rejects == []

    def test_an_empty_table_has_no_records(self, tmp_path):
        assert read(write_source(tmp_path / "a.csv", "a,b\n")) == ([], [])
        assert read(write_source(tmp_path / "a.csv", "a,b")) == ([], [])


class TestNoNewlinesInValues:
    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.tuples(*[FIELDS.map(lambda text: text.replace("\n", " ").replace("\r", " "))] * 2),
            min_size=1,
            max_size=30,
        ),
        st.integers(1, 200),
    )
    def test_what_was_written_comes_out_once_and_in_order(
        self, tmp_path_factory, rows, shard_bytes
    ):
        path = tmp_path_factory.mktemp("x") / "a.csv"
        source = write_source(
            path, csv_text(["a", "b"], rows), shard_bytes=shard_bytes, newlines_in_values=False
        )
        assert read(source) == (rows, [])

    @pytest.mark.parametrize("shard_bytes", [10, 10_000])
    def test_a_quote_ties_no_rows_together(self, tmp_path, shard_bytes):
        data = 'a,b\n1,2\n3,"x\n5,6\n7,y"\n8,9\n8,"\n'
        rows, rejects = read(
            write_source(
                tmp_path / "a.csv", data, newlines_in_values=False, shard_bytes=shard_bytes
            )
        )
        assert rows == [("1", "2"), ("5", "6"), ("7", 'y"'), ("8", "9")]
        assert [reject.content for reject in rejects] == [b'3,"x', b'8,"']
        assert "not closed on its line" in rejects[0].reason


class TestEncodings:
    ROWS = (("1", "é\n€"), ("2", '"q"'), ("3", ""))

    @pytest.mark.parametrize(
        ("encoding", "splittable"),
        [
            ("cp1252", True),
            ("utf8", True),
            ("utf-8-sig", True),
            ("utf-16", False),
            ("utf-16-le", False),
            ("utf-32", False),
        ],
    )
    def test_are_read_and_split_where_bytes_allow(self, tmp_path, encoding, splittable):
        data = csv_text(["id", "té"], self.ROWS * 20).encode(encoding)
        source = write_source(tmp_path / "a.csv", data, encoding=encoding)
        shards = source.shards(CONTEXT)
        assert {shard.splittable for shard in shards} == {splittable}
        assert (len(shards) > 1) is splittable
        assert read(source) == (list(self.ROWS * 20), [])
        assert source.record_schema(source.find_files()[0], CONTEXT).names == ["id", "té"]

    def test_a_multibyte_encoding_keeps_its_bytes_together(self, tmp_path):
        # In Shift JIS the second byte of both characters is 0x5c, a backslash. A second byte may
        # also be 0x7c, a bar.
        rows = [("表", "ソ|x"), ("1", "2")] * 10
        for delimiter in ",|":
            data = csv_text(["a", "b"], rows, delimiter=delimiter).encode("shift_jis")
            assert read(
                write_source(tmp_path / "a.csv", data, encoding="shift_jis", delimiter=delimiter)
            ) == (rows, [])

    def test_a_byte_that_the_encoding_lacks_rejects_its_row(self, tmp_path):
        rows, rejects = read(
            write_source(
                tmp_path / "a.csv",
                b"a,b\n1,\xe9\n2,\x81\n3,x\n",
                encoding="cp1252",
                shard_bytes=1000,
            )
        )
        assert rows == [("1", "é"), ("3", "x")]
        assert [(reject.content, reject.position) for reject in rejects] == [
            (b"2,\x81", "a.csv:byte 8")
        ]

    def test_a_stream_that_is_not_its_encoding_is_a_terminal_error(self, tmp_path):
        source = write_source(
            tmp_path / "a.csv",
            codecs.BOM_UTF16_LE + "a,b\n1,2\n".encode("utf-16-le") + b"\x00",
            encoding="utf-16",
        )
        with pytest.raises(SourceError, match="utf-16"):
            read(source)


class TestCompressed:
    def test_a_compressed_file_is_one_part(self, tmp_path):
        rows = [(str(i), "x\ny") for i in range(300)]
        source = write_source(
            tmp_path / "a.csv.gz",
            gzip.compress(csv_text(["a", "b"], rows).encode()) + gzip.compress(b"bad\n"),
        )
        assert [shard.splittable for shard in source.shards(CONTEXT)] == [False]
        read_rows, rejects = read(source)
        assert read_rows == rows
        assert [reject.position for reject in rejects] == [
            f"a.csv.gz:byte {len(csv_text(['a', 'b'], rows))}"
        ]


class TestPlan:
    def test_files_with_other_columns_are_refused_by_name(self, tmp_path):
        (tmp_path / "a.csv").write_text("x,y\n1,2\n")
        (tmp_path / "b.tsv").write_text("y,x\n1,2\n")
        with pytest.raises(SourceError) as caught:
            Csv(uri=str(tmp_path)).shards(CONTEXT)
        assert "a.csv" in caught.value.what
        assert "b.tsv" in caught.value.what

    def test_a_type_of_no_column_is_refused(self, tmp_path):
        with pytest.raises(SourceError, match="z"):
            write_source(tmp_path / "a.csv", "x,y\n", types={"z": "int64"}).shards(CONTEXT)

    @pytest.mark.parametrize(
        "options",
        [
            {"types": {"a": "text"}},
            {"delimiter": ",,"},
            {"delimiter": '"'},
            {"encoding": "klingon"},
            {"encoding": "rot13"},
        ],
    )
    def test_a_wrong_option_is_refused_with_the_job_file(self, options):
        with pytest.raises(ValidationError):
            Csv(uri="x.csv", **options)


class TestContract(FileContract):
    suffix = ".csv"
    cannot_tell_null = "an empty field is an empty text: CSV has no null of its own"
    cannot_tell_missing = "a CSV file has a header: every row has every column"
    cannot_see_a_cut = "a text file may end anywhere: a cut row is a reject, not the end of the run"

    @staticmethod
    def expected(row):
        """Return a row as it is read: undeclared columns are text, and an absent text is empty."""
        meta = json.dumps(row["meta"]) if "meta" in row else ""
        return as_typed(row) | {
            "id": row.get("id", ""),
            "text": row.get("text") or "",
            "meta": meta,
        }

    def write(self, path, some_rows):
        rows = [
            [
                value if isinstance(value, str | None) else json.dumps(value)
                for value in as_typed(row).values()
            ]
            for row in some_rows
        ]
        path.write_text(csv_text(SCHEMA.names, rows), "utf8", newline="")

    def source_at(self, uri, **options):
        types = {
            "n": "int64",
            "ratio": "double",
            "flag": "bool",
            "tags": "list<string>",
            "vector": "list<double>",
        }
        return Csv(uri=str(uri), types=types, **options)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_plan_of_an_earlier_version_takes_a_blank_for_null_in_csv_only(kind):
    shape = SourceShape(
        kind, "/x", 4, fixed=True, types={}, vectors={}, id_tag="s", blank_is_null=kind == "csv"
    )
    plan = Plan([], shape, "pinned files", 0, exact=True, size=0)
    assert Plan.from_json(plan.to_json()) == plan
    earlier = json.loads(plan.to_json(), object_hook=_without_blank_is_null)
    assert Plan.from_json(json.dumps(earlier).encode()) == plan


def _without_blank_is_null(body):
    return {key: value for key, value in body.items() if key != "blank_is_null"}


def test_the_plan_says_that_a_blank_of_a_csv_stands_for_null(tmp_path):
    source = write_source(tmp_path / "a.csv", "a,b\n1,\n")
    assert source.describe(CONTEXT, source.shards(CONTEXT)).blank_is_null
