"""Milvus: every row that the server counts is read once, or rejected.

Where pymilvus's usual ways of reading lose rows, a test shows that they do.
"""

import json
import pickle
import subprocess
import sys
import threading
from contextlib import closing, contextmanager, suppress

import numpy as np
import pytest

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.milvus.keys import GREATEST, LEAST, KeyRange
from cfray.sources.milvus.loading import _LOADING
from cfray.sources.milvus.queries import query_request
from cfray.sources.milvus.schema import Field, parse_schema
from cfray.sources.milvus.source import Milvus
from cfray.sources.milvus.types import static_column
from cfray.sources.milvus.vectors import vector_column
from tests.sources.corpus import (
    CONTEXT,
    CORPUS,
    SHARD_BYTES,
    items,
    make_row,
    plain_rows,
    row_counts,
    rows,
)
from tests.sources.milvus_bed import DECLARED, PARTITION, MilvusBed
from tests.sources.store_contract import StoreContract
from tests.testbeds import lineup, milvus_lite
from tests.testbeds.proxy import Grpc, Slow
from tests.testbeds.wheels import installed

pytestmark = pytest.mark.server("milvus")
LARGE_BATCHES = Context(batch_bytes=2**20)


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(MilvusBed)


@pytest.fixture
def locked_bed(bed):
    """Return the same server, which lets nobody in without a token."""
    return bed


class TestMilvus(StoreContract):
    client = "pymilvus"


def read_records_and_rejects(source, context=CONTEXT):
    """Read all shards; return their records and their rejects."""
    read_items = [batch_or_reject for _, batch_or_reject in items(source, context)]
    records = [
        row
        for batch_or_reject in read_items
        if not isinstance(batch_or_reject, Reject)
        for row in plain_rows(batch_or_reject)
    ]
    return records, [
        batch_or_reject for batch_or_reject in read_items if isinstance(batch_or_reject, Reject)
    ]


def ids_of(records):
    return [row["id"] for row in records]


def iterate_ids(client, name, **options):
    """Read the ids of a collection with pymilvus's iterator."""
    pages = client.query_iterator(name, output_fields=["id"], **options)
    keys = []
    while page := pages.next():
        keys += ids_of(page)
    return keys


def make_keyed_rows(*keys, **values):
    return [{"id": key, **values} for key in keys]


def create_collection(bed, kind="VARCHAR", **options):
    """Create a collection that is unlike the collections of the bed, and return its name."""
    from pymilvus import DataType

    name = options.pop("name", None) or bed.fresh()
    client = options.pop("client", bed.client)
    schema = client.create_schema(enable_dynamic_field=True)
    schema.add_field(
        "id", DataType[kind], is_primary=True, **({"max_length": 100} if kind == "VARCHAR" else {})
    )
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
    if key := options.pop("partition_key", None):
        schema.add_field(key, DataType.VARCHAR, max_length=100, is_partition_key=True)
    indexes = client.prepare_index_params("vector", index_type="FLAT", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=indexes, **options)
    return name


def insert_rows(client, name, rows_without_vectors, **options):
    client.insert(name, [{"vector": [1.0, 2.0], **row} for row in rows_without_vectors], **options)


# Conditions in which other readers lose rows.


def test_keys_with_quotes_stop_pymilvus_and_not_us(bed):
    from pymilvus import MilvusException

    keys = ["a", 'b"q', "b\\s", "c'x", "d\ne", "\x01\x7f", "é", "\U0001d4b3", "\uffff"]
    name = bed.seed(make_keyed_rows(*keys, text=""))
    with pytest.raises(MilvusException, match="cannot parse expression"):
        iterate_ids(bed.client, name, filter="", batch_size=2)
    source = bed.source(name, shard_bytes=60)
    assert len(source.shards(CONTEXT)) > 3
    assert ids_of(rows(source)) == sorted(keys, key=str.encode)


def test_an_empty_key_is_left_out_by_pymilvus_and_not_by_us(bed):
    name = bed.seed(make_keyed_rows("", "a", "b", text="e"))
    assert iterate_ids(bed.client, name, filter=None) == ["a", "b"]
    assert ids_of(rows(bed.source(name))) == ["", "a", "b"]


def test_a_short_page_is_not_the_end(bed):
    """The server ends a page where a segment has no more rows, so more pages may follow."""
    name = create_collection(bed, num_shards=2, consistency_level="Strong")
    insert_rows(bed.client, name, make_keyed_rows(*map(str, range(40))))
    page = bed.client.query(
        name,
        filter="",
        limit=100,
        output_fields=["id"],
        iterator="True",
        reduce_stop_for_best="True",
        consistency_level="Strong",
    )
    read_ids = ids_of(rows(bed.source(name)))
    assert 0 < len(page) < 40, "a reader that stops at a short page loses rows"
    assert read_ids == sorted(map(str, range(40)))


def test_the_ends_of_int64(bed):
    """A 2.3 server counts the greatest key but gives it in no query, so the key is rejected."""
    from pymilvus import MilvusException

    keys = [LEAST, LEAST + 1, -1, 0, 2**53 + 1, GREATEST - 1, GREATEST]
    name = create_collection(bed, "INT64", consistency_level="Strong")
    insert_rows(bed.client, name, make_keyed_rows(*keys))
    with pytest.raises(MilvusException, match="value out of range"):
        iterate_ids(bed.client, name, filter="", batch_size=1)
    assert bed.client.get(name, [GREATEST], consistency_level="Strong") == []
    for size in (1, 150, 10**6):
        source = bed.source(name, shard_bytes=size)
        records, rejects = read_records_and_rejects(source)
        assert ids_of(records) == keys[:-1]
        assert [json.loads(reject.content) for reject in rejects] == [{"id": GREATEST - 1}]
        assert "behind this key" in rejects[0].reason
        assert source.count(CONTEXT) == len(records) + len(rejects)
    assert source.search(name, [1.0, 2.0], 2)[0].startswith("i:")


def test_duplicate_keys_are_set_aside_one_by_one_or_refused(bed):
    name = bed.seed([])
    for start, keys in ((0, range(30)), (100, range(5)), (200, range(2))):
        insert_rows(bed.client, name, [{"id": f"d{key:02d}", "n": start + key} for key in keys])
    assert (
        bed.client.query(name, filter="", output_fields=["count(*)"], consistency_level="Strong")[
            0
        ]["count(*)"]
        == 37
    )
    assert len(iterate_ids(bed.client, name, filter="")) == 30
    for size in (500, 10**6):
        source = bed.source(name, shard_bytes=size)
        shards = source.shards(CONTEXT)
        records, rejects = read_records_and_rejects(source)
        assert ids_of(records) == [f"d{key:02d}" for key in range(30)]
        assert sorted(json.loads(reject.content)["id"] for reject in rejects) == sorted(
            ["d00", "d01"] * 2 + ["d02", "d03", "d04"]
        )
        assert all("duplicate primary key" in reject.reason for reject in rejects)
        description = source.describe(CONTEXT, shards)
        assert source.count(CONTEXT) == description.rows == 37
        assert any("7 rows" in note for note in description.notes)
        assert {shard.rows for shard in shards} == {None}, "no count that a read would not give"
    with pytest.raises(SourceError, match="7 rows more") as error:
        source.model_copy(update={"duplicates": "refuse"}).shards(CONTEXT)
    assert "source.duplicates" in error.value.remedy
    bed.drop(name)


def test_rows_that_are_not_flushed_are_counted_and_read(bed):
    name = bed.seed(make_keyed_rows(*map(str, range(30))))
    assert bed.client.get_collection_stats(name)["row_count"] == 0
    assert bed.source(name).count(CONTEXT) == 30
    assert len(rows(bed.source(name))) == 30


def test_what_was_written_a_moment_ago_is_read(bed):
    """Iterator flags make pymilvus use the collection's default consistency.

    The default may be eventual, so cfray builds its requests without that flag.
    """
    from pymilvus.client import ts_utils
    from pymilvus.client.prepare import Prepare

    query_options = {
        "iterator": "True",
        "consistency_level": "Strong",
        "limit": 5,
        "reduce_stop_for_best": "True",
    }
    use_default = ts_utils.construct_guarantee_ts("any", dict(query_options))
    assert use_default is True, (
        "pymilvus sends the consistency that was asked for: MilvusClient may be used"
    )
    vendor_request = Prepare.query_request(
        "any", "id > 1", ["*"], ["part"], use_default_consistency=use_default, **query_options
    )
    from pymilvus.grpc_gen import milvus_pb2

    cfray_request = milvus_pb2.QueryRequest(
        **query_request(KeyRange("any", "id", "part"), "id > 1", ["*"], 5)
    )
    assert vendor_request.use_default_consistency
    assert not cfray_request.use_default_consistency
    cfray_request.use_default_consistency = True
    assert sorted(cfray_request.query_params, key=str) == sorted(
        vendor_request.query_params, key=str
    )
    for request in (cfray_request, vendor_request):
        request.ClearField("query_params")
        request.ClearField("expr_template_values")
    assert cfray_request == vendor_request, (
        "the protocol or pymilvus changed: compare the two requests"
    )
    name = create_collection(bed, consistency_level="Eventually")
    for row_number in range(5):
        insert_rows(bed.client, name, make_keyed_rows(f"r{row_number}"))
        assert len(rows(bed.source(name))) == row_number + 1


def test_more_rows_than_a_query_may_give(bed):
    from pymilvus import MilvusException

    name = bed.seed(make_keyed_rows(*(f"{n:05d}" for n in range(17_000))))
    with pytest.raises(MilvusException, match="16384"):
        bed.client.query(name, filter='id >= ""', limit=17_000)
    source = bed.source(name)
    assert len(source.shards(LARGE_BATCHES)) == 1
    assert ids_of(rows(source, context=Context())) == [f"{n:05d}" for n in range(17_000)]
    bed.drop(name)


def test_a_row_written_behind_the_page_that_is_read_comes_too(bed):
    name = bed.seed(make_keyed_rows("b", "d", "f", x=1))
    proxy, source = bed.proxied(name)
    with closing(proxy):
        source = source.model_copy(update={"shard_bytes": 10**6})
        (shard,) = source.shards(CONTEXT)
        read_rows = []
        proxy.fail(Slow(), times=1, matching=bed.page_request())
        reader = threading.Thread(
            target=lambda: read_rows.extend(rows(source, [shard], LARGE_BATCHES))
        )
        reader.start()
        proxy.until_held()
        insert_rows(bed.client, name, make_keyed_rows("a", "c"))
        proxy.release()
        reader.join()
    assert sorted(ids_of(read_rows)) == ["a", "b", "c", "d", "f"]
    assert len(ids_of(read_rows)) == 5
    bed.drop(name)


def test_a_page_that_is_too_large_is_halved(bed):
    name, context = bed.seed(CORPUS), Context(batch_bytes=25_000)
    for fault in (
        Grpc("RESOURCE_EXHAUSTED", "Received message larger than max (9 vs. 4)"),
        Grpc("INTERNAL", "Received RST_STREAM with error code 2"),
    ):
        proxy, source = bed.proxied(name)
        with closing(proxy):
            source = source.model_copy(update={"shard_bytes": 10**7})
            shards = source.shards(context)
            requests_before = len(proxy.seen)
            assert len(rows(source, shards, context)) == len(CORPUS)
            usual_requests = len(proxy.seen) - requests_before
            proxy.fail(fault, times=3, matching=bed.page_request())
            assert row_counts(rows(source, shards, context)) == row_counts(
                map(bed.expected, CORPUS)
            )
            assert len(proxy.seen) - requests_before - usual_requests > usual_requests + 3, (
                "three failures, and smaller pages after them"
            )


@pytest.mark.parametrize("keys", [[1, 3, 2], [1, 1], [0, 1], [8, 9]])
def test_keys_out_of_order_or_range_are_a_terminal_error(keys):
    with pytest.raises(SourceError, match="order") as error:
        KeyRange("docs", "id", None, 1, 9).check_order(
            keys, 1, may_repeat=keys[0] != 1 or len(keys) == 3
        )
    assert not error.value.transient


def test_json_that_cannot_be_kept_is_set_aside(bed):
    """Of two equal keys pymilvus gives the last, without an error."""
    name = bed.seed([make_row(1), make_row(2, id="twice"), make_row(3, id="z")])
    bed.client.upsert(name, [{**make_row(2, id="twice"), "meta": '{"by": 1, "by": 2}'}])
    assert bed.client.query(
        name, filter='id == "twice"', output_fields=["meta"], consistency_level="Strong"
    )[0]["meta"] == {"by": 2}
    records, rejects = read_records_and_rejects(bed.source(name))
    assert ids_of(records) == ["d0001", "z"]
    assert [(reject.reason, reject.content) for reject in rejects] == [
        ("field meta: duplicate key 'by' in an object", b'{"by": 1, "by": 2}')
    ]
    bed.drop(name)


# Partitions, databases and load states.


def test_partitions_are_read_apart_and_named(bed):
    name = bed.seed(
        [
            make_row(n, **{PARTITION: partition})
            for partition, numbers in (("_default", range(9)), ("late", range(5, 20)))
            for n in numbers
        ]
    )
    source = bed.source(name, shard_bytes=SHARD_BYTES)
    shards = source.shards(CONTEXT)
    assert [shard.id for shard in shards] == sorted(shard.id for shard in shards)
    assert {shard.where["partition"] for shard in shards} == {"_default", "late"}
    read_rows = rows(source)
    assert sorted((row[PARTITION], row["id"]) for row in read_rows) == sorted(
        (("string", partition), f"d{n:04d}")
        for partition, numbers in (("_default", range(9)), ("late", range(5, 20)))
        for n in numbers
    )
    assert source.count(CONTEXT) == 24
    (collection,) = source.describe(CONTEXT, shards).collections
    assert json.loads(collection.facts["partitions"]) == ["_default", "late"]


def test_a_collection_spread_by_a_key_is_read_whole(bed):
    from pymilvus import MilvusException

    name = create_collection(bed, partition_key="tenant", num_partitions=4)
    insert_rows(bed.client, name, make_keyed_rows(*(f"{n:03d}" for n in range(40)), tenant="t"))
    with pytest.raises(MilvusException, match="partition key"):
        bed.client.query(
            name, filter='id >= ""', partition_names=[bed.client.list_partitions(name)[0]]
        )
    source = bed.source(name, shard_bytes=SHARD_BYTES)
    read_rows = rows(source)
    assert ids_of(read_rows) == [f"{n:03d}" for n in range(40)]
    assert PARTITION not in read_rows[0]
    (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    assert (collection.facts["partition_key"], collection.metric, collection.dimension) == (
        "tenant",
        "dot",
        2,
    )


def test_a_database_is_part_of_the_collection_s_name(bed):
    from pymilvus import MilvusClient

    bed.client.create_database("other")
    with closing(MilvusClient(bed.url, token=bed.token, db_name="other")) as client:
        create_collection(bed, name="docs", client=client)
        insert_rows(client, "docs", make_keyed_rows("a", "b"))
        source = bed.source("docs", database="other")
        (shard,) = source.shards(CONTEXT)
        assert (shard.collection, shard.id) == ("other/docs", "other/docs#000000")
        assert ids_of(rows(source)) == ["a", "b"]
        assert source.describe(CONTEXT, [shard]).collections[0].name == "other/docs"
        assert source.search("other/docs", [1.0, 2.0], 1) == ["s:a"]
        client.drop_collection("docs")
    with pytest.raises(SourceError) as error:
        bed.source("docs", database="nowhere").shards(CONTEXT)
    assert "source.database" in error.value.remedy


def is_loaded(bed, name, partition=""):
    return str(bed.client.get_load_state(name, partition)["state"]) == "Loaded"


def test_a_collection_that_is_not_loaded_is_refused_or_loaded_for_the_run(bed):
    name = bed.seed(make_keyed_rows("a", "b", y=1))
    bed.client.release_collection(name)
    source = bed.source(name)
    with pytest.raises(SourceError, match="not loaded") as error:
        source.shards(CONTEXT)
    assert "source.load" in error.value.remedy
    loading_source = source.model_copy(update={"load": "load"})
    with loading_source.session():
        assert ids_of(rows(loading_source)) == ["a", "b"]
    assert not is_loaded(bed, name)
    with suppress(ZeroDivisionError), loading_source.session():
        assert is_loaded(bed, name)
        raise ZeroDivisionError
    assert not is_loaded(bed, name)
    bed.drop(name)


def test_a_server_that_loads_for_ever_is_not_waited_for(bed, monkeypatch):
    """A load that makes no progress is an error.

    The server reports real progress; the test replaces the state by "loading" and the wait by 0 s.
    """
    name = create_collection(bed)
    bed.client.release_collection(name)
    monkeypatch.setattr("cfray.sources.milvus.loading._load_state", lambda *_: _LOADING)
    monkeypatch.setattr("cfray.sources.milvus.loading._STUCK_AFTER", 0)
    with (
        pytest.raises(SourceError, match=rf"{name} without progress for 0 s, at \d+ %"),
        bed.source(name, load="load").session(),
    ):
        pass


def test_only_what_was_not_loaded_is_released_again(bed):
    name = bed.seed([make_row(1), make_row(2, **{PARTITION: "late"})])
    bed.client.release_collection(name)
    bed.client.load_partitions(name, ["_default"])
    source = bed.source(name)
    with pytest.raises(SourceError, match="partition late"):
        source.shards(CONTEXT)
    loading_source = source.model_copy(update={"load": "load"})
    with loading_source.session():
        assert ids_of(rows(loading_source)) == ["d0001", "d0002"]
    assert (is_loaded(bed, name, "_default"), is_loaded(bed, name, "late")) == (True, False)
    bed.drop(name)


def test_a_loaded_collection_stays_loaded(bed):
    name = bed.seed(CORPUS)
    with bed.source(name, load="load").session():
        pass
    assert is_loaded(bed, name)


@pytest.mark.parametrize(
    ("options", "error_word"),
    [
        ({"url": "milvus.db:19530/x"}, "database"),
        ({"url": "ftp://a"}, "http"),
        ({"insecure": True}, "ca_file"),
        ({"fields": {"a": "FLOATS"}}, "FLOATS"),
    ],
)
def test_options_that_cannot_work_are_refused(options, error_word):
    with pytest.raises(ValueError, match=error_word):
        Milvus(**{"url": "localhost:19530", **options})


# Types of 2.3.5, types of Milvus Lite, and types that neither server has.


def test_declared_types_come_back_exactly(bed):
    seeded_rows = bed.awkward(60, 2)
    source = bed.source(bed.seed(seeded_rows), shard_bytes=20_000)
    assert row_counts(rows(source)) == row_counts(map(bed.expected, seeded_rows))
    (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    fields = json.loads(collection.facts["fields"])
    assert (fields["tiny"], fields["singles"], fields["meta"], fields["vector"]) == (
        "Int8",
        "Array<Float>",
        "JSON",
        "FloatVector(2)",
    )
    assert json.loads(collection.facts["indexes"]) == {
        "vector": {"index_type": "FLAT", "metric_type": "L2"}
    }
    assert (collection.metric, collection.facts["primary_field"]) == ("l2", "id")


def test_fields_named_like_a_record_s_own_are_kept(bed):
    from pymilvus import DataType

    name, client = bed.fresh(), bed.client
    schema = client.create_schema(enable_dynamic_field=True)
    schema.add_field("key", DataType.INT64, is_primary=True)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=2)
    schema.add_field("id", DataType.INT32)
    indexes = client.prepare_index_params("embedding", index_type="FLAT", metric_type="COSINE")
    client.create_collection(name, schema=schema, index_params=indexes)
    client.insert(
        name,
        [
            {
                "key": 7,
                "embedding": [3.0, 4.0],
                "id": 1,
                "vector": "dynamic",
                "vectors": 2,
                "text": "t",
            }
        ],
    )
    (row,) = rows(bed.source(name))
    assert row == {
        "id": 7, "vector": [3.0, 4.0], "fields.id": ("int32", "1"), "text": ("string", "t"),
        "$meta.vector": ("string", "dynamic"), "$meta.vectors": ("int64", "2"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def lite_client(tmp_path_factory):
    from pymilvus import MilvusClient

    with (
        lineup.taking_part(
            "milvus-lite", milvus_lite.start(tmp_path_factory.mktemp("lite"))
        ) as server,
        closing(MilvusClient(server.endpoint)) as client,
    ):
        client.url = server.endpoint
        yield client


VECTOR_FIELDS = {
    "half": ("FLOAT16_VECTOR", 4, "L2", "FLAT"),
    "brain": ("BFLOAT16_VECTOR", 4, "IP", "FLAT"),
    "bits": ("BINARY_VECTOR", 16, "HAMMING", "BIN_FLAT"),
    "words": ("SPARSE_FLOAT_VECTOR", None, "IP", "SPARSE_INVERTED_INDEX"),
    "full": ("FLOAT_VECTOR", 3, "COSINE", "FLAT"),
}


def draw_vectors(seed):
    generator = np.random.default_rng(seed)
    return {
        "half": generator.standard_normal(4).astype(np.float16),
        "brain": (generator.standard_normal(4).astype(np.float32).view(np.uint32) >> 16).astype(
            np.uint16
        ),
        "bits": generator.integers(0, 256, 2, np.uint8),
        "words": {
            int(key): float(np.float32(generator.random()))
            for key in sorted(generator.choice(10**9, 1 + seed % 4, replace=False))
        },
        "full": generator.standard_normal(3).astype(np.float32),
    }


def build_schema(client, kinds):
    from pymilvus import DataType

    schema = client.create_schema(enable_dynamic_field=True).add_field(
        "id", DataType.INT64, is_primary=True
    )
    indexes = client.prepare_index_params()
    for name in kinds:
        kind, dimension, metric, index = VECTOR_FIELDS[name]
        schema.add_field(name, DataType[kind], **({"dim": dimension} if dimension else {}))
        indexes.add_index(name, index_type=index, metric_type=metric)
    return schema, indexes


def test_every_kind_of_vector_bit_for_bit(lite_client):
    schema, indexes = build_schema(lite_client, VECTOR_FIELDS)
    lite_client.create_collection("kinds", schema=schema, index_params=indexes)
    keys = [LEAST, LEAST + 1, -3, *range(90), GREATEST]
    vectors_by_key = {key: draw_vectors(seed) for seed, key in enumerate(keys)}
    raw_vectors = [
        {
            name: value.tobytes() if name in ("half", "brain", "bits") else value
            for name, value in vectors.items()
        }
        for vectors in vectors_by_key.values()
    ]
    lite_client.insert(
        "kinds",
        [
            {"id": key, "n": str(key), **vectors}
            for key, vectors in zip(keys, raw_vectors, strict=True)
        ],
    )
    source = Milvus(url=lite_client.url, collections=["kinds"], shard_bytes=2_000)
    assert len(source.shards(CONTEXT)) > 3
    batches = [batch for _, batch in items(source)]
    assert len({str(batch.schema.field("vectors").type) for batch in batches}) == 1
    rows_by_key = {row["id"]: row for batch in batches for row in plain_rows(batch)}
    assert list(rows_by_key) == keys, "this engine gives the greatest key, too"
    for key, vectors in vectors_by_key.items():
        read_vectors = rows_by_key[key]["vectors"]
        assert np.array(read_vectors["half"], np.float16).tobytes() == vectors["half"].tobytes()
        assert (
            np.array(read_vectors["brain"], np.float32).tobytes()
            == (vectors["brain"].astype(np.uint32) << 16).tobytes()
        )
        assert read_vectors["bits"] == vectors["bits"].tolist()
        assert (
            dict(
                zip(read_vectors["words"]["indices"], read_vectors["words"]["values"], strict=True)
            )
            == vectors["words"]
        )
        assert np.array(read_vectors["full"], np.float32).tobytes() == vectors["full"].tobytes()
        assert rows_by_key[key]["n"] == ("string", str(key))
    (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    assert {name: width for name, (width, _) in collection.vectors.items()} == {
        "half": 4,
        "brain": 4,
        "full": 3,
    }
    assert collection.dimension is None
    assert source.search("kinds", vectors_by_key[5]["full"].tolist(), 1) == ["i:5"]
    with pytest.raises(SourceError, match="0 float vector fields of 7"):
        source.search("kinds", [0.0] * 7, 1)


def build_field_data(kind, **values):
    """Build a column of a reply, for types that no server of the tests can hold."""
    from pymilvus.grpc_gen import schema_pb2

    return schema_pb2.FieldData(type=schema_pb2.DataType.Value(kind), field_name="x", **values)


@pytest.mark.parametrize("cell_for_null", [True, False])
def test_null_in_a_declared_field_is_explicit(cell_for_null):
    """Nullable fields came with 2.5: some servers send a cell for each null, others do not."""
    numbers = [7, 0, 9] if cell_for_null else [7, 9]
    texts = [b"1", b"", b"null"] if cell_for_null else [b"1", b"null"]
    valid = [True, False, True]
    for kind, scalars, expected_cells in (
        ("Int8", {"int_data": {"data": numbers}}, [("int8", "7"), ("null", "null"), ("int8", "9")]),
        (
            "VarChar",
            {"string_data": {"data": list(map(str, numbers))}},
            [("string", "7"), ("null", "null"), ("string", "9")],
        ),
        (
            "JSON",
            {"json_data": {"data": texts}},
            [("int64", "1"), ("null", "null"), ("null", "null")],
        ),
    ):
        field_data = build_field_data(kind, scalars=scalars, valid_data=valid)
        column = static_column(Field("x", kind), field_data, {})
        assert [(cell["type"], cell["text"]) for cell in column.to_pylist()] == expected_cells


def test_vectors_that_no_server_here_has():
    int8_numbers = np.arange(-4, 4, dtype=np.int8)
    field_data = build_field_data(
        "Int8Vector", vectors={"dim": 4, "int8_vector": int8_numbers.tobytes()}
    )
    assert (
        vector_column(Field("x", "Int8Vector", "", 4), field_data, 2).to_pylist()
        == int8_numbers.reshape(2, 4).tolist()
    )
    field_data = build_field_data(
        "FloatVector",
        vectors={"dim": 2, "float_vector": {"data": [1, 2, 3, 4]}},
        valid_data=[True, False, True],
    )
    assert vector_column(Field("x", "FloatVector", "", 2), field_data, 3).to_pylist() == [
        [1, 2],
        None,
        [3, 4],
    ]
    pair = np.array([(5, 0.5)], np.dtype([("index", "<u4"), ("value", "<f4")])).tobytes()
    field_data = build_field_data(
        "SparseFloatVector",
        vectors={"sparse_float_vector": {"contents": [pair, b""]}},
        valid_data=[True, False, True],
    )
    vectors = vector_column(Field("x", "SparseFloatVector"), field_data, 3).to_pylist()
    assert vectors == [{"indices": [5], "values": [0.5]}, None, {"indices": [], "values": []}]
    field_data = build_field_data(
        "FloatVector", vectors={"dim": 2, "float_vector": {"data": [1, 2, 3]}}
    )
    with pytest.raises(SourceError, match="3 numbers for 2 vectors"):
        vector_column(Field("x", "FloatVector", "", 2), field_data, 2)


@pytest.mark.parametrize("vector_count", [1, 40, 4_000, 400_000])
def test_vectors_are_aligned_in_memory(vector_count):
    """Vectors that follow a length of one to four bytes in the reply are aligned to 8 bytes.

    Lance panics on memory that is not aligned.
    """
    field_data = build_field_data(
        "FloatVector", vectors={"dim": 2, "float_vector": {"data": [0.5] * 2 * vector_count}}
    )
    vectors = vector_column(Field("x", "FloatVector", "", 2), field_data, vector_count)
    assert vectors.values.buffers()[1].address % 8 == 0


def test_a_type_that_is_not_read_refuses_its_collection():
    from pymilvus.grpc_gen import schema_pb2

    fields = [
        ("id", "Int64", True),
        ("where", "Geometry", False),
        ("terms", "SparseFloatVector", False),
    ]
    declared_fields = [
        schema_pb2.FieldSchema(name=name, data_type=kind, is_primary_key=primary)
        for name, kind, primary in fields
    ]
    bm25 = schema_pb2.FunctionSchema(
        name="bm25", type="BM25", input_field_names=["text"], output_field_names=["terms"]
    )
    with pytest.raises(SourceError, match=r"where \(Geometry\)") as error:
        parse_schema(schema_pb2.CollectionSchema(fields=declared_fields, functions=[bm25]), "docs")
    assert "source.collections" in error.value.remedy
    parsed = parse_schema(
        schema_pb2.CollectionSchema(
            fields=[declared_fields[0], declared_fields[2]], functions=[bm25]
        ),
        "docs",
    )
    assert (parsed.vectors, parsed.index_only) == ({}, ("terms",))


# Files that the vendor's bulk writer writes.

WRITER = """
import sys, types, json, pickle
site, folder, kind, rows_path = sys.argv[1:]
sys.path.append(site)
import pymilvus
# the package's __init__ imports the clients of two clouds
package = types.ModuleType("pymilvus.bulk_writer")
package.__path__ = [pymilvus.__path__[0] + "/bulk_writer"]
sys.modules["pymilvus.bulk_writer"] = package
import ml_dtypes
from pymilvus.bulk_writer.local_bulk_writer import LocalBulkWriter
from pymilvus.bulk_writer.constants import BulkFileType
with open(rows_path, "rb") as file:
    fields, rows_to_write = pickle.load(file)
from pymilvus import DataType, MilvusClient
schema = MilvusClient.create_schema(enable_dynamic_field=True)
for name, type, options in fields:
    schema.add_field(name, DataType[type], **options)
writer = LocalBulkWriter(schema, folder, file_type=BulkFileType[kind])
def to_bfloat16(value):
    return value.view("bfloat16") if getattr(value, "dtype", "") == "uint16" else value
for row_number, row in enumerate(rows_to_write):
    writer.append_row({key: to_bfloat16(value) for key, value in row.items()})
    if row_number % 40 == 39:
        writer.commit()
writer.commit()
"""


@contextmanager
def install_writer_requirements():
    """Install ml_dtypes, which pymilvus needs only to write files."""
    yield installed("ml_dtypes", "0.6.0")


@pytest.fixture(scope="module")
def write_files(tmp_path_factory):
    """Return a function that lets the vendor's writer write rows into a folder.

    The writer starts a new file after every forty rows.
    """
    with lineup.taking_part("milvus bulk writer", install_writer_requirements()) as site:

        def write(kind, fields, rows_to_write):
            folder = tmp_path_factory.mktemp("bulk") / "docs"
            rows_path = folder.parent / "rows"
            rows_path.write_bytes(pickle.dumps((fields, rows_to_write)))
            completed = subprocess.run(
                [sys.executable, "-c", WRITER, str(site), str(folder), kind, str(rows_path)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert completed.returncode == 0, completed.stderr[-2000:]
            return folder

        yield write


DECLARED_FIELDS = [
    ("id", "VARCHAR", {"is_primary": True, "max_length": 65_535}),
    ("vector", "FLOAT_VECTOR", {"dim": 2}),
]
FIELD_TYPES = {
    "vector": "FLOAT_VECTOR",
    "meta": "JSON",
    "tiny": "INT8",
    "short": "INT16",
    "int": "INT32",
    "single": "FLOAT",
    "singles": "ARRAY<FLOAT>",
    "tinies": "ARRAY<INT8>",
}


def bed_fields():
    from pymilvus import DataType

    for name, (kind, options, _) in DECLARED.items():
        yield (
            name,
            kind,
            {**options, "element_type": DataType[options["element_type"]]}
            if "element_type" in options
            else options,
        )


@pytest.mark.parametrize("kind", ["PARQUET", "JSON", "JSONL"])
def test_files_of_the_bulk_writer_read_as_the_collection_does(write_files, kind):
    bed = MilvusBed("unused")
    seeded_rows = bed.awkward(100, 2)
    folder = write_files(kind, DECLARED_FIELDS + list(bed_fields()), seeded_rows)
    source = Milvus(uri=str(folder), fields=FIELD_TYPES, shard_bytes=5_000)
    shards = source.shards(CONTEXT)
    assert len(shards) > 2
    assert {shard.collection for shard in shards} == {"docs"}
    assert len({shard.id for shard in shards}) == len(shards)
    assert pickle.loads(pickle.dumps(shards)) == shards == source.shards(CONTEXT)
    expected_rows = [bed.expected(row) for row in seeded_rows]
    assert row_counts(rows(source)) == row_counts(
        row if kind == "PARQUET" else {**row, "id": ("string", row["id"])} for row in expected_rows
    )
    description = source.describe(CONTEXT, shards)
    assert (
        description.consistency,
        description.collections[0].name,
        description.collections[0].dimension,
    ) == ("pinned files", "docs", 2)
    assert description.rows == (100 if kind == "PARQUET" else None)
    assert (
        source.model_copy(update={"collections": ["articles"]}).shards(CONTEXT)[0].collection
        == "articles"
    )


def test_parquet_of_the_bulk_writer_needs_few_names(write_files):
    """The file declares its widths, and its only list of floats is the vector."""
    folder = write_files(
        "PARQUET",
        [*DECLARED_FIELDS, ("n", "INT16", {}), ("flag", "BOOL", {})],
        [{"id": "a", "vector": [0.1, -0.0], "n": 3, "flag": True, "x": None}],
    )
    (row,) = rows(Milvus(uri=str(folder)))
    assert row == {
        "id": "a",
        "vector": [float(np.float32(0.1)), -0.0],
        "n": ("int16", "3"),
        "flag": ("bool", "true"),
        "x": ("null", "null"),
    }


@pytest.mark.parametrize("kind", ["PARQUET", "JSON", "JSONL"])
def test_every_kind_of_vector_in_files(write_files, kind):
    fields = [
        ("id", "INT64", {"is_primary": True}),
        *(
            (name, vector_type, {"dim": dimension} if dimension else {})
            for name, (vector_type, dimension, _, _) in VECTOR_FIELDS.items()
        ),
    ]
    fields.append(("eight", "INT8_VECTOR", {"dim": 2}))
    vectors_by_key = {key: draw_vectors(key) for key in (*range(50), GREATEST)}
    seeded_rows = [
        {
            "id": key,
            "eight": np.array([-128, key % 128], np.int8),
            **vectors,
            "bits": vectors["bits"].tobytes(),
        }
        for key, vectors in vectors_by_key.items()
    ]
    folder = write_files(kind, fields, seeded_rows)
    field_types = {name: vector_type for name, (vector_type, _, _, _) in VECTOR_FIELDS.items()} | {
        "eight": "INT8_VECTOR"
    }
    vectors_by_id = {
        row["id"] if kind == "PARQUET" else int(row["id"][1]): row["vectors"]
        for row in rows(Milvus(uri=str(folder), fields=field_types))
    }
    assert sorted(vectors_by_id) == sorted(vectors_by_key)
    for key, vectors in vectors_by_key.items():
        assert (
            np.array(vectors_by_id[key]["half"], np.float16).tobytes() == vectors["half"].tobytes()
        )
        assert (
            np.array(vectors_by_id[key]["brain"], np.float32).tobytes()
            == (vectors["brain"].astype(np.uint32) << 16).tobytes()
        )
        assert vectors_by_id[key]["bits"] == vectors["bits"].tolist()
        assert vectors_by_id[key]["eight"] == [-128, key % 128]
        assert (
            dict(
                zip(
                    vectors_by_id[key]["words"]["indices"],
                    vectors_by_id[key]["words"]["values"],
                    strict=True,
                )
            )
            == vectors["words"]
        )
        assert (
            np.array(vectors_by_id[key]["full"], np.float32).tobytes() == vectors["full"].tobytes()
        )


def test_bytes_that_may_be_vectors_must_be_named(write_files):
    folder = write_files(
        "PARQUET",
        [("id", "INT64", {"is_primary": True}), ("bits", "BINARY_VECTOR", {"dim": 8})],
        [{"id": 1, "bits": b"x"}],
    )
    with pytest.raises(SourceError, match="bits") as error:
        Milvus(uri=str(folder)).shards(CONTEXT)
    assert "source.fields" in error.value.remedy
    with pytest.raises(SourceError) as error:
        Milvus(uri=str(folder), fields={"bits": "BINARY_VECTOR"}, primary="key").shards(CONTEXT)
    assert "source.primary" in error.value.remedy


def test_a_row_of_a_file_that_cannot_be_a_record_is_set_aside(tmp_path):
    file_rows = [
        {"id": "a", "v": [1.5, 2.5]},
        {"id": "b", "v": [1.5]},
        {"id": "c", "v": "x"},
        {"id": "d", "v": None},
        {"id": "e"},
    ]
    (tmp_path / "1.json").write_text(json.dumps({"rows": file_rows}, indent=2))
    records, rejects = read_records_and_rejects(Milvus(uri=str(tmp_path)))
    assert [(row["id"], row["vector"]) for row in records] == [
        (("string", "a"), [1.5, 2.5]),
        (("string", "d"), None),
        (("string", "e"), None),
    ]
    assert [reject.reason for reject in rejects] == [
        "field v: 1 numbers, where the first vector has 2",
        "field v: no list of numbers",
    ]


@pytest.mark.parametrize(
    "text",
    [
        '{"rows": [{"id": 1}]',
        '[{"id": 1}]',
        '{"rows": [{"id": 1}, ]}',
        '{"rows": [{"id": 1}], "more": [1]}',
        "",
    ],
)
def test_a_file_of_rows_that_is_cut_or_something_else_is_a_terminal_error(tmp_path, text):
    path = tmp_path / "1.json"
    path.write_text(text)
    with pytest.raises(SourceError) as error:
        rows(Milvus(uri=str(path)))
    assert not error.value.transient
    assert "1.json" in error.value.what


def test_no_file_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(SourceError) as error:
        Milvus(uri=str(tmp_path)).shards(CONTEXT)
    assert "source.uri" in error.value.remedy
