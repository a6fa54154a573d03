"""``cfray backup`` and ``cfray restore`` beside a plain copy of the same files, in one run.

A plain copy (``shutil.copytree``) reads and writes each file once; a backup reads each file once
more where it is then.  The second backup follows a change of one row in a hundred.

    python -m tests.benchmarks.backup [--rows 20000] [--rounds 1]
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time

import lance
import yaml

from tests.benchmarks import exports, tree
from tests.benchmarks.migrate import host, job, warm


def measure(target: str, place: str) -> dict[str, float]:
    """Copy, back up and restore a target; give seconds, and the share that a change copies."""
    begin = time.perf_counter()
    for suffix in ("", ".cfray"):
        shutil.copytree(f"{target}{suffix}", f"{place}/plain{suffix}")
    plain = time.perf_counter() - begin
    first = tree.run_cfray("backup", target, "--to", f"{place}/backup")
    restored = tree.run_cfray("restore", f"{place}/backup", "--to", f"{place}/restored.lance")
    dataset = lance.dataset(target)
    version = dataset.version
    dataset.update(
        {"author": "'Ann'"}, where="uuid LIKE '00%' OR uuid LIKE '01%' OR uuid LIKE '02%'"
    )
    second = tree.run_cfray("backup", target, "--to", f"{place}/backup")
    told = json.loads(second.out)
    lance.dataset(target).checkout_version(version).restore()
    return {
        "plain": plain,
        "backup": first.wall,
        "restore": restored.wall,
        "second": second.wall,
        "share": told["copied_bytes"] / told["bytes"],
    }


def main() -> None:
    """Measure every size and print a line for each round."""
    given = exports.parser(__doc__).parse_args()
    cache = os.path.abspath(given.cache)
    os.makedirs(cache, exist_ok=True)
    print(", ".join(f"{name} {value}" for name, value in host().items()))
    for rows in given.rows:
        folder = exports.cached(rows, cache)
        warm(folder)
        home = tempfile.mkdtemp(prefix="backup-", dir=cache)
        try:
            with open(f"{home}/job.yaml", "w", encoding="utf-8") as file:
                yaml.safe_dump(job(folder, f"{home}/out.lance"), file)
            tree.run_cfray("migrate", f"{home}/job.yaml")
            ratios = []
            for number in range(given.rounds):
                place = tempfile.mkdtemp(prefix="copies-", dir=home)
                found = measure(f"{home}/out.lance", place)
                shutil.rmtree(place)
                ratios.append(found["backup"] / found["plain"])
                print(
                    f"{rows:,} rows, round {number + 1}: plain copy {found['plain']:.1f} s, backup "
                    f"{found['backup']:.1f} s, restore {found['restore']:.1f} s, backup after a "
                    f"change of 1 % {found['second']:.1f} s ({100 * found['share']:.2f} % of the "
                    "bytes)",
                    flush=True,
                )
            print(f"{rows:,} rows: backup / plain copy {statistics.median(ratios):.2f}")
        finally:
            shutil.rmtree(home)


if __name__ == "__main__":
    main()
