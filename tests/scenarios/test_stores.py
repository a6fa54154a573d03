"""``cfray migrate`` moves every vector store, seeded by its vendor's client, whatever is killed.

Nothing is lost and nothing invented.
"""

import json
import os
import signal
from contextlib import closing

import lance
import pytest
import yaml
from rich.console import Console

from cfray.job.file import read_job
from cfray.report.names import AGAINST_SOURCE
from cfray.report.progress import Progress
from cfray.runs import looked_at
from cfray.syncing.difference import compared_once
from cfray.syncing.rows_that_differ import rows_that_differ
from tests.scenarios import runs, stores
from tests.scenarios.runs import PROVE
from tests.testbeds.proxy import Slow


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=pytest.mark.server(kind)) for kind in stores.KINDS],
)
def bed(request, shared_bed):
    return shared_bed(stores.bed_of(request.param))


@pytest.fixture(scope="module")
def seeded(bed):
    """Give a large and a small collection that hold the same ids, and their rows."""
    return {
        bed.seed(rows): rows
        for rows in (bed.awkward(stores.ROWS, stores.DIMENSION), bed.awkward(90, stores.DIMENSION))
    }


@pytest.fixture(scope="module")
def moved(bed, seeded, module_cfray, tmp_path_factory):
    """Migrate both in one run, undisturbed."""
    job = stores.job_of(bed, tmp_path_factory.mktemp("moved"), *seeded)
    stores.migrate(module_cfray, bed, job, 0)
    return job


def test_everything_arrives_as_it_was_seeded(bed, seeded, moved, record_property):
    assert stores.differences(bed, moved, seeded)[:5] == []
    report = moved.report()
    record_property("moved", moved.counted())
    assert (report["counts"]["read"], report["counts"]["quarantined"]) == (
        sum(map(len, seeded.values())),
        0,
    )
    assert {check["name"]: check["status"] for check in report["checks"]}["source count"] == "pass"
    assert report["consistency"]
    assert report["counts"]["shards"] > 3


def test_every_record_is_compared_with_the_store_again(bed, seeded, moved, module_cfray):
    """The store is read a second time, and nothing in it differs from the target."""
    settings = stores.settings(bed.source("x"))
    ended = module_cfray.run("verify", moved.path, "--against", "source", "--json", **settings)
    checks = {
        check["name"]: (check["status"], check["detail"])
        for check in ended.ended_with(0).document()["checks"]
    }
    status, detail = checks[AGAINST_SOURCE]
    assert status == "pass"
    assert detail.startswith(f"{sum(map(len, seeded.values())):,} records of ")


def test_a_sync_with_other_shards_finds_nothing_to_bring_in(bed, seeded, moved, shared_ray):
    """What a record becomes depends on the record alone, not on those beside it."""
    shared_ray.join()
    job = read_job(moved.path)
    divided = job.source.model_copy(update={"shard_bytes": job.source.shard_bytes // 3})
    with looked_at("sync", job, Progress(Console(stderr=True), quiet=True)) as run:
        run.job = job.model_copy(update={"source": divided})
        with compared_once(run, remembers=False) as difference:
            assert len(difference.shards) > len(run.plan.shards)
            assert list(rows_that_differ(run, difference)) == []
            assert difference.same == sum(map(len, seeded.values()))


def test_each_collection_keeps_what_the_store_said_of_it(bed, seeded, moved):
    rows = (
        lance.dataset(moved.target).to_table(filter="record_type = 'collection_header'").to_pylist()
    )
    headers = {
        row["title"]: {entry["key"]: entry["value"] for entry in row["custom_metadata"]}
        for row in rows
    }
    assert headers.keys() == seeded.keys()
    source = bed.source(*seeded)
    context = runs_context(moved)
    for collection in source.describe(context, source.shards(context)).collections:
        assert {
            f"source.{key}": value for key, value in collection.facts.items()
        }.items() <= headers.pop(collection.name).items()
    assert not headers


def runs_context(job):
    from cfray.sources.base import Context

    return Context(scratch=str(job.state / "scratch-of-a-test"))


def documents(target):
    """Give the documents by uuid, each value of custom_metadata with its type.

    A search server gives its documents in another order once it has merged its segments.  The plan
    then looks at another sample, so that another type of a mixed field is the dataset's, and other
    rows name theirs.
    """
    dataset = lance.dataset(target)
    types = json.loads(dataset.schema.metadata[b"cfray.types"])
    found = {}
    for row in dataset.to_table(filter="record_type = 'document'").to_pylist():
        metadata = {entry["key"]: entry["value"] for entry in row["custom_metadata"]}
        of_row = json.loads(metadata.pop("cfray.types", "{}"))
        typed = {key: (of_row.pop(key, types.get(key)), text) for key, text in metadata.items()}
        found[row["uuid"]] = {**row, "custom_metadata": typed, "types of others": of_row}
    return found


@pytest.fixture
def job(bed, seeded, tmp_path):
    """Give the same job with a target of its own."""
    return stores.job_of(bed, tmp_path, *seeded)


@pytest.mark.prove(elsewhere=stores.REPRESENTATIVE)
@pytest.mark.parametrize(
    "boundary",
    ["plan:1", "stage:2", "commit:2", "counted:1", "headers:1"] if PROVE else ["commit:2"],
)
def test_a_killed_run_is_brought_to_the_same_end(
    bed, job, moved, cfray, boundary, *, record_property
):
    running = cfray.start(
        "migrate", job.path, CFRAY_FAIL_AT=boundary, **stores.settings(bed.source("x"))
    )
    running.until_ended()
    assert running.kill().code == -signal.SIGKILL
    committed = {name for name in runs.ledger(job.target) if name.isdigit()}
    report = stores.migrate(cfray, bed, job, 0)
    record_property("resumed", job.counted())
    assert report["counts"]["shards_resumed"] == len(committed)
    assert (
        report["counts"]["shards_resumed"]
        + report["counts"]["shards_adopted"]
        + report["counts"]["shards_read"]
        == report["counts"]["shards"]
    )
    assert documents(job.target) == documents(moved.target)
    assert len(set(runs.uuids(job.target))) == len(runs.uuids(job.target))


@pytest.mark.prove(elsewhere=stores.REPRESENTATIVE)
def test_a_killed_worker_costs_its_shard_and_no_row(bed, seeded, cfray, tmp_path):
    """A page is held back, so that the worker is inside a shard for certain when it is killed."""
    name, rows = next(iter(seeded.items()))
    proxy, through = bed.proxied(name)
    with closing(proxy):
        through = through.model_copy(
            update={"shard_bytes": bed.source(name).shard_bytes // 8, "timeout": 60.0}
        )
        job = stores.job_of(bed, tmp_path, name, source=stores.section(through))
        running = cfray.start(
            "migrate", job.path, CFRAY_FAIL_AT="plan:1:SIGSTOP", **stores.settings(through)
        )
        running.until_stopped()  # with its plan saved
        proxy.fail(Slow(), times=1, matching=bed.page_request())
        running.signal(signal.SIGCONT)
        proxy.until_held()
        for worker in runs.until(
            running.workers, "a worker is in a shard"
        ):  # and whoever keeps the budget of requests
            os.kill(worker, signal.SIGKILL)
        proxy.release()
        running.wait().ended_with(0)
    assert stores.differences(bed, job, {name: rows})[:5] == []


def test_what_inspect_drafts_runs_unedited(bed, cfray, tmp_path):
    rows = bed.awkward(300, stores.DIMENSION)
    source = bed.source(bed.seed(rows))
    (tmp_path / "source.yaml").write_text(yaml.safe_dump({"source": stores.section(source)}))
    cfray.run(
        "inspect",
        tmp_path / "source.yaml",
        "--out",
        tmp_path / "job.yaml",
        **stores.settings(source),
    ).ended_with(0)
    cfray.run("plan", tmp_path / "job.yaml", **stores.settings(source)).ended_with(0)
    ended = cfray.run(
        "migrate", tmp_path / "job.yaml", "--json", **stores.settings(source)
    ).ended_with(0)
    assert ended.document()["counts"]["staged"] == len(rows)
    body = yaml.safe_load((tmp_path / "job.yaml").read_text())
    assert body["mapping"]["id"] == "id"
