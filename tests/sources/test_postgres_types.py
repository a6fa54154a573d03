"""PostgreSQL: every type comes back without a loss, and what Arrow cannot hold says what it is."""

import datetime as dt
import uuid
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.sources.base import Context
from tests.sources.corpus import CONTEXT, items, plain_rows, rows
from tests.sources.postgres_bed import PostgresBed

pytestmark = pytest.mark.server("postgres")
LARGE_BATCHES = Context(batch_bytes=2**20)


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(PostgresBed)


def read_values(bed, kind, *literals, setup=""):
    """Store literals in a column of a type; give what a read gives, in order."""
    name = bed.fresh()
    if setup:
        bed.execute(setup)
    bed.execute(f'CREATE TABLE "{name}" (k int PRIMARY KEY, value {kind})')
    for number, literal in enumerate(literals):
        bed.execute(f'INSERT INTO "{name}" VALUES ({number}, {literal})')
    read_rows = rows(bed.source(name), context=LARGE_BATCHES)
    assert [row["id"] for row in read_rows] == list(range(len(literals)))
    return [row.get("value") for row in read_rows]


EXACT = [
    ("boolean", ["true", "false", "NULL"], [True, False, None]),
    ("smallint", ["-32768", "32767"], [-32768, 32767]),
    ("integer", ["-2147483648", "NULL"], [-(2**31), None]),
    ("bigint", ["9223372036854775807", "-9223372036854775808"], [2**63 - 1, -(2**63)]),
    ("oid", ["4294967295"], [2**32 - 1]),
    ("double precision", ["5e-324", "'-0'", "0.1"], [5e-324, -0.0, 0.1]),
    (
        "text",
        ["''", "NULL", "E'\\t\\\\N'", "'\\N'", "'☕\U0001d4b3'"],
        ["", None, "\t\\N", "\\N", "☕\U0001d4b3"],
    ),
    ("varchar(5)", ["'ab '"], ["ab "]),
    ("char(4)", ["'ab'"], ["ab  "]),
    ("bytea", ["'\\x00ff5c'", "''", "NULL"], [b"\x00\xff\\", b"", None]),
    (
        "uuid",
        ["'6f9619ff-8b86-d011-b42d-00c04fc964ff'", "NULL"],
        [uuid.UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff"), None],
    ),
    ("date", ["'2024-02-29'", "'1582-10-15'"], [dt.date(2024, 2, 29), dt.date(1582, 10, 15)]),
    ("time", ["'23:59:59.999999'"], [dt.time(23, 59, 59, 999_999)]),
    (
        "timestamp",
        ["'1969-12-31 23:59:59.999999'", "NULL"],
        [dt.datetime.fromisoformat("1969-12-31T23:59:59.999999"), None],
    ),
    (
        "timestamptz",
        ["'2024-02-03 04:05:06+05:30'"],
        [dt.datetime(2024, 2, 2, 22, 35, 6, tzinfo=ZoneInfo("UTC"))],
    ),
    (
        "numeric(20,4)",
        ["1.5", "-0.0001", "1234567890123456.7891", "NULL"],
        [Decimal("1.5000"), Decimal("-0.0001"), Decimal("1234567890123456.7891"), None],
    ),
    ("numeric(60,2)", [f"{10**50}.25"], [Decimal(f"{10**50}.25")]),
    ("text[]", ["'{}'", '\'{a,NULL,"NULL",""}\'', "NULL"], [[], ["a", None, "NULL", ""], None]),
    ("integer[]", ["'{1,NULL,-3}'", "'[5:6]={7,8}'"], [[1, None, -3], [7, 8]]),
    ("real[]", ["'{0.5,-2}'"], [[0.5, -2.0]]),
    ("boolean[]", ["'{t,NULL,f}'"], [[True, None, False]]),
    ("date[]", ["'{2024-02-29}'"], [[dt.date(2024, 2, 29)]]),
    ("bytea[]", ["'{\"\\\\x00ff\"}'"], [[b"\x00\xff"]]),
]


@pytest.mark.parametrize(("kind", "literals", "values"), EXACT, ids=[kind for kind, *_ in EXACT])
def test_a_type_that_arrow_has_comes_back_as_itself(bed, kind, literals, values):
    assert repr(read_values(bed, kind, *literals)) == repr(values)


TYPED = [
    ("numeric", ["1.10", "NULL", "'NaN'"], [("numeric", '"1.10"'), None, ("numeric", '"NaN"')]),
    ("numeric(3,-2)", ["12345"], [("numeric(3,-2)", '"12300"')]),
    ("interval", ["'1 mon 2 days 03:04:05.5'"], [("interval", '"P1M2DT3H4M5.5S"')]),
    ("timetz", ["'01:02:03+02'"], [("time with time zone", '"01:02:03+02"')]),
    ("inet", ["'10.0.0.1/8'"], [("inet", '"10.0.0.1/8"')]),
    ("int4range", ["'[1,5)'", "'empty'"], [("int4range", '"[1,5)"'), ("int4range", '"empty"')]),
    ("int8multirange", ["'{[1,3),[5,7)}'"], [("int8multirange", '"{[1,3),[5,7)}"')]),
    ("bit(5)", ["B'10110'"], [("bit(5)", '"10110"')]),
    ("varbit", ["B'101'"], [("bit varying", '"101"')]),
    ("tsvector", ["'a b'"], [("tsvector", "\"'a' 'b'\"")]),
    ("money", ["'1234.50'"], [("money", '"1234.50"')]),
    ("point", ["'(1.5,2)'"], [("point", '"(1.5,2)"')]),
    ("numeric[]", ["'{1.10,NULL}'"], [("numeric[]", '["1.10",null]')]),
    (
        "uuid[]",
        ["'{6f9619ff-8b86-d011-b42d-00c04fc964ff}'"],
        [("uuid[]", '["6f9619ff-8b86-d011-b42d-00c04fc964ff"]')],
    ),
    ("jsonb[]", ["array['{\"a\": 1}'::jsonb]"], [("list", '[{"a":1}]')]),
    (
        "jsonb",
        ['\'{"b": 1, "a": [1.5, null]}\'', "'null'", "NULL", "'\"x\"'", "'9007199254740993'"],
        [
            ("struct", '{"a":[1.5,null],"b":1}'),
            ("null", "null"),
            None,
            ("string", "x"),
            ("int64", "9007199254740993"),
        ],
    ),
    (
        "jsonb",
        ["'{\"n\": 0.12345678901234567890123}'"],
        [("jsonb", '"{\\"n\\": 0.12345678901234567890123}"')],
    ),
    ("json", ['\'{"a": 1, "a": 2}\''], [("json", '"{\\"a\\": 1, \\"a\\": 2}"')]),
    ("json", ["'{ \"b\" : 2 }'"], [("struct", '{"b":2}')]),
    (
        "json",
        ["'-0'", "'[-0, 1]'", "'-0.0'", '\'{"a-0": "-0"}\'', "'[-0.5, -1]'"],
        [
            ("json", '"-0"'),
            ("json", '"[-0, 1]"'),
            ("double", "-0.0"),
            ("struct", '{"a-0":"-0"}'),
            ("list", "[-0.5,-1]"),
        ],
    ),
]


@pytest.mark.parametrize(("kind", "literals", "values"), TYPED, ids=[kind for kind, *_ in TYPED])
def test_any_other_type_keeps_its_text_and_its_name(bed, kind, literals, values):
    assert read_values(bed, kind, *literals) == values


DEVIATIONS = [
    (
        "timestamptz",
        ["'infinity'", "'2024-01-01Z'", "NULL", "'-infinity'"],
        [
            ("string", "infinity"),
            ("timestamp[us, tz=UTC]", '"2024-01-01T00:00:00+00:00"'),
            None,
            ("string", "-infinity"),
        ],
    ),
    ("date", ["'infinity'", "NULL"], [("string", "infinity"), None]),
    ("time", ["'24:00'", "'00:00'"], [("string", "24:00:00"), ("time64[us]", '"00:00:00"')]),
    (
        "numeric(4,1)",
        ["'NaN'", "1.5"],
        [("string", "NaN"), ("decimal128(4, 1)", '"1.5"')],
    ),
    (
        "integer[]",
        ["'{{1,2},{3,NULL}}'", "'{5}'", "'{}'", "NULL"],
        [
            ("integer[]", "[[1,2],[3,null]]"),
            ("list<item: int32>", "[5]"),
            ("list<item: int32>", "[]"),
            None,
        ],
    ),
    ("text[]", ["'{{{a},{\"\"}}}'"], [("text[]", '[[["a"],[""]]]')]),
    ("date[]", ["'{infinity}'"], [("list<item: date32[day]>", '["infinity"]')]),
]


@pytest.mark.parametrize(
    ("kind", "literals", "values"), DEVIATIONS, ids=[kind for kind, *_ in DEVIATIONS]
)
def test_a_value_that_its_arrow_type_cannot_hold_says_what_it_is(bed, kind, literals, values):
    assert read_values(bed, kind, *literals) == values


def test_texts_that_are_not_utf8_are_set_aside_with_their_rows(bed):
    name = bed.fresh().lower()
    with bed.connect() as connection:
        connection.execute(
            f"CREATE DATABASE {name} ENCODING SQL_ASCII TEMPLATE template0 LOCALE 'C'"
        )
    other = PostgresBed(bed.url.rpartition("/")[0] + f"/{name}")
    try:
        other.execute("SET client_encoding = SQL_ASCII")
        other.execute(
            "CREATE TABLE t (id int PRIMARY KEY, b text, j jsonb, a text[], v tsvector, c varchar[])"
        )
        other.execute("INSERT INTO t SELECT i, 'ok', '{}', '{a}' FROM generate_series(1, 50) i")
        for number, values in enumerate(
            (
                "'\xe9'",
                "'é', '{\"a\": \"\xe9\"}'",
                "'a', '{}', '{a,\xe9}'",
                "'a', '{}', '{{a},{\xe9}}'",
                "'a', '{}', '{}', '\xe9'",
                "'a', '{}', '{}', NULL, '{\xe9}'",
            )
        ):
            statement = f"INSERT INTO t VALUES ({100 + number}, ".encode()
            other.execute(statement + values.encode("latin-1") + b")")
        other.execute("INSERT INTO t VALUES (200, 'é', '{\"é\": 1}', '{é}')".encode())
        source = other.source("t")
        read_items = [item for _, item in items(source, LARGE_BATCHES)]
        rejects = [item.reason for item in read_items if isinstance(item, Reject)]
        assert rejects == [f"column {column} is not UTF-8" for column in "bjaavc"]
        read_rows = [
            r for item in read_items if not isinstance(item, Reject) for r in plain_rows(item)
        ]
        assert [row["id"] for row in read_rows] == [*range(1, 51), 200]
        assert read_rows[-1]["b"] == "é"
        other.execute(
            b"CREATE TABLE k AS SELECT i::text || '\xe9' AS k FROM generate_series(1,9) i"
        )
        other.execute("ALTER TABLE k ADD PRIMARY KEY (k)")
        with pytest.raises(SourceError, match="a key that is not UTF-8") as error:
            other.source("k", shard_bytes=1_024).shards(CONTEXT)
        assert "partition: blocks" in error.value.remedy
    finally:
        other.connection.close()
        bed.execute(f"DROP DATABASE {name}")


def test_an_instant_beyond_arrow_is_refused_by_name(bed):
    with pytest.raises(SourceError, match="294246"):
        read_values(bed, "timestamp", "'294276-01-01'")


def test_enums_domains_and_composites(bed):
    run = bed.fresh()
    setup = (
        f"CREATE TYPE \"{run}mood\" AS ENUM ('so \"so\"', 'ü'); "
        f'CREATE DOMAIN "{run}dom" AS bigint CHECK (value > 0); '
        f'CREATE TYPE "{run}pair" AS (x numeric, "Y y" text[])'
    )
    assert read_values(bed, f'"{run}mood"', "'so \"so\"'", "NULL", setup=setup) == ['so "so"', None]
    assert read_values(bed, f'"{run}dom"', "5") == [5]
    assert read_values(bed, f'"{run}mood"[]', "'{ü}'") == [["ü"]]
    assert read_values(bed, f'"{run}pair"', "ROW(1.50, '{a}')", "NULL", "ROW(NULL, NULL)") == [
        ("struct", '{"Y y":["a"],"x":1.5}'),
        None,
        ("struct", '{"Y y":null,"x":null}'),
    ]


def read_batch(bed, columns, *value_rows):
    name = bed.fresh()
    bed.execute(f'CREATE TABLE "{name}" (k int PRIMARY KEY, {columns})')
    for number, values in enumerate(value_rows):
        bed.execute(f'INSERT INTO "{name}" VALUES ({number}, {values})')
    source = bed.source(name)
    (batch,) = [batch for _, batch in items(source, LARGE_BATCHES)]
    return batch, source.describe(CONTEXT, source.shards(CONTEXT))


def test_vectors_are_float32_to_the_bit(bed):
    numbers = np.array([1e-45, -0.0, 3.4028235e38, 0.1], np.float32)
    literal = "'[" + ",".join(map(repr, numbers.tolist())) + "]'"
    batch, described = read_batch(bed, "v vector(4)", literal, "NULL")
    assert batch.column("vector").type == pa.list_(pa.float32(), 4)
    assert batch.column("vector")[0].values.to_numpy().tobytes() == numbers.tobytes()
    assert batch.column("vector")[1].as_py() is None
    assert described.collections[0].dimension == 4


def test_several_vectors_have_names_and_keep_their_kinds(bed):
    batch, described = read_batch(
        bed,
        'a vector(2), "b B" halfvec(2), s sparsevec(9), c bit(64), vector text, d vector',
        f"'[1,2]', '[0.5,-65504]', '{{1:1.5,9:-2}}/9', B'{'10' * 32}', 'x', '[3]'",
        "NULL, NULL, '{}/9', NULL, NULL, NULL",
    )
    vectors = batch.column("vectors")
    assert batch.column("columns.vector").to_pylist() == ["x", None]
    assert vectors.type.field("b B").type == pa.list_(pa.float16(), 2)
    assert vectors.to_pylist() == [
        {
            "a": [1.0, 2.0],
            "b B": [0.5, -65504.0],
            "s": {"indices": [0, 8], "values": [1.5, -2.0]},
            "c": [0b10101010] * 8,
            "d": [3.0],
        },
        {"a": None, "b B": None, "s": {"indices": [], "values": []}, "c": None, "d": None},
    ]
    assert described.collections[0].vectors == {
        "a": (2, None),
        "b B": (2, None),
        "d": (None, None),
    }


def test_a_halfvec_alone_is_the_vector_and_beside_a_vector_is_not(bed):
    alone, _ = read_batch(bed, "h halfvec(2)", "'[1,2]'")
    assert alone.column("vector").type == pa.list_(pa.float16(), 2)
    beside, _ = read_batch(bed, "h halfvec(2), v vector(1)", "'[1,2]', '[3]'")
    assert beside.column("vector").to_pylist() == [[3.0]]
    assert beside.column("vectors").to_pylist() == [{"h": [1.0, 2.0]}]


def test_vectors_of_no_declared_width_keep_their_own(bed):
    batch, described = read_batch(bed, "v vector", "'[1,2]'", "NULL", "'[1,2,3]'")
    assert batch.column("vector").to_pylist() == [[1, 2], None, [1, 2, 3]]
    assert described.collections[0].dimension is None


def test_the_distance_of_an_index_is_the_metric(bed):
    name = bed.fresh()
    bed.execute(
        f'CREATE TABLE "{name}" (k int PRIMARY KEY, v vector(2), w halfvec(2), x vector(3))'
    )
    bed.execute(f'CREATE INDEX ON "{name}" USING hnsw (v vector_ip_ops) WITH (m = 8)')
    bed.execute(f'CREATE INDEX ON "{name}" USING hnsw (w halfvec_cosine_ops)')
    source = bed.source(name)
    (collection,) = source.describe(CONTEXT, []).collections
    assert collection.vectors == {"v": (2, "dot"), "w": (2, "cosine"), "x": (3, None)}
    assert "m='8'" in collection.facts["vector indexes"]


def test_a_record_beyond_the_limit_is_set_aside(bed):
    name = bed.seed([{"id": "small", "text": "x"}, {"id": "large", "text": "x" * 5_000}])
    limited = Context(batch_bytes=10**6, max_record=2_000)
    read_items = [item for _, item in items(bed.source(name), limited)]
    (reject,) = [item for item in read_items if isinstance(item, Reject)]
    assert "limits.max_document" in reject.reason
    assert b"large" in reject.content
    read_rows = [r for item in read_items if not isinstance(item, Reject) for r in plain_rows(item)]
    assert [row["id"] for row in read_rows] == ["small"]


def test_awkward_rows_come_back_as_they_were_put_in(bed):
    awkward = bed.awkward(300, 5)
    name = bed.seed(awkward)
    read_rows = {row["id"]: row for row in rows(bed.source(name), context=LARGE_BATCHES)}
    assert len(read_rows) == 300
    for row in awkward:
        assert read_rows[row["id"]] == bed.expected(row)
