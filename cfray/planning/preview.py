"""What ``cfray.plan`` gives: the plan and its forecast as one value that shows itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cfray.planning import show
from cfray.planning.forecast import Forecast
from cfray.report.sheet import Sheet, Table
from cfray.target.state import Plan


@dataclass(frozen=True, slots=True, repr=False)
class Preview:
    """What a migration would do; nothing was written.

    Attributes:
        job: name of the job.
        plan: the shards, their consistency, the number of records.
        forecast: where each field lands, what would be lost or quarantined, disk and time.
    """

    job: str
    plan: Plan
    forecast: Forecast

    def as_json(self) -> dict[str, Any]:
        """Give what ``cfray plan --json`` prints, as parsed JSON."""
        return show.as_json(self.plan, self.forecast)

    def __repr__(self) -> str:
        """Show the preview as text."""
        return self._sheet().as_text()

    def _repr_html_(self) -> str:
        """Show the preview in a notebook."""
        return self._sheet().as_html()

    def _sheet(self) -> Sheet:
        title, *size_lines = show.size_lines(self.job, self.plan, self.forecast)
        landings = [(item.field, item.type, item.lands) for item in self.forecast.landings]
        return Sheet(
            title,
            [
                *size_lines,
                Table(("field", "type", "lands in"), landings),
                *show.warning_lines(self.plan, self.forecast),
                "nothing was written",
            ],
        )
