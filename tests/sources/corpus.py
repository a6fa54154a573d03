"""The rows that every source is filled with, and what it reads as plain rows to compare."""

import atexit
import collections
import tempfile

import pyarrow as pa

from cfray.records.record import MISSING, Reject, is_variant, variant_texts, variant_types
from cfray.sources.base import Context
from tests.contract import oracle

#: For the lists of ids that some stores' shards are made of.
_SCRATCH = tempfile.TemporaryDirectory(prefix="cfray-scratch-")
atexit.register(_SCRATCH.cleanup)
CONTEXT = Context(batch_bytes=4_000, scratch=_SCRATCH.name)
SHARD_BYTES = 2_000
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("n", pa.int64()),
        ("ratio", pa.float64()),
        ("flag", pa.bool_()),
        ("tags", pa.list_(pa.string())),
        (
            "meta",
            pa.struct(
                [
                    ("by", pa.string()),
                    ("at", pa.struct([("x", pa.int64()), ("names", pa.list_(pa.string()))])),
                ]
            ),
        ),
        ("vector", pa.list_(pa.float64())),
    ]
)
ODD_IDS = (
    "it's",
    'say "x"',
    "back\\slash\\",
    "a,b;c\td",
    " padded ",
    "naïve ☕ \U0001d4b3",
    "e\u0301",
    "%s {0} ${x}",
    "../..",
    "null",
    "0042",
    "i" * 5_000,
)
INTEGERS = (2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 0)


def a_row(n, /, **values):
    """Make a row with every field; ``None`` is null."""
    nested = {"by": f"author {n % 3}", "at": {"x": n, "names": ["é", '"']}}
    row = {
        "id": f"d{n:04d}",
        "text": f"text of {n} " * (n % 7),
        "n": n,
        "ratio": n / 8,
        "flag": n % 2 == 0,
        "tags": ["a", f"t{n}"],
        "meta": nested,
    }
    return row | {"vector": [n + 0.5, -1.5]} | values


CORPUS = [a_row(n) for n in range(60)] + [a_row(60 + n, id=odd) for n, odd in enumerate(ODD_IDS)]


def items(source, context=CONTEXT):
    """Read all shards: (shard, batch or reject)."""
    return [
        (shard, item) for shard in source.shards(context) for item in source.read(shard, context)
    ]


def plain(batch):
    """Give the rows of a batch as dicts.

    A value of a variant column is a pair (type, text); a missing key is missing.
    """
    columns = {
        field.name: _variants(column) if is_variant(field) else column.to_pylist()
        for field, column in zip(batch.schema, batch.columns, strict=True)
    }
    return [
        {name: column[row] for name, column in columns.items() if column[row] is not MISSING}
        for row in range(batch.num_rows)
    ]


def _variants(column):
    texts = variant_texts(column).to_pylist()
    return [
        MISSING if kind is None else (kind, text)
        for kind, text in zip(variant_types(column).to_pylist(), texts, strict=True)
    ]


def rows(source, shards=None, context=CONTEXT):
    """Read shards (all of them) as plain rows; a reject is a failure."""
    all_rows = []
    for shard in source.shards(context) if shards is None else shards:
        for item in source.read(shard, context):
            assert not isinstance(item, Reject), item
            all_rows += plain(item)
    return all_rows


def as_typed(row):
    """Give a row as a store with a fixed schema has it: an absent value is null."""
    return {name: row.get(name) for name in SCHEMA.names}


def as_json(row):
    """Give a row as JSON has it: each value a pair (type, text); a missing key is missing."""
    names = {
        bool: "bool",
        int: "int64",
        float: "double",
        str: "string",
        type(None): "null",
        dict: "struct",
    }
    lists = {str: "list<string>", float: "list<double>"}
    kinds = {
        key: lists[type(value[0])] if isinstance(value, list) else names[type(value)]
        for key, value in row.items()
    }
    return {key: (kinds[key], oracle.metadata_text(value)) for key, value in row.items()}


def counted(some_rows):
    """Make a multiset of rows."""
    return collections.Counter(repr(sorted(row.items())) for row in some_rows)
