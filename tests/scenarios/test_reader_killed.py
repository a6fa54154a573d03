"""A reader that is killed inside a shard, whose repeat gets its pages cut differently by the store.

An engine that goes on with a stream by the number of its blocks loses or doubles rows here: one
attempt of a shard must never be put together from two.
"""

from __future__ import annotations

import os
import signal
from contextlib import closing

import pytest

from tests.scenarios import runs, stores
from tests.testbeds import lineup
from tests.testbeds.faults import Slow, Status


@pytest.fixture(scope="module")
def bed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chroma")
    with lineup.taking_part("chroma", stores.bed_of("chroma").serving(folder)) as bed:
        yield bed


@pytest.mark.server("chroma")
def test_a_repeat_that_cuts_its_pages_differently_reads_each_record_once(
    bed, local_cfray, tmp_path
):
    rows = bed.awkward(1_500, stores.DIMENSION)
    name = bed.seed(rows)
    proxy, source = bed.proxied(name)
    page = bed.page_request()
    with closing(proxy):
        source = source.model_copy(update={"shard_bytes": 10**8, "timeout": 60.0})
        job = stores.job_of(bed, tmp_path, name, source=stores.section(source))
        running = local_cfray.start(
            "migrate", job.path, CFRAY_FAIL_AT="plan:1:SIGSTOP", **stores.settings(source)
        )
        runs.until(lambda: running.ended or running.stopped, "the driver has saved its plan")
        assert not running.ended
        proxy.fail(Slow(), matching=page)
        running.signal(signal.SIGCONT)
        proxy.until_held()
        # the first page goes on, the second one is held: the reader is inside its shard
        proxy.fail(Slow(), matching=page)
        proxy.release()
        proxy.until_held()
        for worker in runs.until(running.workers, "a worker is in the shard"):
            os.kill(worker, signal.SIGKILL)
        # the store refuses the repeat's pages as too large, so that they are cut in halves
        proxy.fail(Status(413), times=2, matching=page)
        proxy.release()
        running.wait().ended_with(0)
        assert not proxy.waiting, "the repeat met the store's refusals"
    assert job.report()["counts"]["shards"] == 1
    assert stores.differences(bed, job, {name: rows})[:5] == []
