"""A report for people: the verdict first."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from cfray.report.consistency import explain
from cfray.report.facts import FILE, Report
from cfray.report.page import PAGE
from cfray.report.reasons import readable_reason
from cfray.runtime.plurals import counted_name


def show_report(report: Report, console: Console) -> None:
    """Draw a report for people: verdict first."""
    colour = {0: "green", 3: "yellow"}.get(report.exit_code, "red")
    console.print(
        f"[bold {colour}]{_plain(report.verdict)}[/]  ({report.job} → {_plain(report.target)})",
        highlight=False,
        soft_wrap=True,
    )
    for sentence in report.retirement_lines():
        console.print(f"  {_plain(sentence)}", highlight=False, soft_wrap=True)
    counts = ", ".join(
        counted_name(value, name)
        for name, value in report.counts.items()
        if value or name in ("read", "quarantined")
    )
    console.print(f"  {counts}", highlight=False, soft_wrap=True)
    if report.consistency:
        console.print(
            f"  consistency of the source: {explain(report.consistency)}",
            highlight=False,
            soft_wrap=True,
        )
    if report.stages:
        console.print(_stages(report))
    for check in report.checks:
        mark = {"pass": "[green]pass[/]", "fail": "[red]FAIL[/]", "not_run": "[yellow]not run[/]"}[
            check.status
        ]
        console.print(
            f"  {mark}  {check.name}: {_plain(check.detail)}", highlight=False, soft_wrap=True
        )
    for reason, count in sorted(report.quarantine_reasons.items(), key=lambda item: -item[1])[:10]:
        console.print(
            f"  quarantine: {count:,} x {_plain(readable_reason(reason))}",
            highlight=False,
            soft_wrap=True,
        )
    for sentence in [*report.differences, *report.notes]:
        console.print(f"  {_plain(sentence)}", highlight=False, soft_wrap=True)
    console.print(
        f"  report: {_plain(report.target)}.cfray/{PAGE}, {FILE}", highlight=False, soft_wrap=True
    )


def show_story(reports: Sequence[Report], console: Console) -> None:
    """List what every command on a target came to, the oldest first."""
    console.print("  every command on this target:", highlight=False)
    for report in reports:
        console.print(
            f"  {report.started}  {report.command}  exit code {report.exit_code}  "
            f"{_plain(report.verdict)}",
            highlight=False,
            soft_wrap=True,
        )


def _plain(text: str) -> str:
    """Keep rich from reading brackets in data as mark-up."""
    return text.replace("[", r"\[")


def _stages(report: Report) -> Table:
    table = Table("stage", "seconds", "rows", "MiB", box=None, pad_edge=True)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, figures in report.stages.items():
        table.add_row(
            name,
            f"{figures.seconds:,.1f}",
            f"{figures.rows:,}" if figures.rows else "",
            f"{figures.bytes / 2**20:,.0f}" if figures.bytes else "",
        )
    return table
