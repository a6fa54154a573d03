"""PostgreSQL's own files: what COPY and pg_dump wrote gives the records that a live read gives."""

import gzip
import os
import pickle
import random
import subprocess
from decimal import Decimal

import pytest

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.postgres.numerics import numeric_text
from cfray.sources.postgres.source import Postgres
from tests.sources.corpus import CONTEXT, CORPUS, items, row_counts, rows
from tests.sources.postgres_bed import COLUMNS, KEY, MORE_COLUMNS, PostgresBed
from tests.testbeds import postgres

pytestmark = pytest.mark.server("postgres")
LARGE_BATCHES = Context(batch_bytes=2**20)
_AWKWARD_COLUMNS = {key: kind.format(5) for key, kind in (COLUMNS | MORE_COLUMNS).items()}


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(PostgresBed)


@pytest.fixture(scope="module")
def awkward(bed):
    """Return the name of a table of awkward rows, and the rows."""
    awkward_rows = bed.awkward(200, 5)
    return bed.seed(awkward_rows), awkward_rows


def copy_out(bed, source, path, options=""):
    """Write a file with COPY."""
    with (
        bed.connection.cursor() as cursor,
        cursor.copy(f"COPY {source} TO STDOUT {options}") as copy,
        path.open("wb") as file,
    ):
        for data in copy:
            file.write(data)
    return path


def dump(bed, path, *options):
    """Write a plain dump with pg_dump."""
    command = [str(postgres.programs() / "pg_dump"), "--dbname", bed.url, "--file", str(path)]
    subprocess.run(
        [*command, *options],
        check=True,
        capture_output=True,
        env={**os.environ, "PGPASSWORD": os.environ[KEY]},
    )
    return path


def files(path, **options):
    return Postgres(uri=str(path), **options)


FORMS = [
    ("csv", "(FORMAT csv, HEADER)", {}),
    ("tsv", "(FORMAT csv, DELIMITER E'\\t', HEADER)", {}),
    ("csv", "(FORMAT csv, NULL 'NUL L')", {"header": False, "null": "NUL L"}),
    ("copy", "", {}),
    ("bin", "(FORMAT binary)", {}),
]


@pytest.mark.parametrize("case", FORMS, ids=[form or "text" for _, form, _ in FORMS])
def test_a_file_gives_what_a_live_read_gives(bed, awkward, tmp_path, case):
    suffix, form, options = case
    name, awkward_rows = awkward
    # the binary form of a range is not read
    columns = {key: kind for key, kind in _AWKWARD_COLUMNS.items() if key != "span"}
    names = ", ".join(f'"{key}"' for key in columns)
    path = copy_out(bed, f'"{name}" ({names})', tmp_path / f"docs.{suffix}", form)
    source = files(path, columns=columns, key=["id"], shard_bytes=20_000, **options)
    read_rows = rows(source, context=LARGE_BATCHES)
    expected = [
        {key: value for key, value in bed.expected(row).items() if key != "span"}
        for row in awkward_rows
    ]
    assert _comparable(read_rows) == _comparable(expected)
    shards = source.shards(CONTEXT)
    assert {shard.collection for shard in shards} == {"docs"}
    assert (len(shards) > 3) is (suffix == "copy")
    assert source.describe(CONTEXT, shards).consistency == "pinned files"
    assert pickle.loads(pickle.dumps((source, shards))) == (source, shards)


def _comparable(some_rows):
    """Give rows by their ids."""
    return {row["id"]: row for row in some_rows}


def test_columns_that_are_not_declared_are_texts(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('id,"b, c"\n007,\n8,""\n9,"x ""y""\nz"\n')
    source = files(path, columns={"id": "text"}, key=["id"])
    assert rows(source) == [
        {"id": "007", "b, c": None}, {"id": "8", "b, c": ""}, {"id": "9", "b, c": 'x "y"\nz'},
    ]  # fmt: skip


def test_a_folder_holds_a_collection_a_file(bed, tmp_path):
    first, second = bed.seed(CORPUS[:10]), bed.seed(CORPUS[5:9])
    copy_out(bed, f'(SELECT id, n FROM "{first}")', tmp_path / "one.csv", "(FORMAT csv, HEADER)")
    copy_out(bed, f'(SELECT id, n FROM "{second}")', tmp_path / "two.csv", "(FORMAT csv, HEADER)")
    source = files(tmp_path, columns={"id": "text", "n": "bigint"}, key=["id"])
    by_collection = {
        shard.collection: len(rows(source, [shard])) for shard in source.shards(CONTEXT)
    }
    assert by_collection == {"one": 10, "two": 4}


@pytest.mark.parametrize("form", ["(FORMAT csv)", "", "(FORMAT binary)"])
@pytest.mark.parametrize("end", [0.3, 0.9, -1])
def test_a_file_of_copy_that_was_cut_is_refused_where_its_form_shows_it(bed, tmp_path, form, end):
    name = bed.seed(CORPUS)
    path = copy_out(bed, f'(SELECT id, n, text FROM "{name}")', tmp_path / "docs.x", form)
    data = path.read_bytes()
    cut = int(len(data) * end) if end > 0 else end
    is_text = form != "(FORMAT binary)"
    if is_text and end > 0:
        # within the id of a row: half a row is no row of three columns
        cut = data.rfind(b"\n", 0, cut) + 3
    path.write_bytes(data[:cut])
    source = files(
        path, columns={"id": "text", "n": "bigint", "text": "text"}, header=False,
        format={"": "text", "(FORMAT csv)": "csv", "(FORMAT binary)": "binary"}[form],
    )  # fmt: skip
    if form == "(FORMAT csv)" and end < 0:
        assert len(rows(source, context=LARGE_BATCHES)) == len(CORPUS), (
            "only the line break is gone"
        )
    else:
        with pytest.raises(SourceError, match="cut") as error:
            rows(source, context=LARGE_BATCHES)
        assert not error.value.transient
        assert "docs.x" in error.value.what


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_last_row_without_its_line_break_is_no_row_of_copy(tmp_path, suffix):
    pack = gzip.compress if suffix else bytes
    text, table = tmp_path / f"t.copy{suffix}", tmp_path / f"t.csv{suffix}"
    text.write_bytes(pack(b"1\tone hundred\n2\ttwo hundr"))
    source = files(text, columns={"id": "text", "t": "text"})
    with pytest.raises(SourceError, match=r"no line break.* cut"):
        rows(source)
    for data, unread in ((b"id,t\n1,one\n2,two", 1), (b"id,t\n1,one\n2,two\n", 0)):
        table.write_bytes(pack(data))
        source = files(table, columns={"id": "text"})
        shards = source.shards(CONTEXT)
        assert len(rows(source, shards)) == 2
        description = source.describe(CONTEXT, shards)
        assert [f"t.csv{suffix}" in sentence for sentence in description.unread] == [True] * unread


def test_arrays_of_boxes_are_separated_by_semicolons(bed, tmp_path):
    name = bed.fresh()
    bed.execute(f'CREATE TABLE "{name}" (id int PRIMARY KEY, b box[])')
    for number, boxes in enumerate(
        ("'{(1,1),(0,0);(3,3),(2,2)}'", "'{}'", "NULL", "'{{(1,1),(0,0);NULL}}'")
    ):
        bed.execute(f'INSERT INTO "{name}" VALUES ({number}, {boxes})')
    path = copy_out(bed, f'"{name}"', tmp_path / "t.copy")
    live_rows = rows(bed.source(name), context=LARGE_BATCHES)
    assert live_rows[0]["b"] == ("box[]", '["(1,1),(0,0)","(3,3),(2,2)"]')
    for source in (
        files(path, columns={"id": "int", "b": "box[]"}, key=["id"]),
        files(dump(bed, tmp_path / "t.sql", "--table", f'"{name}"')),
    ):
        assert rows(source, context=LARGE_BATCHES)[:3] == live_rows[:3]


@pytest.mark.parametrize(
    ("kind", "text"),
    [("halfvec(2)", "[1,70000]"), ("vector(2)", "[1e39,1]"), ("sparsevec(5)", "{1:1e39}/5")],
)
@pytest.mark.filterwarnings("error")
def test_a_number_beyond_its_vector_is_refused(tmp_path, kind, text):
    path = tmp_path / "t.csv"
    path.write_text(f'id,v\n1,"{text}"\n')
    with pytest.raises(SourceError, match="beyond the numbers"):
        rows(files(path, columns={"v": kind}))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_dump_gives_what_a_live_read_gives(bed, awkward, tmp_path, suffix):
    name, awkward_rows = awkward
    other = bed.seed(CORPUS[:20])
    path = dump(bed, tmp_path / "all.sql", "--table", f'"{name}"', "--table", f'"{other}"')
    if suffix:
        compressed = path.with_suffix(".sql.gz")
        compressed.write_bytes(gzip.compress(path.read_bytes()))
        path = compressed
    source = files(path, shard_bytes=20_000)
    shards = source.shards(CONTEXT)
    assert {shard.collection for shard in shards} == {name, other}
    assert len(shards) == 2 if suffix else len(shards) > 4
    read_rows = rows(source, [s for s in shards if s.collection == name], LARGE_BATCHES)
    expected = [bed.expected(row) for row in awkward_rows]
    assert _comparable(read_rows) == _comparable(expected)
    description = source.describe(CONTEXT, shards)
    assert description.consistency == "snapshot"
    assert [c.dimension for c in description.collections if c.name == other] == [2]
    only = files(path, collections=[other])
    assert {shard.collection for shard in only.shards(CONTEXT)} == {other}
    with pytest.raises(SourceError, match="nowhere"):
        files(path, collections=["nowhere"]).shards(CONTEXT)


def test_a_dump_says_what_its_tables_are(bed, tmp_path):
    run = bed.fresh()
    schema = f'"S ""{run}"" ;ü"'
    statements = f"""
        CREATE SCHEMA {schema};
        CREATE TYPE {schema}."mo od" AS ENUM ('a b', 'ü');
        CREATE DOMAIN {schema}.dom AS numeric(10,2) DEFAULT 1 CHECK (VALUE > 0);
        CREATE TABLE {schema}.author (author_id bigint PRIMARY KEY, name text DEFAULT 'x, y' NOT NULL);
        CREATE TABLE {schema}."d ""o"" c" (
            "k e,y" text COLLATE "C" PRIMARY KEY, "by" bigint REFERENCES {schema}.author,
            mood {schema}."mo od", moods {schema}."mo od"[], price {schema}.dom,
            at timestamp(3) with time zone DEFAULT now() NOT NULL, body text,
            twice bigint GENERATED ALWAYS AS (2) STORED, CONSTRAINT "c k" CHECK ("by" > 0));
        CREATE TABLE {schema}.part (id int PRIMARY KEY, t text) PARTITION BY RANGE (id);
        CREATE TABLE {schema}.p1 PARTITION OF {schema}.part FOR VALUES FROM (0) TO (5);
        CREATE TABLE {schema}.p2 PARTITION OF {schema}.part FOR VALUES FROM (5) TO (9);
        CREATE FUNCTION {schema}.f() RETURNS text LANGUAGE sql AS $$ SELECT 'CREATE TABLE;' $$;
        INSERT INTO {schema}.author VALUES (1, 'A');
        INSERT INTO {schema}."d ""o"" c" VALUES ('it''s
        \\. COPY public.x (a) FROM stdin;', 1, 'ü', '{{"a b",NULL}}', 1.5, '2024-01-02Z',
            E'\\\\.\\n\\tline\\\\N');
        INSERT INTO {schema}.part SELECT i, '\\.' FROM generate_series(1, 8) i;
    """
    for statement in statements.split(";\n"):
        if statement.strip():
            bed.execute(statement)
    path = dump(bed, tmp_path / "one.sql", "--schema", schema)
    source = files(path)
    by_name = {
        name.rpartition(".")[2]: rows(
            source, [s for s in source.shards(CONTEXT) if s.collection == name]
        )
        for name in {shard.collection for shard in source.shards(CONTEXT)}
    }
    assert set(by_name) == {"author", '"d ""o"" c"', "part"}
    (doc,) = by_name['"d ""o"" c"']
    assert doc.pop("at").isoformat() == "2024-01-02T00:00:00+00:00"
    assert doc == {
        "id": "it's\n        \\. COPY public.x (a) FROM stdin;",
        "by": 1,
        "mood": "ü",
        "moods": ["a b", None],
        "price": Decimal("1.50"),
        "body": "\\.\n\tline\\N",
    }
    assert sorted(row["id"] for row in by_name["part"]) == list(range(1, 9))
    description = source.describe(CONTEXT, source.shards(CONTEXT))
    (references,) = [c.references for c in description.collections if c.references]
    assert list(references) == ["by"]
    assert references["by"].endswith(".author")
    live = bed.source(*{shard.collection for shard in source.shards(CONTEXT)})
    assert row_counts(
        {key: value for key, value in row.items() if key != "twice"}
        for row in rows(live, context=LARGE_BATCHES)
    ) == row_counts(rows(source, context=LARGE_BATCHES))


def test_a_dump_that_was_cut_is_refused_wherever_it_was_cut(bed, tmp_path):
    names = [bed.seed(CORPUS[:5]), bed.seed(CORPUS[:5])]
    options = [option for name in names for option in ("--table", f'"{name}"')]
    data = dump(bed, tmp_path / "all.sql", *options).read_bytes()
    assert len(rows(files(tmp_path / "all.sql"))) == 10
    end = data.index(b"-- PostgreSQL database dump complete")
    generator = random.Random(5)
    cuts = [data.index(b"FROM stdin;") + 12, data.index(b"\n\\.\n") + 1, data.index(b"\n\\.\n") + 3]
    cuts += [data.rindex(b"\n\\.\n") + 4, end, 200]
    cuts += [generator.randrange(100, end) for _ in range(60)]
    for cut in cuts:
        path = tmp_path / "cut.sql"
        path.write_bytes(data[:cut])
        with pytest.raises(SourceError, match="cut") as error:
            files(path, format="dump").shards(CONTEXT)
        assert not error.value.transient


def test_what_is_no_plain_dump_of_copy_is_refused_with_the_command_that_makes_one(bed, tmp_path):
    name = bed.seed(CORPUS[:3])
    table = ("--table", f'"{name}"')
    for options, remedy in (
        (("--format=custom", *table), "pg_restore --file"),
        (("--inserts", *table), "--inserts"),
        (("--encoding=LATIN1", *table), "--encoding=UTF8"),
        (("--data-only", *table), "without --data-only"),
    ):
        path = dump(bed, tmp_path / "x.sql", *options)
        with pytest.raises(SourceError) as error:
            files(path).shards(CONTEXT)
        assert remedy in error.value.remedy


def test_a_file_that_changed_after_the_plan_is_refused(bed, tmp_path):
    name = bed.seed(CORPUS[:3])
    source = files(dump(bed, tmp_path / "x.sql", "--table", f'"{name}"'))
    shards = source.shards(CONTEXT)
    (tmp_path / "x.sql").write_text("-- PostgreSQL database dump complete\n")
    with pytest.raises(SourceError, match=r"x\.sql"):
        rows(source, shards)


def test_a_text_that_is_not_utf8_is_set_aside_with_its_row(tmp_path):
    path = tmp_path / "x.copy"
    path.write_bytes(b"a\tgood\nb\tba\xffd\nc\talso good\n")
    source = files(path, columns={"id": "text", "t": "text"})
    read_items = [item for _, item in items(source)]
    (reject,) = [item for item in read_items if isinstance(item, Reject)]
    assert "column t is not UTF-8" in reject.reason
    assert sum(len(item) for item in read_items if not isinstance(item, Reject)) == 2


def test_a_file_that_does_not_say_its_columns_asks_for_them(tmp_path):
    path = tmp_path / "x.copy"
    path.write_text("a\tb\n")
    with pytest.raises(SourceError) as error:
        files(path).shards(CONTEXT)
    assert "source.columns" in error.value.remedy
    with pytest.raises(SourceError, match="no type of PostgreSQL"):
        files(path, columns={"a": "big(int", "b": "text"}).shards(CONTEXT)
    with pytest.raises(SourceError, match="not bigint"):
        rows(files(path, columns={"a": "bigint", "b": "text"}))
    with pytest.raises(SourceError, match="binary form of a"):
        files(path, columns={"a": "inet"}, format="binary").shards(CONTEXT)
    with pytest.raises(SourceError, match="no file under"):
        files(tmp_path / "nothing*").shards(CONTEXT)


def test_numerics_are_written_as_the_server_writes_them(bed):
    literals = ["0", "0.00", "-1.50", "10000", "9999.0001", "1e20", "1e-20", "123456789.123456789"]
    literals += ["NaN", "Infinity", "-Infinity", "0.0001", "100000000.00000001", "-0.00010000"]
    for literal in literals:
        value = f"'{literal}'::numeric"
        binary, text = bed.execute(f"SELECT numeric_send({value}), {value}::text").fetchone()
        assert numeric_text(bytes(binary)) == text
