"""``cfray verify --against source`` beside the migration that it proves, in one run.

Compare the ratio, never seconds of two runs: other programs share the machine.  Both commands
are timed as whole processes, Ray's start included; memory is watched in the same pass.

    python -m tests.benchmarks.verify [--rows 20000] [--rounds 1]
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile

import yaml

from cfray.report.names import AGAINST_SOURCE
from tests.benchmarks import exports, tree
from tests.benchmarks.migrate import host, job, warm


def measure(rows: int, cache: str) -> tuple[tree.Run, tree.Run]:
    """Migrate an export and verify it against the source; give both runs."""
    folder = exports.cached(rows, cache)
    warm(folder)
    place = tempfile.mkdtemp(prefix="verify-", dir=cache)
    try:
        with open(f"{place}/job.yaml", "w", encoding="utf-8") as file:
            yaml.safe_dump(job(folder, f"{place}/out.lance"), file)
        migrated = tree.run_cfray("migrate", f"{place}/job.yaml", memory=True)
        verified = tree.run_cfray("verify", f"{place}/job.yaml", "--against", "source", memory=True)
        (check,) = [
            check for check in json.loads(verified.out)["checks"] if check["name"] == AGAINST_SOURCE
        ]
        if check["status"] != "pass" or f"{rows:,} records" not in check["detail"]:
            sys.exit(f"not every record was compared: {check}")
        return migrated, verified
    finally:
        shutil.rmtree(place)


def main() -> None:
    """Measure every size and print a line for each round."""
    given = exports.parser(__doc__).parse_args()
    cache = os.path.abspath(given.cache)
    os.makedirs(cache, exist_ok=True)
    print(", ".join(f"{name} {value}" for name, value in host().items()))
    for rows in given.rows:
        ratios = []
        for number in range(given.rounds):
            migrated, verified = measure(rows, cache)
            ratios.append(verified.wall / migrated.wall)
            print(
                f"{rows:,} rows, round {number + 1}: migrate {migrated.wall:.1f} s, verify "
                f"{verified.wall:.1f} s, peak {migrated.peak() / 1e6:,.0f} and "
                f"{verified.peak() / 1e6:,.0f} MB, "
                f"{rows / (migrated.wall + verified.wall):,.0f} rows/s migrated and verified",
                flush=True,
            )
        print(f"{rows:,} rows: verify / migrate {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
