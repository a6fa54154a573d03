"""``cfray migrate`` against the single-process and the two-process floor, interleaved in one run.

Compare ratios of one run, never seconds of two: other programs share the
machine.  cfray's clock is its report's: from the end of ``ray.init`` to the last
shard's commit, without compaction and index.  Memory is
watched in a pass of its own, for watching slows down whoever has many
processes.  Every output is deleted before the next one is written.

    python -m tests.benchmarks.migrate [--rows 20000] [--rounds 1] [--out figures.json]
"""

from __future__ import annotations

import glob
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import yaml

from tests.benchmarks import exports, tree

SHAPES = ("single", "core", "double", "cfray")
TITLES = {
    "single": "single-process floor",
    "core": "  the same on one core",
    "double": "two-process floor",
    "cfray": "cfray migrate",
}
_FLOORS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "floors.py")


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one shape.

    Attributes:
        seconds: on the shape's own clock; ``wall``: from start to end of its process.
        cpu: CPU-seconds of the process tree, Ray's daemons and cfray's verify included.
        peak: bytes, the largest PSS of the process tree; where memory was not watched, this and the
            next three are 0 or empty.
        largest: the processes at that moment, name -> bytes.
        samples: how often memory was looked at.
        peak_copy: bytes, the same within cfray's clock alone, before verify starts (cfray alone).
        first_receipt: seconds from the end of ray.init to the first receipt (cfray alone).
        stages: worker-seconds of read, convert, write; wall-seconds of the others (cfray alone).
    """

    shape: str
    rows: int
    seconds: float
    wall: float
    cpu: float
    peak: int
    largest: dict[str, int]
    samples: int
    first_receipt: float | None = None
    peak_copy: int | None = None
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Give rows a second."""
        return self.rows / self.seconds


def job(folder: str, target: str) -> dict[str, Any]:
    """Give the job that is measured: everything mapped, nothing indexed."""
    return {
        "name": "benchmark",
        "source": {"kind": "parquet", "uri": folder},
        "mapping": {
            "id": "uuid",
            "title": "title",
            "text_content": "body",
            "vector": "embedding",
            "tags": "tags",
            "created_at": "published",
            "relationships": [{"type": "parent", "to": "parent"}],
        },
        "target": {"uri": target},
        "index": {"vector": {"type": "none"}, "text": [], "scalar": []},
    }


def measure(shape: str, folder: str, rows: int, work: str, *, memory: bool = False) -> Measured:
    """Run one shape in a fresh process and delete what it wrote.

    Where ``memory`` is watched, the clock counts for nothing.
    """
    place = tempfile.mkdtemp(prefix=f"{shape}-", dir=work)
    os.sync()  # nobody pays for what the run before left unwritten
    try:
        return (
            _cfray(folder, rows, place, memory=memory)
            if shape == "cfray"
            else _floor(shape, folder, rows, place, memory=memory)
        )
    finally:
        shutil.rmtree(place)


def _floor(shape: str, folder: str, rows: int, place: str, *, memory: bool) -> Measured:
    ran = _done(
        shape,
        tree.run([sys.executable, _FLOORS, shape, folder, f"{place}/out.lance"], memory=memory),
    )
    return _measured(shape, rows, json.loads(ran.out)["seconds"], ran)


def _cfray(folder: str, rows: int, place: str, *, memory: bool) -> Measured:
    target = f"{place}/out.lance"
    with open(f"{place}/job.yaml", "w", encoding="utf-8") as file:
        yaml.safe_dump(job(folder, target), file)
    ran = _done(
        "cfray",
        tree.run(
            [sys.executable, "-m", "cfray.cli", "migrate", f"{place}/job.yaml", "--json"],
            memory=memory,
        ),
    )
    with open(f"{target}.cfray/report.json", encoding="utf-8") as file:
        report = json.load(file)
    counts, clock = report["counts"], report["clock"]
    if (counts["read"], counts["staged"], counts["quarantined"]) != (rows, rows, 0):
        sys.exit(f"cfray: {rows} rows expected, the report counts {counts}")
    stages = {name: figures["seconds"] for name, figures in report["stages"].items()}
    first, copying = (
        clock["first_receipt"] - clock["ray_ready"],
        ran.peak(clock["ray_ready"], clock["last_commit"]),
    )
    return _measured(
        "cfray",
        rows,
        clock["copy_seconds"],
        ran,
        first_receipt=first,
        peak_copy=copying,
        stages=stages,
    )


def _done(shape: str, ran: tree.Run) -> tree.Run:
    if ran.code or ran.left:
        sys.exit(
            f"{TITLES[shape]}: exit code {ran.code}, left running: {ran.left}\n{ran.out[-2000:]}\n{ran.err[-4000:]}"
        )
    return ran


def _measured(shape: str, rows: int, seconds: float, ran: tree.Run, **more: Any) -> Measured:
    return Measured(
        shape, rows, seconds, ran.wall, ran.cpu, ran.peak(), ran.largest, len(ran.memory), **more
    )


def warm(folder: str) -> None:
    """Read the export once, so that the first shape finds it in memory as the others do."""
    for path in glob.glob(f"{folder}/*"):
        with open(path, "rb") as file:
            while file.read(8 * 1024 * 1024):
                pass


def summary(
    rows: int, rounds: list[dict[str, Measured]], watched: dict[str, Measured]
) -> dict[str, Any]:
    """Sum one size up: medians, the median of the rounds' ratios, the peaks of the pass for memory."""
    middle = {
        shape: _medians([one[shape] for one in rounds]) | {"peak": watched[shape].peak}
        for shape in SHAPES
    }
    middle["cfray"]["peak_copy"] = watched["cfray"].peak_copy
    ratios = {
        floor: [one["cfray"].rate / one[floor].rate for one in rounds]
        for floor in ("single", "core", "double")
    }
    return {
        "rows": rows,
        "rounds": [{shape: asdict(one) for shape, one in each.items()} for each in rounds],
        "watched": {shape: asdict(one) for shape, one in watched.items()},
        "median": middle,
        "cfray_to_single": statistics.median(ratios["single"]),
        "cfray_to_core": statistics.median(ratios["core"]),
        "cfray_to_double": statistics.median(ratios["double"]),
        "ratios": ratios,
    }


def _medians(runs: list[Measured]) -> dict[str, Any]:
    names = ["seconds", "rate", "cpu"] + ["first_receipt"] * (runs[0].first_receipt is not None)
    figures: dict[str, Any] = {
        name: statistics.median(getattr(one, name) for one in runs) for name in names
    }
    figures["stages"] = {
        name: statistics.median(one.stages[name] for one in runs) for name in runs[0].stages
    }
    return figures


def host() -> dict[str, Any]:
    """Say what was measured on; the load average shows how much else was going on."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        memory = int(next(lines).split()[1]) * 1024
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory,
        "load_average": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("cfray", "ray", "pylance", "pyarrow", "numpy")},
    }


def show(result: dict[str, Any]) -> None:
    """Print one size as a table."""
    rounds = len(result["rounds"])
    print(f"\n{result['rows']:,} rows, median of {rounds} round{'s' if rounds > 1 else ''}")
    print(f"  {'':22}{'rows/s':>10}{'seconds':>9}{'CPU-s':>8}{'peak MB':>9}")
    for shape in SHAPES:
        one = result["median"][shape]
        print(
            f"  {TITLES[shape]:22}{one['rate']:>10,.0f}{one['seconds']:>9.2f}{one['cpu']:>8.1f}{one['peak'] / 1e6:>9,.0f}"
        )
    for floor in ("single", "core", "double"):
        each = ", ".join(f"{ratio:.2f}" for ratio in result["ratios"][floor])
        print(f"  cfray / {TITLES[floor]}: {result[f'cfray_to_{floor}']:.2f}   (by round: {each})")
    cfray = result["median"]["cfray"]
    print(
        f"  end of ray.init to the first receipt: {cfray['first_receipt']:.2f} s; peak until the last commit: {cfray['peak_copy'] / 1e6:,.0f} MB"
    )
    stages = cfray["stages"]
    print(
        "  worker-seconds: "
        + ", ".join(f"{name} {stages[name]:.2f}" for name in ("read", "convert", "write"))
    )
    print(
        "  driver, wall seconds: "
        + ", ".join(
            f"{name} {each:.2f}"
            for name, each in stages.items()
            if name not in ("read", "convert", "write")
        )
    )


def main() -> None:
    """Measure every size and print tables; ``--out`` keeps everything as JSON."""
    parser = exports.parser(__doc__)
    parser.add_argument(
        "--work", help="folder for the outputs, which are deleted (default: the cache folder)"
    )
    parser.add_argument("--out", help="file for all figures as JSON")
    given = parser.parse_args()
    cache = os.path.abspath(given.cache)
    work = os.path.abspath(given.work or cache)
    os.makedirs(work, exist_ok=True)
    figures: dict[str, Any] = {"host": host(), "sizes": []}
    print(", ".join(f"{name} {value}" for name, value in figures["host"].items()))
    for rows in given.rows:
        figures["sizes"].append(_size(rows, given.rounds, cache, work))
        show(figures["sizes"][-1])
    least, most = figures["sizes"][0], figures["sizes"][-1]
    if len(figures["sizes"]) > 1:
        for name in ("peak", "peak_copy"):
            figures[f"{name}_ratio"] = (
                most["median"]["cfray"][name] / least["median"]["cfray"][name]
            )
        print(
            f"\ncfray's peak memory at {most['rows']:,} rows / at {least['rows']:,}: {figures['peak_ratio']:.2f}",
            end=" ",
        )
        print(f"(until the last commit: {figures['peak_copy_ratio']:.2f})")
    if given.out:
        with open(given.out, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=1)


def _size(rows: int, rounds: int, cache: str, work: str) -> dict[str, Any]:
    """Measure one size; each round starts with another shape."""
    folder = exports.cached(rows, cache)
    warm(folder)
    done: list[dict[str, Measured]] = []
    for number in range(rounds):
        order = SHAPES[number % 3 :] + SHAPES[: number % 3]
        done.append({shape: measure(shape, folder, rows, work) for shape in order})
        print(
            f"{rows:,} rows, round {number + 1}: "
            + ", ".join(f"{shape} {done[-1][shape].seconds:.2f} s" for shape in order),
            flush=True,
        )
    return summary(
        rows, done, {shape: measure(shape, folder, rows, work, memory=True) for shape in SHAPES}
    )


if __name__ == "__main__":
    main()
