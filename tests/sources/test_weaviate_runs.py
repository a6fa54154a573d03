"""A Weaviate server is migrated whole: vectors that were added later, references, tenants.

What the dataset must hold is computed from what was put in, with the contract's oracle.
"""

import uuid

import lance
import pytest

from tests.contract import oracle
from tests.scenarios import runs, stores
from tests.sources.weaviate_bed import WeaviateBed
from tests.sources.weaviate_rest import (
    UNNAMED,
    create,
    create_grown,
    put,
    put_every_subset,
    refer,
    vector_of,
)

pytestmark = pytest.mark.server("weaviate")


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(WeaviateBed)


def job_of(bed, folder, *names, **mapping):
    body = {
        "name": "grown",
        "source": stores.section(bed.source(*names)),
        "mapping": {"id": "id", **mapping},
        "target": {"uri": "out.lance"},
    }
    return runs.write_job(folder, body)


def frames_of(job):
    table = lance.dataset(job.target).to_table(filter="record_type = 'document'")
    return {row["uuid"]: row for row in table.to_pylist()}


def references_of(job):
    """Give frame -> the frames that its references point to, where it has any."""
    links = {
        name: [link["id"] for link in frame["relationships"] if link["type"] == "reference"]
        for name, frame in frames_of(job).items()
    }
    return {name: uuids for name, uuids in links.items() if uuids}


def frame_uuid(collection, object_id):
    return oracle.record_uuid("grown", collection, "u", uuid.UUID(object_id))


def test_an_object_keeps_its_unnamed_and_its_named_vectors(bed, cfray, tmp_path):
    names = (UNNAMED, "second", "tokens")
    collection = create_grown(bed, names)
    choices = put_every_subset(bed, collection, names)
    job = job_of(bed, tmp_path, collection)
    report = stores.migrate(cfray, bed, job, 0)
    assert (report["counts"]["read"], report["counts"]["quarantined"]) == (len(choices), 0)
    frames = frames_of(job)
    assert len(frames) == len(choices)
    for n, chosen in choices.items():
        frame = frames[frame_uuid(collection, str(uuid.UUID(int=n + 1 << 100)))]
        read = {
            UNNAMED: frame["vector"],
            "second": frame["x_vector_second"],
            "tokens": frame["x_vector_tokens"],
        }
        put = {name: vector_of(name, n) for name in chosen}
        put.setdefault(UNNAMED, [0.0, 0.0, 0.0])
        assert {name: vector for name, vector in read.items() if vector is not None} == put


def test_a_reference_points_where_its_own_collection_declares(bed, cfray, tmp_path):
    person, firm = create(bed), create(bed)
    book = create(bed, references={"by": [person]})
    film = create(bed, references={"by": [firm], "either": [person, firm]})
    targets = {name: put(bed, name, 1) for name in (person, firm)}
    expected = {}
    for name, links in (
        (book, [("by", person)]),
        (film, [("by", firm), ("either", person), ("either", firm)]),
    ):
        object_id = put(bed, name, 1)
        for property_name, target in links:
            beacon = f"weaviate://localhost/{target}/{targets[target]}"
            refer(bed, name, object_id, property_name, beacon)
        uuids = [frame_uuid(target, targets[target]) for _, target in links]
        expected[frame_uuid(name, object_id)] = uuids
    rules = [
        {"type": "reference", "to": path} for path in ("by", f"either.{person}", f"either.{firm}")
    ]
    job = job_of(bed, tmp_path, person, firm, book, film, relationships=rules)
    stores.migrate(cfray, bed, job, 0)
    assert references_of(job) == expected
    (tmp_path / "wrong").mkdir()
    wrong_rule = {"type": "reference", "to": "by", "collection": person}
    wrong = job_of(bed, tmp_path / "wrong", book, film, relationships=[wrong_rule])
    refused = cfray.run("plan", wrong.path).ended_with(2)
    assert f"by of {film} refers to {firm}" in refused.err


def test_references_of_each_tenant_point_into_it(bed, cfray, tmp_path):
    person = create(bed, tenants=("ann", "bob"))
    book = create(bed, references={"by": [person]}, tenants=("ann", "bob"))
    expected = {}
    for tenant in ("ann", "bob"):
        person_id = put(bed, person, 1, tenant=tenant)
        book_id = put(bed, book, 2, tenant=tenant)
        beacon = f"weaviate://localhost/{person}/{person_id}"
        refer(bed, book, book_id, "by", beacon, tenant=tenant)
        book_uuid = frame_uuid(f"{book}/{tenant}", book_id)
        expected[book_uuid] = [frame_uuid(f"{person}/{tenant}", person_id)]
    job = job_of(bed, tmp_path, person, book, relationships=[{"type": "reference", "to": "by"}])
    stores.migrate(cfray, bed, job, 0)
    assert references_of(job) == expected
    assert len(frames_of(job)) == 4
