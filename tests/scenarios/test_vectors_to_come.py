"""What commands say of vectors that are still to be made, or that another model made.

A target may be copied, or wait for a ``cfray embed`` that was stopped, for days: whoever asks in
the meantime must not be told a thing that is false.
"""

import shutil
import signal

import numpy as np
import pytest

from tests.scenarios import runs
from tests.scenarios.corpora import exported, held, job_of, notes, served
from tests.testbeds.embedding_server import EmbeddingServer, embedded

ROWS, PIECE_ROWS, WIDTH = 40, 10, 8
PIECES = {"CFRAY_PIECE_ROWS": str(PIECE_ROWS)}


@pytest.fixture(scope="module")
def server():
    with EmbeddingServer(WIDTH) as server:
        yield server


def killed(cfray, command, job, boundary):
    running = cfray.start(command, job.path, "--quiet", CFRAY_FAIL_AT=boundary, **PIECES)
    running.until_ended()
    assert running.kill().code == -signal.SIGKILL


def status(cfray, job):
    return cfray.run("status", job.path, "--json").ended_with(0).document()


def test_a_copied_target_is_searched_by_words_and_goes_on_with_the_model_asked_for_last(
    cfray, tmp_path, server
):
    exported(tmp_path, notes(ROWS), 2)
    job = job_of(tmp_path, served(server, endpoint={"model": "first"}))
    killed(cfray, "migrate", job, "piece:2")
    for place in (job.path, job.target):
        refused = cfray.run("query", place, "a stone", "--mode", "vector").ended_with(2)
        assert "vectors are still to be made" in refused.err
        found = cfray.run("query", place, "a stone", "--json").ended_with(0).document()
        assert "still to be made" in found["told"]
        assert found["mode"] == "text"
        assert len(found["hits"]) == 10
    figures = status(cfray, job)
    assert figures["pieces_waiting"] >= 2
    assert figures["vectors"] == "policy keep, 1 number"
    shutil.rmtree(tmp_path / "export")
    refused = cfray.run("plan", job.path).ended_with(2)
    assert "goes on from there, without the source" in refused.err
    changed = job.changed(embedding=served(server, endpoint={"model": "second"}))
    cfray.run("migrate", changed.path, "--quiet", **PIECES).ended_with(0)
    said = " ".join(changed.report()["notes"])
    assert "vectors by second (" in said
    assert "by first" not in said
    assert status(cfray, changed)["vectors"] == f"policy regenerate by second, {WIDTH} numbers"


@pytest.fixture(scope="module")
def finished(module_cfray, tmp_path_factory, server):
    """Migrate short texts, a long one and an empty one; the model cuts what is long."""
    folder = tmp_path_factory.mktemp("finished")
    rows = [*notes(ROWS), ("long", "Long", "a stone " * 40), ("empty", "Empty", "")]
    exported(folder, rows, 1)
    job = job_of(folder, served(server, endpoint={"max_tokens": 20}))
    module_cfray.run("migrate", job.path, "--quiet", **PIECES).ended_with(0)
    assert job.report()["counts"]["texts_truncated"] == 1
    return job


def test_a_query_by_another_model_than_the_vectors_is_refused(cfray, finished, server):
    other = finished.changed(embedding=served(server, endpoint={"model": "another"}))
    refused = cfray.run("query", other.path, "a stone", "--mode", "vector").ended_with(2)
    assert "the job file's model is another" in refused.err
    assert "the vectors are by double" in refused.err
    with EmbeddingServer(WIDTH) as moved:
        elsewhere = finished.changed(embedding=served(moved))
        found = cfray.run("query", elsewhere.path, "a stone", "--mode", "vector", "--json")
    assert server.url in found.ended_with(0).document()["told"]


def test_an_embed_that_was_stopped_is_seen_and_its_report_counts_its_own_texts(
    cfray, finished, server
):
    job = finished.changed(
        embedding=served(server, on_long_text="chunk_mean", endpoint={"max_tokens": 20})
    )
    killed(cfray, "embed", job, "piece:1")
    for each in (job, finished):
        figures = status(cfray, each)
        assert figures["pieces_waiting"] >= 1
        assert figures["stage"] == "complete"
        cfray.run("report", each.path).ended_with(0)
    assert "other vectors, which cfray embed makes" in status(cfray, job)["detail"]
    assert "the target is complete" in cfray.run("plan", finished.path).ended_with(0).out
    cfray.run("embed", job.path, "--quiet", **PIECES).ended_with(0)
    counts = job.report()["counts"]
    assert counts["texts_pooled"] == 1
    assert not {"texts_truncated", "tokens_lost"} & {name for name, n in counts.items() if n}
    assert status(cfray, job)["pieces_waiting"] == 0


def test_a_report_that_is_shown_again_has_its_counts_in_the_order_of_the_run(cfray, finished):
    shown = cfray.run("verify", finished.path, "--json").ended_with(0).document()
    again = cfray.run("report", finished.path, "--json").ended_with(0).document()
    assert list(again["counts"]) == list(shown["counts"])
    assert list(again["stages"]) == list(shown["stages"])


def test_a_plan_warns_of_long_texts_that_stop_the_run(cfray, tmp_path, server):
    exported(tmp_path, [*notes(9), ("long", "Long", "a stone " * 40)], 1)
    strict = served(server, on_long_text="error", endpoint={"max_tokens": 20})
    job = job_of(tmp_path, strict, limits={"max_quarantined": 0})
    plan = cfray.run("plan", job.path).ended_with(0).out
    assert "THIS RUN WOULD STOP: 1 of 10 sampled records" in plan
    assert "would be quarantined: 1 of 10 sampled records: text longer than" in plan
    assert f"went to {server.url}" in plan
    stopped = cfray.run("migrate", job.path, "--quiet").ended_with(1)
    assert "the embedding refused 1 record" in stopped.err


def test_two_columns_of_one_field_send_each_of_its_texts_once(cfray, tmp_path, server):
    exported(tmp_path, notes(6), 1)
    columns = {"title": {"of": "title"}, "half": {"of": "title", "dtype": "float16"}}
    job = job_of(tmp_path, served(server, columns=columns))
    plan = cfray.run("plan", job.path, "--json").ended_with(0).document()
    assert plan["embedding"]["column_texts"] == 6
    server.requests.clear()
    cfray.run("migrate", job.path, "--quiet").ended_with(0)
    sent = [text for _, texts in server.requests for text in texts]
    assert sorted(text for text in sent if text.startswith("Title")) == [
        f"Title {n}" for n in range(6)
    ]
    rows = runs.vectors(job.target)
    assert rows.any(axis=1).all()


def test_a_computed_piece_whose_file_is_gone_or_damaged_is_computed_anew(cfray, tmp_path, server):
    exported(tmp_path, notes(ROWS), 2)
    job = job_of(tmp_path, served(server))
    killed(cfray, "migrate", job, "piece:2")
    gone, damaged = sorted(job.state.glob("scratch/embed-*/*/*.arrow"))[:2]
    gone.unlink()
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    ends = []
    while not ends or (ends[-1].code and len(ends) < 3):  # each run finds a piece
        ends.append(cfray.run("migrate", job.path, "--quiet", **PIECES))
        assert "Traceback" not in ends[-1].err
    assert [ended.code for ended in ends] == [1, 1, 0]
    assert "it computes them anew" in ends[0].err
    for row in held(job.target).values():
        assert np.array_equal(row["vector"], embedded(row["text_content"], WIDTH))


def test_a_replay_with_other_columns_than_the_targets_is_refused_by_name(cfray, tmp_path, server):
    exported(tmp_path, [*notes(9), (None, "No id", "a stone")], 1)
    columns = {"columns": {"title": {"of": "title"}}}
    limits = {"max_quarantined": 1}
    job = job_of(tmp_path, served(server, **columns), limits=limits)
    cfray.run("migrate", job.path, "--quiet").ended_with(3)
    before = runs.digests(job.target)
    mapping = {**job.body["mapping"], "id": "title"}
    for embedding, key in (
        (served(server), "columns"),
        (served(server, columns={"title": {"of": "title", "dtype": "float16"}}), "columns"),
        (served(server, **columns, reduce={"method": "truncate", "dimension": 4}), "reduce"),
    ):
        other = job.changed(embedding=embedding, mapping=mapping)
        refused = cfray.run("quarantine", "replay", other.path).ended_with(2)
        assert f"embedding.{key} is not what made the rows" in refused.err
    assert runs.digests(job.target) == before
