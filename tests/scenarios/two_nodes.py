"""Have a Ray cluster of two nodes on this machine, guarded by the token in the environment.

The test of clusters runs this file in a process.

Usage: two_nodes.py JOB.yaml      prints one JSON document
"""

import json
import os
import subprocess
import sys

import ray
from ray.cluster_utils import Cluster

from cfray.engine.cluster import check_target_is_shared
from cfray.errors import ConfigError
from cfray.job.file import read_job


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


def main(job):
    from pathlib import Path

    nodes = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "include_dashboard": False,
            "object_store_memory": 80_000_000,
        },
    )
    nodes.add_node(num_cpus=1, object_store_memory=80_000_000)
    try:
        ray.init(address=nodes.address, log_to_driver=False)
        refused = refusal(read_job(Path(job)).target.uri)
        ray.shutdown()
        run = [sys.executable, "-m", "cfray.cli", "migrate", job, "--json"]
        migration = subprocess.run(
            run,
            env={**os.environ, "RAY_ADDRESS": nodes.address},
            capture_output=True,
            text=True,
            check=False,
        )
        up = all(node.any_processes_alive() for node in [nodes.head_node, *nodes.worker_nodes])
    finally:
        nodes.shutdown()
    print(
        "\n"
        + json.dumps(
            {
                "refused": refused,
                "exit_code": migration.returncode,
                "stderr": migration.stderr,
                "report": json.loads(migration.stdout or "{}"),
                "still_up": up,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
