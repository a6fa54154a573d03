"""Milvus: every vector field and every key comes back, in collections of any fields.

A server of 2.3.5 holds one vector field, Milvus Lite 2.5.1 (the vendor's engine) several.  Neither
knows vectors that may be null, so replies with such vectors are built here from the protocol.
"""

import itertools
import json
from contextlib import closing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.sources.milvus.client import fetch_indexes, open_connection
from cfray.sources.milvus.schema import Field, MilvusSchema
from cfray.sources.milvus.source import Milvus
from cfray.sources.milvus.types import CollectionInfo, build_records
from tests.sources.corpus import CONTEXT, CORPUS, items, plain_rows, row_counts, rows
from tests.sources.milvus_bed import MilvusBed
from tests.testbeds import lineup, milvus_lite

pytestmark = pytest.mark.server("milvus")


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(MilvusBed)


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


#: Field -> (Milvus's type, dimension, metric, index, the value that is written, that is read).
VECTORS = {
    "full": ("FLOAT_VECTOR", 2, "COSINE", "FLAT", [0.25, -3.5], [0.25, -3.5]),
    "other": ("FLOAT_VECTOR", 3, "L2", "FLAT", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
    "half": (
        "FLOAT16_VECTOR",
        2,
        "IP",
        "FLAT",
        np.array([0.5, -2.0], np.float16).tobytes(),
        [0.5, -2.0],
    ),
    "bits": ("BINARY_VECTOR", 16, "HAMMING", "BIN_FLAT", bytes([1, 255]), [1, 255]),
    "words": (
        "SPARSE_FLOAT_VECTOR",
        None,
        "IP",
        "SPARSE_INVERTED_INDEX",
        {7: 0.5, 2**31: 1.5},
        {"indices": [7, 2**31], "values": [0.5, 1.5]},
    ),
}
#: Milvus takes four vector fields at most.
SUBSETS = [subset for size in range(1, 5) for subset in itertools.combinations(VECTORS, size)]
#: The metric of each dense vector of numbers, in Lance's words.
METRICS = {"full": (2, "cosine"), "other": (3, "l2"), "half": (2, "dot")}


def create(client, name, subset, *, indexed=True):
    from pymilvus import DataType

    schema = client.create_schema(enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    indexes = client.prepare_index_params()
    for field in subset:
        kind, dimension, metric, index, _, _ = VECTORS[field]
        schema.add_field(field, DataType[kind], **({"dim": dimension} if dimension else {}))
        indexes.add_index(field, index_type=index, metric_type=metric)
    options = {"index_params": indexes} if indexed else {}
    client.create_collection(name, schema=schema, **options)
    return name


@pytest.mark.parametrize("subset", SUBSETS, ids=", ".join)
def test_collections_of_every_subset_of_vector_fields(lite_client, subset):
    name = create(lite_client, f"of_{'_'.join(subset)}", subset)
    written = {field: VECTORS[field][4] for field in subset}
    # dynamic keys that are named like the vector fields which the collection lacks
    lacking = {field: f"no vector {field}" for field in VECTORS if field not in subset}
    lite_client.insert(name, [{"id": 1, **written, **lacking}])
    source = Milvus(url=lite_client.url, collections=[name])
    (row,) = rows(source)
    is_main = subset in (("full",), ("other",))
    expected_vectors = {field: VECTORS[field][5] for field in subset}
    assert row == {
        "id": 1,
        **({"vector": expected_vectors[subset[0]]} if is_main else {"vectors": expected_vectors}),
        **{field: ("string", text) for field, text in lacking.items()},
    }
    (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    metrics = {field: METRICS[field] for field in subset if field in METRICS}
    if is_main:
        assert (collection.dimension, collection.metric) == metrics.pop(subset[0])
    else:
        assert (collection.dimension, collection.metric) == (None, None)
    assert collection.vectors == metrics


def test_fields_without_an_index_have_no_metric(lite_client):
    name = create(lite_client, "no_index", ("full", "half"), indexed=False)
    source = Milvus(url=lite_client.url, collections=[name])
    (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    assert collection.vectors == {"full": (2, None), "half": (2, None)}
    name = create(lite_client, "no_index_main", ("full",), indexed=False)
    source = Milvus(url=lite_client.url, collections=[name])
    (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    assert (collection.dimension, collection.metric) == (2, None)


def test_a_server_without_an_index_is_asked_for_it_in_vain(bed):
    """Milvus 2.3 answers with an error where no field has an index, and loads no such collection."""
    name = create(bed.client, bed.fresh(), ("full",), indexed=False)
    source = bed.source(name)
    with open_connection(source, CONTEXT) as connection:
        assert fetch_indexes(connection, name) == {}
    with pytest.raises(SourceError) as error, source.model_copy(update={"load": "load"}).session():
        pass
    assert "index" in error.value.remedy
    bed.client.drop_collection(name)


def test_what_a_function_computes_is_left_out_and_named(lite_client):
    """Milvus Lite marks the field and does not list the function."""
    from pymilvus import DataType, Function, FunctionType

    schema = lite_client.create_schema(enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("text", DataType.VARCHAR, max_length=100, enable_analyzer=True)
    schema.add_field("terms", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_field("full", DataType.FLOAT_VECTOR, dim=2)
    schema.add_function(
        Function(
            name="bm25",
            function_type=FunctionType.BM25,
            input_field_names=["text"],
            output_field_names=["terms"],
        )
    )
    indexes = lite_client.prepare_index_params()
    indexes.add_index("terms", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    indexes.add_index("full", index_type="FLAT", metric_type="COSINE")
    lite_client.create_collection("bm25", schema=schema, index_params=indexes)
    lite_client.insert("bm25", [{"id": 1, "text": "hello world", "full": [3.0, 4.0]}])
    source = Milvus(url=lite_client.url, collections=["bm25"])
    assert rows(source) == [{"id": 1, "vector": [3.0, 4.0], "text": ("string", "hello world")}]
    description = source.describe(CONTEXT, source.shards(CONTEXT))
    (collection,) = description.collections
    assert (collection.dimension, collection.metric, collection.vectors) == (2, "cosine", {})
    assert any("terms is computed by the server" in note for note in description.notes)


# Keys of the dynamic field.

#: Dynamic keys that are named like columns of every record, or like names that others get.
ODD_KEYS = {
    "vector": 1,
    "vectors": 2,
    "fields.id": 3,
    "$partition": 4,
    "$meta": 5,
    "$meta.id": 6,
    "$meta.vector": 7,
    "$meta.$partition": 8,
    "$meta.other": 9,
    "a.b": 10,
    "a": {"b": 11, "": 12},
    "": 13,
    "text": "t",
    "big": 2**64 - 1,
    "one": 1,
    "one.0": 1.0,
    "yes": True,
    "none": None,
    "empty": {},
}
ODD_NAMES = {
    "vector": "$meta.vector",
    "vectors": "$meta.vectors",
    "$partition": "$meta.$partition",
    "$meta.id": "$meta.$meta.id",
    "$meta.vector": "$meta.$meta.vector",
    "$meta.$partition": "$meta.$meta.$partition",
}


def test_dynamic_keys_have_the_same_name_on_every_page(bed):
    name = create(bed.client, bed.fresh(), ("full",))
    seeded = [ODD_KEYS, *({key: value} for key, value in ODD_KEYS.items() if key != "$meta")]
    # pymilvus takes a key "$meta" for the whole field
    seeded[0] = {key: value for key, value in ODD_KEYS.items() if key != "$meta"}
    vectors = {"full": VECTORS["full"][4]}
    bed.client.insert(
        name,
        [{"id": number, **vectors, **row} for number, row in enumerate(seeded)],
    )
    read_rows = {row["id"]: row for row in rows(bed.source(name, shard_bytes=1))}
    assert len(read_rows) == len(seeded)
    for number, row in enumerate(seeded):
        read_row = read_rows[number]
        assert read_row.pop("vector") == VECTORS["full"][5]
        assert set(read_row) - {"id"} == {ODD_NAMES.get(key, key) for key in row}
        for key, value in row.items():
            kind, text = read_row[ODD_NAMES.get(key, key)]
            assert (kind == "string" and text == value) or json.loads(text) == value
    assert read_rows[0]["one"] == ("int64", "1")
    assert read_rows[0]["one.0"] == ("double", "1.0")
    assert read_rows[0]["yes"] == ("bool", "true")
    assert read_rows[0]["big"] == ("uint64", str(2**64 - 1))
    bed.client.drop_collection(name)


def test_a_dynamic_key_named_like_the_partition_is_kept_beside_it(bed):
    name = create(bed.client, bed.fresh(), ("full",))
    bed.client.create_partition(name, "late")
    row = {"id": 1, "full": [0.25, -3.5], "$partition": "mine", "$meta.$partition": "too"}
    bed.client.insert(name, [row], partition_name="late")
    (read_row,) = rows(bed.source(name))
    assert read_row == {
        "id": 1,
        "vector": [0.25, -3.5],
        "$partition": ("string", "late"),
        "$meta.$partition": ("string", "mine"),
        "$meta.$meta.$partition": ("string", "too"),
    }
    bed.client.drop_collection(name)


# Aliases.


@pytest.fixture(scope="module")
def aliased(bed):
    """Return the names of a collection and of its two aliases."""
    name = bed.seed(CORPUS)
    aliases = [f"{name}_live", f"{name}_old"]
    for alias in aliases:
        bed.client.create_alias(name, alias)
    yield name, *aliases
    for alias in aliases:
        bed.client.drop_alias(alias)


def test_an_alias_is_read_as_its_collection(bed, aliased):
    name, alias, _ = aliased
    source = bed.source(alias)
    shards = source.shards(CONTEXT)
    assert shards == bed.source(name).shards(CONTEXT)
    assert {shard.collection for shard in shards} == {name}
    assert row_counts(rows(source, shards)) == row_counts(map(bed.expected, CORPUS))
    assert source.count(CONTEXT) == len(CORPUS)
    description = source.describe(CONTEXT, shards)
    assert [collection.name for collection in description.collections] == [name]
    assert f"{alias} is an alias of {name}, which is read" in description.notes
    assert not any("alias" in note for note in bed.source(name).describe(CONTEXT, shards).notes)


def test_a_collection_and_its_alias_are_not_read_twice(bed, aliased):
    name, alias, other_alias = aliased
    for names in ((name, alias), (alias, name), (alias, other_alias)):
        with pytest.raises(SourceError) as error:
            bed.source(*names).shards(CONTEXT)
        assert all(word in error.value.what for word in (*names, name, "twice"))


def test_a_name_that_is_neither_is_answered_with_the_nearest_of_both(bed, aliased):
    _, alias, _ = aliased
    with pytest.raises(SourceError, match=f"did you mean {alias}") as error:
        bed.source(f"{alias}e").shards(CONTEXT)
    assert "source.collections" in error.value.remedy


def test_a_server_that_lists_no_aliases_names_its_collections(lite_client):
    create(lite_client, "lonely", ("full",))
    with pytest.raises(SourceError, match="did you mean lonely"):
        Milvus(url=lite_client.url, collections=["lonelyy"]).shards(CONTEXT)


# Vectors that may be null (servers of 2.6 and later).

NULLABLE = {
    "full": Field("full", "FloatVector", "", 2),
    "half": Field("half", "Float16Vector", "", 2),
    "bits": Field("bits", "BinaryVector", "", 16),
    "words": Field("words", "SparseFloatVector"),
}
CELLS = {
    "full": [0.25, -3.5],
    "half": [0.5, -2.0],
    "bits": [1, 255],
    "words": {"indices": [7], "values": [0.5]},
}


def vector_data(name, present):
    """Build a column of a reply in which a null takes no room."""
    from pymilvus.grpc_gen import schema_pb2

    count = sum(present)
    pair = np.array([(7, 0.5)], np.dtype([("index", "<u4"), ("value", "<f4")])).tobytes()
    content = {
        "full": {"dim": 2, "float_vector": {"data": CELLS["full"] * count}},
        "half": {
            "dim": 2,
            "float16_vector": np.array(CELLS["half"] * count, np.float16).tobytes(),
        },
        "bits": {"dim": 16, "binary_vector": bytes(CELLS["bits"] * count)},
        "words": {"sparse_float_vector": {"contents": [pair] * count}},
    }[name]
    return schema_pb2.FieldData(
        type=schema_pb2.DataType.Value(NULLABLE[name].kind),
        field_name=name,
        vectors=content,
        valid_data=present,
    )


def test_each_vector_may_be_null_in_turn():
    from pymilvus.grpc_gen import milvus_pb2, schema_pb2

    masks = list(itertools.product([True, False], repeat=len(NULLABLE)))
    ids = schema_pb2.FieldData(
        type=schema_pb2.DataType.Int64,
        field_name="id",
        scalars={"long_data": {"data": range(len(masks))}},
    )
    columns = [
        vector_data(name, [mask[number] for mask in masks]) for number, name in enumerate(NULLABLE)
    ]
    schema = MilvusSchema(Field("id", "Int64"), NULLABLE, (), is_dynamic=False, index_only=())
    collection = CollectionInfo("docs", None, schema, (None,))
    reply = milvus_pb2.QueryResults(fields_data=[ids, *columns])
    (batch,) = build_records(reply, collection, "docs", None, 10**6)
    assert plain_rows(batch) == [
        {
            "id": number,
            "vectors": {
                name: CELLS[name] if is_present else None
                for name, is_present in zip(NULLABLE, mask, strict=True)
            },
        }
        for number, mask in enumerate(masks)
    ]


def test_a_collection_loaded_without_its_dynamic_field_is_refused():
    """Every query of such a collection gives the field, also where no record has a dynamic key."""
    from pymilvus.grpc_gen import milvus_pb2, schema_pb2

    ids = schema_pb2.FieldData(
        type=schema_pb2.DataType.Int64, field_name="id", scalars={"long_data": {"data": [1]}}
    )
    schema = MilvusSchema(Field("id", "Int64"), {}, (), is_dynamic=True, index_only=())
    collection = CollectionInfo("docs", None, schema, (None,))
    reply = milvus_pb2.QueryResults(fields_data=[ids])
    with pytest.raises(SourceError, match=r"without its fields \$meta"):
        list(build_records(reply, collection, "docs", None, 10**6))


# Bulk-writer files.

FILE_FIELDS = {
    "full": "FLOAT_VECTOR",
    "half": "FLOAT16_VECTOR",
    "bits": "BINARY_VECTOR",
    "words": "SPARSE_FLOAT_VECTOR",
}
FILE_CELLS = {**CELLS, "words": {"7": 0.5}}
#: The first rows have no vector at all, then each subset is absent in turn.
FILE_MASKS = sorted(itertools.product([False, True], repeat=len(CELLS)), key=sum)


def file_rows():
    for number, mask in enumerate(FILE_MASKS):
        cells = {
            name: FILE_CELLS[name] if is_present else None
            for name, is_present in zip(FILE_CELLS, mask, strict=True)
        }
        yield {"id": number, **cells}


def write_json(path, file_rows):
    path.write_text(json.dumps({"rows": list(file_rows)}))


def write_json_without_nulls(path, file_rows):
    write_json(
        path,
        ({key: value for key, value in row.items() if value is not None} for row in file_rows),
    )


def write_lines(path, file_rows):
    path.with_suffix(".jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in file_rows))


def write_parquet(path, file_rows):
    kinds = {
        "id": pa.int64(),
        "full": pa.list_(pa.float32()),
        "half": pa.list_(pa.uint8()),
        "bits": pa.list_(pa.uint8()),
        "words": pa.string(),
    }
    stored = [
        {
            **row,
            "half": row["half"] and list(np.array(row["half"], np.float16).tobytes()),
            "words": row["words"] and json.dumps(row["words"]),
        }
        for row in file_rows
    ]
    pq.write_table(pa.Table.from_pylist(stored, pa.schema(kinds)), path.with_suffix(".parquet"))


@pytest.mark.parametrize("apart", [False, True], ids=["one file", "a file for each row"])
@pytest.mark.parametrize(
    "write", [write_json, write_json_without_nulls, write_lines, write_parquet]
)
def test_each_vector_may_be_absent_in_files(tmp_path, write, apart):
    folder = tmp_path / "docs"
    folder.mkdir()
    if apart:
        for row in file_rows():
            write(folder / f"{row['id']:02d}.json", [row])
    else:
        write(folder / "all.json", file_rows())
    source = Milvus(uri=str(folder), fields=FILE_FIELDS)
    read_rows = {
        int(row["id"] if write is write_parquet else row["id"][1]): row for row in rows(source)
    }
    assert [read_rows[number]["vectors"] for number in range(len(FILE_MASKS))] == [
        {
            name: CELLS[name] if is_present else None
            for name, is_present in zip(CELLS, mask, strict=True)
        }
        for mask in FILE_MASKS
    ]
    assert not any(set(row) - {"id", "vectors"} for row in read_rows.values())
    (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    assert collection.vectors == {"full": (2, None), "half": (2, None)}


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_the_only_vector_of_files_is_found_behind_nulls(tmp_path, kind):
    for number, vectors in enumerate([[None, None], [None, [0.5, 1.5]], [None]]):
        table = pa.table({"id": range(len(vectors)), "v": pa.array(vectors, pa.list_(kind))})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    source = Milvus(uri=str(tmp_path))
    assert [row["vector"] for row in rows(source)] == [None, None, None, [0.5, 1.5], None]
    (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    assert collection.dimension == 2


def test_several_fields_of_floats_must_be_named(tmp_path):
    """Taken as lists, they would leave every record without a vector."""
    lists = {name: pa.array([[0.5, 1.5]], pa.list_(pa.float32())) for name in ("title", "body")}
    pq.write_table(pa.table({"id": [1], **lists}), tmp_path / "1.parquet")
    with pytest.raises(SourceError, match="body") as error:
        Milvus(uri=str(tmp_path)).shards(CONTEXT)
    assert "source.fields: {title: FLOAT_VECTOR}" in error.value.remedy
    (row,) = rows(Milvus(uri=str(tmp_path), fields={"body": "FLOAT_VECTOR"}))
    assert (row["vector"], row["title"]) == ([0.5, 1.5], ("list<float>", "[0.5,1.5]"))


def read_records_and_rejects(source):
    records, rejects = [], []
    for _, item in items(source):
        if isinstance(item, Reject):
            rejects.append(item)
        else:
            records += plain_rows(item)
    return records, rejects


def test_a_sparse_vector_of_another_form_is_set_aside(tmp_path):
    contents = [{"7": 0.5}, [[7, 0.5]], "7: 0.5", 3, True, {"x": 1.0}, {"7": "a"}, None]
    file_rows = [{"id": number, "words": content} for number, content in enumerate(contents)]
    (tmp_path / "1.json").write_text(json.dumps({"rows": file_rows}))
    source = Milvus(uri=str(tmp_path), fields={"words": "SPARSE_FLOAT_VECTOR"})
    records, rejects = read_records_and_rejects(source)
    assert [row["vectors"]["words"] for row in records] == [
        {"indices": [7], "values": [0.5]},
        None,
    ]
    assert [reject.reason for reject in rejects] == ["field words: no sparse vector"] * 6
    assert [json.loads(reject.content) for reject in rejects] == [
        row for row in file_rows if row["id"] not in (0, len(contents) - 1)
    ]
    assert rejects[0].position == "1.json: 1"


def test_a_vector_that_is_no_list_in_parquet_is_set_aside(tmp_path):
    pq.write_table(
        pa.table({"id": [1, 2], "v": pa.array(["0.5,1.5", None]), "w": [[0.5], [1.5]]}),
        tmp_path / "1.parquet",
    )
    fields = {"v": "FLOAT_VECTOR", "w": "FLOAT_VECTOR"}
    records, rejects = read_records_and_rejects(Milvus(uri=str(tmp_path), fields=fields))
    assert [reject.reason for reject in rejects] == [
        "field v: no list of numbers, as its first value is none"
    ]
    assert [row["vectors"] for row in records] == [{"w": [1.5]}]


def test_a_row_without_its_primary_key_has_no_id(tmp_path):
    file_rows = [{"v": [0.5, 1.5]}, {"id": 1, "v": [0.5, 1.5]}]
    (tmp_path / "1.json").write_text(json.dumps({"rows": file_rows}))
    records, rejects = read_records_and_rejects(Milvus(uri=str(tmp_path)))
    assert not rejects
    assert [row.get("id") for row in records] == [None, ("int64", "1")]


def test_dynamic_keys_of_files_are_named_as_those_of_a_server(tmp_path):
    dynamic = {**ODD_KEYS, "n": 14, "$meta.n": 15, "id": 16}
    file_rows = [{"id": 1, "v": [0.5, 1.5], "n": 0, "vectors": 17, "$meta": dynamic}]
    (tmp_path / "1.json").write_text(json.dumps({"rows": file_rows}))
    (row,) = rows(Milvus(uri=str(tmp_path), fields={"v": "FLOAT_VECTOR"}))
    names = {**ODD_NAMES, "n": "$meta.n", "$meta.n": "$meta.$meta.n", "id": "$meta.id"}
    assert set(row) == {"id", "vector", "n", "fields.vectors"} | {
        names.get(key, key) for key in dynamic
    }
    for key, value in dynamic.items():
        kind, text = row[names.get(key, key)]
        assert (kind == "string" and text == value) or json.loads(text) == value
    assert (row["n"], row["fields.vectors"]) == (("int64", "0"), ("int64", "17"))


def test_dynamic_keys_that_are_no_object_are_set_aside(tmp_path):
    """Milvus imports an object, or the JSON text of one."""
    contents = [{}, None, '{"x": 1}', [1], 2, "no JSON", "[1]"]
    file_rows = [{"id": n, "v": [0.5], "$meta": value} for n, value in enumerate(contents)]
    (tmp_path / "1.json").write_text(json.dumps({"rows": file_rows}))
    records, rejects = read_records_and_rejects(Milvus(uri=str(tmp_path)))
    assert [row["id"][1] for row in records] == ["0", "1", "2"]
    assert records[2]["x"] == ("int64", "1")
    assert [json.loads(reject.content)["id"] for reject in rejects] == [3, 4, 5, 6]
    assert all("field $meta: " in reject.reason for reject in rejects)


def test_a_field_that_no_file_holds_is_named(tmp_path):
    (tmp_path / "1.json").write_text(json.dumps({"rows": [{"id": 1, "v": [0.5]}]}))
    source = Milvus(uri=str(tmp_path), fields={"v": "FLOAT_VECTOR", "vektor": "FLOAT_VECTOR"})
    notes = source.describe(CONTEXT, source.shards(CONTEXT)).notes
    assert any("vektor, which no file holds" in note for note in notes)
