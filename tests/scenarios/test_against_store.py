"""A store that was written to since it was read decides nothing, and the report says which records.

The store is a real Chroma server, which keeps no mark of its writes.
"""

from __future__ import annotations

import lance
import pytest

from cfray.report.names import AGAINST_SOURCE, SOURCE_SINCE
from tests.scenarios import stores
from tests.scenarios.damages import differences
from tests.scenarios.test_against_source import compare

pytestmark = pytest.mark.server("chroma")
ROWS = 60


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(stores.bed_of("chroma"))


@pytest.fixture
def rows(bed):
    return bed.awkward(ROWS, 8)


@pytest.fixture
def collection(bed, rows):
    return bed.client.get_collection(bed.seed(rows), embedding_function=None)


@pytest.fixture
def job(bed, cfray, collection, tmp_path):
    job = stores.job_of(bed, tmp_path, collection.name)
    cfray.run("migrate", job.path).ended_with(0)
    return job


def update(collection, row) -> None:
    """Give a record another document; without a vector Chroma would ask for a model."""
    collection.update(ids=[row["id"]], documents=["another text"], embeddings=[row["vector"]])


def test_records_that_changed_or_went_are_named_and_not_called_damage(cfray, collection, job, rows):
    """As many records as before, so that no count shows it.

    Chroma is read by the ids that the plan listed: one that came since has no name here.
    """
    changed, gone = rows[3]["id"], rows[5]["id"]
    update(collection, rows[3])
    collection.delete(ids=[gone])
    collection.add(ids=["new"], embeddings=[rows[-1]["vector"]], documents=["new"])
    ended, status, detail = compare(cfray, job)
    ended.ended_with(6)
    assert status == "not_run"
    assert detail.startswith("not decided: ")
    found = {(row["id"], row["side"]) for row in differences(job)}
    assert found == {(changed, "both"), (gone, "target")}
    assert ended.document()["verdict"] == f"not decided: {AGAINST_SOURCE}"
    checks = {check["name"]: check["status"] for check in ended.document()["checks"]}
    assert checks["content of every shard"] == "pass"
    assert checks[SOURCE_SINCE] == "pass"


def test_damage_is_damage_although_the_store_has_gone_on(cfray, collection, job, rows):
    dataset = lance.dataset(job.target)
    lost, changed = rows[7]["id"], rows[3]["id"]
    (uuid,) = [
        row["uuid"]
        for row in dataset.to_table(columns=["uuid", "custom_metadata"]).to_pylist()
        if {"key": "original_id", "value": lost} in row["custom_metadata"]
    ]
    dataset.delete(f"uuid = '{uuid}'")
    update(collection, rows[3])
    ended, status, detail = compare(cfray, job)
    ended.ended_with(4)
    assert status == "fail"
    assert repr(lost) in detail
    found = {(row["id"], row["side"]) for row in differences(job)}
    assert found == {(lost, "source"), (changed, "both")}


@pytest.mark.prove
def test_a_store_that_is_off_decides_nothing(bed, cfray, rows, tmp_path):
    name = bed.seed(rows)
    proxy, source = bed.proxied(name)
    job = stores.job_of(
        bed,
        tmp_path,
        name,
        source=stores.section(source.model_copy(update={"timeout": 10.0})),
    )
    cfray.run("migrate", job.path).ended_with(0)
    proxy.close()
    ended, status, detail = compare(cfray, job)
    ended.ended_with(6)
    assert status == "not_run"
    assert "the source cannot be read" in detail
