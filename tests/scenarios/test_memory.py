"""``limits.memory`` is what Ray reserves for each shard that is copied."""

from __future__ import annotations

import signal
from contextlib import closing

import pytest

from tests.scenarios import runs, stores
from tests.testbeds.faults import Slow

MEMORY = 300 * 2**20


@pytest.mark.server("chroma")
def test_each_task_of_a_run_reserves_the_memory_of_the_job_file(
    shared_bed, shared_ray, cfray, tmp_path
):
    """A page is held back: the only shard is in its task for certain when Ray is asked."""
    import ray

    bed = shared_bed(stores.bed_of("chroma"))
    name = bed.seed(bed.awkward(60, 8))
    proxy, source = bed.proxied(name)
    with closing(proxy):
        source = source.model_copy(update={"shard_bytes": 2**28, "timeout": 60.0})
        job = stores.job_of(
            bed,
            tmp_path,
            name,
            source=stores.section(source),
            limits={"memory": "300MiB", "workers": 1},
        )
        shared_ray.join()
        running = cfray.start("migrate", job.path, CFRAY_FAIL_AT="plan:1:SIGSTOP")
        running.until_stopped()
        proxy.fail(Slow(), times=1, matching=bed.page_request())
        running.signal(signal.SIGCONT)
        proxy.until_held()
        reserved = ray.cluster_resources()["memory"] - ray.available_resources()["memory"]
        proxy.release()
        running.wait().ended_with(0)
    assert reserved == MEMORY


def test_more_memory_than_the_machine_has_is_refused_and_not_waited_for(cfray, tmp_path):
    body = runs.export(tmp_path, 40, 8, 1) | {"limits": {"memory": "100TiB"}}
    job = runs.write_job(tmp_path, body)
    ended = cfray.run("migrate", job.path).ended_with(2)
    assert "limits.memory reserves" in ended.err
    assert "lower limits.memory" in ended.err
