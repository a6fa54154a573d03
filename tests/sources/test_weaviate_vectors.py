"""Every vector of every object of a Weaviate collection, whichever of them an object has.

A collection from before named vectors has an unnamed vector; named vectors may be added to it
later, and then an object may have the unnamed vector and any of the named ones.  The server is
real, and the objects are put by REST.
"""

import uuid

import pytest

from cfray.sources.base import Context
from cfray.sources.weaviate.source import Weaviate
from tests.sources.corpus import CONTEXT, rows
from tests.sources.weaviate_bed import WeaviateBed
from tests.sources.weaviate_rest import (
    UNNAMED,
    create_grown,
    put_every_subset,
    vector_index,
    vector_of,
)

pytestmark = pytest.mark.server("weaviate")

#: Kind of collection -> its vectors.
KINDS = {
    "without named vectors": (UNNAMED,),
    "with a named vector added": (UNNAMED, "second"),
    "with several vectors added": (UNNAMED, "second", "third", "tokens"),
    "of a vector called default": ("default",),
    "of named vectors": ("default", "second", "tokens"),
    "of named vectors without a default": ("second", "third"),
    "of vectors that are several for each object": ("tokens", "colbert"),
}


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(WeaviateBed)


def vectors_of(row):
    """Give the vectors of a row that was read; the unnamed one and ``default`` are ``vector``."""
    vectors = {"vector": row.get("vector"), **(row.get("vectors") or {})}
    return {name: vector for name, vector in vectors.items() if vector is not None}


def read_vectors(source, context=CONTEXT):
    return {int(row["n"][1]): vectors_of(row) for row in rows(source, context=context)}


def expected_vectors(choices):
    return {
        n: {
            ("vector" if name in (UNNAMED, "default") else name): vector_of(name, n)
            for name in chosen
        }
        for n, chosen in choices.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_vector_of_every_object_is_read(bed, kind):
    collection = create_grown(bed, KINDS[kind])
    choices = put_every_subset(bed, collection, KINDS[kind])
    source = bed.source(collection)
    small_shards = bed.source(collection, shard_bytes=600)
    assert len(small_shards.shards(CONTEXT)) > 1 or len(choices) < 8
    for reading in (source, small_shards):
        assert read_vectors(reading) == expected_vectors(choices)
    assert read_vectors(source, Context(scratch=CONTEXT.scratch)) == expected_vectors(choices)
    assert source.count(CONTEXT) == len(choices)
    description = source.describe(CONTEXT, source.shards(CONTEXT))
    assert (description.rows, description.exact) == (len(choices), True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_vector_of_every_object_is_in_its_export(bed, kind, tmp_path):
    collection = create_grown(bed, KINDS[kind])
    choices = put_every_subset(bed, collection, KINDS[kind])
    folder = bed.export(collection)
    source = Weaviate(uri=str(folder))
    assert read_vectors(source) == expected_vectors(choices)
    (folder / "schema.json").write_bytes(bed.send_request("/schema"))
    assert read_vectors(source) == expected_vectors(choices)
    live = bed.source(collection)
    assert described(source) == described(live)
    assert source.count(CONTEXT) == len(choices)


def described(source):
    (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    return collection.rows, collection.dimension, collection.metric, collection.vectors


def test_several_vectors_for_each_object_are_no_primary_vector(bed):
    """A record has one primary vector, so those of an index ``default`` go by its name."""
    name = bed.fresh()
    definition = {"class": name, "properties": [{"name": "n", "dataType": ["int"]}]}
    definition["vectorConfig"] = {
        "default": vector_index("tokens"),
        "second": vector_index("second"),
    }
    bed.send_request("/schema", definition, "POST")
    content = {"class": name, "properties": {"n": 1}}
    content["vectors"] = {"default": vector_of("tokens", 1), "second": vector_of("second", 1)}
    bed.send_request("/objects", content, "POST")
    folder = bed.export(name)
    live, exported = bed.source(name), Weaviate(uri=str(folder))
    for source in (live, exported):
        assert read_vectors(source) == {1: content["vectors"]}
        assert described(source)[1] is None
    assert live.search(name, vector_of("second", 1), 1)


def test_a_record_says_nothing_of_the_vectors_of_its_page(bed):
    """Vectors that the plan did not see make a column in the pages that have one."""
    collection = create_grown(bed, (UNNAMED, "second"))
    objects = [
        {
            "class": collection,
            "id": str(uuid.UUID(int=n + 1)),
            "properties": {"n": n},
            "vector": vector_of(UNNAMED, n),
            **({"vectors": {"second": vector_of("second", n)}} if n == 1_200 else {}),
        }
        for n in range(2_600)
    ]
    for start in range(0, len(objects), 1_000):
        body = {"objects": objects[start : start + 1_000]}
        bed.send_request("/batch/objects", body, "POST")
    source = bed.source(collection)
    notes = source.describe(CONTEXT, source.shards(CONTEXT)).notes
    assert any("vectors.second" in note and collection in note for note in notes)
    read_rows = {
        int(row["n"][1]): row for row in rows(source, context=Context(scratch=CONTEXT.scratch))
    }
    assert read_rows[1_200]["vectors"] == {"second": vector_of("second", 1_200)}
    others = [row for n, row in read_rows.items() if n != 1_200]
    assert len(others) == 2_599
    assert not any(row.get("vectors") for row in others)


def test_tenants_of_a_collection_with_added_vectors_keep_all_of_them(bed):
    names = (UNNAMED, "second", "tokens")
    collection = create_grown(bed, names, tenants=("ann", "bob"))
    choices = {
        tenant: put_every_subset(bed, collection, names, tenant=tenant, repeated=repeated)
        for tenant, repeated in (("ann", 1), ("bob", 2))
    }
    source = bed.source(collection)
    for tenant, choice in choices.items():
        assert read_vectors(bed.source(f"{collection}/{tenant}")) == expected_vectors(choice)
    assert source.count(CONTEXT) == sum(map(len, choices.values()))
    described_collections = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    assert {collection.name: collection.rows for collection in described_collections} == {
        f"{collection}/{tenant}": len(choice) for tenant, choice in choices.items()
    }
    assert {(collection.dimension, collection.metric) for collection in described_collections} == {
        (3, "dot")
    }
