"""Weaviate keeps every row under the conditions in which naive readers lose rows.

A real server is read live, with inactive tenants, and through its Parquet export.
"""

import base64
import json
import random
import shutil
import threading
import uuid
from contextlib import closing
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.weaviate.schema import parse_definition
from cfray.sources.weaviate.source import Weaviate
from tests.sources.corpus import CONTEXT, CORPUS, items, make_row, plain_rows, row_counts, rows
from tests.sources.store_contract import StoreContract
from tests.sources.weaviate_bed import WeaviateBed, object_id
from tests.testbeds.proxy import Dropped, Grpc, HttpProxy, Slow, Status, Truncated

pytestmark = pytest.mark.server("weaviate")
NIL = uuid.UUID(int=0)


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(WeaviateBed)


@pytest.fixture(scope="module")
def locked_bed(shared_bed):
    return shared_bed(WeaviateBed, api_key="sesame")


class TestWeaviate(StoreContract):
    client = "weaviate"
    cannot_count = (
        "the server counts a range of UUIDs in the time of a scan; "
        "collections and tenants are counted"
    )
    cannot_tell_null = "the server drops nulls: a property exists or not"
    cannot_tell_missing = cannot_tell_null

    def test_rest_requests_are_repeated_after_a_fault(self, bed):
        """The schema and the references come over REST."""
        seeded_rows = [make_row(n, see=["d0001"]) for n in range(30)]
        name = bed.seed(seeded_rows)
        with HttpProxy(bed.source().url) as proxy:
            source = bed.source(name, url=proxy.endpoint, shard_bytes=4_000)
            for fault in (
                Dropped(),
                Status(429, {"Retry-After": "0"}),
                Status(500),
                Status(503),
                Truncated(),
            ):
                proxy.fail(fault, times=2, matching="/v1/objects")
                proxy.fail(fault, times=2, matching="/v1/schema")
                assert row_counts(rows(source)) == row_counts(map(bed.expected, seeded_rows)), fault
                assert not proxy.waiting, f"{fault} was never met"
            proxy.fail(Slow(), matching="/v1/objects")
            assert len(rows(source.model_copy(update={"timeout": 1.0}))) == len(seeded_rows)
            proxy.fail(Status(403, body=b"not yours"), matching="/v1/schema")
            with pytest.raises(SourceError, match="not yours") as error:
                source.shards(CONTEXT)
            assert "source.api_key" in error.value.remedy


def seed_with_ids(bed, *rows_with_ids):
    """Fill a new collection with pairs (row, id of its object), and return its name."""
    name = bed.fresh()
    bed.fill(
        bed.create(name),
        [row for row, _ in rows_with_ids],
        [chosen_id for _, chosen_id in rows_with_ids],
    )
    return name


# Values


def test_every_type_comes_back_as_it_was_put(bed):
    seeded_rows = bed.awkward(120, 8)
    source = bed.source(bed.seed(seeded_rows), shard_bytes=20_000)
    assert row_counts(rows(source)) == row_counts(map(bed.expected, seeded_rows))
    assert (
        len(
            {
                str(batch.schema.field("vectors").type)
                for _, batch in items(source, Context(scratch=CONTEXT.scratch))
            }
        )
        == 1
    )


def test_the_word_null_an_empty_text_and_none_are_told_apart(bed):
    read_rows = rows(
        bed.source(
            bed.seed([make_row(1, text=None), make_row(2, text=""), make_row(3, text="null")])
        )
    )
    assert {row["doc_id"][1]: row.get("text") for row in read_rows} == {
        "d0001": None,
        "d0002": ("string", ""),
        "d0003": ("string", "null"),
    }


def test_dates_keep_the_nanoseconds_that_the_client_cuts(bed):
    instant_text = "2024-01-01T00:00:00.123456789+05:30"
    name = bed.seed([make_row(1, created=instant_text)])
    (row,) = rows(bed.source(name))
    assert row["created"] == ("date", json.dumps(instant_text))
    (client_object,) = bed.client.collections.get(name).iterator()
    assert client_object.properties["created"].isoformat() == "2024-01-01T00:00:00.123456+05:30"


def test_blobs_come_without_being_asked_for(bed):
    name = bed.seed([make_row(1, data=base64.b64encode(b"\0\xff").decode())])
    (client_object,) = bed.client.collections.get(name).iterator()
    assert client_object.properties.get("data") is None
    assert rows(bed.source(name))[0]["data"] == ("binary", '"AP8="')


def test_objects_say_when_they_were_made_and_changed(bed):
    name = bed.seed([make_row(1)])
    stored_object = json.loads(bed.send_request(f"/objects/{name}/{object_id('d0001')}"))
    (row,) = rows(bed.source(name, object_times=True))
    for key, milliseconds in (
        ("_creation_time", stored_object["creationTimeUnix"]),
        ("_update_time", stored_object["lastUpdateTimeUnix"]),
    ):
        kind, text = row[key]
        assert kind == "date"
        assert int(np.datetime64(json.loads(text)[:-1], "ms").astype(int)) == milliseconds


def test_a_property_named_like_an_objects_own_time_keeps_its_name(bed):
    name = bed.fresh()
    bed.send_request(
        "/schema",
        {
            "class": name,
            "vectorizer": "none",
            "properties": [{"name": "_update_time", "dataType": ["text"]}],
        },
        "POST",
    )
    bed.send_request("/objects", {"class": name, "properties": {"_update_time": "mine"}}, "POST")
    (row,) = rows(bed.source(name, object_times=True))
    assert row["_update_time"] == ("string", "mine")
    assert row["__update_time"][0] == "date"


def test_the_unnamed_vector_of_old_collections_is_the_vector(bed):
    name = bed.fresh()
    definition = {
        "class": name,
        "vectorizer": "none",
        "vectorIndexConfig": {"distance": "dot"},
        "properties": [{"name": "n", "dataType": ["int"]}],
    }
    bed.send_request("/schema", definition, "POST")
    for n in range(30):
        bed.send_request(
            "/objects",
            {
                "class": name,
                "id": str(uuid.UUID(int=n << 120)),
                "vector": [n / 3, 1.0] if n else None,
                "properties": {"n": n},
            },
            "POST",
        )
    source = bed.source(name, shard_bytes=1_000)
    vectors = {row["n"][1]: row["vector"] for row in rows(source)}
    assert vectors == {str(n): [float(np.float32(n / 3)), 1.0] if n else None for n in range(30)}
    (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    assert (
        collection.dimension,
        collection.metric,
        json.loads(collection.facts["class"])["vectorIndexConfig"]["maxConnections"],
    ) == (2, "dot", 32)
    assert source.search(name, [9.0, 1.0], 1) == [f"u:{uuid.UUID(int=29 << 120)}"]


def test_named_vectors_and_aliases_are_described(bed):
    seeded_rows = bed.awkward(20, 4)
    name = bed.seed(seeded_rows)
    bed.client.alias.create(alias_name=f"{name}Alias", target_collection=name)
    source = bed.source(name)
    (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    assert (collection.dimension, collection.metric, collection.vectors) == (
        4,
        "l2",
        {"second": (8, "l2")},
    )
    assert collection.facts["aliases"] == f"{name}Alias"


def test_a_type_that_is_not_known_is_refused_by_name():
    with pytest.raises(SourceError, match=r"Docs.when is of type duration") as error:
        parse_definition(
            {"class": "Docs", "properties": [{"name": "when", "dataType": ["duration"]}]}
        )
    assert "source.collections" in error.value.remedy


# References


def test_a_reference_whose_target_is_gone_is_kept(bed):
    name = bed.seed([make_row(n, see=[f"d{n + 1:04d}"]) for n in range(8)])
    bed.delete(name, ["d0004"])
    from weaviate.classes.query import QueryReference

    client_objects = bed.client.collections.get(name).iterator(
        return_references=QueryReference(link_on="see", return_properties=[])
    )
    assert {
        client_object.properties["doc_id"]
        for client_object in client_objects
        if "see" not in client_object.references
    } == {
        "d0003",
        "d0007",
    }
    references = {
        row["doc_id"][1]: row.get("see") for row in rows(bed.source(name, shard_bytes=1_000))
    }
    assert references == {
        f"d{n:04d}": ("list<uuid>", json.dumps([str(object_id(f"d{n + 1:04d}"))]))
        for n in range(8)
        if n != 4
    }


def test_references_into_several_collections_come_by_collection(bed):
    first_target, second_target, name = (
        bed.seed([make_row(1)]),
        bed.seed([make_row(2)]),
        bed.fresh(),
    )
    collection = bed.create(
        name,
        references=[
            {"name": "either", "dataType": [first_target, second_target]},
            {"name": "single", "dataType": [second_target]},
        ],
    )
    bed.fill(collection, [make_row(3)])
    source_id = object_id("d0003")
    for target, doc_id in ((first_target, "d0001"), (second_target, "d0002")):
        beacon = {"beacon": f"weaviate://localhost/{target}/{object_id(doc_id)}"}
        bed.send_request(f"/objects/{name}/{source_id}/references/either", beacon, "POST")
    source = bed.source(name)
    (row,) = rows(source)
    assert row["either"] == (
        "struct",
        json.dumps(
            {first_target: [str(object_id("d0001"))], second_target: [str(object_id("d0002"))]},
            separators=(",", ":"),
        ),
    )
    assert source.describe(CONTEXT, source.shards(CONTEXT)).references == {
        f"either.{first_target}": first_target,
        f"either.{second_target}": second_target,
        "single": second_target,
    }


# The cursor


def test_the_nil_uuid_is_read(bed):
    rows_with_ids = [(make_row(n), uuid.UUID(int=n)) for n in range(40)]
    name = seed_with_ids(bed, *rows_with_ids)
    from_nil = bed.client.collections.get(name).iterator(after=NIL)
    assert NIL not in {client_object.uuid for client_object in from_nil}
    assert {row["id"] for row in rows(bed.source(name, shard_bytes=2_000))} == {
        chosen_id for _, chosen_id in rows_with_ids
    }


def test_ids_that_count_upwards_are_cut_into_even_shards(bed):
    """Cutting the 128 bits evenly would put all 900 counters into the first shard."""
    random_bits = random.Random(5)
    ids = [uuid.UUID(int=n) for n in range(900)] + [
        uuid.UUID(int=random_bits.getrandbits(128)) for _ in range(300)
    ]
    name = seed_with_ids(
        bed,
        *[
            ({"id": str(object_uuid), "text": "x" * 100, "vector": [1.0, 2.0]}, object_uuid)
            for object_uuid in ids
        ],
    )
    source = bed.source(name, shard_bytes=25_000)
    ids_by_shard = [
        [row["id"] for row in rows(source, [shard])] for shard in source.shards(CONTEXT)
    ]
    assert sorted(object_uuid for shard_ids in ids_by_shard for object_uuid in shard_ids) == sorted(
        ids
    )
    assert len(ids_by_shard) > 6
    assert max(map(len, ids_by_shard)) < 3 * len(ids) / len(ids_by_shard)


@pytest.mark.parametrize("bits", [20, 127])
def test_cuts_follow_the_density(bits):
    """Of two neighbouring ranges the lower is a thousand times as dense as the upper."""
    from cfray.sources.weaviate.ranges import split_ids

    random_numbers = random.Random(bits)
    ids = sorted(
        {random_numbers.randrange(2**bits // 1000) for _ in range(3_000)}
        | {random_numbers.randrange(2**bits) for _ in range(3_000)}
    )

    def ids_after(lower_bound, limit):
        return [candidate_id for candidate_id in ids if candidate_id > lower_bound][:limit]

    ends = split_ids(ids_after, ids[0], 10)
    rows_by_range = np.histogram(np.asarray(ids, float), [-1.0, *map(float, ends), float(2**128)])[
        0
    ]
    assert len(ends) == 9
    assert rows_by_range.sum() == len(ids)
    assert rows_by_range.max() < 2.5 * len(ids) / 10


def test_a_page_larger_than_the_server_sends_is_asked_for_in_halves(bed):
    """The plan samples small objects; 15 objects of 8 MB follow, so a page of 100 has 120 MB."""
    rows_with_ids = [(make_row(n), uuid.UUID(int=n + 1)) for n in range(40)]
    name = seed_with_ids(bed, *rows_with_ids)
    collection = bed.client.collections.get(name)
    large_ids = [uuid.UUID(int=(1 << 120) + n) for n in range(15)]
    for object_uuid in large_ids:
        bed.fill(collection, [{"id": str(object_uuid), "text": "x" * 8_000_000}], [object_uuid])
    with pytest.raises(Exception, match="larger than max"):
        list(collection.iterator())
    source = bed.source(name)
    read_ids = [
        object_uuid
        for shard in source.shards(Context())
        for batch in source.read(shard, Context())
        for object_uuid in batch.column("id").to_pylist()
    ]
    assert read_ids == [*(object_uuid for _, object_uuid in rows_with_ids), *large_ids]
    bed.drop(name)


def test_an_object_larger_than_a_message_is_set_aside_by_name(bed, monkeypatch):
    """The proxy answers as the server does for an object above its limit."""
    monkeypatch.setattr("cfray.sources.weaviate.pages._PAGE_ROWS", 1)
    name = bed.seed(CORPUS[:3])
    proxy, source = bed.proxied(name)
    with closing(proxy):
        (shard,) = source.model_copy(update={"shard_bytes": 10**6}).shards(CONTEXT)
        proxy.fail(
            Grpc(
                "RESOURCE_EXHAUSTED",
                "grpc: trying to send message larger than max (110000000 vs. 104858000)",
            ),
            matching=bed.page_request(),
        )
        reject, *batches = list(source.read(shard, CONTEXT))
    assert isinstance(reject, Reject)
    assert "larger than max" in reject.reason
    lowest, *expected_rows = sorted(map(bed.expected, CORPUS[:3]), key=lambda row: row["id"])
    assert str(lowest["id"]) in reject.position
    assert [row for batch in batches for row in plain_rows(batch)] == expected_rows


def test_a_plan_is_made_although_an_object_is_larger_than_a_message(bed):
    """The proxy answers so to the pages of 8, 4, 2 and 1 objects that the sample asks for."""
    name = bed.seed(CORPUS)
    proxy, source = bed.proxied(name)
    with closing(proxy):
        too_large = Grpc(
            "RESOURCE_EXHAUSTED",
            "grpc: trying to send message larger than max (110000000 vs. 104858000)",
        )
        usual_count = len(source.shards(CONTEXT))
        proxy.fail(too_large, times=4, matching=bed.page_request())
        shards = source.shards(CONTEXT)
        assert not proxy.waiting
        assert len(shards) <= 2 * usual_count, "a large object says nothing of the others' size"
        assert row_counts(rows(source, shards)) == row_counts(map(bed.expected, CORPUS))


def test_a_collection_deleted_midway_is_an_error_and_no_end(bed):
    name = bed.seed(CORPUS)
    source = bed.source(name)
    (shard,) = source.shards(CONTEXT)
    reading = source.read(shard, CONTEXT)
    next(reading)
    bed.drop(name)
    with pytest.raises(SourceError) as error:
        list(reading)
    assert not error.value.transient
    assert "source.collections" in error.value.remedy


def test_writes_during_the_read_lose_no_old_row_and_double_none(bed):
    old_rows = [make_row(n) for n in range(400)]
    name = bed.seed(old_rows)
    source = bed.source(name, shard_bytes=20_000)
    stop = threading.Event()

    def insert_and_delete():
        collection = bed.client.collections.get(name)
        while not stop.is_set():
            inserted_id = collection.data.insert({"doc_id": "new"}, vector=[0.0, 0.0])
            collection.data.delete_by_id(inserted_id)

    writer = threading.Thread(target=insert_and_delete)
    writer.start()
    try:
        read_ids = [row["doc_id"][1] for _ in range(3) for row in rows(source)]
    finally:
        stop.set()
        writer.join()
    old_ids = [doc_id for doc_id in read_ids if doc_id != "new"]
    assert sorted(old_ids) == sorted(3 * [row["id"] for row in old_rows])


def test_rows_deleted_after_the_plan_are_gone_and_the_count_says_so(bed):
    name = bed.seed(CORPUS)
    source = bed.source(name, shard_bytes=2_000)
    shards = source.shards(CONTEXT)
    bed.delete(name, [row["id"] for row in CORPUS[:5]])
    assert row_counts(rows(source, shards)) == row_counts(map(bed.expected, CORPUS[5:]))
    assert source.count(CONTEXT) == len(CORPUS) - 5


@pytest.mark.parametrize("level", ["ONE", "QUORUM", "ALL"])
def test_a_consistency_level_is_asked_for(bed, level):
    assert len(rows(bed.source(bed.seed(CORPUS[:5]), consistency_level=level))) == 5


def test_the_clients_messages_have_the_fields_that_are_used():
    """``weaviate.proto.v1`` is generated from a published protocol, but it is no public API."""
    from weaviate.proto import v1 as proto

    fields = {
        proto.search_get_pb2.SearchRequest: (
            "collection tenant consistency_level properties metadata limit after near_vector "
            "uses_127_api"
        ),
        proto.search_get_pb2.MetadataRequest: (
            "uuid vector creation_time_unix last_update_time_unix"
        ),
        proto.search_get_pb2.MetadataResult: (
            "id id_as_bytes vector_bytes vectors creation_time_unix last_update_time_unix"
        ),
        proto.search_get_pb2.PropertiesRequest: "non_ref_properties object_properties",
        proto.search_get_pb2.PropertiesResult: "non_ref_props",
        proto.aggregate_pb2.AggregateRequest: "collection tenant objects_count",
        proto.base_pb2.Vectors: "name vector_bytes type",
    }
    for message, names in fields.items():
        assert set(names.split()) <= set(message.DESCRIPTOR.fields_by_name), message
    kinds = {
        field.name for field in proto.properties_pb2.Value.DESCRIPTOR.oneofs_by_name["kind"].fields
    }
    assert kinds == {
        *("number_value", "bool_value", "object_value", "list_value", "date_value", "uuid_value"),
        *("int_value", "geo_value", "blob_value", "phone_value", "null_value", "text_value"),
    }


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ({"url": "localhost:8080"}, "http://"),
        ({"url": "https://x", "insecure": True}, "ca_file"),
        ({"uri": "folder", "inactive_tenants": "activate"}, "skip"),
    ],
)
def test_options_that_cannot_work_together_are_refused(options, phrase):
    with pytest.raises(ValidationError, match=phrase):
        Weaviate(**options)


def test_a_missing_file_of_certificates_is_named(bed, tmp_path):
    source = bed.source("any", url="https://127.0.0.1:1", ca_file=str(tmp_path / "ca.pem"))
    with pytest.raises(SourceError, match=r"ca\.pem") as error:
        source.shards(CONTEXT)
    assert "source.ca_file" in error.value.remedy


# Tenants


@pytest.fixture(params=[False, True], ids=["waking by hand", "waking by itself"])
def collection_name(bed, request):
    """Create a collection of two active tenants and an inactive tenant, and yield its name.

    The parameter says whether a read wakes a tenant by itself.
    """
    from weaviate.classes.tenants import Tenant, TenantActivityStatus

    name = bed.fresh()
    collection = bed.create(
        name, multiTenancyConfig={"enabled": True, "autoTenantActivation": request.param}
    )
    collection.tenants.create([Tenant(name=tenant) for tenant in ("ann", "bob", "eve")])
    for tenant, seeded_rows in (
        ("ann", CORPUS[:30]),
        ("bob", CORPUS[20:25]),
        ("eve", CORPUS[40:45]),
    ):
        bed.fill(collection.with_tenant(tenant), seeded_rows)
    collection.tenants.update(Tenant(name="eve", activity_status=TenantActivityStatus.INACTIVE))
    yield name
    bed.drop(name)


def tenant_states(bed, name):
    return {
        tenant_name: tenant.activity_status.value
        for tenant_name, tenant in bed.client.collections.get(name).tenants.get().items()
    }


INITIAL_STATES = {"ann": "ACTIVE", "bob": "ACTIVE", "eve": "INACTIVE"}


def test_sleeping_tenants_are_refused_by_name_and_not_woken(bed, collection_name):
    source = bed.source(collection_name)
    for request in (source.shards, source.count):
        with pytest.raises(SourceError) as error:
            request(CONTEXT)
        assert f"{collection_name}/eve (INACTIVE)" in error.value.what
        assert "inactive_tenants" in error.value.remedy
    assert tenant_states(bed, collection_name) == INITIAL_STATES


def test_sleeping_tenants_are_skipped_by_name_and_not_woken(bed, collection_name):
    source = bed.source(collection_name, inactive_tenants="skip", shard_bytes=2_000)
    shards = source.shards(CONTEXT)
    assert row_counts(rows(source, shards)) == row_counts(
        map(bed.expected, [*CORPUS[:30], *CORPUS[20:25]])
    )
    assert {shard.collection for shard in shards} == {
        f"{collection_name}/ann",
        f"{collection_name}/bob",
    }
    description = source.describe(CONTEXT, shards)
    assert [(collection.name, collection.rows) for collection in description.collections] == [
        (f"{collection_name}/ann", 30),
        (f"{collection_name}/bob", 5),
    ]
    assert any(f"{collection_name}/eve (INACTIVE)" in note for note in description.notes)
    assert source.count(CONTEXT) == 35
    assert tenant_states(bed, collection_name) == INITIAL_STATES


def test_sleeping_tenants_are_woken_for_the_session_alone(bed, collection_name):
    source = bed.source(collection_name, inactive_tenants="activate", shard_bytes=2_000)
    with source.session() as session:
        assert tenant_states(bed, collection_name)["eve"] == "ACTIVE"
        context = replace(CONTEXT, session=session.state)
        shards = source.shards(context)
        assert {shard.collection for shard in shards} == {
            f"{collection_name}/{tenant}" for tenant in INITIAL_STATES
        }
        assert len(rows(source, shards)) == 40
        assert any(
            f"{collection_name}/eve (INACTIVE)" in note
            for note in source.describe(context, shards).notes
        )
    assert tenant_states(bed, collection_name) == INITIAL_STATES
    with pytest.raises(RuntimeError, match="broken"), source.session():
        raise RuntimeError("broken")
    assert tenant_states(bed, collection_name) == INITIAL_STATES


def test_a_tenant_named_is_read_beside_a_sleeping_one(bed, collection_name):
    source = bed.source(f"{collection_name}/bob")
    assert row_counts(rows(source)) == row_counts(map(bed.expected, CORPUS[20:25]))
    description = source.describe(CONTEXT, source.shards(CONTEXT))
    assert description.references == {"see": f"{collection_name}/bob"}
    with pytest.raises(SourceError, match=f"did you mean {collection_name}/bob"):
        bed.source(f"{collection_name}/bobb").shards(CONTEXT)


def test_a_tenant_put_to_sleep_after_the_plan_is_not_woken_by_reading(bed, collection_name):
    from weaviate.classes.tenants import Tenant, TenantActivityStatus

    source = bed.source(f"{collection_name}/bob")
    shards = source.shards(CONTEXT)
    collection = bed.client.collections.get(collection_name)
    collection.tenants.update(Tenant(name="bob", activity_status=TenantActivityStatus.INACTIVE))
    with pytest.raises(SourceError, match="INACTIVE now") as error:
        rows(source, shards)
    assert not error.value.transient
    assert tenant_states(bed, collection_name)["bob"] == "INACTIVE"
    if json.loads(bed.send_request(f"/schema/{collection_name}"))["multiTenancyConfig"][
        "autoTenantActivation"
    ]:
        list(collection.with_tenant("bob").iterator())
        assert tenant_states(bed, collection_name)["bob"] == "ACTIVE", (
            "a naive read no longer wakes tenants: is the check of their state still needed?"
        )


# The server's Parquet export


@pytest.fixture(scope="module")
def exported_folder_and_source(bed, tmp_path_factory):
    """Return the folder of an export, which also holds the schema, and the exported source."""
    from weaviate.classes.tenants import Tenant

    seeded_rows = bed.awkward(150, 16)
    plain_collection, tenant_collection = bed.seed(seeded_rows), bed.fresh()
    collection = bed.create(tenant_collection, multiTenancyConfig={"enabled": True})
    collection.tenants.create([Tenant(name=tenant) for tenant in ("ann", "bob", "nobody")])
    bed.fill(collection.with_tenant("ann"), CORPUS[:20])
    bed.fill(collection.with_tenant("bob"), CORPUS[10:15])
    folder = shutil.copytree(
        bed.export(plain_collection, tenant_collection), tmp_path_factory.mktemp("export") / "files"
    )
    (folder / "schema.json").write_bytes(bed.send_request("/schema"))
    return folder, bed.source(plain_collection, tenant_collection)


@pytest.fixture
def export(exported_folder_and_source, tmp_path):
    """Return a copy of the export that a test may damage."""
    return shutil.copytree(exported_folder_and_source[0], tmp_path / "export")


def test_an_export_equals_the_live_read_to_the_bit(exported_folder_and_source):
    folder, live_source = exported_folder_and_source
    live_source = live_source.model_copy(update={"object_times": True})
    source = Weaviate(uri=str(folder))
    export_shards, live_shards = source.shards(CONTEXT), live_source.shards(CONTEXT)
    names = {shard.collection for shard in live_shards}
    assert {shard.collection for shard in export_shards} == names
    for name in names:
        collection_export_shards, collection_live_shards = (
            [shard for shard in shards if shard.collection == name]
            for shards in (export_shards, live_shards)
        )
        assert row_counts(rows(source, collection_export_shards)) == row_counts(
            rows(live_source, collection_live_shards)
        )
        assert sum(shard.rows for shard in collection_export_shards) == len(
            rows(live_source, collection_live_shards)
        )
    assert source.count(CONTEXT) == live_source.count(CONTEXT)


def test_an_export_says_what_the_live_store_says(exported_folder_and_source):
    folder, live_source = exported_folder_and_source
    source = Weaviate(uri=str(folder))
    export_description = source.describe(CONTEXT, source.shards(CONTEXT))
    live_description = live_source.describe(CONTEXT, live_source.shards(CONTEXT))
    assert export_description.consistency == "pinned files"
    assert [replace(collection, facts={}) for collection in export_description.collections] == [
        replace(collection, facts={})
        for collection in live_description.collections
        if not collection.name.endswith("/nobody")
    ]
    assert (
        export_description.collections[0].facts["class"]
        == live_description.collections[0].facts["class"]
    )
    assert (export_description.rows, export_description.exact) == (175, True)


def test_without_the_schema_values_have_their_json_types(export):
    (export / "schema.json").unlink()
    source = Weaviate(uri=str(export))
    read_rows = rows(source)
    assert len(read_rows) == 175
    assert {row["created"][0] for row in read_rows if "created" in row} == {"string"}
    assert {row["see"][0] for row in read_rows if "see" in row} == {"list<uuid>"}
    assert any(
        "schema.json" in note for note in source.describe(CONTEXT, source.shards(CONTEXT)).notes
    )


def test_float32_of_every_exponent_survive_the_exports_decimal_text(bed):
    numbers = (
        np.random.default_rng(3)
        .integers(0, 2**32, 64_000, np.uint64)
        .astype(np.uint32)
        .view(np.float32)
    )
    numbers = np.concatenate(
        [
            numbers[np.isfinite(numbers)],
            np.float32([0.0, -0.0, 1e-45, 3.4028235e38, 1.17549435e-38]),
        ]
    )[-60_000:].reshape(-1, 8)
    name = bed.fresh()
    collection = bed.create(name, {"other": [0.0]})
    ids = [uuid.UUID(int=n) for n in range(len(numbers))]
    seeded_rows = [
        {"id": str(n), "vector": vector.tolist(), "vectors": {"other": vector.tolist()}}
        for n, vector in enumerate(numbers)
    ]
    bed.fill(collection, seeded_rows, ids)
    context = Context()
    for source in (bed.source(name), Weaviate(uri=str(bed.export(name)))):
        batches = [batch for _, batch in items(source, context)]
        for path in ("vector", "vectors"):
            columns = [
                batch.column(path) if path == "vector" else batch.column(path).field("other")
                for batch in batches
            ]
            vectors = np.concatenate([vector.flatten().to_numpy() for vector in columns]).reshape(
                numbers.shape
            )
            order = np.argsort(
                [int(row["id"]) for batch in batches for row in plain_rows(batch.select(["id"]))]
            )
            assert (vectors[order].view(np.uint32) == numbers.view(np.uint32)).all()
    bed.drop(name)


def test_an_export_is_cut_at_its_row_groups(export):
    """The server writes a file of this size as one row group; the test rewrites it with several."""
    (path,) = (file for file in export.glob("*.parquet") if pq.read_metadata(file).num_rows == 150)
    table = pq.read_table(path)
    rows_before = rows(Weaviate(uri=str(export)))
    pq.write_table(table, path, row_group_size=20)
    source = Weaviate(uri=str(export), shard_bytes=1_000)
    shards = source.shards(CONTEXT)
    assert len(shards) == 8 + 2
    assert rows(source, shards) == rows_before
    assert json.loads(json.dumps(shards[0].where)) == shards[0].where


def edit_json(folder, name, edit):
    path = folder / name
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def node_status_name(folder):
    (path,) = folder.glob("node_*_status.json")
    return path.name


def test_a_tenant_that_the_server_left_out_is_named(export):
    """A node writes this status of an offloaded tenant, and the export counts as a success.

    Source: weaviate, adapters/repos/db/export.go.
    """
    (path,) = export.glob("*_bob_*.parquet")
    path.unlink()
    tenant_collection = path.name.split("_")[0]
    skipped = {"status": "SKIPPED", "objectsExported": 0, "skipReason": "tenant is offloaded"}
    edit_json(
        export,
        node_status_name(export),
        lambda status: status["shardProgress"][tenant_collection].update(bob=skipped),
    )
    with pytest.raises(SourceError, match=f"{tenant_collection}/bob") as error:
        Weaviate(uri=str(export)).shards(CONTEXT)
    assert "inactive_tenants" in error.value.remedy
    source = Weaviate(uri=str(export), inactive_tenants="skip")
    assert len(rows(source)) == 170
    assert any(
        f"{tenant_collection}/bob" in note
        for note in source.describe(CONTEXT, source.shards(CONTEXT)).notes
    )
    assert len(rows(Weaviate(uri=str(export), collections=[f"{tenant_collection}/ann"]))) == 20


def lose_a_file(folder):
    next(iter(folder.glob("*_ann_*.parquet"))).unlink()


def lose_a_node(folder):
    (folder / node_status_name(folder)).unlink()


def fail_a_shard(folder):
    def fail(status):
        shards = next(iter(status["shardProgress"].values()))
        next(iter(shards.values())).update(status="FAILED", error="disk full")

    edit_json(folder, node_status_name(folder), fail)


def mark_as_running(folder):
    edit_json(folder, "export_metadata.json", lambda metadata: metadata.update(status="STARTED"))


@pytest.mark.parametrize(
    ("damage", "phrase"),
    [
        (lose_a_file, "the files hold 0"),
        (lose_a_node, "left no status"),
        (fail_a_shard, "disk full"),
        (mark_as_running, "STARTED"),
    ],
)
def test_an_incomplete_export_is_refused(export, damage, phrase):
    damage(export)
    with pytest.raises(SourceError, match=phrase) as error:
        Weaviate(uri=str(export)).shards(CONTEXT)
    assert not error.value.transient
    assert error.value.remedy


def test_a_changed_or_missing_export_is_refused(export, tmp_path):
    source = Weaviate(uri=str(export))
    shards = source.shards(CONTEXT)
    path = next(iter(export.glob("*.parquet")))
    path.write_bytes(b"PAR1" + bytes(100))
    for action in (lambda: rows(source, shards), lambda: source.shards(CONTEXT)):
        with pytest.raises(SourceError, match=path.name):
            action()
    with pytest.raises(SourceError, match=r"export_metadata\.json") as error:
        Weaviate(uri=str(tmp_path)).shards(CONTEXT)
    assert "source.uri" in error.value.remedy
