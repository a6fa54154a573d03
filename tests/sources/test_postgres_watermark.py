"""Whether a range of a table was written to, PostgreSQL tells by the versions of its rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cfray.sources.base import Context
from tests.sources.postgres_bed import PostgresBed

pytestmark = pytest.mark.server("postgres")
CONTEXT = Context()


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(PostgresBed)


@pytest.fixture
def table(bed):
    """Make a table of 400 rows, which become 4 shards."""
    name = bed.fresh()
    bed.execute(f'CREATE TABLE "{name}" (id int PRIMARY KEY, body text NOT NULL)')
    bed.execute(
        f"INSERT INTO \"{name}\" SELECT n, repeat('x', 500) || n FROM generate_series(1, 400) n"
    )
    yield name
    bed.execute(f'DROP TABLE IF EXISTS "{name}" CASCADE')


def watermarks(bed, name, earlier=(), **more):
    """Divide a table as it is now; give shards and their watermarks by id."""
    source = bed.source(name, shard_bytes=70_000, **more)
    with source.session() as session:
        context = replace(CONTEXT, session=session.state)
        # what they weigh is an estimate, which a VACUUM changes
        shards = [replace(shard, size=0) for shard in source.shards_since(list(earlier), context)]
        return shards, {shard.id: source.watermark(shard, "", context) for shard in shards}


def test_rows_that_nobody_writes_to_keep_their_watermark(bed, table):
    shards, before = watermarks(bed, table)
    assert len(shards) == 4
    assert None not in before.values()
    assert watermarks(bed, table, shards) == (shards, before)
    bed.execute(f'VACUUM (FREEZE) "{table}"')
    assert watermarks(bed, table, shards) == (shards, before)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {} SET body = 'other' WHERE id = 150",
        "UPDATE {} SET body = body WHERE id = 150",
        "DELETE FROM {} WHERE id = 150",
        "DELETE FROM {0} WHERE id = 150; INSERT INTO {0} VALUES (150, 'again')",
        "BEGIN; UPDATE {0} SET body = 'a'||id WHERE id = 150; DELETE FROM {0} WHERE id = 151; COMMIT",
    ],
)
def test_each_write_changes_the_watermark_of_its_range_alone(bed, table, statement):
    shards, before = watermarks(bed, table)
    for part in statement.format(f'"{table}"').split("; "):
        bed.execute(part)
    again, after = watermarks(bed, table, shards)
    assert again == shards
    (touched,) = [name for name in before if before[name] != after[name]]
    assert touched == shards[1].id
    # one that is written to again differs from both
    bed.execute(
        f"INSERT INTO \"{table}\" VALUES (150, 'n') ON CONFLICT (id) DO UPDATE SET body='n'"
    )
    assert watermarks(bed, table, shards)[1][touched] not in (before[touched], after[touched])


@pytest.mark.parametrize(
    "statements",
    [
        # a value for all rows, and no row is written
        [
            "ALTER TABLE {} ADD COLUMN extra int DEFAULT 1",
            "ALTER TABLE {} DROP COLUMN extra",
            "ALTER TABLE {} ADD COLUMN extra int DEFAULT 2",
        ],
        ["VACUUM FULL {}"],
        ["ALTER TYPE kind_of_test RENAME VALUE 'one' TO 'two'"],
    ],
)
def test_what_changes_rows_without_writing_them_changes_all(bed, table, statements):
    bed.execute("CREATE TYPE kind_of_test AS ENUM ('one')")
    try:
        bed.execute(f"ALTER TABLE \"{table}\" ADD COLUMN kind kind_of_test DEFAULT 'one'")
        *prepared, last = statements
        for statement in prepared[:1]:
            bed.execute(statement.format(f'"{table}"'))
        _, before = watermarks(bed, table)
        for statement in [*prepared[1:], last]:
            bed.execute(statement.format(f'"{table}"'))
        _, after = watermarks(bed, table)
        assert before.keys() == after.keys()
        assert not set(before.values()) & set(after.values())
    finally:
        bed.execute(f'DROP TABLE "{table}"')
        bed.execute("DROP TYPE kind_of_test")


def test_a_table_that_grows_is_cut_behind_its_last_key(bed, table):
    shards, before = watermarks(bed, table)
    insert = f"INSERT INTO \"{table}\" SELECT n, repeat('x', 500) || n FROM generate_series"
    bed.execute(f"{insert}(401, 480) n")
    again, _ = watermarks(bed, table, shards)
    assert again == shards, "the last range may grow to two"
    bed.execute(f"{insert}(481, 700) n")
    again, after = watermarks(bed, table, shards)
    assert len(again) > len(shards)
    assert again[:3] == shards[:3]
    assert [after[shard.id] for shard in shards[:3]] == [before[shard.id] for shard in shards[:3]]
    assert again[3].where["high"] is not None
    # a table of which each range has grown is cut anew
    bed.execute(f"{insert}(701, 2000) n")
    assert watermarks(bed, table, shards)[0] == watermarks(bed, table)[0]
    # without one of its ranges the others are no division
    fresh, _ = watermarks(bed, table)
    assert watermarks(bed, table, shards[1:])[0] == fresh
    # nor are ranges of other columns
    bed.execute(f'ALTER TABLE "{table}" ADD COLUMN extra int')
    assert watermarks(bed, table, shards)[0] == watermarks(bed, table)[0]


@pytest.mark.parametrize(
    ("make", "change"),
    [
        ("CREATE TABLE {0}k (x int, y text)", "ALTER TABLE {0}k RENAME COLUMN y TO z"),
        ("CREATE TYPE {0}k AS (x int, y text)", "ALTER TYPE {0}k RENAME ATTRIBUTE y TO z"),
    ],
)
def test_a_type_of_rows_that_changes_changes_all(bed, table, make, change):
    bed.execute(make.format(table.lower()))
    bed.execute(f'ALTER TABLE "{table}" ADD COLUMN rows {table.lower()}k[]')
    shards, before = watermarks(bed, table)
    assert watermarks(bed, table, shards) == (shards, before)
    bed.execute(change.format(table.lower()))
    after = watermarks(bed, table)[1]
    assert None not in before.values()
    assert not set(before.values()) & set(after.values())
    bed.execute(f'DROP TABLE "{table}"')
    bed.execute(f"DROP {'TABLE' if 'TABLE' in make else 'TYPE'} {table.lower()}k")


@pytest.mark.parametrize("name", ["domain", "array", "row"])
def test_a_name_of_the_catalog_within_another_type_has_no_watermark(bed, table, name):
    kind = f"{table.lower()}_{name}"
    make = {
        "domain": f"CREATE DOMAIN {kind} AS regclass",
        "array": f"CREATE DOMAIN {kind} AS regclass[]",
        "row": f"CREATE TYPE {kind} AS (x int, r aclitem)",
    }
    bed.execute(make[name])
    bed.execute(f'ALTER TABLE "{table}" ADD COLUMN named {kind}')
    assert set(watermarks(bed, table)[1].values()) == {None}
    bed.execute(f'DROP TABLE "{table}"')
    bed.execute(f"DROP {'TYPE' if name == 'row' else 'DOMAIN'} {kind}")


def test_relations_whose_rows_have_no_versions_have_no_watermark(bed, table):
    bed.execute(f'CREATE VIEW "{table} seen" AS SELECT * FROM "{table}"')
    bed.execute(f'CREATE TABLE "{table} keyless" AS SELECT * FROM "{table}"')
    bed.execute(f'CREATE TABLE "{table} of names" (id int PRIMARY KEY, name regclass)')
    bed.execute(f"INSERT INTO \"{table} of names\" VALUES (1, 'pg_class')")
    try:
        for name in (f"{table} seen", f"{table} keyless", f"{table} of names"):
            shards, found = watermarks(bed, name)
            assert shards
            assert set(found.values()) == {None}
        query = bed.source(query=f'SELECT * FROM "{table}"')
        with query.session() as session:
            context = replace(CONTEXT, session=session.state)
            (shard,) = query.shards_since([], context)
            assert query.watermark(shard, "", context) is None
    finally:
        bed.execute(f'DROP TABLE "{table} keyless", "{table} of names"')
