"""``verify --parity``: the same questions to three real stores and to the target.

What the target must find is worked out from the seeded vectors with NumPy.
"""

from __future__ import annotations

import json

import lance
import numpy as np
import pytest

from cfray.report.names import PARITY
from cfray.sources.base import FieldEquals
from tests.contract import oracle
from tests.scenarios import runs, stores

ROWS, DIMENSION, K = 600, 16, 10
#: By which some searches are filtered; the stores must tell all of them apart.
TITLES = ("Ann's notes", "ann's notes", "Ann's", 'notes "on" \\ Ann', "n\u00f6tes")


def rows_of(count: int, seed: int = 3) -> list[dict]:
    vectors = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return [
        {
            "id": f"r{number}",
            "text": f"text {number}",
            "title": TITLES[number % len(TITLES)],
            "vector": vector.tolist(),
        }
        for number, vector in enumerate(vectors)
    ]


def parity_of(ended: runs.Ended) -> tuple[str, str, dict]:
    report = ended.document()
    (check,) = [check for check in report["checks"] if check["name"] == PARITY]
    return check["status"], check["detail"], report["parity"]


def verify(cfray, bed, job, code: int, *arguments: str):
    settings = stores.settings(bed.source("x"))
    ended = cfray.run("verify", job.path, "--parity", *arguments, "--json", **settings)
    return parity_of(ended.ended_with(code))


def seeded(bed, rows: list[dict], *, split_texts: bool = False) -> str:
    """Fill a collection; some stores must be told to compare titles exactly, or to split texts."""
    if bed.kind == "weaviate":
        name = bed.fresh()
        texts = [
            {
                "name": key,
                "dataType": ["text"],
                "tokenization": "word" if split_texts and key == "text" else "field",
            }
            for key in ("doc_id", "text", "title")
        ]
        bed.fill(bed.create(name, {}, properties=texts), rows)
        return name
    if bed.kind in ("elasticsearch", "opensearch"):
        name = bed.fresh()
        title = {"type": "text", "fields": {"keyword": {"type": "keyword"}}}
        vector = bed.vector_mapping("float", DIMENSION)
        with bed.client() as client:
            text = {"text": {"type": "text"}} if split_texts else {}
            bed.create(client, name, {"vector": vector, "title": title, **text})
            bed.bulk(client, (bed.action(name, row) for row in rows))
        return name
    return bed.seed(rows)


def migrated(cfray, bed, folder, *names: str, **sections) -> runs.Job:
    sections = {"mapping": {"author": "title", "text_content": "text"}, **sections}
    job = stores.job_of(bed, folder, *names, **sections)
    stores.migrate(cfray, bed, job, 0)
    return job


def nearest(bed, rows: list[dict], search: dict, metric: str) -> set[str]:
    """Give the tagged ids of the nearest rows, by NumPy."""
    vector, titles = search["vector"], search["where"].values()
    rows = [row for row in rows if not titles or row["title"] in titles]
    vectors = np.array([row["vector"] for row in rows], np.float64)
    query = np.array(vector, np.float64)
    if metric == "l2":
        order = np.argsort(((vectors - query) ** 2).sum(axis=1))
    else:
        lengths = np.linalg.norm(vectors, axis=1) if metric == "cosine" else 1.0
        order = np.argsort(-(vectors @ query) / lengths)
    ids = [stores.tagged(bed.expected(rows[number])["id"]) for number in order[:K]]
    return {f"{tag}:{oracle.id_text(tag, value)}" for tag, value in ids}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, marks=pytest.mark.server(kind))
        for kind in ("weaviate", "elasticsearch", "postgres")
    ],
)
def bed(request, shared_bed):
    return shared_bed(stores.bed_of(request.param))


def test_a_copy_finds_what_its_store_finds(bed, cfray, tmp_path):
    """Live first, then by a baseline, when the store is no longer asked."""
    rows = rows_of(ROWS)
    name = seeded(bed, rows)
    job = migrated(cfray, bed, tmp_path, name)
    status, detail, facts = verify(cfray, bed, job, 0)
    assert status == "pass", detail
    searches = {name: part["searches"] for name, part in facts["origins"].items()}
    assert searches == {"drawn": 100, "filtered": 50, "shifted": 100}
    assert "250 searches (50 filtered)" in detail
    assert facts["low"] >= 0.95
    assert facts["target_recall"] == 1.0
    assert facts["baseline"] is False
    assert facts["not_in_target"] == 0

    settings = stores.settings(bed.source("x"))
    summary = cfray.run("baseline", job.path, "--json", **settings).ended_with(0).document()
    assert (summary["searches"], summary["k"]) == (250, K)
    assert [(item["name"], item["rows"]) for item in summary["collections"]] == [(name, ROWS)]
    bed.drop(name)
    status, detail, facts = verify(cfray, bed, job, 0)
    assert status == "pass", detail
    assert facts["baseline"] is True
    assert facts["source_asked"] == summary["taken"]
    baseline = json.loads((job.state / "baseline.json").read_text())
    # the store's own answers, by NumPy over what was seeded
    by_hand = [
        len(set(search["ids"]) & nearest(bed, rows, search, facts["metric"])) / K
        for search in baseline["searches"]
    ]
    assert {tuple(search["where"].values()) for search in baseline["searches"]} == {
        (),
        *((title,) for title in TITLES),
    }
    assert facts["source_recall"] == pytest.approx(np.mean(by_hand), abs=0.001)


def test_searches_by_words_are_compared_where_the_store_has_them(bed, cfray, tmp_path):
    """Nine in ten texts of the target are overwritten then, and found no longer."""
    rows = rows_of(ROWS)
    for number, row in enumerate(rows):
        row["text"] = " ".join(f"stone {word}{number}x" for word in "abcdefg")
    job = migrated(cfray, bed, tmp_path, seeded(bed, rows, split_texts=True))
    _, detail, facts = verify(cfray, bed, job, 0)
    if bed.kind == "postgres":
        assert facts["words"] == {
            "none": "cfray does not search a source of the kind postgres by words"
        }
        assert "searches by words were not compared" in detail
        return
    found = facts["words"]
    assert found.get("searches") == 100, found
    assert found["source_found"] == 100
    assert found["kept"] == 1.0
    assert f"the source finds {found['source_found']}" in detail
    lance.dataset(job.target).update({"text_content": "'nothing'"}, where="title LIKE '%'")
    status, _, facts = verify(cfray, bed, job, 4)
    assert status == "fail"
    assert facts["words"]["kept"] < 0.5


@pytest.mark.prove(elsewhere=("postgres",))
def test_another_metric_than_the_stores_is_named_as_the_cause(bed, cfray, tmp_path):
    """Vectors of many lengths rank otherwise by cosine than by l2.

    The beds' collections rank by l2, the table without an index by cosine.
    """
    own, other = ("cosine", "l2") if bed.kind == "postgres" else ("l2", "cosine")
    rows = rows_of(ROWS)
    for number, row in enumerate(rows):
        row["vector"] = (np.float32(row["vector"]) * np.float32(0.2 + number % 7)).tolist()
    job = migrated(
        cfray,
        bed,
        tmp_path,
        bed.seed(rows),
        index={"vector": {"metric": other}},
        parity={"k": 5},
    )
    status, detail, facts = verify(cfray, bed, job, 4)
    assert status == "fail"
    assert facts["k"] == 5
    assert facts["high"] < 0.95
    assert f"the source ranks by {own}" in detail
    assert f"set index.vector.metric to {own}" in detail
    assert facts["target_recall"] == 1.0
    # a command that does not ask again leaves the failure; another index lifts it
    settings = stores.settings(bed.source("x"))
    ended = cfray.run("verify", job.path, "--json", **settings).ended_with(4)
    assert parity_of(ended)[0] == "fail"
    assert (job.state / "report.html").read_text().count(f"the source ranks by {own}") > 0


@pytest.fixture(scope="module")
def chroma(shared_bed):
    return shared_bed(stores.bed_of("chroma"))


@pytest.mark.server("chroma")
def test_each_collection_is_searched_for_itself(chroma, cfray, tmp_path):
    """Two collections with the same ids and other vectors; the questions are the operator's."""
    rows = {chroma.seed(some): some for some in (rows_of(90, 1), rows_of(90, 2))}
    questions = [
        {"collection": name, "vector": row["vector"]}
        for name, some in rows.items()
        for row in some[:50]
    ]
    questions[0]["where"] = {"author": TITLES[1]}
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    job = migrated(cfray, chroma, tmp_path, *rows, parity={"queries": "questions.jsonl"})
    status, detail, facts = verify(cfray, chroma, job, 0)
    assert status == "pass", detail
    assert facts["origins"] == {"given": {"searches": 100, "agreement": facts["agreement"]}}
    assert facts["same_at"]["10"] >= 0.9  # the store's index is approximate

    # rows that are gone from the target are hits that are missed
    lance.dataset(job.target).delete("record_type = 'document' AND text_content < 'text 4'")
    status, detail, facts = verify(cfray, chroma, job, 4)
    assert status == "fail"
    assert facts["not_in_target"] > 100
    assert "of the source are not in the target" in detail

    # a store that cannot be asked any more lifts no failure
    for name in rows:
        chroma.drop(name)
    status, again, _ = verify(cfray, chroma, job, 4)
    assert status == "fail"
    assert detail in again


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.server(kind))
        for kind in ("chroma", "milvus", "opensearch", "pinecone", "qdrant")
    ],
)
def test_a_store_filters_by_a_text_as_it_stands(shared_bed, kind):
    """The stores that the tests above do not compare a target with."""
    bed = shared_bed(stores.bed_of(kind))
    rows = rows_of(50)
    source = bed.source(name := seeded(bed, rows))
    for title in TITLES:
        search = {"vector": rows[7]["vector"], "where": {"author": title}}
        ids = source.search(name, search["vector"], K, FieldEquals(("title",), title))
        # all records of the title, as far as an approximate index finds them
        assert set(ids) <= nearest(bed, rows, search, "l2"), title
        assert len(ids) >= K / 2, title


@pytest.mark.server("weaviate")
def test_a_store_that_would_compare_words_is_not_asked_with_a_filter(shared_bed, cfray, tmp_path):
    bed = shared_bed(stores.bed_of("weaviate"))
    job = migrated(cfray, bed, tmp_path, bed.seed(rows_of(200)))
    status, detail, facts = verify(cfray, bed, job, 0)
    assert status == "pass"
    assert facts["origins"].keys() == {"drawn", "shifted"}
    assert "no filters: Weaviate does not compare title" in detail


@pytest.mark.server("chroma")
def test_vectors_at_other_records_are_no_agreement(chroma, cfray, tmp_path):
    """Every hit of the source is then far away, and would be outdone by any record."""
    rows = rows_of(300)
    job = migrated(cfray, chroma, tmp_path, chroma.seed(rows))
    settings = stores.settings(chroma.source("x"))
    cfray.run("baseline", job.path, **settings).ended_with(0)
    assert verify(cfray, chroma, job, 0)[0] == "pass"
    dataset = lance.dataset(job.target)
    table = dataset.to_table(filter="record_type = 'document'").drop_columns(["raw_data"])
    order = np.roll(np.arange(table.num_rows), 7)
    moved = table.set_column(
        table.schema.get_field_index("vector"), "vector", table["vector"].take(order)
    )
    dataset.merge_insert("uuid").when_matched_update_all().execute(moved)
    status, detail, facts = verify(cfray, chroma, job, 4)
    assert status == "fail"
    assert facts["other_vectors"] > 100
    assert facts["is_plausible"] is False
    assert "have other vectors in the target" in detail
    # asked now, and not by a baseline, it fails as well
    (job.state / "baseline.json").unlink()
    assert verify(cfray, chroma, job, 4)[0] == "fail"


@pytest.mark.server("chroma")
def test_a_baseline_answers_only_what_the_job_file_asks(chroma, cfray, tmp_path):
    job = migrated(cfray, chroma, tmp_path, chroma.seed(rows_of(60)), parity={"k": 3})
    settings = stores.settings(chroma.source("x"))
    cfray.run("baseline", job.path, **settings).ended_with(0)
    path = job.state / "baseline.json"
    recorded = path.read_text()
    other = job.changed(parity={"k": 5})
    status, detail, facts = verify(cfray, chroma, other, 6)
    assert (status, facts) == ("not_run", {})
    assert "is of another parity.k (3) than the job file's (5)" in detail
    path.write_text(recorded[:100])
    ended = cfray.run("verify", job.path, "--against", "source", "--parity", "--json", **settings)
    checks = {check["name"]: check for check in ended.ended_with(6).document()["checks"]}
    assert "baseline.json is damaged" in checks[PARITY]["detail"]
    # what was compared beside it is not lost, and the answer is not yes
    assert checks["every record against the source"]["status"] == "pass"
    assert "not decided: not decided: search parity" in cfray.run("report", job.path).out


@pytest.mark.server("chroma")
def test_questions_that_find_nothing_decide_nothing(chroma, cfray, tmp_path):
    questions = [{"vector": row["vector"], "where": {"author": "nobody"}} for row in rows_of(60)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    name = chroma.seed(rows_of(60))
    job = migrated(cfray, chroma, tmp_path, name, parity={"queries": "questions.jsonl"})
    status, detail, facts = verify(cfray, chroma, job, 6)
    assert status == "not_run"
    assert detail.startswith("not decided: 60 searches found nothing on either side")
    assert facts["searches"] == 0


@pytest.mark.server("chroma")
def test_too_few_questions_decide_nothing(chroma, cfray, tmp_path):
    job = migrated(cfray, chroma, tmp_path, chroma.seed(rows_of(60)), parity={"searches": 10})
    status, detail, facts = verify(cfray, chroma, job, 6)
    assert status == "not_run"
    assert detail.startswith("not decided: 1.000 of the source's 10 hits")
    assert "ask more questions" in detail
    assert "cause" not in detail
    assert facts["low"] < 0.95


@pytest.mark.server("chroma")
def test_a_wrong_question_is_named_by_its_line(chroma, cfray, tmp_path):
    name = chroma.seed(rows_of(60))
    (tmp_path / "questions.jsonl").write_text('{"vector": [1.0]}\n')
    job = stores.job_of(chroma, tmp_path, name, mapping={}, parity={"queries": "questions.jsonl"})
    ended = cfray.run("baseline", job.path).ended_with(2)
    assert "line 1 of" in ended.err
    assert "16 numbers" in ended.err
    assert not job.state.exists()


def test_files_answer_no_search(cfray, tmp_path):
    job = runs.write_job(tmp_path, runs.export(tmp_path, 60, 8, 2))
    assert "answer no search" in cfray.run("baseline", job.path).ended_with(2).err
    cfray.run("migrate", job.path).ended_with(0)
    ended = cfray.run("verify", job.path, "--parity", "--json").ended_with(6)
    status, detail, facts = parity_of(ended)
    assert status == "not_run"
    assert "has no vector search of its own" in detail
    assert facts == {}
    # a command that was not asked for it says so, and is not undecided
    ended = cfray.run("verify", job.path, "--json").ended_with(0)
    assert parity_of(ended)[:2] == (
        "not_run",
        "cfray verify --parity asks source and target the same questions",
    )
