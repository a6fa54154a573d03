"""Show a plan and its forecast: as a table and sentences for people, as JSON for programs.

The keys of the JSON are a contract with scripts that read ``cfray plan --json``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from cfray.planning.forecast import Forecast
from cfray.planning.line_forecast import Disk, Lines
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
        "dimension": plan.recipe.dimension,
        "consistency": plan.consistency,
        **asdict(forecast),
        "disk_peak": forecast.disk_parts.peak,
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
        embedding = forecast.embedding.get("seconds")
        share = f", {embedding:,.0f} s of it for the embedding" if embedding else ""
        cost = (
            f"needs about {size_text(forecast.disk)} of disk and about {forecast.seconds:,.0f} s "
            f"on this machine{share}"
        )
    return [
        (
            f"{name}: {records}, {size_text(plan.size)} at the source, in "
            f"{counted(len(plan.shards), 'shard')}; "
            f"{_vectors(plan)}"
        ),
        f"consistency of the source: {plan.consistency}",
        f"metric of the vector index: {forecast.metric}, from: {forecast.metric_origin}",
        *_line_sentences(forecast.lines),
        cost,
        *(_disk_sentences(forecast.disk_parts) if rows else ()),
    ]


def _line_sentences(lines: Lines) -> list[str]:
    """Say what the two lines of the run do; nothing where there is only the copy."""
    if not lines.piece_rows:
        return []
    copy = f"{counted(lines.shards, 'shard')}, about {counted(lines.frames, 'row')}"
    embedding = f"about {counted(lines.pieces, 'piece')} of at most {lines.piece_rows:,} rows"
    return [
        f"first line, the copy: {copy}; the source is released when the last shard is read",
        f"second line, the embedding: {embedding}, from what is copied, without the source",
    ]


def _disk_sentences(disk: Disk) -> list[str]:
    """Say what the bytes on disk are."""
    parts = {
        "copied": disk.copied,
        "written again where small files are merged": disk.compacted,
        "new vectors": disk.vectors,
        "versions and receipts": disk.books,
    }
    listed = ", ".join(f"{size_text(size)} {name}" for name, size in parts.items() if size)
    sentences = [f"on disk, without indexes and before any cleanup: {listed}"]
    if disk.pieces:
        sentences.append(
            f"{size_text(disk.pieces)} more while the vectors are made; the bytes of what they "
            "replace stay until cfray cleanup finds no version that refers to them"
        )
    return sentences


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
    width = plan.recipe.dimension
    return f"vectors of {width}" if width > 1 else "no vectors (a placeholder of zeros, 1 wide)"


def size_text(count: int) -> str:
    """Write a number of bytes for people."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:,.1f} {units[0]}"
