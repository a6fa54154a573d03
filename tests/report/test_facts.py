"""Reports are kept in the order in which they were written, also those of one second."""

from __future__ import annotations

from cfray.report.facts import Report
from cfray.report.names import CHECKS
from cfray.target.ledger import Ledger
from cfray.target.state import State

SECOND = "2026-11-28T19:36:01Z"


def test_the_last_verification_is_the_one_written_last(tmp_path):
    state = State(str(tmp_path / "t.lance"))
    ledger = Ledger(1, 1, 0, ("f",))
    for number, command in enumerate(["verify", "migrate", *["verify"] * 10, "migrate"]):
        report = Report(command, "job", "t", started=SECOND, dataset_version=number)
        report.conclude(ledger)
        report.save(state, as_latest=False)
        last = Report.last_verification(state, ledger)
        assert last is not None
        assert last.dataset_version == number


def test_a_check_that_was_not_made_has_its_line_once():
    report = Report("verify", "job", "t")
    report.check("every data file", "pass", "x")
    report.name_missing_checks("the command stopped before it")
    report.name_missing_checks("another reason")
    assert sorted(check.name for check in report.checks) == sorted(CHECKS)
    assert {check.status for check in report.checks if check.name != "every data file"} == {
        "not_run"
    }


def test_one_record_in_quarantine_is_no_plural():
    report = Report("verify", "job", "t")
    report.counts["quarantined"] = 1
    report.give_verdict()
    assert (report.exit_code, report.verdict) == (3, "done, with 1 record in quarantine")
