"""What Weaviate declares of its collections: aliases, references, distances, tenants.

The server is real; definitions and objects are put by REST.
"""

import json
import uuid

import pytest

from cfray.errors import SourceError
from cfray.records.record import Typed
from cfray.sources.weaviate.source import Weaviate
from cfray.sources.weaviate.types import reference_values
from tests.sources.corpus import CONTEXT, CORPUS, row_counts, rows
from tests.sources.weaviate_bed import WeaviateBed
from tests.sources.weaviate_rest import add_vectors, create, put, refer

pytestmark = pytest.mark.server("weaviate")


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(WeaviateBed)


def describe(source):
    return source.describe(CONTEXT, source.shards(CONTEXT))


def add_alias(bed, alias, collection):
    bed.send_request("/aliases", {"alias": alias, "class": collection}, "POST")


# Aliases


def test_an_alias_stands_for_its_collection(bed):
    name, other = bed.seed(CORPUS[:6]), bed.seed(CORPUS[6:8])
    alias = f"{name[:-1]}Current"
    add_alias(bed, alias, name)
    source = bed.source(alias)
    shards = source.shards(CONTEXT)
    assert {shard.collection for shard in shards} == {name}
    assert row_counts(rows(source, shards)) == row_counts(map(bed.expected, CORPUS[:6]))
    description = describe(source)
    assert [collection.name for collection in description.collections] == [name]
    assert f"{alias} is an alias of {name}, which is read" in description.notes
    assert source.count(CONTEXT) == 6
    assert source.search(alias, [0.5, -1.5], 1) == bed.source(name).search(name, [0.5, -1.5], 1)
    both = bed.source(alias, name, other)
    assert both.count(CONTEXT) == 8
    assert len(rows(both)) == 8
    assert not [note for note in describe(both).notes if "alias" in note]
    shards_of_both = both.shards(CONTEXT)
    bed.send_request(f"/aliases/{alias}", {"class": other}, "PUT")
    with pytest.raises(SourceError, match=f"{alias}.*stood for {name}.*now stands for {other}"):
        rows(source, shards)
    assert len(rows(both, shards_of_both)) == 8
    bed.send_request(f"/aliases/{alias}", method="DELETE")
    with pytest.raises(SourceError, match="stands for nothing"):
        rows(source, shards)
    with pytest.raises(SourceError, match=f"no collection {alias}"):
        source.shards(CONTEXT)


def test_a_tenant_may_be_named_by_the_alias_of_its_collection(bed):
    name = create(bed, tenants=("ann", "bob"))
    for tenant, count in (("ann", 3), ("bob", 2)):
        for n in range(count):
            put(bed, name, n, tenant=tenant)
    alias = f"Tenants{name}"
    add_alias(bed, alias, name)
    source = bed.source(f"{alias}/bob")
    assert {shard.collection for shard in source.shards(CONTEXT)} == {f"{name}/bob"}
    assert (len(rows(source)), source.count(CONTEXT)) == (2, 2)
    assert bed.source(alias).count(CONTEXT) == 5
    with pytest.raises(SourceError, match=f"no collection {name}/eve"):
        bed.source(f"{alias}/eve").shards(CONTEXT)


@pytest.mark.parametrize("name", ["Nowhere", "nowhere", "no where", "no%2Fwhere", "..", "é"])
def test_a_name_that_is_no_collection_and_no_alias_is_refused(bed, name):
    create(bed)
    with pytest.raises(SourceError, match="has no collection") as error:
        bed.source(name).shards(CONTEXT)
    assert name.partition("/")[0] in error.value.what
    assert "source.collections" in error.value.remedy


# References


def test_what_each_collection_declares_of_its_references_is_described(bed):
    person, firm = create(bed), create(bed)
    book = create(bed, references={"by": [person], "either": [person, firm]})
    film = create(bed, references={"by": [firm], "either": [person, firm]})
    description = describe(bed.source(person, firm, book, film))
    references = {collection.name: collection.references for collection in description.collections}
    either = {f"either.{person}": person, f"either.{firm}": firm}
    assert references == {
        person: {},
        firm: {},
        book: {"by": person, **either},
        film: {"by": firm, **either},
    }
    # ``by`` points into two collections, so no source collection stands for it everywhere
    assert description.references == either
    assert describe(bed.source(person, book)).references == {"by": person, **either}


def test_references_of_tenants_stay_in_their_tenant(bed):
    shared = create(bed)
    person = create(bed, tenants=("ann", "bob"))
    book = create(bed, references={"by": [person], "of": [shared]}, tenants=("ann", "bob"))
    for tenant in ("ann", "bob"):
        put(bed, book, 1, tenant=tenant)
    description = describe(bed.source(book))
    assert {collection.name: collection.references for collection in description.collections} == {
        f"{book}/{tenant}": {"by": f"{person}/{tenant}", "of": shared} for tenant in ("ann", "bob")
    }
    assert description.references == {"of": shared}
    assert {collection.facts["tenant"] for collection in description.collections} == {"ann", "bob"}


@pytest.fixture(scope="module")
def referring(bed):
    """Seed references of every kind; return the collections and number -> its references."""
    person, firm = create(bed), create(bed)
    book = create(bed, references={"by": [firm], "either": [person, firm]})
    people, firms = ([put(bed, name, n) for n in range(3)] for name in (person, firm))
    books = [put(bed, book, n) for n in range(8)]
    beacons = {
        0: {"by": [f"{firm}/{firms[0]}"]},
        1: {"by": [f"{firm}/{firms[0]}", f"{firm}/{firms[1]}"]},
        # the server takes a reference into a collection that the property does not declare
        2: {"by": [f"{person}/{people[0]}"]},
        3: {"by": [f"{person}/{people[0]}", f"{firm}/{firms[1]}", f"{person}/{people[1]}"]},
        4: {"by": [firms[2]]},
        5: {"either": [f"{person}/{people[0]}", f"{firm}/{firms[0]}"]},
        6: {"either": [f"{person}/{people[2]}"]},
        7: {},
    }
    for n, references in beacons.items():
        for name, targets in references.items():
            for target in targets:
                refer(bed, book, books[n], name, f"weaviate://localhost/{target}")
    expected = {
        0: {"by": firms[:1]},
        1: {"by": firms[:2]},
        2: {f"by.{person}": people[:1]},
        3: {"by": firms[1:2], f"by.{person}": people[:2]},
        4: {"by": firms[2:3]},
        5: {"either": {person: people[:1], firm: firms[:1]}},
        6: {"either": {person: people[2:3]}},
        7: {},
    }
    return (person, firm, book), expected


def references_of(source):
    return {
        int(row["n"][1]): {
            name: json.loads(value[1])
            for name, value in row.items()
            if name.partition(".")[0] in ("by", "either")
        }
        for row in rows(source)
    }


def test_the_collection_that_a_beacon_names_is_the_references_own(bed, referring):
    (_, _, book), expected = referring
    assert references_of(bed.source(book, shard_bytes=400)) == expected
    types = {
        value[0]
        for row in rows(bed.source(book))
        for name, value in row.items()
        if name.partition(".")[0] == "by"
    }
    assert types == {"list<uuid>"}


@pytest.mark.parametrize("with_schema", [True, False])
def test_an_export_says_the_same_of_its_references(bed, referring, with_schema):
    names, expected = referring
    folder = bed.export(*names)
    if with_schema:
        (folder / "schema.json").write_bytes(bed.send_request("/schema"))
    source = Weaviate(uri=str(folder), collections=[names[2]])
    if with_schema:
        assert references_of(source) == expected
        assert describe(source).references == describe(bed.source(names[2])).references
        return
    # without the definitions a property whose beacons name several collections has no sole target
    person, firm, _ = names
    assert references_of(source) == {
        n: {
            "by": {
                target: ids
                for target, ids in (
                    (firm, references.get("by")),
                    (person, references.get(f"by.{person}")),
                )
                if ids
            }
        }
        if n < 5
        else references
        for n, references in expected.items()
    }
    assert describe(source).references == {
        f"{name}.{target}": target for name in ("by", "either") for target in (person, firm)
    }


def test_an_export_without_definitions_knows_a_sole_target_by_its_beacons(bed):
    firm = create(bed)
    book = create(bed, references={"by": [firm]})
    firm_id, book_id = put(bed, firm, 1), put(bed, book, 1)
    refer(bed, book, book_id, "by", f"weaviate://localhost/{firm}/{firm_id}")
    source = Weaviate(uri=str(bed.export(book)))
    assert references_of(source) == {1: {"by": [firm_id]}}
    assert describe(source).references == {"by": firm}


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["Firm"], {"by": ["1", "3"], "by.Person": ["2"]}),
        (["Firm", "Person"], {"by": {"Firm": ["1"], "Person": ["2"], "beacons": ["3"]}}),
        ([], {"by": {"Firm": ["1"], "Person": ["2"], "beacons": ["3"]}}),
    ],
)
def test_a_beacon_without_a_collection_is_not_given_one_of_several(targets, expected):
    """The server gives its collection to a beacon if the property declares one alone."""
    beacons = [
        {"beacon": f"weaviate://localhost/{target}"} for target in ("Firm/1", "Person/2", "3")
    ]
    values = reference_values("by", beacons, targets)
    assert {
        name: value.value if isinstance(value, Typed) else value for name, value in values.items()
    } == expected


# Distances


DISTANCES = {
    "cosine": "cosine",
    "l2-squared": "l2",
    "dot": "dot",
    "manhattan": None,
    "hamming": None,
}


def index_of(distance, kind="hnsw"):
    return {
        "vectorizer": {"none": {}},
        "vectorIndexType": kind,
        "vectorIndexConfig": {"distance": distance},
    }


@pytest.mark.parametrize("filled", [True, False])
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_distance_of_each_vector_is_described(bed, distance, filled):
    legacy = create(bed, vectorIndexConfig={"distance": distance})
    add_vectors(bed, legacy, {"second": index_of("l2-squared")})
    named = create(
        bed, vectors={"default": index_of(distance), "flat": index_of(distance, kind="flat")}
    )
    if filled:
        put(bed, legacy, 1, vector=[1.0, 2.0], vectors={"second": [1.0, 2.0, 3.0]})
        put(bed, named, 1, vectors={"default": [1.0, 2.0], "flat": [1.0, 2.0, 3.0]})
    widths = (2, 3) if filled else (None, None)
    description = describe(bed.source(legacy, named))
    metric = DISTANCES[distance]
    assert {
        collection.name: (collection.dimension, collection.metric, dict(collection.vectors))
        for collection in description.collections
    } == {
        legacy: (widths[0], metric, {"second": (widths[1], "l2")}),
        named: (widths[0], metric, {"flat": (widths[1], metric)}),
    }
    notes = [note for note in description.notes if distance in note]
    assert bool(notes) is (metric is None)
    for note in notes:
        assert "index.vector.metric" in note
    assert all(name in "".join(notes) for name in (legacy, named)) or metric


def test_a_collection_whose_objects_have_no_vector_has_no_say_in_the_distance(bed):
    name = create(bed, vectorIndexConfig={"distance": "l2-squared"})
    bare = create(bed)
    put(bed, name, 1, vector=[1.0, 2.0])
    put(bed, bare, 1)
    description = describe(bed.source(name, bare))
    assert {
        collection.name: (collection.dimension, collection.metric)
        for collection in description.collections
    } == {
        name: (2, "l2"),
        bare: (None, None),
    }
    assert any(f"no object that was looked at has vector of {bare}" in x for x in description.notes)


def test_a_vector_that_few_objects_have_is_described(bed):
    """The sample of the plan sees none of the few objects that have the second vector."""
    name = create(bed)
    add_vectors(bed, name, {"second": index_of("l2-squared"), "unused": index_of("dot")})
    objects = [
        {
            "class": name,
            "id": str(uuid.UUID(int=n << 118 | 1)),
            "properties": {"n": n},
            "vector": [1.0, float(n)],
            **({"vectors": {"second": [1.0, 2.0, float(n)]}} if n == 700 else {}),
        }
        for n in range(1_000)
    ]
    bed.send_request("/batch/objects", {"objects": objects}, "POST")
    source = bed.source(name)
    (collection,) = describe(source).collections
    assert dict(collection.vectors) == {"second": (3, "l2")}
    folder = bed.export(name)
    (folder / "schema.json").write_bytes(bed.send_request("/schema"))
    (exported,) = describe(Weaviate(uri=str(folder))).collections
    assert dict(exported.vectors) == dict(collection.vectors)


# Tenants


def test_ids_that_repeat_across_tenants_are_records_of_their_tenant(bed):
    name = create(bed, tenants=("ann", "bob"))
    for tenant in ("ann", "bob"):
        for n in range(3):
            put(bed, name, n, tenant=tenant, vector=[float(n), float(len(tenant))])
    source = bed.source(name)
    shards = source.shards(CONTEXT)
    ids = {
        tenant: {
            row["id"]
            for row in rows(source, [shard for shard in shards if shard.where["tenant"] == tenant])
        }
        for tenant in ("ann", "bob")
    }
    assert ids["ann"] == ids["bob"]
    assert len(ids["ann"]) == 3
    assert source.count(CONTEXT) == describe(source).rows == 6
