"""What a writer of any dialect writes, a CSV source reads exactly, wherever shards are cut.

The writers are Python's csv module, DuckDB, polars and pandas; each is told the dialect, and so is
the source.
"""

import csv
import io
import itertools

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cfray.formats.dialects import rank_dialects
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.files.csv import Csv

CONTEXT = Context(batch_bytes=300)
TEXTS = st.text(
    st.one_of(
        st.sampled_from("\"'\\,;|\t\n\r^ aN\ufeffé"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    max_size=10,
)
TABLES = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.tuples(*[TEXTS] * width), min_size=1, max_size=15)
)
SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


#: Examples that follow each other within a tick of the clock must not have the same file.
NUMBERS = itertools.count()


def read(path, data, **options):
    path = path.with_name(f"{next(NUMBERS)}-{path.name}")
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    source = Csv(uri=str(path), **options)
    rows, rejects = [], []
    for shard in source.shards(CONTEXT):
        for item in source.read(shard, CONTEXT):
            if isinstance(item, Reject):
                rejects.append(item)
            else:
                rows += [tuple(row.values()) for row in item.to_pylist()]
    return rows, rejects


def write(rows, **options):
    text = io.StringIO(newline="")
    csv.writer(text, **options).writerows(rows)
    return text.getvalue()


def names(rows):
    return [f"c{number}" for number in range(len(rows[0]))]


class TestPythonsWriter:
    @SETTINGS
    @given(
        TABLES,
        st.integers(1, 150),
        st.fixed_dictionaries(
            {
                "delimiter": st.sampled_from(",;\t|\x01 "),
                "quotechar": st.sampled_from("\"'"),
                "escapechar": st.sampled_from([None, "\\", "^"]),
                "doublequote": st.booleans(),
            }
        ),
        # Python quotes no lone line break unless it is the line's end
        st.sampled_from(
            [
                (csv.QUOTE_MINIMAL, "\r\n"),
                (csv.QUOTE_ALL, "\r\n"),
                (csv.QUOTE_ALL, "\n"),
                (csv.QUOTE_ALL, "\r"),
            ]
        ),
    )
    def test_with_quotes(self, tmp_path, rows, shard_bytes, dialect, lines):
        dialect["doublequote"] |= dialect["escapechar"] is None
        data = write([names(rows), *rows], quoting=lines[0], lineterminator=lines[1], **dialect)
        assert read(
            tmp_path / "a.csv",
            "\ufeff" + data,
            delimiter=dialect["delimiter"],
            quote=dialect["quotechar"],
            escape=dialect["escapechar"],
            shard_bytes=shard_bytes,
        ) == (rows, [])

    @SETTINGS
    @given(TABLES, st.integers(1, 150), st.sampled_from(",;\t|\x01 "), st.sampled_from("\\^"))
    def test_without_quotes(self, tmp_path, rows, shard_bytes, delimiter, escape):
        assume(len(rows[0]) > 1 and not rows[0][0].startswith("\ufeff"))
        data = write(rows, delimiter=delimiter, escapechar=escape, quoting=csv.QUOTE_NONE)
        assert read(
            tmp_path / "a.csv",
            data,
            delimiter=delimiter,
            quote="none",
            escape=escape,
            columns=names(rows),
            shard_bytes=shard_bytes,
        ) == (rows, [])

    @SETTINGS
    @given(
        st.lists(
            st.tuples(*[TEXTS.map(lambda text: text.translate({9: " ", 10: " ", 13: " "}))] * 2),
            min_size=1,
            max_size=15,
        ),
        st.integers(1, 150),
        st.booleans(),
    )
    def test_plain_characters(self, tmp_path, rows, shard_bytes, newlines_in_values):
        """Lines of raw text with tabs between: nothing is quoted and nothing escaped."""
        assume(not rows[0][0].startswith("\ufeff"))  # a file's first bytes are a mark
        data = "".join("\t".join(row) + "\n" for row in rows)
        assert read(
            tmp_path / "a.tsv",
            data,
            delimiter="\t",
            quote="none",
            columns=["c0", "c1"],
            shard_bytes=shard_bytes,
            newlines_in_values=newlines_in_values,
        ) == (rows, [])


class TestDuckdb:
    @SETTINGS
    @given(
        st.lists(st.tuples(*[st.one_of(TEXTS, st.none())] * 2), min_size=1, max_size=10),
        st.integers(1, 150),
        st.fixed_dictionaries(
            {
                "delimiter": st.sampled_from(",;\t|"),
                "quote": st.sampled_from("\"'"),
                "nullstr": st.sampled_from(["", "NA"]),
            }
        ),
        st.booleans(),
    )
    def test_null_and_empty_are_told_apart(self, tmp_path, rows, shard_bytes, dialect, force):
        duckdb = pytest.importorskip("duckdb")
        pa = pytest.importorskip("pyarrow")
        frame = pa.table(  # noqa: F841
            {f"c{n}": pa.array([row[n] for row in rows], pa.string()) for n in range(2)}
        )
        path = tmp_path / "a.csv"
        options = {**dialect, "escape": dialect["quote"]}
        text = ", ".join(f"{key} {literal(value)}" for key, value in options.items())
        duckdb.sql(
            f"COPY frame TO {literal(str(path))} "
            f"({text}{', force_quote (c0, c1)' if force else ''})"
        )
        assert read(
            path,
            path.read_bytes(),
            delimiter=dialect["delimiter"],
            quote=dialect["quote"],
            null=dialect["nullstr"],
            shard_bytes=shard_bytes,
        ) == (rows, [])

    @SETTINGS
    @given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=10), st.integers(1, 150))
    def test_a_backslash_escapes_only_in_quoted_fields(self, tmp_path, rows, shard_bytes):
        duckdb = pytest.importorskip("duckdb")
        pa = pytest.importorskip("pyarrow")
        # an unquoted field in which every backslash is doubled is what Python writes for half of it
        assume(not any("\\\\" in text for row in rows for text in row))
        frame = pa.table(  # noqa: F841
            {f"c{n}": pa.array([row[n] for row in rows], pa.string()) for n in range(2)}
        )
        path = tmp_path / "a.csv"
        duckdb.sql(f"COPY frame TO {literal(str(path))} (escape '\\')")
        assert read(path, path.read_bytes(), escape="\\", shard_bytes=shard_bytes) == (rows, [])


def literal(text):
    return "'" + text.replace("'", "''") + "'"


class TestPolars:
    @SETTINGS
    @given(
        st.lists(st.tuples(*[st.one_of(TEXTS, st.none())] * 2), min_size=1, max_size=10),
        st.sampled_from([("necessary", ""), ("necessary", "\\N"), ("always", '"\\N"')]),
    )
    def test_nulls_are_read(self, tmp_path, rows, style):
        polars = pytest.importorskip("polars")
        quote_style, null = style
        text = null.strip('"')
        assume(not any(text == cell for row in rows for cell in row))
        frame = polars.DataFrame(
            rows,
            schema=["c0", "c1"],
            orient="row",
            schema_overrides={"c0": polars.String, "c1": polars.String},
        )
        data = frame.write_csv(null_value=text, quote_style=quote_style)
        assert read(tmp_path / "a.csv", data, null=null, shard_bytes=40) == (rows, [])


class TestPandas:
    @SETTINGS
    @given(
        st.lists(st.tuples(*[st.one_of(TEXTS, st.none())] * 2), min_size=1, max_size=10),
        st.booleans(),
    )
    def test_nulls_are_read(self, tmp_path, rows, index):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(rows, columns=["c0", "c1"], dtype=object)
        frame = frame.where(frame.notna(), None)
        assume(not any(cell in ("\\N", "") for row in rows for cell in row))
        data = frame.to_csv(index=index, na_rep="\\N", lineterminator="\r\n")
        read_rows, rejects = read(tmp_path / "a.csv", data, null="\\N", shard_bytes=40)
        assert [row[-2:] for row in read_rows] == rows
        assert rejects == []


class TestRank:
    @SETTINGS
    @given(
        st.lists(
            st.tuples(st.integers(100, 999).map(str), TEXTS.filter(str.strip), TEXTS),
            min_size=4,
            max_size=15,
        ),
        st.sampled_from(",;\t|"),
        st.booleans(),
    )
    def test_the_first_dialect_reads_what_was_written(self, tmp_path, rows, delimiter, escapes):
        header = ("id", "title", "body")
        data = write(
            [header, *rows],
            delimiter=delimiter,
            quoting=csv.QUOTE_ALL,
            escapechar="\\" if escapes else None,
            doublequote=not escapes,
        )
        best = rank_dialects(data.encode())[0]
        if escapes and "\\" not in data:
            escapes = False
        if escapes:
            assume('\\"' in data)
        assert best.source.get("columns") is None
        assert read(tmp_path / "a.csv", data, **best.source) == (rows, [])
