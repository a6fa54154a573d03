"""What the report says of the vectors' quality: the gate's verdict and the expected model's.

Both were judged before: the gate when the map was learned, the expected model when the run
was planned.  Nothing is measured here.
"""

from __future__ import annotations

from cfray.report.run import Run


def report_gate(run: Run) -> None:
    """Add to the report how the gate judged the map that made the vectors.

    Where the job expects a certain model behind the source's vectors, add how well they fit it.
    """
    _report_map(run)
    _report_expected_model(run)


def _report_map(run: Run) -> None:
    gate = run.target.recipe().gate
    if gate.get("forced"):
        run.report.notes.append(
            "--force: the map is used although the gate refuses it "
            f"({gate['lower']:.3f}, {gate['min_quality']} was asked for)"
        )
    elif gate:
        run.report.check(
            "gate of the map",
            "pass",
            f"{gate['lower']:.3f} at least of what the new model finds is found among "
            f"{gate['rows']:,} records; {gate['min_quality']} was asked for",
        )


def _report_expected_model(run: Run) -> None:
    expected = run.plan.expected
    if expected:
        run.report.check(
            "vectors by the expected model",
            "pass" if expected["median"] >= expected["needed"] else "fail",
            f"cosine {expected['median']:.4f} (median), {expected['least']:.4f} (least) of "
            f"{expected['sample']:.0f} records; {expected['needed']} is needed",
        )
