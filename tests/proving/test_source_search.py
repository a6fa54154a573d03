"""Questions to a source: drawn from a sample, or read from a file."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest

from cfray.errors import CannotFilter, ConfigError
from cfray.job.mapping import SourceShape
from cfray.job.spec import JobSpec
from cfray.planning.sample import Sample
from cfray.planning.shape import work_out_shape
from cfray.proving.source_search import ask_source
from cfray.sources.base import Description, FieldEquals
from cfray.sources.chroma.source import Chroma

WIDTH = 4


class Asked(Chroma):
    """A source that keeps what it is asked."""

    def search(self, collection, vector, k, where=None):
        ASKED.append((collection, vector, k, where))
        if where is not None and where.text == "refused":
            raise CannotFilter("the store compares words", "compare by hand")
        return ["s:a"]


ASKED: list = []


@pytest.fixture(autouse=True)
def _nothing_asked():
    ASKED.clear()


def job_of(**sections) -> JobSpec:
    body = {
        "name": "j",
        "source": {"kind": "chroma", "url": "http://127.0.0.1:1"},
        "target": {"uri": "/nowhere/t.lance"},
        **sections,
    }
    job = JobSpec.model_validate(body)
    return job.model_copy(update={"source": Asked(url="http://127.0.0.1:1")})


def sample_of(**columns) -> Sample:
    count = len(next(iter(columns.values())))
    vectors = np.arange(1, 1 + count * WIDTH, dtype=np.float32)
    batch = pa.record_batch(
        {
            "id": [f"i{row}" for row in range(count)],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors), WIDTH),
            **columns,
        }
    )
    return Sample([batch], ["c"], [])


def shape_of(job: JobSpec, sample: Sample) -> SourceShape:
    description = Description(sample.batches[0].schema, 1, True, 1, "none")
    return work_out_shape(job, description, sample.batches)


def ask(job: JobSpec, sample: Sample):
    return ask_source(job, shape_of(job, sample), sample)


def test_half_of_the_vectors_are_shifted_by_a_tenth():
    sample = sample_of(text=["a"] * 40)
    answers = ask(job_of(parity={"searches": 20, "k": 3}), sample)
    assert [search.origin for search in answers.searches] == ["drawn", "shifted"] * 10
    assert {k for _, _, k, _ in ASKED} == {3}
    stored = {tuple(vector.as_py()) for vector in sample.batches[0].column("vector")}
    for drawn, shifted in zip(answers.searches[::2], answers.searches[1::2], strict=True):
        assert tuple(drawn.vector) in stored
        shift = np.subtract(shifted.vector, drawn.vector)
        assert np.linalg.norm(shift) == pytest.approx(0.1 * np.linalg.norm(drawn.vector), rel=1e-5)
    assert "mapped to author or status" in answers.no_filters
    assert {search.record[:3] for search in answers.searches[::2]} == {"s:i"}
    assert {search.record for search in answers.searches[1::2]} == {""}


def test_huge_vectors_are_shifted_without_an_overflow():
    sample = sample_of(text=["a"] * 4)
    huge = (np.random.default_rng(0).standard_normal((4, WIDTH)) * 1e38).astype(np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(huge.ravel()), WIDTH)
    batch = sample.batches[0].set_column(1, "vector", column)
    answers = ask(job_of(parity={"searches": 8}), Sample([batch], ["c"], []))
    assert {search.origin for search in answers.searches} == {"drawn", "shifted"}
    assert all(np.isfinite(search.vector).all() for search in answers.searches)


@pytest.mark.parametrize(
    ("values", "filtered"),
    [
        (["x", "y", None, ""] * 10, {"x", "y"}),
        ([1, 2, 3, 4] * 10, set()),  # the column has texts, the store numbers
        ([["x"], ["y"]] * 20, set()),  # some stores look for the text among the items
    ],
)
def test_a_filter_takes_a_text_of_the_source_alone(values, filtered):
    mapping = {"author": "by"}
    answers = ask(job_of(mapping=mapping, parity={"searches": 80}), sample_of(by=values))
    conditions = {search.where["author"] for search in answers.searches if search.where}
    assert conditions == filtered
    assert {where.path for *_, where in ASKED if where} == ({("by",)} if filtered else set())
    assert bool(answers.no_filters) == (not filtered)


def test_a_store_that_cannot_filter_is_asked_without():
    answers = ask(job_of(mapping={"author": "by"}), sample_of(by=["refused"] * 30))
    assert answers.no_filters == "the store compares words"
    assert {search.origin for search in answers.searches} == {"drawn", "shifted"}
    assert sum(where is not None for *_, where in ASKED) == 1


def test_questions_of_a_file_are_asked_as_they_are(tmp_path):
    questions = [
        {"vector": [1, 2, 3, 4]},
        {"collection": "c", "vector": [0.5, 0, 0, 0], "where": {"author": "a\u2028b"}},
    ]
    path = tmp_path / "questions.jsonl"
    text = "\n\n".join(json.dumps(question, ensure_ascii=False) for question in questions)
    path.write_text("\ufeff" + text.replace("\n", "\r\n"), encoding="utf-8")
    job = job_of(mapping={"author": "by"}, parity={"queries": str(path)})
    answers = ask(job, sample_of(by=["x"]))
    assert [search.vector for search in answers.searches] == [[1, 2, 3, 4], [0.5, 0, 0, 0]]
    assert ASKED[1][3] == FieldEquals(("by",), "a\u2028b")
    assert answers.no_filters == ""


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{", "line 2"),
        ("[1]", "must have a vector"),
        ("[" * 200_000, "line 2"),
        ('{"vector": [1, 2]}', "list of 4 numbers"),
        ('{"vector": [1, 2, 3, true]}', "list of 4 numbers"),
        ('{"vector": [1, 2, 3, "4"]}', "list of 4 numbers"),
        ('{"vector": [1, 2, 3, NaN]}', "no finite float32"),
        ('{"vector": [1, 2, 3, 1e39]}', "no finite float32"),
        ('{"vector": [1, 2, 3, 1' + "0" * 400 + "]}", "no finite float32"),
        ('{"vector": [0, 0, 0, 0]}', "not be zero"),
        ('{"vector": "abcd"}', "list of 4 numbers"),
        ('{"vector": [1, 2, 3, 4], "collection": "d"}', "one of c"),
        ('{"vector": [1, 2, 3, 4], "k": 3}', "unknown key k"),
        ('{"vector": [1, 2, 3, 4], "where": {"author": "\\ud800"}}', "one column with a text"),
        ('{"vector": [1, 2, 3, 4], "where": {"author": "a\\u0000"}}', "one column with a text"),
        ('{"vector": [1, 2, 3, 4], "where": {"author": 3}}', "one column with a text"),
        ('{"vector": [1, 2, 3, 4], "where": {"year": "3"}}', "no filter by year"),
    ],
)
def test_a_wrong_question_is_refused_by_its_line_before_one_is_asked(tmp_path, line, word):
    path = tmp_path / "questions.jsonl"
    path.write_text('{"vector": [1, 2, 3, 4]}\n' + line)
    job = job_of(mapping={"author": "by"}, parity={"queries": str(path)})
    with pytest.raises(ConfigError, match=word):
        ask(job, sample_of(by=["x"]))
    assert ASKED == []
