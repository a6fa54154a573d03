"""PostgreSQL: which tables are read, under which names, and by which shards."""

import json
import os
from pathlib import Path

import pytest

from cfray.errors import SourceError
from cfray.sources.base import Context
from cfray.sources.postgres import plan
from tests.sources.corpus import CONTEXT, rows
from tests.sources.postgres_bed import KEY, PostgresBed

pytestmark = pytest.mark.server("postgres")
LARGE_BATCHES = Context(batch_bytes=2**20)


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(PostgresBed)


@pytest.fixture
def schema(bed):
    """Return the name of a schema of the test's own, with a hostile name, and drop it at the end."""
    name = f'S "{bed.fresh()}" ü.;--'
    quoted = '"' + name.replace('"', '""') + '"'
    bed.execute(f"CREATE SCHEMA {quoted}")
    yield quoted
    bed.execute(f"DROP SCHEMA {quoted} CASCADE")


def read_ids(source, context=LARGE_BATCHES):
    return sorted(row["id"] for row in rows(source, context=context))


def test_hostile_names_are_names(bed, schema):
    table = '"t%s {0} \'; DROP TABLE x; --"'
    bed.execute(
        f'CREATE TABLE {schema}.{table} ("k""e y" text, "a.b" int, "%s" int, "{{}}" int, '
        '"select" int, "naïve ☕" int, CONSTRAINT "p""k" PRIMARY KEY ("k""e y"))'.replace(
            "%", "%%"
        ).replace("%%", "%")
    )
    for number in range(40):
        bed.execute(f"INSERT INTO {schema}.{table} VALUES ('it''s {number:02d}', 1, 2, 3, 4, 5)")
    name = f"{schema}.{table[1:-1]}"
    source = bed.source(name, shard_bytes=2_000)
    assert len(source.shards(CONTEXT)) > 3
    read_rows = rows(source, context=LARGE_BATCHES)
    assert sorted(row["id"] for row in read_rows) == [f"it's {n:02d}" for n in range(40)]
    assert {key: read_rows[0][key] for key in ("a.b", "%s", "{}", "select", "naïve ☕")} == {
        "a.b": 1, "%s": 2, "{}": 3, "select": 4, "naïve ☕": 5,
    }  # fmt: skip
    assert source.count(CONTEXT) == 40


def test_names_with_dots_are_told_apart(bed, schema):
    run = bed.fresh()
    bed.execute(f'CREATE TABLE "{run}.x" (id int PRIMARY KEY)')
    bed.execute(f'CREATE SCHEMA "{run}"')
    bed.execute(f'CREATE TABLE "{run}".x (id int PRIMARY KEY)')
    bed.execute(f'INSERT INTO "{run}.x" VALUES (1); INSERT INTO "{run}".x VALUES (2)')
    assert read_ids(bed.source(f'"{run}.x"')) == [1]
    assert read_ids(bed.source(f"{run}.x")) == [2]
    assert read_ids(bed.source(f'"{run}.x"', f"{run}.x")) == [1, 2]


def test_by_default_every_table_is_read_and_no_view_partition_or_system_table(bed):
    name = bed.fresh()
    with bed.connect() as connection:
        connection.execute(f"CREATE DATABASE {name}")
    other = PostgresBed(bed.url.rpartition("/")[0] + f"/{name.lower()}")
    try:
        other.execute("CREATE EXTENSION vector")
        other.execute("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)")
        other.execute("CREATE SCHEMA s; CREATE TABLE s.b (id int PRIMARY KEY)")
        other.execute("INSERT INTO s.b VALUES (2)")
        other.execute("CREATE VIEW v AS SELECT * FROM a")
        other.execute("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)")
        other.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (5)")
        other.execute("INSERT INTO p VALUES (3)")
        source = other.source()
        assert sorted({shard.collection for shard in source.shards(CONTEXT)}) == ["a", "p", "s.b"]
        assert read_ids(source) == [1, 2, 3]
    finally:
        other.connection.close()
        bed.execute(f"DROP DATABASE {name}")


@pytest.mark.parametrize("rows_at_most", [10, 10_000_000])
def test_a_composite_key_divides_its_table(bed, monkeypatch, rows_at_most):
    monkeypatch.setattr(plan, "_SAMPLED_ROWS", rows_at_most)
    name = bed.fresh()
    bed.execute(
        f'CREATE TABLE "{name}" (tenant text COLLATE "C", at timestamptz, n numeric, body text, '
        "PRIMARY KEY (at, tenant, n))"
    )
    bed.execute(
        f"INSERT INTO \"{name}\" SELECT E'it''s \\\\ ' || i % 3, "
        "timestamptz '2024-01-01' + i / 9 * interval '1 microsecond', i % 9 + 0.10, "
        "repeat('x', 200) FROM generate_series(0, 899) i"
    )
    bed.execute(f'ANALYZE "{name}"')
    source = bed.source(name, shard_bytes=20_000)
    shards = source.shards(CONTEXT)
    assert len(shards) > 4
    read_rows = rows(source, context=LARGE_BATCHES)
    keys = {(row["tenant"], row["at"], row["n"]) for row in read_rows}
    assert len(keys) == len(read_rows) == 900
    assert all("id" not in row for row in read_rows)
    description = source.describe(CONTEXT, shards)
    assert json.loads(description.collections[0].facts["key"]) == ["at", "tenant", "n"]
    assert any("{key: [at, tenant, n]}" in note for note in description.notes)


def test_a_partitioned_table_is_read_leaf_by_leaf_as_one_collection(bed):
    name = bed.fresh()
    bed.execute(f'CREATE TABLE "{name}" (id int PRIMARY KEY, t text) PARTITION BY RANGE (id)')
    bed.execute(f'CREATE TABLE "{name}a" PARTITION OF "{name}" FOR VALUES FROM (0) TO (50)')
    bed.execute(
        f'CREATE TABLE "{name}b" PARTITION OF "{name}" FOR VALUES FROM (50) TO (200) '
        "PARTITION BY HASH (id)"
    )
    for number in range(2):
        bed.execute(
            f'CREATE TABLE "{name}b{number}" PARTITION OF "{name}b" '
            f"FOR VALUES WITH (MODULUS 2, REMAINDER {number})"
        )
    bed.execute(f"INSERT INTO \"{name}\" SELECT i, repeat('x', 300) FROM generate_series(0, 199) i")
    for options in ({}, {"partition": "blocks"}):
        source = bed.source(name, shard_bytes=9_000, **options)
        shards = source.shards(CONTEXT)
        assert {shard.collection for shard in shards} == {name}
        assert {shard.id.partition("#")[0] for shard in shards} == {
            f"{name}/{name}{leaf}" for leaf in ("a", "b0", "b1")
        }
        assert len(shards) > 5
        assert read_ids(source) == list(range(200))
        assert source.count(CONTEXT) == 200


def test_the_rows_of_children_are_not_those_of_their_parent(bed):
    name = bed.fresh()
    bed.execute(f'CREATE TABLE "{name}" (id int PRIMARY KEY)')
    bed.execute(f'CREATE TABLE "{name}c" (PRIMARY KEY (id)) INHERITS ("{name}")')
    bed.execute(f'INSERT INTO "{name}" VALUES (1); INSERT INTO "{name}c" VALUES (2)')
    assert read_ids(bed.source(name)) == [1]
    assert read_ids(bed.source(name, f"{name}c")) == [1, 2]


def test_foreign_keys_are_references_of_their_tables(bed):
    run = bed.fresh()
    bed.execute(f'CREATE TABLE "{run}author" (author_id bigint PRIMARY KEY, mail text UNIQUE)')
    bed.execute(
        f'CREATE TABLE "{run}doc" (id text PRIMARY KEY, author bigint REFERENCES "{run}author", '
        f'mail text REFERENCES "{run}author" (mail), parent text REFERENCES "{run}doc", '
        "other_id bigint)"
    )
    bed.execute(f'CREATE TABLE "{run}more" (author_id bigint PRIMARY KEY REFERENCES "{run}author")')
    source = bed.source(f"{run}doc", f"{run}more")
    description = source.describe(CONTEXT, source.shards(CONTEXT))
    doc, more = description.collections
    assert doc.references == {"author": f"{run}author", "parent": f"{run}doc"}
    assert more.references == {"id": f"{run}author"}
    assert description.references == {**doc.references, **more.references}
    assert "REFERENCES" in doc.facts["foreign keys"]


def test_a_column_of_a_larger_key_that_is_called_id_keeps_its_name(bed):
    name = bed.fresh()
    bed.execute(f'CREATE TABLE "{name}" (tenant int, id int, body text, PRIMARY KEY (tenant, id))')
    bed.execute(f"INSERT INTO \"{name}\" VALUES (1, 7, 'a'), (2, 7, 'b')")
    source = bed.source(name)
    assert sorted((row["tenant"], row["id"]) for row in rows(source)) == [(1, 7), (2, 7)]
    notes = source.describe(CONTEXT, source.shards(CONTEXT)).notes
    assert any("mapping.id: {key: [tenant, id]}" in note for note in notes)


def test_a_table_without_a_key_is_divided_by_blocks(bed):
    name = bed.fresh()
    bed.execute(f'CREATE TABLE "{name}" (id int, body text)')
    bed.execute(
        f"INSERT INTO \"{name}\" SELECT i % 90, repeat('x', 300) FROM generate_series(0, 199) i"
    )
    source = bed.source(name, shard_bytes=9_000)
    shards = source.shards(CONTEXT)
    assert len(shards) > 4
    assert all("blocks" in shard.where for shard in shards)
    assert sorted(row["id"] for row in rows(source, context=LARGE_BATCHES)) == sorted(
        n % 90 for n in range(200)
    )
    with pytest.raises(SourceError, match="no primary key"):
        bed.source(name, partition="key").shards(CONTEXT)


def test_blocks_of_deleted_rows_are_no_rows(bed):
    name = bed.fresh()
    bed.execute(f'CREATE TABLE "{name}" (id int PRIMARY KEY, body text)')
    bed.execute(f"INSERT INTO \"{name}\" SELECT i, repeat('x', 300) FROM generate_series(0, 299) i")
    bed.execute(f'DELETE FROM "{name}" WHERE id % 3 > 0')
    source = bed.source(name, shard_bytes=9_000, partition="blocks")
    assert len(source.shards(CONTEXT)) > 4
    assert read_ids(source) == list(range(0, 300, 3))


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
def test_a_view_is_divided_by_the_key_that_the_job_names(bed, kind):
    name = bed.fresh()
    bed.execute(
        f'CREATE TABLE "{name}t" AS SELECT i AS k, i % 7 AS m FROM generate_series(0, 99) i'
    )
    bed.execute(f'CREATE {kind} "{name}" AS SELECT * FROM "{name}t"')
    (whole,) = bed.source(name, shard_bytes=1_024).shards(CONTEXT)
    assert not whole.splittable
    keyed = bed.source(name, key=["k"], shard_bytes=5_000)
    assert len(keyed.shards(CONTEXT)) > 1
    assert read_ids(keyed) == list(range(100))
    with pytest.raises(SourceError, match="no blocks"):
        bed.source(name, partition="blocks").shards(CONTEXT)
    with pytest.raises(SourceError, match="no column nope"):
        bed.source(name, key=["nope"]).shards(CONTEXT)


def test_a_key_with_nulls_loses_no_row(bed):
    name = bed.fresh()
    bed.execute(f'CREATE TABLE "{name}t" (a int, b int)')
    bed.execute(
        f'INSERT INTO "{name}t" SELECT nullif(i % 5, 0), nullif(i % 3, 0) '
        "FROM generate_series(0, 59) i"
    )
    bed.execute(f'CREATE VIEW "{name}" AS SELECT * FROM "{name}t"')
    source = bed.source(name, key=["a", "b"], shard_bytes=4 * 1024)
    assert len(source.shards(CONTEXT)) > 4
    read_rows = rows(source, context=LARGE_BATCHES)
    stored = bed.execute(f'SELECT a, b FROM "{name}t"').fetchall()
    assert sorted(map(repr, stored)) == sorted(repr((row["a"], row["b"])) for row in read_rows)


def test_a_query_is_a_collection(bed):
    name = bed.fresh()
    bed.execute(f'CREATE TABLE "{name}" (id int PRIMARY KEY, body text)')
    bed.execute(f"INSERT INTO \"{name}\" SELECT i, 'b' || i FROM generate_series(0, 99) i")
    query = f'SELECT id AS n, body AS "B ""b" FROM "{name}" WHERE id < 50 -- a comment;'
    source = bed.source("chosen", query=query, key=["n"], shard_bytes=10 * 1024)
    shards = source.shards(CONTEXT)
    assert len(shards) == 5
    assert {shard.collection for shard in shards} == {"chosen"}
    read_rows = rows(source, context=LARGE_BATCHES)
    assert [row["id"] for row in read_rows] == list(range(50))
    assert read_rows[7]['B "b'] == "b7"
    assert source.count(CONTEXT) == 50
    with pytest.raises(SourceError, match="several columns of one name"):
        bed.source(query=f'SELECT id, id FROM "{name}"').shards(CONTEXT)
    with pytest.raises(SourceError, match=r"syntax error") as error:
        bed.source(query="SELEC 1").shards(CONTEXT)
    assert not error.value.transient
    assert "source.query" in error.value.remedy


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 AS id) AS t LIMIT 0; COMMIT; CREATE TABLE hacked (x int); SELECT * FROM (SELECT 1",
        "SELECT 1 AS id) AS t) TO PROGRAM 'touch hacked' --",
        "SELECT 1 AS id; CREATE TABLE hacked (x int)",
        "CREATE TABLE hacked (x int)",
        "SELECT 1 AS x INTO hacked",
        "WITH x AS (DELETE FROM docs RETURNING id) SELECT * FROM x",
        "DELETE FROM docs RETURNING id",
        "SELECT 1 AS id WHERE set_config('transaction_read_only', 'off', false) <> ''",
        "SELECT id FROM docs WHERE id = $1",
        ";",
    ],
)
def test_a_query_is_one_select_that_writes_nothing(bed, schema, query):
    bed.execute(f"CREATE TABLE {schema}.docs (id int); INSERT INTO {schema}.docs VALUES (1)")
    folder = bed.execute("SHOW data_directory").fetchone()[0]
    source = bed.source(query=query.replace("docs", f"{schema}.docs"))
    with pytest.raises(SourceError) as error:
        source.shards(CONTEXT)
    assert not error.value.transient
    assert "source.query" in error.value.remedy
    assert bed.execute("SELECT to_regclass('hacked')").fetchone() == (None,)
    assert bed.execute(f"SELECT count(*) FROM {schema}.docs").fetchone() == (1,)
    assert not (Path(folder) / "hacked").exists()


def test_a_query_that_changes_how_texts_are_read_is_checked_each_time(bed):
    query = (
        "SELECT id FROM generate_series(1, 5000) AS id "
        "WHERE set_config('standard_conforming_strings', 'off', false) <> '' "
        "AND 'z' <> 'a' || '\\' || ') AS x, (SELECT id FROM generate_series(1, 9) AS id --'"
    )
    source = bed.source(query=query, key=["id"], shard_bytes=1_024)
    with pytest.raises(SourceError, match=r"syntax error|standard_conforming_strings"):
        source.shards(CONTEXT)


def test_rows_that_a_policy_hides_are_an_error(bed):
    name = bed.fresh()
    bed.execute(f'CREATE TABLE "{name}" (id int PRIMARY KEY); INSERT INTO "{name}" VALUES (1), (2)')
    bed.execute(f'ALTER TABLE "{name}" ENABLE ROW LEVEL SECURITY')
    bed.execute(f'CREATE POLICY p ON "{name}" USING (id = 1)')
    bed.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'pa''ss\"word'")
    bed.execute(f'GRANT SELECT ON "{name}" TO "{name}"')
    url = bed.url.replace("postgres@", f"{name}@")
    with pytest.raises(SourceError, match="row-level security") as error:
        bed.source(name, url=url).shards(CONTEXT)
    assert "BYPASSRLS" in error.value.remedy
    bed.execute(f'ALTER ROLE "{name}" BYPASSRLS')
    assert read_ids(bed.source(name, url=url)) == [1, 2]
    bed.execute(f'REVOKE SELECT ON "{name}" FROM "{name}"')
    with pytest.raises(SourceError, match="permission denied") as error:
        bed.source(name, url=url).shards(CONTEXT)
    assert "GRANT SELECT" in error.value.remedy


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("-c%20nosuch%3Dx", "unrecognized configuration parameter"),
        ("-c%20work_mem%3Dx", "invalid value for parameter"),
        ("-c%20block_size%3D8192", "cannot be changed"),
        ("-x", "invalid command-line argument"),
    ],
)
def test_options_that_the_server_refuses_are_named_at_once(bed, caplog, option, words):
    source = bed.source(url=f"{bed.url}?options={option}")
    with pytest.raises(SourceError, match=words) as error:
        source.shards(CONTEXT)
    assert not error.value.transient
    assert "options in source.url" in error.value.remedy
    assert os.environ[KEY] not in str(error.value)
    assert "trying again" not in caplog.text


def test_limits_of_the_user_do_not_end_a_read(bed):
    name = bed.fresh()
    bed.execute(f'CREATE TABLE "{name}" (id int PRIMARY KEY); INSERT INTO "{name}" VALUES (1)')
    bed.execute(f"CREATE ROLE \"{name}\" LOGIN SUPERUSER PASSWORD 'pa''ss\"word'")
    for setting in ("statement_timeout = '50ms'", "default_transaction_isolation = serializable"):
        bed.execute(f'ALTER ROLE "{name}" SET {setting}')
    for setting in ("DateStyle = 'German'", "bytea_output = 'escape'", "search_path = ''"):
        bed.execute(f'ALTER ROLE "{name}" SET {setting}')
    url = bed.url.replace("postgres@", f"{name}@")
    query = f'SELECT id, pg_sleep(0.2)::text AS slept FROM public."{name}"'
    assert len(rows(bed.source(url=url, query=query))) == 1


def test_a_column_that_came_after_the_plan_is_refused(bed):
    name = bed.seed([{"id": "a", "text": "x"}])
    source = bed.source(name)
    shards = source.shards(CONTEXT)
    bed.execute(f'ALTER TABLE "{name}" ADD COLUMN late int')
    with pytest.raises(SourceError, match="changed since the plan"):
        rows(source, shards)


def test_a_table_that_was_dropped_after_the_plan_is_named(bed):
    name = bed.seed([{"id": "a", "text": "x"}])
    source = bed.source(name)
    shards = source.shards(CONTEXT)
    bed.drop(name)
    with pytest.raises(SourceError, match=f"no table {name} any more"):
        rows(source, shards)


def test_a_table_without_columns_has_rows(bed):
    name = bed.fresh()
    bed.execute(f'CREATE TABLE "{name}" ()')
    bed.execute(f'INSERT INTO "{name}" DEFAULT VALUES; INSERT INTO "{name}" DEFAULT VALUES')
    assert rows(bed.source(name)) == [{}, {}]
