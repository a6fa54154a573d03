"""A report as one page of HTML: no network, no script, for the person who must sign off.

The page shows what the report holds and adds no fact.  Every word of data is escaped, and long
lists are capped; the report's JSON and the file of differences are complete.  The page names
records by their ids and shows no text of them.
"""

from __future__ import annotations

from collections import Counter
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
#: Collections of the picture that have a colour of their own: people tell no more apart.
_COLOURS = 8
#: Of the picture: width, height and margin, in units of its viewBox.
_WIDTH, _HEIGHT, _MARGIN = 640, 400, 12


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


@dataclass(frozen=True, slots=True)
class Dots:
    """The dots of one colour in the picture of the vectors.

    Attributes:
        name: of their collection.
        colour: number of the colour; the last one is grey, for all collections without their own.
        places: ``x, y`` of each in units of the viewBox.
    """

    name: str
    colour: int
    places: list[tuple[float, float]]


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
        parity=_parity(report),
        vector_facts=_vector_facts(report),
        dots=_dots(report.vectors.get("projection", [])),
        view_box=f"0 0 {_WIDTH} {_HEIGHT}",
        square=_HEIGHT,
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


@dataclass(frozen=True, slots=True)
class ParityCharts:
    """How searches in source and target agree, for people.

    Attributes:
        agreement: the figure, its interval and what was asked for.
        same: share of equal records among the first hits.
        recalls: of both sides, against every vector.
        seconds: of both sides.
        dots: for each search ``x, y``: the distance of the farthest hit of the source and of the
            target, in units of the viewBox.
    """

    agreement: list[Bar]
    same: list[Bar]
    recalls: list[Bar]
    seconds: list[Bar]
    dots: list[tuple[float, float]]


def _parity(report: Report) -> ParityCharts | None:
    """Draw what a comparison of searches found; None where none was made."""
    facts = report.parity
    if not facts or not facts["searches"]:
        return None
    agreement = {
        "found in the target": facts["agreement"],
        "at least (95 % interval)": facts["low"],
        "at most (95 % interval)": facts["high"],
        "asked for": facts["threshold"],
    }
    same = {f"of the first {count}": share for count, share in facts["same_at"].items()}
    recalls = {"source": facts["source_recall"], "target": facts["target_recall"]}
    seconds = {
        f"{side}, p{percent}": 1000 * facts[f"{side}_seconds"][f"p{percent}"]
        for side in ("source", "target")
        for percent in (50, 99)
    }
    return ParityCharts(
        *(_shares(agreement), _shares(same), _shares(recalls), _bars(seconds, "{:,.1f} ms")),
        _farthest_hits(facts["farthest_hits"]),
    )


def _shares(values: dict[str, float | None]) -> list[Bar]:
    """Draw shares as bars of a full length of 1, in their order; unknown ones are left out."""
    return [
        Bar(name, f"{value:.3f}", 100 * value)
        for name, value in values.items()
        if value is not None
    ]


def _farthest_hits(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Fit the pairs into a square in which equal distances lie on the diagonal."""
    numbers = [number for pair in pairs for number in pair]
    if not numbers:
        return []
    low, extent = min(numbers), max(numbers) - min(numbers) or 1.0
    scale = (_HEIGHT - 2 * _MARGIN) / extent
    return [
        (
            round(_MARGIN + scale * (source - low), 1),
            round(_HEIGHT - _MARGIN - scale * (target - low), 1),
        )
        for source, target in pairs
    ]


def _vector_facts(report: Report) -> list[tuple[str, str]]:
    """Give what the sample of vectors shows, each number with its name."""
    facts = report.vectors
    if not facts:
        return []
    norms = [
        (f"{name} length", "none" if facts[key] is None else f"{facts[key]:.4g}")
        for key, name in (
            ("norm_smallest", "smallest"),
            ("norm_median", "median"),
            ("norm_largest", "largest"),
        )
    ]
    counts = [
        (name, f"{facts[key]:,}")
        for key, name in (
            ("zero", "zero vectors"),
            ("null", "rows without a vector"),
            ("not_finite", "vectors with NaN or infinity"),
            ("repeated", "vectors that repeat an earlier one"),
        )
    ]
    return [("numbers of a vector", f"{facts['dimension']:,}"), *norms, *counts]


def _dots(projection: list[dict[str, Any]]) -> list[Dots]:
    """Sort the points of the picture by collection, the largest collection first."""
    sizes = Counter(point["collection"] for point in projection)
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    colours = {name: min(number, _COLOURS) for number, name in enumerate(names)}
    places: dict[int, list[tuple[float, float]]] = {}
    for point, place in zip(projection, _places(projection), strict=True):
        places.setdefault(colours[point["collection"]], []).append(place)
    labels = [name or "no collection" for name in names[:_COLOURS]]
    if len(names) > _COLOURS:
        labels.append(f"others ({len(names) - _COLOURS})")
    return [Dots(labels[colour], colour, places[colour]) for colour in sorted(places)]


def _places(projection: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Fit the points into the viewBox, with one scale for both directions."""
    if not projection:
        return []
    across = [point["x"] for point in projection]
    up = [point["y"] for point in projection]
    # points that are all the same have no extent, and stand in the middle at any scale
    scale = min(
        (_WIDTH - 2 * _MARGIN) / (max(across) - min(across) or 1),
        (_HEIGHT - 2 * _MARGIN) / (max(up) - min(up) or 1),
    )
    middle_x, middle_y = (min(across) + max(across)) / 2, (min(up) + max(up)) / 2
    return [
        (
            round(_WIDTH / 2 + scale * (x - middle_x), 1),
            round(_HEIGHT / 2 - scale * (y - middle_y), 1),
        )
        for x, y in zip(across, up, strict=True)
    ]
