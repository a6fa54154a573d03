"""A report as one page of HTML: no network, no script, for the person who must sign off.

The page shows what the report holds and adds no fact.  Every word of data is escaped, and long
lists are capped; the report's JSON and the file of differences are complete.  The page names
records by their ids and shows no text of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from cfray.report.consistency import explain
from cfray.report.facts import FILE, Report
from cfray.report.reasons import readable_reason

PAGE = "report.html"
#: Rows of a list that the page shows.
_SHOWN = 50
_TEMPLATE = Path(__file__).with_name("page.html.j2")


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of a bar chart.

    Attributes:
        name: what it stands for.
        value: as it is written.
        share: of the longest bar, 0 to 100.
    """

    name: str
    value: str
    share: float


def render_page(report: Report) -> str:
    """Write a report as a page of HTML."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    made = [check for check in report.checks if check.status != "not_run"]
    return template.render(
        report=report,
        retirement=report.retirement if made else None,
        consistency=explain(report.consistency) if report.consistency else "",
        tiles=_tiles(report),
        made=made,
        not_made=[check for check in report.checks if check.status == "not_run"],
        mapping=[(key, _rule(value)) for key, value in report.mapping.items()],
        reasons=_bars(
            {readable_reason(name): n for name, n in report.quarantine_reasons.items()}, "{:,}"
        ),
        stages=_bars({name: stage.seconds for name, stage in report.stages.items()}, "{:,.1f} s"),
        recall=_recall(report),
        shown=_SHOWN,
        file=FILE,
    )


def _tiles(report: Report) -> list[tuple[str, str]]:
    """Give the counts that come first, each with its name."""
    names = {
        "read": "records read",
        "staged": "records in the target",
        "quarantined": "records in quarantine",
        "frames": "rows in the target",
        "dangling_references": "dangling references",
    }
    return [
        (name, f"{report.counts[key]:,}") for key, name in names.items() if key in report.counts
    ]


def _rule(value: Any) -> str:  # parsed JSON
    """Write a rule of the mapping for people."""
    if isinstance(value, list):
        return "; ".join(map(_rule, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {_rule(item)}" for key, item in value.items())
    return str(value)


def _bars(values: dict[str, Any], form: str) -> list[Bar]:
    """Draw numbers as bars, the longest first, the shown ones alone."""
    longest = max(values.values(), default=0) or 1
    ordered = sorted(values.items(), key=lambda item: -item[1])[:_SHOWN]
    return [Bar(name, form.format(value), 100 * value / longest) for name, value in ordered]


def _recall(report: Report) -> list[Bar]:
    search = report.search
    if not search:
        return []
    return [
        Bar("with the settings below", f"{search['recall']:.3f}", 100 * search["recall"]),
        Bar(
            "with Lance's defaults",
            f"{search['recall_by_default']:.3f}",
            100 * search["recall_by_default"],
        ),
        Bar("asked for", f"{search['wanted']:.3f}", 100 * search["wanted"]),
    ]
