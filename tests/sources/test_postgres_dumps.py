"""A plain dump of pg_dump: every COPY in it is read or refused, and nothing else is taken for one."""

import pytest

from cfray.errors import SourceError
from cfray.sources.base import Context
from cfray.sources.postgres.statements import Statements
from tests.sources.corpus import CONTEXT, row_counts, rows
from tests.sources.postgres_bed import PostgresBed
from tests.sources.test_postgres_files import dump, files

pytestmark = pytest.mark.server("postgres")
LARGE_BATCHES = Context(batch_bytes=2**20)
END = "--\n-- PostgreSQL database dump complete\n--\n"


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(PostgresBed)


@pytest.fixture
def schema(bed):
    """Return the name of a schema of the test's own, and drop it at the end."""
    name = bed.fresh()
    bed.execute(f'CREATE SCHEMA "{name}"')
    bed.execute(f'SET search_path = "{name}", public')
    yield name
    bed.execute("RESET search_path")
    bed.execute(f'DROP SCHEMA "{name}" CASCADE')


def dumped(bed, schema, tmp_path):
    return files(dump(bed, tmp_path / "x.sql", "--schema", f'"{schema}"'))


def by_table(source):
    """Give the rows of each table of a dump, by the table's own name."""
    shards = source.shards(CONTEXT)
    return {
        name.split(".", 1)[1]: rows(
            source, [shard for shard in shards if shard.collection == name], LARGE_BATCHES
        )
        for name in {shard.collection for shard in shards}
    }


def test_names_with_line_breaks_lose_no_table(bed, schema, tmp_path):
    bed.execute('CREATE TABLE b (id int PRIMARY KEY, "bo\ndy);" text)')
    bed.execute("INSERT INTO b VALUES (10, 'ten'), (20, 'twenty')")
    bed.execute(
        'CREATE TABLE "c\nd; --" (id int PRIMARY KEY, "e)" text DEFAULT \'x,\n    y int,\n\', '
        '"NOT NULL x" numeric(5,2) DEFAULT (ARRAY[1.5, 2])[1] NOT NULL, z text)'
    )
    bed.execute("INSERT INTO \"c\nd; --\" VALUES (1, 'x', 2.5, 'z')")
    source = dumped(bed, schema, tmp_path)
    read_rows = by_table(source)
    assert [row["bo\ndy);"] for row in read_rows["b"]] == ["ten", "twenty"]
    (row,) = read_rows["c\nd; --"]
    assert {key: str(value) for key, value in row.items()} == {
        "id": "1", "e)": "x", "NOT NULL x": "2.50", "z": "z",
    }  # fmt: skip
    live = bed.source(*{shard.collection for shard in source.shards(CONTEXT)})
    live_rows = rows(live, context=LARGE_BATCHES)
    assert row_counts(live_rows) == row_counts(rows(source, context=LARGE_BATCHES))


def test_hostile_definitions_are_read_as_a_live_read_reads_them(bed, schema, tmp_path):
    bed.execute(
        r'''CREATE TYPE "E n" AS ENUM ('a b', 'NULL'); CREATE DOMAIN dm AS "E n"[] NOT NULL
            CONSTRAINT "c ;" CHECK (cardinality(VALUE) < 9);
        CREATE TABLE "T ""q"" %s, (a)" ("I d" int PRIMARY KEY, "co, l" "E n", "e)" "E n"[],
            "CONSTRAINT" text DEFAULT 'x\ny', "dö" dm, "NOT NULL" varchar(5)[] NOT NULL
            DEFAULT '{}'::varchar[], "a ""z""" numeric(5,2)[], old int, at timestamptz(3),
            bt bit(64), c1 "char", v vector(2), sv sparsevec(5), t text COLLATE "C",
            CONSTRAINT "x, y" CHECK ("I d" > 0 AND t <> '),'));
        ALTER TABLE "T ""q"" %s, (a)" DROP COLUMN old;
        INSERT INTO "T ""q"" %s, (a)" VALUES (1, 'a b', '{NULL,"NULL","a b"}', 'q', '{"a b"}',
            '{NULL,"NULL",a}', '{1.5,NULL}', '2024-01-01Z', B'1'::bit(64), 'y', '[1,2]',
            '{1:1.5}/5', E'\\.\n\\N')'''
    )
    source = dumped(bed, schema, tmp_path)
    (collection,) = {shard.collection for shard in source.shards(CONTEXT)}
    live_rows = rows(bed.source(collection), context=LARGE_BATCHES)
    assert rows(source, context=LARGE_BATCHES) == live_rows
    assert live_rows[0]["CONSTRAINT"] == "q"


def test_rows_without_columns_are_rows_as_in_a_live_read(bed, schema, tmp_path):
    bed.execute(
        "CREATE TABLE noc (); INSERT INTO noc DEFAULT VALUES; INSERT INTO noc DEFAULT VALUES"
    )
    bed.execute("CREATE TABLE gen (g int GENERATED ALWAYS AS (1) STORED)")
    bed.execute("INSERT INTO gen DEFAULT VALUES")
    assert by_table(dumped(bed, schema, tmp_path)) == {"noc": [{}, {}], "gen": [{}]}


def test_generated_columns_are_named(bed, schema, tmp_path):
    bed.execute(
        "CREATE TABLE a (id int PRIMARY KEY, body text DEFAULT 'GENERATED ALWAYS AS (', "
        'at int GENERATED ALWAYS AS IDENTITY, "tw ice" int GENERATED ALWAYS AS (id * 2) STORED)'
    )
    bed.execute("INSERT INTO a (id) VALUES (1)")
    bed.execute("CREATE TABLE b (own int) INHERITS (a); INSERT INTO b (id, at) VALUES (2, 1)")
    source = dumped(bed, schema, tmp_path)
    notes = source.describe(CONTEXT, source.shards(CONTEXT)).notes
    assert sum("no values of tw ice, which" in note for note in notes) == 2


@pytest.mark.parametrize("strings", ["on", "off"])
def test_what_stands_in_quotes_is_no_copy(bed, schema, tmp_path, strings):
    copy = f"\nCOPY {schema}.a (id, body) FROM stdin;\n99\tmade up\n\\.\n\\connect x\n{END}"
    bed.execute("CREATE TABLE a (id int PRIMARY KEY, body text); INSERT INTO a VALUES (1, 'one')")
    quoted = copy.replace("\\", "\\\\").replace("'", "''")
    bed.execute(f"COMMENT ON TABLE a IS E'it''s \\\\'' ; {quoted}'")
    bed.execute(f"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $x$ SELECT $${copy}$$ $x$")
    bed.execute(f"CREATE TABLE \"b\" (id int PRIMARY KEY, t text DEFAULT E'{quoted}')")
    bed.execute("INSERT INTO b VALUES (2, 'two')")
    path = tmp_path / "x.sql"
    with_option = bed.url + f"?options=-c%20standard_conforming_strings%3D{strings}"
    dump(PostgresBed(with_option), path, "--schema", f'"{schema}"')
    read_rows = by_table(files(path))
    assert read_rows == {"a": [{"id": 1, "body": "one"}], "b": [{"id": 2, "t": "two"}]}


HEAD = "-- PostgreSQL database dump\nCREATE TABLE public.a (\n    id integer\n);\n"


@pytest.mark.parametrize(
    "copy",
    [
        "COPY public.a (id) FROM stdin WITH (FORMAT csv);\n",
        "copy public.a (id) from stdin;\n",
        "COPY public.a (id) FROM stdin; SELECT 1;\n",
        "COPY public.a (id) FROM stdin;\r\n",
        "COPY public.a (id)\nFROM stdin;\n",
        "SELECT 1; COPY only.a.b.c (id) FROM stdin;\n",
    ],
)
def test_a_copy_that_is_not_understood_is_refused(tmp_path, copy):
    path = tmp_path / "x.sql"
    path.write_bytes((HEAD + copy + "1\n\\.\n" + END).encode())
    with pytest.raises(SourceError, match="COPY is not understood") as error:
        files(path).shards(CONTEXT)
    assert "pg_dump" in error.value.remedy


def test_a_statement_ends_at_a_semicolon_outside_of_quotes_and_comments():
    script = (
        "-- it's a ; comment\n/* one /* two */ ; */ SELECT 'a;''\n;', E'\\';', \"b;\n\"\"\" -- ;\n"
        "; COPY a$$ FROM b; SELECT $$;$$, $é1$ $$;\n $é1$, $1; last"
    )
    statements = Statements(("SELECT", "COPY"))
    ended = [
        statement for line in script.splitlines(keepends=True) for statement in statements.add(line)
    ]
    assert [statement.text.split()[0] for statement in ended] == ["SELECT", "COPY", "SELECT"]
    assert all(len(statement.text) == len(statement.code) for statement in ended)
    assert not any(";" in statement.code[:-1] for statement in ended)
    assert not statements.is_between
