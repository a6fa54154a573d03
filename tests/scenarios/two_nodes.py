"""Have a Ray cluster of two nodes on this machine, guarded by the token in the environment.

The test of clusters runs this file in a process.

Usage: two_nodes.py join|lose JOB.yaml      prints one JSON document
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import ray
from ray.cluster_utils import Cluster

from cfray.engine.cluster import check_target_is_shared
from cfray.errors import ConfigError
from cfray.job.file import read_job
from tests.testbeds.processes import until

NODE = {"object_store_memory": 80_000_000}


def separate_disks(head):
    """Look as a node without the head's disk would see it."""

    def look(path):
        return os.path.exists(path) and ray.get_runtime_context().get_node_id() == head

    return look


def refusal(uri):
    """Say how a target is refused that only the head's disk has; None if it is not."""
    head = ray.get_runtime_context().get_node_id()
    check_target_is_shared(uri)
    try:
        check_target_is_shared(uri, separate_disks(head))
    except ConfigError as error:
        return str(error)
    return None


def cluster(head_cores):
    """Start a cluster of a head and a second node of one core."""
    nodes = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": head_cores, "include_dashboard": False, **NODE},
    )
    nodes.add_node(num_cpus=1, **NODE)
    return nodes


def started(nodes, job, **settings):
    """Start a migration that joins the cluster."""
    return subprocess.Popen(
        [sys.executable, "-m", "cfray.cli", "migrate", job, "--json"],
        env={**os.environ, "RAY_ADDRESS": nodes.address, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(migration):
    """Wait for a migration and say how it ended."""
    out, err = migration.communicate()
    return {"exit_code": migration.returncode, "stderr": err, "report": json.loads(out or "{}")}


def join(job):
    """Have a migration join the cluster and leave it up."""
    nodes = cluster(head_cores=1)
    try:
        ray.init(address=nodes.address, log_to_driver=False)
        refused = refusal(read_job(Path(job)).target.uri)
        ray.shutdown()
        ended = outcome(started(nodes, job))
        up = all(node.any_processes_alive() for node in [nodes.head_node, *nodes.worker_nodes])
    finally:
        nodes.shutdown()
    return {**ended, "refused": refused, "still_up": up}


def lose(job):
    """Kill the only node that has cores when it has staged three shards; then give another node."""
    nodes = cluster(head_cores=0)
    try:
        migration = started(nodes, job, CFRAY_FAIL_AT="stage:3:SIGSTOP")
        process = psutil.Process(migration.pid)
        until(
            lambda: migration.poll() is not None or process.status() == psutil.STATUS_STOPPED,
            "the driver has stopped behind its third staged shard",
        )
        (lost,) = nodes.worker_nodes
        nodes.remove_node(lost, allow_graceful=False)
        staged = len(list(Path(f"{read_job(Path(job)).target.uri}.cfray/staged").glob("[0-9]*")))
        migration.send_signal(signal.SIGCONT)
        nodes.add_node(num_cpus=1, **NODE)
        ended = outcome(migration)
    finally:
        nodes.shutdown()
    return {**ended, "staged_by_the_lost_node": staged}


if __name__ == "__main__":
    sys.stdout.write(
        "\n" + json.dumps({"join": join, "lose": lose}[sys.argv[1]](sys.argv[2])) + "\n"
    )
