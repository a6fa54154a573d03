"""What a run would do, as data; rendered as text for people and as JSON for programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from cfray.target.state import Plan


@dataclass(frozen=True, slots=True)
class Landing:
    """How one source field will land."""

    field: str
    type: str
    lands: str


@dataclass(slots=True)
class Forecast:
    """What plan tells beyond the plan itself.

    Attributes:
        landings: every source field, its type, where it goes.
        lossy: sentences about what cannot be carried exactly.
        notes: facts that lose nothing but should be known.
        sampled: records looked at.
        quarantined: reason -> records of the sample.
        duplicates: records of the sample whose id another one has, too.
        disk: bytes the target will need (estimate).
        seconds: how long the copy will take on this machine's cores (estimate).
        embedding: what the model will have to do, from the sample: ``texts, tokens, truncated,
            tokens_lost, blank`` of the sample, and for the whole source ``seconds`` and ``cost``
            (estimates).
        frames: the sample, converted; for those who look at it further.
    """

    landings: list[Landing] = field(default_factory=list)
    lossy: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sampled: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    disk: int = 0
    seconds: float = 0.0
    embedding: dict[str, float] = field(default_factory=dict)
    frames: list[pa.RecordBatch] = field(default_factory=list, repr=False)


def as_json(plan: Plan, forecast: Forecast) -> dict[str, Any]:
    """Give plan and forecast as one document."""
    return {
        "shards": len(plan.shards),
        "unsplittable_shards": sum(not shard.splittable for shard in plan.shards),
        "records": plan.rows,
        "records_exact": plan.exact,
        "source_bytes": plan.size,
        "dimension": plan.layout.dimension,
        "consistency": plan.consistency,
        **{
            name: value
            for name, value in asdict(replace(forecast, frames=[])).items()
            if name != "frames"
        },
        "notes": list(plan.notes),
    }


def show_forecast(name: str, plan: Plan, forecast: Forecast, console: Console) -> None:
    """Draw what would happen: the size of it, how each field lands, what would be lost."""
    word = "exactly" if plan.exact else "about"
    records = (
        f"{word} {plan.rows:,} records" if plan.rows is not None else "an unknown number of records"
    )
    tell = [
        f"{name}: {records}, {_size(plan.size)} at the source, in {len(plan.shards):,} shards; vectors of {plan.layout.dimension}",
        f"consistency of the source: {plan.consistency}",
        f"needs about {_size(forecast.disk)} of disk and about {forecast.seconds:,.0f} s on this machine"
        if plan.rows
        else "disk and time: unknown",
    ]
    for line in tell:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    table = Table("field", "type", "lands in", box=None)
    for landing in forecast.landings:
        table.add_row(
            *(text.replace("[", r"\[") for text in (landing.field, landing.type, landing.lands))
        )
    console.print(table)
    told = [f"LOSSY  {line}" for line in forecast.lossy]
    told += [
        f"would be quarantined: {count:,} of {forecast.sampled:,} sampled records: {reason}"
        for reason, count in forecast.quarantined.items()
    ]
    told += (
        [
            f"{forecast.duplicates:,} of {forecast.sampled:,} sampled records have the id of another one"
        ]
        if forecast.duplicates
        else []
    )
    told += list(plan.notes)
    for line in told or [
        f"nothing lossy, nothing to quarantine among {forecast.sampled:,} sampled records"
    ]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print("nothing was written", highlight=False)


def _size(count: int) -> str:
    """Write bytes for people."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):  # noqa: B007  # the unit that fits is the result
        if value < 1024:
            break
        value /= 1024
    return f"{value:,.1f} {unit}"
