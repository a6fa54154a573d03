"""The rows that the tests write to each source, and the plain rows that they compare with.

The rows are chosen to go wrong in a careless copy: ids with special characters, integers beyond
2**53, nested values. Nothing here writes to a store.
"""

import atexit
import collections
import tempfile

import pyarrow as pa

from cfray.records.record import MISSING, Reject, is_variant, variant_texts, variant_types
from cfray.sources.base import Context
from tests.contract import oracle

#: The folder of the manifests of ids from which some stores read their shards.
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


def make_row(n, /, **values):
    """Return a row that has each field; ``None`` is null."""
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


CORPUS = [make_row(n) for n in range(60)] + [
    make_row(60 + n, id=odd_id) for n, odd_id in enumerate(ODD_IDS)
]


def items(source, context=CONTEXT):
    """Read all shards; return pairs of a shard and a batch or reject."""
    return [
        (shard, item) for shard in source.shards(context) for item in source.read(shard, context)
    ]


def plain_rows(batch):
    """Convert a batch to a list of dicts.

    A value of a variant column is a pair (type, text), and a row lacks its missing keys.
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
    """Read shards, by default all, as plain rows; fail on a reject."""
    all_rows = []
    for shard in source.shards(context) if shards is None else shards:
        for item in source.read(shard, context):
            assert not isinstance(item, Reject), item
            all_rows += plain_rows(item)
    return all_rows


def as_typed(row):
    """Return a row as a store with a fixed schema stores it: an absent value is null."""
    return {name: row.get(name) for name in SCHEMA.names}


def as_json(row):
    """Return a row as JSON stores it: each value is a pair (type, text), without missing keys."""
    scalar_types = {
        bool: "bool",
        int: "int64",
        float: "double",
        str: "string",
        type(None): "null",
        dict: "struct",
    }
    list_types = {str: "list<string>", float: "list<double>"}
    types = {
        key: list_types[type(value[0])] if isinstance(value, list) else scalar_types[type(value)]
        for key, value in row.items()
    }
    return {key: (types[key], oracle.metadata_text(value)) for key, value in row.items()}


def row_counts(some_rows):
    """Count how often each row occurs."""
    return collections.Counter(repr(sorted(row.items())) for row in some_rows)
