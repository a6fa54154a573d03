"""Tell the rows that are not the same in source and target: in the report, and in a file."""

from __future__ import annotations

import json
from dataclasses import asdict

from cfray.proving.differences import Difference
from cfray.report.run import Run
from cfray.runtime.plurals import counted

#: Folder beside the target that holds every difference of a verification, a line of JSON each.
FOLDER = "differences"
#: Differences that the report itself names.
_IN_REPORT = 20


def note_differences(run: Run, differences: list[Difference]) -> None:
    """Put the first differences into the report, and all of them into a file beside the target."""
    if not differences:
        return
    report = run.report
    name = f"{report.started.replace(':', '-')}-{report.command}.jsonl"
    lines = (json.dumps(asdict(row), ensure_ascii=False, sort_keys=True) for row in differences)
    folder = run.state.folder.child(FOLDER)
    folder.publish(name, "".join(f"{line}\n" for line in lines).encode())
    report.differences_file = f"{folder.uri}/{name}"
    report.differences = [str(row) for row in differences[:_IN_REPORT]]
    further = len(differences) - _IN_REPORT
    if further > 0:
        report.differences.append(f"and {counted(further, 'further difference')}")
    report.notes.append(f"every difference, with hashes of the values: {report.differences_file}")
