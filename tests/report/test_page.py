"""The page of a report: what it says first, and that no word of data becomes a tag."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from cfray.report.facts import Report, StageFigures
from cfray.report.names import AGAINST_SOURCE, SOURCE_SINCE
from cfray.report.page import render_page

HOSTILE = ("<script>alert(1)</script>", '"><img onerror=alert(1) src=x>', "{{ 7 * 7 }}", "</style>")


class Tags(HTMLParser):
    """Collects the tags, their attributes and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def report_of(**checks: str) -> Report:
    report = Report("verify", "articles", "/out/articles.lance", source="/exports")
    report.counts.update({"read": 1_200, "staged": 1_200, "frames": 1_200})
    names = {"against": AGAINST_SOURCE, "since": SOURCE_SINCE}
    for name, status in checks.items():
        report.check(names.get(name, name), status, f"detail of {name}")
    report.give_verdict()
    return report


@pytest.mark.parametrize(
    ("checks", "answer"),
    [
        ({"against": "pass", "since": "pass"}, "Yes."),
        ({"against": "not_run", "since": "pass"}, "Not decided."),
        ({"against": "pass", "since": "not_run"}, "Not decided."),
        ({"against": "pass", "since": "fail"}, "No."),
        ({"against": "fail", "since": "pass"}, "No."),
    ],
)
def test_the_first_question_is_answered(checks, answer):
    text = Tags(render_page(report_of(**checks))).text
    assert f"May the source be switched off? {answer}" in " ".join(text.split())


def test_records_in_quarantine_are_to_be_decided_on():
    report = report_of(against="pass", since="pass")
    report.counts["quarantined"] = 3
    assert report.retirement.answer == "not decided"
    assert "3 records are in quarantine" in report.retirement.reason


def test_a_check_that_was_not_made_stands_among_those_that_were_not():
    page = " ".join(Tags(render_page(report_of(since="pass", against="not_run"))).text.split())
    made, _, not_made = page.partition("What was not checked")
    assert AGAINST_SOURCE not in made.partition("What was checked")[2]
    assert AGAINST_SOURCE in not_made


@pytest.mark.parametrize("word", HOSTILE)
def test_no_word_of_data_becomes_a_tag(word):
    report = report_of(against="pass", since="pass")
    plain = Tags(render_page(report)).tags
    report.job = report.source = report.target = report.verdict = word
    report.checks[0] = type(report.checks[0])(AGAINST_SOURCE, "pass", word)
    report.notes = [word]
    report.differences = [word]
    report.quarantine_reasons = {word: 4}
    report.collections = {word: dict.fromkeys(("read", "staged", "quarantined", "frames"), 1)}
    report.mapping = {"title": {"const": word}, word: word}
    report.stages = {word: StageFigures(1.0, 2, 3)}
    tags = Tags(render_page(report))
    assert word in tags.text
    assert "script" not in tags.tags
    assert "img" not in tags.tags
    assert set(tags.tags) - set(plain) <= {
        "ul",
        "li",
        "table",
        "tr",
        "th",
        "td",
        "div",
        "span",
        "i",
    }
    assert not [name for name, _ in tags.attributes if name.startswith("on")]


def test_the_page_needs_no_network_and_no_script():
    tags = Tags(render_page(report_of(against="pass", since="pass")))
    assert {"script", "link", "img", "iframe"}.isdisjoint(tags.tags)
    assert not [name for name, _ in tags.attributes if name in ("src", "href")]


def test_ten_thousand_findings_make_a_small_page():
    report = report_of(against="pass", since="pass")
    report.notes = [f"note {number}" for number in range(10_000)]
    report.differences = [f"row {number}" for number in range(10_000)]
    report.collections = {
        f"c{number}": dict.fromkeys(("read", "staged", "quarantined", "frames"), 1)
        for number in range(10_000)
    }
    page = render_page(report)
    assert len(page) < 60_000
    assert "and 9950 more" in page
