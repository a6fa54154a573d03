"""Show a plan and its forecast: as a table and sentences for people, as JSON for programs.

The keys of the JSON are a contract with scripts that read ``cfray plan --json``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from cfray.planning.forecast import Forecast
from cfray.runtime.plurals import counted
from cfray.target.state import Plan


def as_json(plan: Plan, forecast: Forecast) -> dict[str, Any]:
    """Give plan and forecast as one JSON document."""
    rows, is_exact = _records(plan, forecast)
    return {
        "shards": len(plan.shards),
        "unsplittable_shards": sum(not shard.splittable for shard in plan.shards),
        "records": rows,
        "records_exact": is_exact,
        "source_bytes": plan.size,
        "dimension": plan.shape.dimension,
        "consistency": plan.consistency,
        **asdict(forecast),
        # ``asdict`` counts the items of a Counter (Python 3.11)
        "quarantined": dict(forecast.quarantined),
        "notes": list(plan.notes),
    }


def show_forecast(name: str, plan: Plan, forecast: Forecast, console: Console) -> None:
    """Print what would happen: how large it is, where each field lands, what would be lost."""
    for line in size_lines(name, plan, forecast):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    table = Table("field", "type", "lands in", box=None)
    for landing in forecast.landings:
        cells = (landing.field, landing.type, landing.lands)
        table.add_row(*(cell.replace("[", r"\[") for cell in cells))
    console.print(table)
    for line in warning_lines(plan, forecast):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print("nothing was written", highlight=False)


def size_lines(name: str, plan: Plan, forecast: Forecast) -> list[str]:
    """Say how much there is to copy and what that costs."""
    rows, is_exact = _records(plan, forecast)
    records = "an unknown number of records"
    if rows is not None:
        records = f"{'exactly' if is_exact else 'about'} {counted(rows, 'record')}"
    cost = "disk and time: unknown"
    if rows:
        cost = (
            f"needs about {_size(forecast.disk)} of disk and about {forecast.seconds:,.0f} s on "
            "this machine"
        )
    return [
        (
            f"{name}: {records}, {_size(plan.size)} at the source, in "
            f"{counted(len(plan.shards), 'shard')}; "
            f"{_vectors(plan)}"
        ),
        f"consistency of the source: {plan.consistency}",
        f"metric of the vector index: {forecast.metric}, from: {forecast.metric_origin}",
        cost,
    ]


def warning_lines(plan: Plan, forecast: Forecast) -> list[str]:
    """Say what would be lost, refused or doubled, and what else the operator should know."""
    sampled = counted(forecast.sampled, "sampled record")
    warned = set(forecast.warnings)
    lines = [f"WARNING  {sentence}" for sentence in forecast.warnings]
    lines += [f"LOSSY  {sentence}" for sentence in forecast.lossy if sentence not in warned]
    lines += [
        f"would be quarantined: {count:,} of {sampled}: {reason}"
        for reason, count in forecast.quarantined.items()
    ]
    if forecast.duplicates:
        lines.append(
            f"{forecast.duplicates:,} of {sampled} have the id of an earlier sampled record"
        )
    lines += [note for note in plan.notes if note not in warned]
    return lines or [f"nothing lossy, nothing to quarantine among {sampled}"]


def _records(plan: Plan, forecast: Forecast) -> tuple[int | None, bool]:
    """Count the source's records, and tell whether the number is exact."""
    if plan.exact or not forecast.is_whole:
        return plan.rows, plan.exact
    return forecast.sampled, True


def _vectors(plan: Plan) -> str:
    """Say how wide the vectors are; without any the dataset has a column of zeros all the same."""
    width = plan.shape.dimension
    return f"vectors of {width}" if width > 1 else "no vectors (a placeholder of zeros, 1 wide)"


def _size(count: int) -> str:
    """Write a number of bytes for people."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:,.1f} {units[0]}"
