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


def vectors_of(**collections: int) -> dict:
    """Give facts of vectors, with so many points of each collection."""
    names = [name for name, count in collections.items() for _ in range(count)]
    return {
        "sampled": 2_000,
        "dimension": 384,
        "norm_smallest": 0.25,
        "norm_median": 1.0,
        "norm_largest": 1e30,
        "zero": 3,
        "null": 4,
        "not_finite": 5,
        "repeated": 1_234,
        "projection": [
            {"collection": name, "x": number / len(names), "y": -0.5 * number / len(names)}
            for number, name in enumerate(names)
        ],
    }


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
    report.vectors = vectors_of(**{word: 2, "other": 1})
    tags = Tags(render_page(report))
    # the name of the collection in the legend of the picture, with the number of its points
    assert f"{word} 2" in " ".join(tags.text.split())
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
        "svg",
        "g",
        "circle",
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


def test_the_vectors_are_shown_by_numbers_and_as_a_picture_without_a_script():
    report = report_of(against="pass", since="pass")
    assert "Vectors" not in render_page(report)
    report.vectors = vectors_of(notes=2, articles=3)
    tags = Tags(render_page(report))
    text = " ".join(tags.text.split())
    assert "Vectors, by a sample of 2,000 numbers of a vector384 smallest length0.25" in text
    assert "median length1 largest length1e+30 zero vectors3 rows without a vector4" in text
    assert "vectors with NaN or infinity5 vectors that repeat an earlier one1,234" in text
    assert "● articles 3 ● notes 2" in text
    assert tags.tags.count("circle") == 5
    assert ("role", "img") in tags.attributes
    (label,) = [value for name, value in tags.attributes if name == "aria-label"]
    assert label.startswith("5 vectors as dots")
    (box,) = [value for name, value in tags.attributes if name == "viewbox"]
    _, _, width, height = map(float, box.split())
    across = [float(value) for name, value in tags.attributes if name == "cx"]
    down = [float(value) for name, value in tags.attributes if name == "cy"]
    # the margins are kept
    assert min(across) == 12
    assert max(across) == width - 12
    assert 12 <= min(down) < max(down) <= height - 12
    # the dots of the larger collection, which are to the right of the others and below, come first
    assert across[3:] + across[:3] == sorted(across)
    assert down[3:] + down[:3] == sorted(down)


def test_eight_collections_have_a_colour_and_the_others_share_grey():
    report = report_of(against="pass", since="pass")
    report.vectors = vectors_of(**{"": 2}, **{f"c{number:02}": 1 + number for number in range(20)})
    text = " ".join(Tags(render_page(report)).text.split())
    legend = text[text.index("●") : text.index("A dot is")]
    assert legend.startswith("● c19 20 ● c18 19 ● c17 18")
    assert legend.count("●") == 9
    # the smallest twelve, and the two rows of no collection
    assert legend.endswith(f"● c12 13 ● others (13) {sum(range(1, 13)) + 2} ")
    report.vectors = vectors_of(**{"": 2, "c": 1})
    assert "● no collection 2 ● c 1" in " ".join(Tags(render_page(report)).text.split())


@pytest.mark.parametrize("count", [0, 1, 7])
def test_vectors_that_are_none_or_all_the_same_are_no_error(count):
    report = report_of(against="pass", since="pass")
    report.vectors = vectors_of(notes=count) | dict.fromkeys(
        ("norm_smallest", "norm_median", "norm_largest")
    )
    for point in report.vectors["projection"]:
        point |= {"x": 0.0, "y": 0.0}
    tags = Tags(render_page(report))
    assert tags.tags.count("svg") == bool(count)
    assert "median lengthnone" in " ".join(tags.text.split())
    places = {value for name, value in tags.attributes if name in ("cx", "cy")}
    assert places == ({"320.0", "200.0"} if count else set())


def parity_of(pairs: list[tuple[float, float]]) -> dict:
    return {
        "searches": 200,
        "k": 10,
        "agreement": 0.75,
        "low": 0.7,
        "high": 0.8,
        "threshold": 0.95,
        "same_at": {"1": 0.9, "10": 0.6},
        "metric": "l2",
        "source_metric": "cosine",
        "source_recall": 0.875,
        "target_recall": None,
        "source_seconds": {"p50": 0.004, "p99": 0.0095},
        "target_seconds": {"p50": 0.002, "p99": 0.003},
        "source_asked": "2026-11-29T20:00:00Z",
        "baseline": True,
        "farthest_hits": pairs,
        "causes": [HOSTILE[0]],
    }


def test_searches_are_shown_with_their_cause_and_as_a_picture():
    report = report_of(against="pass", since="pass")
    assert "same searches" not in render_page(report)
    report.parity = parity_of([(1.0, 1.0), (2.0, 1.5), (3.0, 3.0)])
    tags = Tags(render_page(report))
    text = " ".join(tags.text.split())
    assert f"Cause: {HOSTILE[0]}" in text
    assert "script" not in tags.tags
    assert "found in the target0.750" in text
    assert "of the first 100.600" in text
    # the target's recall is unknown
    assert "that is found source0.875 Time of a search" in text
    assert "source, p999.5 ms" in text
    across = [float(value) for name, value in tags.attributes if name == "cx"]
    up = [400 - float(value) for name, value in tags.attributes if name == "cy"]
    # equal distances lie on the diagonal, a nearer hit of the target below it
    assert [round(x - y, 1) for x, y in zip(across, up, strict=True)] == [0, across[1] - up[1], 0]
    assert up[1] < across[1]


def test_searches_whose_hits_are_all_equally_far_are_no_error():
    report = report_of(against="pass", since="pass")
    report.parity = parity_of([(2.0, 2.0)])
    assert Tags(render_page(report)).tags.count("circle") == 1
    report.parity = parity_of([])
    assert Tags(render_page(report)).tags.count("svg") == 0


def test_a_report_of_an_earlier_version_has_no_vectors():
    data = report_of(since="pass").as_json()
    del data["vectors"]
    assert Report.from_json(data).vectors == {}
