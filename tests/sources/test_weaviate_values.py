"""Every property of a Weaviate object: absent, null, empty, zero, and under every name.

The server is real; what it answers over REST for an object is what a record must hold.
"""

import base64
import json
import uuid

import pytest

from cfray.sources.base import Context
from cfray.sources.weaviate.source import Weaviate
from tests.sources.corpus import CONTEXT, rows
from tests.sources.weaviate_bed import WeaviateBed
from tests.sources.weaviate_rest import add_vectors

pytestmark = pytest.mark.server("weaviate")

NESTED = [
    {"name": "word", "dataType": ["text"]},
    {"name": "count", "dataType": ["int"]},
    {"name": "ratio", "dataType": ["number"]},
    {"name": "flag", "dataType": ["boolean"]},
    {"name": "day", "dataType": ["date"]},
    {"name": "uid", "dataType": ["uuid"]},
    {"name": "words", "dataType": ["text[]"]},
    {"name": "counts", "dataType": ["int[]"]},
    {"name": "flags", "dataType": ["boolean[]"]},
    {"name": "days", "dataType": ["date[]"]},
    {"name": "uids", "dataType": ["uuid[]"]},
    {"name": "data", "dataType": ["blob"]},
    {"name": "deep", "dataType": ["object"], "nestedProperties": [
        {"name": "word", "dataType": ["text"]},
        {"name": "ratios", "dataType": ["number[]"]},
    ]},
]  # fmt: skip
FULL = {
    "word": "é", "count": 0, "ratio": 0.0, "flag": False, "day": "2024-02-29T00:00:00Z",
    "uid": str(uuid.UUID(int=5)), "words": ["a", ""], "counts": [0, -1],
    "flags": [False, True], "days": ["2024-02-29T00:00:00Z"], "uids": [str(uuid.UUID(int=6))],
    "data": base64.b64encode(b"\0\xff").decode(),
    "deep": {"word": "", "ratios": [5.0]},
}  # fmt: skip
#: Property type -> values that an object may have, beside none at all.
VALUES = {
    "text": ["a", "", " ", "null"],
    "text[]": [["a"], [""], [], ["a", "a"]],
    "int": [1, 0, -(2**53)],
    "int[]": [[1], [0], []],
    "number": [0.5, 0.0, -0.0, 5.0, 1e300],
    "number[]": [[0.5], [0.0, 5.0], []],
    "boolean": [True, False],
    "boolean[]": [[True], [False, False], []],
    "date": ["2024-01-01T00:00:00.123456789+05:30", "0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z"],
    "date[]": [["2024-01-01T00:00:00Z"], []],
    "uuid": [str(uuid.UUID(int=7)), str(uuid.UUID(int=0))],
    "uuid[]": [[str(uuid.UUID(int=7))], []],
    "blob": [base64.b64encode(b"\0\xff").decode()],
    "geoCoordinates": [{"latitude": 0.0, "longitude": 0.0}, {"latitude": 52.52, "longitude": -1.1}],
    "phoneNumber": [{"input": "+49 171 1234567"}, {"input": "0171 1234567", "defaultCountry": "de"}],
    "object": [FULL, {"word": "a"}, {"deep": {"word": "x"}}, {"counts": []}, {"deep": {}}, {},
               {"words": [], "flags": [], "days": [], "uids": []}],
    "object[]": [[FULL, {"word": "a"}], [{}], []],
}  # fmt: skip
#: Recorded type of a value, where it is not the type of its JSON.
RECORDED = {
    "date": "date", "uuid": "uuid", "blob": "binary", "geoCoordinates": "geoCoordinates",
    "phoneNumber": "phoneNumber", "date[]": "list<date>", "uuid[]": "list<uuid>",
}  # fmt: skip


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(WeaviateBed)


def create(bed, properties):
    name = bed.fresh()
    bed.send_request(
        "/schema", {"class": name, "vectorizer": "none", "properties": properties}, "POST"
    )
    return name


def put(bed, name, n, properties, **content):
    object_id = str(uuid.UUID(int=n + 1 << 100))
    body = {"class": name, "id": object_id, "properties": properties, **content}
    bed.send_request("/objects", body, "POST")
    return object_id


@pytest.fixture(scope="module")
def values_of_every_type(bed):
    """Put each value into an object of its own; return the collection and id -> its type."""
    declared = [
        {
            "name": f"p{number}",
            "dataType": [property_type],
            **({"nestedProperties": NESTED} if property_type.startswith("object") else {}),
        }
        for number, property_type in enumerate(VALUES)
    ]
    name = create(bed, declared)
    objects = {}
    for number, (property_type, values) in enumerate(VALUES.items()):
        for value in [*values, None]:
            object_id = put(bed, name, len(objects), {f"p{number}": value})
            objects[object_id] = property_type
    objects[put(bed, name, len(objects), {})] = "nothing"
    return name, objects


def without_null(value):
    """Leave out what REST shows as null: to the server it is absent."""
    if isinstance(value, dict):
        return {key: without_null(item) for key, item in value.items() if item is not None}
    return [without_null(item) for item in value] if isinstance(value, list) else value


def values_read(source):
    """Give id -> its properties: name -> (type, value)."""
    return {
        str(row["id"]): {
            name: (value[0], json.loads(value[1]) if value[0] != "string" else value[1])
            for name, value in row.items()
            if name.startswith("p")
        }
        for row in rows(source)
    }


def test_every_value_is_what_rest_shows(bed, values_of_every_type):
    name, objects = values_of_every_type
    for source in (bed.source(name), bed.source(name, shard_bytes=500)):
        read = values_read(source)
        assert read.keys() == objects.keys()
        for object_id, property_type in objects.items():
            text = bed.send_request(f"/objects/{name}/{object_id}")
            shown = json.loads(
                text, parse_int=lambda digits: -0.0 if digits == "-0" else int(digits)
            )
            values = {key: value for key, (_, value) in read[object_id].items()}
            assert values == without_null(shown["properties"]), property_type
            assert json.dumps(values).count("-0.0") == json.dumps(shown["properties"]).count("-0.0")
            for kind, _ in read[object_id].values():
                assert kind == RECORDED.get(property_type, kind), property_type


def test_an_export_has_the_same_values(bed, values_of_every_type, tmp_path):
    name, _ = values_of_every_type
    folder = bed.export(name)
    (folder / "schema.json").write_bytes(bed.send_request("/schema"))
    assert values_read(Weaviate(uri=str(folder))) == values_read(bed.source(name))


def test_properties_that_are_younger_than_the_saved_definitions_are_kept(bed):
    name = create(bed, [{"name": "p1", "dataType": ["text"]}])
    definitions = bed.send_request("/schema")
    bed.send_request(
        f"/schema/{name}/properties", {"name": "p2", "dataType": ["int"]}, method="POST"
    )
    bed.send_request(
        f"/schema/{name}/properties", {"name": "p3", "dataType": [name]}, method="POST"
    )
    object_id = put(bed, name, 1, {"p1": "a", "p2": 7})
    beacon = {"beacon": f"weaviate://localhost/{name}/{object_id}"}
    bed.send_request(f"/objects/{name}/{object_id}/references/p3", beacon, "POST")
    folder = bed.export(name)
    (folder / "schema.json").write_bytes(definitions)
    assert values_read(Weaviate(uri=str(folder))) == {
        object_id: {
            "p1": ("string", "a"),
            "p2": ("int64", 7),
            "p3": ("list<uuid>", [object_id]),
        }
    }


def test_properties_named_like_a_records_own_columns_are_kept(bed):
    names = ["vector", "vectors", "text", "properties", "uuid", "_creation_time", "_update_time"]
    name = create(bed, [{"name": word, "dataType": ["text"]} for word in names])
    added = {"second": {"vectorizer": {"none": {}}, "vectorIndexType": "flat"}}
    add_vectors(bed, name, added)
    object_id = put(
        bed,
        name,
        1,
        {word: f"the property {word}" for word in names},
        vector=[1.0, 2.0],
        vectors={"second": [3.0]},
    )
    folder = bed.export(name)
    sources = [bed.source(name, object_times=True), Weaviate(uri=str(folder))]
    for source in sources:
        (row,) = rows(source, context=Context(scratch=CONTEXT.scratch))
        assert str(row["id"]) == object_id
        assert (row["vector"], row["vectors"]) == ([1.0, 2.0], {"second": [3.0]})
        texts = {key: value[1] for key, value in row.items() if isinstance(value, tuple)}
        for word in names:
            key = f"properties.{word}" if word in ("vector", "vectors") else word
            assert texts[key] == f"the property {word}"
        assert {"__creation_time", "__update_time"} <= texts.keys()


@pytest.mark.parametrize("word", ["id", "_id", "_additional"])
def test_the_server_takes_no_property_of_a_name_of_its_own(bed, word):
    """So no property can be mistaken for the id of its object."""
    from urllib.error import HTTPError

    name = create(bed, [])
    with pytest.raises(HTTPError):
        bed.send_request(
            f"/schema/{name}/properties", {"name": word, "dataType": ["text"]}, method="POST"
        )
