"""What Python code may rely on: jobs, commands as functions, and sources as Datasets.

Ray is imported inside the tests: it reads once how its ports are guarded, and the Ray that tests
share must have said so before.
"""

import gc
import inspect
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq
import pytest
import yaml

import cfray
from cfray.api import AnyJob
from cfray.job.file import read_job
from cfray.sources.base import Context, Shard
from tests.scenarios import runs
from tests.testbeds.point_in_time import PointInTime
from tests.testbeds.shared_ray import without_settings

LIBRARY_USER = Path(__file__).with_name("library_user.py")
FUNCTIONS = ("plan", "migrate", "verify", "sync", "query", "read", "close")
ROWS = 60


@pytest.fixture
def on_ray(shared_ray):
    """Be a driver on the Ray that tests share."""
    shared_ray.join()


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Write an export of three files as Parquet and as JSON Lines; give folder and table."""
    folder = tmp_path_factory.mktemp("export")
    tables = []
    for kind in ("parquet", "jsonl"):
        (folder / kind).mkdir()
    for number in range(3):
        ids = range(number * 20, number * 20 + 20)
        table = pa.table(
            {
                "id": [f"{index:03d}" for index in ids],
                "year": [1990 + index for index in ids],
                "score": [index / 4 for index in ids],
                "public": [index % 3 == 0 for index in ids],
                "tags": [["a", "b"][: index % 3] for index in ids],
                "embedding": [[index / 2, 0.5] for index in ids],
            }
        )
        pq.write_table(table, folder / f"parquet/{number}.parquet")
        lines = "".join(json.dumps(row) + "\n" for row in table.to_pylist())
        (folder / f"jsonl/{number}.jsonl").write_text(lines)
        tables.append(table)
    return folder, pa.concat_tables(tables)


def source(export, kind, **settings):
    # smaller than a file: none is put together with another one
    return {"kind": kind, "uri": str(export[0] / kind), "shard_bytes": 1_000, **settings}


def rows_of(dataset):
    return sorted(dataset.take_all(), key=lambda row: row["id"])


def lines_of(folder, *records, name="rows.jsonl"):
    """Write JSON Lines, each a record or a line as it stands; give the source."""
    folder.mkdir(exist_ok=True)
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / name).write_text("\n".join(lines) + "\n")
    return {"kind": "jsonl", "uri": str(folder)}


# -- names ---------------------------------------------------------------------------------------


def test_every_public_name_is_there_and_documented():
    assert set(cfray.__all__) <= set(dir(cfray))
    assert not [
        name for name in cfray.__all__ if name != "__version__" and not getattr(cfray, name).__doc__
    ]


def test_no_other_name_is_invented():
    with pytest.raises(AttributeError, match="no attribute 'migrat'"):
        cfray.migrat  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_typed_and_has_an_example(name):
    function = getattr(cfray, name)
    signature = inspect.signature(function)
    given = [parameter.annotation for parameter in signature.parameters.values()]
    assert inspect.Parameter.empty not in [*given, signature.return_annotation]
    assert "Example" in function.__doc__
    assert f"cfray.{name}(" in function.__doc__


def test_a_type_checker_knows_the_public_names(tmp_path):
    code = tmp_path / "typed.py"
    code.write_text(
        "import cfray\n"
        'report = cfray.migrate({"name": "x"}, progress=True)\n'
        "reveal_type(report.exit_code)\n"
        'reveal_type(cfray.query("x.lance", "words").hits)\n'
        'cfray.migrate("job.yaml", quiet=True)\n'
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", str(code)],
        capture_output=True,
        text=True,
        check=False,
        cwd=LIBRARY_USER.parents[1],
    )
    said = [line.partition("typed.py:")[2] for line in checked.stdout.splitlines()]
    assert '3: note: Revealed type is "int"' in said
    assert '4: note: Revealed type is "list[dict[str, Any]]"' in said
    (error,) = (line for line in said if "error:" in line)
    assert error.startswith('5: error: Unexpected keyword argument "quiet" for "migrate"')


# -- jobs ----------------------------------------------------------------------------------------

KEYS = {
    "name": "articles",
    "source": {"kind": "jsonl", "uri": "rows"},
    "mapping": {"id": "id"},
    "target": {"uri": "out.lance"},
}


def test_a_job_file_and_its_keys_in_python_are_one_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(KEYS))
    job = cfray.Job.from_file(path)
    assert isinstance(job, cfray.Job)
    assert job.fingerprint == cfray.Job(**KEYS).fingerprint == read_job(path).fingerprint
    assert (job.source.uri, job.target.uri) == (f"{tmp_path}/rows", f"{tmp_path}/out.lance")
    travelled = pickle.loads(pickle.dumps(job))
    assert (travelled, travelled.fingerprint) == (job, job.fingerprint)


def test_two_jobs_made_in_python_have_two_fingerprints():
    assert cfray.Job(**KEYS).fingerprint != cfray.Job(**KEYS | {"name": "books"}).fingerprint
    job = cfray.Job(**KEYS)
    assert job.model_copy(update={"name": "books"}).fingerprint != job.fingerprint


def test_a_wrong_key_is_refused_by_name_and_quotes_no_secret():
    with pytest.raises(cfray.ConfigError, match=r"the job: nmae: unknown key; did you mean name"):
        cfray.Job(**KEYS, nmae="x")
    source = {"kind": "qdrant", "url": "http://h", "api_key": "sk-very-secret-key-of-mine"}
    with pytest.raises(cfray.ConfigError, match=r"source.api_key: does not name") as refused:
        cfray.plan({**KEYS, "source": source})
    assert "sk-very" not in str(refused.value)


@pytest.mark.parametrize("form", ["path", "text", "keys", "job"])
def test_a_job_is_taken_in_every_form(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    lines_of(tmp_path / "rows", {"id": 1, "text": "a", "vector": [0.5, 1.5]})
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(KEYS))
    forms: dict[str, AnyJob] = {"path": path, "text": "job.yaml", "keys": KEYS}
    preview = cfray.plan(forms.get(form) or cfray.Job(**KEYS))
    assert preview.as_json()["dimension"] == 2
    assert not Path("out.lance").exists()


# -- commands ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def migration(tmp_path_factory, shared_ray):
    """Migrate a flawed export; give the job and its report."""
    shared_ray.join()
    folder = tmp_path_factory.mktemp("migration")
    body = runs.export(folder, 60, 8, 3, flawed=True)
    body["limits"] = {"max_quarantined": "50%"}
    body["source"]["uri"] = str(folder / "export")
    body["target"] = {"uri": str(folder / "out.lance")}
    job = cfray.Job(**body)
    return job, cfray.migrate(job)


def test_a_migration_gives_its_report(migration):
    job, report = migration
    assert isinstance(report, cfray.Report)
    assert (report.exit_code, report.counts["read"]) == (3, 60)
    assert report.counts["staged"] + report.counts["quarantined"] == 60
    assert report.fingerprint == job.fingerprint


def test_a_second_migration_in_this_process_has_nothing_to_do(migration, on_ray, capfd):
    job, report = migration
    again = cfray.migrate(job)
    assert again.exit_code == report.exit_code
    assert again.counts["staged"] == report.counts["staged"]
    assert cfray.verify(job).exit_code == 3
    assert cfray.verify(job, against="source", sample=1).exit_code == 3
    with pytest.raises(cfray.ConfigError):
        cfray.verify(job, sample=1)
    synced = cfray.sync(job)
    assert (synced.exit_code, synced.counts["records_changed"]) == (3, 0)
    assert synced.counts["records_same"] == report.counts["staged"]
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_on_stderr_where_it_is_asked_for(migration, on_ray, capsys):
    cfray.verify(migration[0], progress=True)
    shown = capsys.readouterr()
    assert not shown.out
    assert "verify ..." in shown.err


@pytest.mark.parametrize("form", ["address", "job"])
def test_a_target_is_searched(migration, form):
    job, _ = migration
    answer = cfray.query(job if form == "job" else job.target.uri, "ledger", k=4)
    assert isinstance(answer, cfray.Answer)
    assert answer.mode == "text"
    assert len(answer.hits) == 4
    assert all("ledger" in hit["text_content"] for hit in answer.hits)


def test_another_job_of_this_process_is_refused_the_target(migration):
    with pytest.raises(cfray.LedgerMismatch, match="name: was"):
        cfray.migrate(migration[0].model_copy(update={"name": "books"}))


def test_a_refusal_raises_and_ends_no_process(tmp_path):
    with pytest.raises(cfray.ConfigError, match="cannot read the job file"):
        cfray.migrate(tmp_path / "no.yaml")
    with pytest.raises(cfray.ConfigError, match="there is no target"):
        cfray.query(str(tmp_path / "no.lance"), "words")


# -- notebooks -----------------------------------------------------------------------------------


def test_a_report_shows_its_verdict_first_and_escapes_what_it_shows(migration):
    _, report = migration
    assert repr(report).startswith(report.verdict)
    assert "every data file" in repr(report)
    assert "<th>check</th>" in report._repr_html_()
    shown = cfray.Report("verify", "<b>job", "/out", verdict="a < b")
    shown.notes.append("<script>alert(1)</script>")
    shown.check("<i>", "pass", '<img src="x">')
    assert "a &lt; b" in shown._repr_html_()
    assert not {"<b>", "<i>", "<script", "<img"} & set(_tags(shown._repr_html_()))
    assert "<script>alert(1)</script>" in repr(shown)


def test_a_preview_shows_where_fields_land_and_escapes_their_names(tmp_path):
    rows = lines_of(tmp_path / "rows", {"id": 1, "text": "a", "vector": [0.5], "<b>x": 1})
    preview = cfray.plan(
        {"name": "<i>", "source": rows, "target": {"uri": str(tmp_path / "out.lance")}}
    )
    assert "<b>x" in repr(preview)
    assert repr(preview).endswith("nothing was written")
    html = preview._repr_html_()
    assert "&lt;b&gt;x" in html
    assert not {"<b>", "<i>"} & set(_tags(html))


def _tags(html):
    return [f"<{part.split('>')[0]}>" for part in html.split("<")[1:]]


# -- sources as Datasets -------------------------------------------------------------------------


@pytest.fixture(params=[True, False], ids=["v2", "v1"])
def data_context(request, on_ray, monkeypatch):
    """Have Ray Data read with its second generation of sources, and with its first."""
    from ray.data import DataContext

    monkeypatch.setattr(DataContext.get_current(), "use_datasource_v2", request.param)


def test_parquet_files_are_read_as_pyarrow_reads_them(export, data_context):
    from ray.data import Dataset

    dataset = cfray.read(source(export, "parquet"))
    assert isinstance(dataset, Dataset)
    assert rows_of(dataset) == pq.read_table(export[0] / "parquet").to_pylist()
    assert dataset.schema().base_schema == export[1].schema


def test_json_lines_are_read_as_pyarrow_reads_them(export, data_context):
    dataset = cfray.read(source(export, "jsonl"))
    files = sorted((export[0] / "jsonl").iterdir())
    expected = pa.concat_tables([pj.read_json(file) for file in files])
    assert dataset.schema().base_schema == expected.schema
    assert rows_of(dataset) == expected.to_pylist()


def test_counts_and_columns_are_known_before_anything_is_read(tmp_path, on_ray):
    pq.write_table(pa.table({"id": [1, 2, 3]}), tmp_path / "rows.parquet")
    dataset = cfray.read({"kind": "parquet", "uri": str(tmp_path)})
    (tmp_path / "rows.parquet").unlink()
    assert dataset.count() == 3
    assert dataset.schema().base_schema == pa.schema([("id", pa.int64())])
    with pytest.raises(cfray.SourceError, match=r"rows\.parquet"):
        dataset.take(1)


def test_a_shard_is_a_read_task(export, on_ray):
    stats = cfray.read(source(export, "parquet")).materialize().stats()
    assert re.match(r"Operator 1 ReadCfrayParquet\S*: 3 tasks executed", stats)


def test_lines_of_peoples_own_run_over_it(export, on_ray):
    from ray.data.expressions import col

    dataset = cfray.read(source(export, "jsonl"))
    late = dataset.filter(expr=col("year") >= 2040)
    assert late.count() == 10
    doubled = late.map_batches(lambda batch: {"year": batch["year"] * 2})
    assert doubled.sum("year") == 2 * sum(range(2040, 2050))


@pytest.mark.parametrize("form", ["source.yaml", "job.yaml", "job", "model"])
def test_a_source_is_taken_in_every_form(export, on_ray, tmp_path, form):
    keys = source(export, "parquet")
    body = {"source": keys} | ({} if form == "source.yaml" else {**KEYS, "source": keys})
    path = tmp_path / form
    path.write_text(yaml.safe_dump(body))
    job = cfray.Job(**{**KEYS, "source": keys})
    given = {"job": job, "model": job.source}.get(form, path)
    assert cfray.read(given).count() == ROWS


def test_data_that_is_no_source_is_refused_with_the_way_to_say_it():
    with pytest.raises(cfray.ConfigError, match=r"'uri': 'rows.parquet'"):
        cfray.read("rows.parquet")


def test_a_row_that_is_no_record_raises_with_its_place(tmp_path, on_ray):
    rows = lines_of(tmp_path / "rows", {"id": 1}, "no json", {"id": 2})
    dataset = cfray.read(rows)
    with pytest.raises(cfray.SourceError, match=r"rows\.jsonl:byte 10.*not JSON") as raised:
        dataset.count()
    assert "on_reject" in raised.value.remedy


def test_a_row_that_is_no_record_can_be_a_row_of_its_own(tmp_path, on_ray):
    rows = lines_of(tmp_path / "rows", {"id": 1}, "no json", {"id": 2})
    read_rows = cfray.read(rows, on_reject="column").take_all()
    assert [row["id"] for row in read_rows] == [1, None, 2]
    rejects = [row["$reject"] for row in read_rows]
    assert rejects[0] is rejects[2] is None
    assert rejects[1]["content"] == b"no json"
    assert rejects[1]["position"] == "rows.jsonl:byte 10"


def test_each_record_can_name_its_file(export, on_ray):
    dataset = cfray.read(source(export, "parquet"), origin=True)
    assert [row["$file"] for row in rows_of(dataset)[::20]] == [f"{n}.parquet" for n in range(3)]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, 2.5, None], pa.float64(), [1.0, 2.5, None]),
        ([1, "1", None], pa.string(), ["1", "1", None]),
        ([{"b": 1, "a": None}, "x"], pa.string(), ['{"a":null,"b":1}', "x"]),
        ([[], [1.5, 2], [1]], pa.list_(pa.float64()), [[], [1.5, 2.0], [1.0]]),
        ([[], ["a"], None], pa.list_(pa.string()), [[], ["a"], None]),
        ([[1], [], [2**40]], pa.list_(pa.int64()), [[1], [], [2**40]]),
        ([True, None, False], pa.bool_(), [True, None, False]),
        ([2**53 + 1, 1], pa.int64(), [2**53 + 1, 1]),
        ([None, None], pa.string(), [None, None]),
        ([[{"a": 1}], [True]], pa.string(), ['[{"a":1}]', "[true]"]),
    ],
    ids=str,
)
def test_a_field_has_the_type_of_its_values(tmp_path, on_ray, values, kind, expected):
    rows = [{"id": number, "x": value} for number, value in enumerate(values)]
    dataset = cfray.read(lines_of(tmp_path / "rows", *rows))
    assert dataset.schema().base_schema.field("x").type == kind
    assert [row["x"] for row in rows_of(dataset)] == expected


def beyond_the_sample(folder, value, *, field="x"):
    """Write more rows than a sample has, the last of them with another value."""
    rows = [{"id": number, "x": number} for number in range(1200)]
    return lines_of(folder / "rows", *rows, {"id": 1200, field: value})


@pytest.mark.parametrize("value", ["late", 2.5, True])
def test_a_value_that_its_column_cannot_hold_raises_with_its_place(tmp_path, on_ray, value):
    rows = beyond_the_sample(tmp_path, value)
    with pytest.raises(cfray.SourceError, match=r"rows\.jsonl, record 1,200 .* x is of type"):
        cfray.read(rows).take_all()
    last = rows_of_exact(cfray.read(rows, values="exact"))[-1]
    assert last["x"]["type"] == {"late": "string", 2.5: "double", True: "bool"}[value]


def rows_of_exact(dataset):
    return sorted(dataset.take_all(), key=lambda row: int(row["id"]["text"]))


def test_a_float_column_takes_no_integer_that_is_no_float(tmp_path, on_ray):
    rows = [{"id": number, "x": number + 0.5} for number in range(1200)]
    given = lines_of(tmp_path / "rows", *rows, {"id": 1200, "x": 2**53 + 1})
    with pytest.raises(cfray.SourceError, match=r"record 1,200 .* x is of type int64"):
        cfray.read(given).take_all()


def test_a_key_that_the_sample_lacks_is_a_column_of_texts(tmp_path, on_ray):
    rows = rows_of(cfray.read(beyond_the_sample(tmp_path, [1, "a"], field="late")))
    assert len(rows) == 1201
    assert rows[-1]["late"] == '[1,"a"]'
    assert rows[-1]["x"] is rows[0].get("late") is None


def test_records_without_any_field_do_not_vanish(tmp_path, on_ray):
    rows = lines_of(tmp_path / "rows", {}, {})
    with pytest.raises(cfray.SourceError, match="has a field"):
        cfray.read(rows).count()
    assert cfray.read(rows, origin=True).count() == 2


def test_files_that_disagree_on_a_type_raise_with_the_file(tmp_path, on_ray):
    pq.write_table(pa.table({"id": ["1"], "x": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"id": ["2"], "x": ["a"]}), tmp_path / "1.parquet")
    with pytest.raises(cfray.SourceError, match=r"1\.parquet: x is string, and int64"):
        cfray.read({"kind": "parquet", "uri": str(tmp_path)}).take_all()


def test_files_with_other_columns_and_narrower_numbers_are_one_table(tmp_path, on_ray):
    pq.write_table(pa.table({"id": ["1"], "x": [2**40]}), tmp_path / "0.parquet")
    narrow = pa.table({"id": ["2"], "x": pa.array([7], pa.int16()), "y": [0.5]})
    pq.write_table(narrow, tmp_path / "1.parquet")
    dataset = cfray.read({"kind": "parquet", "uri": str(tmp_path)})
    assert rows_of(dataset) == [{"id": "1", "x": 2**40, "y": None}, {"id": "2", "x": 7, "y": 0.5}]


# -- sources of people's own, sessions -----------------------------------------------------------


class Shelf(cfray.Source):
    """Two collections of two records."""

    kind: Literal["shelf"] = "shelf"

    def shards(self, context: Context) -> list[Shard]:
        return [Shard(name, {}, collection=name) for name in ("left", "right")]

    def read(self, shard: Shard, context: Context) -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pydict({"id": [f"{shard.id}-{n}" for n in range(2)]})


def test_a_source_of_a_class_of_ones_own_is_read(on_ray):
    assert rows_of(cfray.read(Shelf(), origin=True)) == [
        {"id": f"{name}-{number}", "$collection": name}
        for name in ("left", "right")
        for number in range(2)
    ]


@pytest.fixture
def view(tmp_path, on_ray):
    """Give a store that is read at a point in time, of 18 records."""
    store = PointInTime(folder=str(tmp_path))
    store.write("first")
    (tmp_path / "committed").touch()  # nobody commits here: what a test scripts happens at once
    return store


def test_one_session_is_open_from_the_call_to_close(view):
    dataset = cfray.read(view)
    view.write("second")
    assert {row["text"].split()[1] for row in rows_of(dataset)} == {"first"}
    assert dataset.count() == 18
    assert (view.log("open"), view.log("close")) == (["open view-0"], [])
    cfray.close(dataset)
    cfray.close(dataset)
    assert view.log("close") == ["close view-0"]
    with pytest.raises(cfray.SourceError, match="it was closed"):
        dataset.take_all()


def test_a_session_is_kept_alive_until_all_is_read(view):
    dataset = cfray.read(view.model_copy(update={"slow": True}))
    kept = len(view.log("keep"))
    assert len(dataset.take_all()) == 18
    assert len(view.log("keep")) >= kept + 2
    cfray.close(dataset)


def test_an_expired_session_raises(view):
    dataset = cfray.read(view)
    view.script("expires", "b-1")
    with pytest.raises(cfray.SourceError, match="no point in time view-0"):
        dataset.take_all()
    cfray.close(dataset)


def test_nothing_is_read_in_a_session_that_is_known_to_be_lost(view):
    dataset = cfray.read(view)
    view.script("is lost", "b-1")
    dataset.take_all()
    with pytest.raises(cfray.SourceError, match=r"the session view-0 of store://.* is lost"):
        dataset.take_all()
    cfray.close(dataset)


def test_the_session_ends_with_the_last_dataset_that_reads_in_it(view):
    from ray.data.expressions import col

    dataset = cfray.read(view)
    derived = dataset.filter(expr=col("id") != "a-0-0")
    del dataset
    gc.collect()
    assert not view.log("close")
    assert derived.count() == 17
    del derived
    gc.collect()
    assert view.log("close") == ["close view-0"]


def test_a_dataset_that_travels_leaves_the_session_to_its_owner(view):
    from ray.data import Dataset

    dataset = cfray.read(view)
    copy = Dataset.deserialize_lineage(dataset.serialize_lineage())
    assert copy.count() == 18
    del copy
    gc.collect()
    assert not view.log("close")
    cfray.close(dataset)


def test_a_source_without_records_is_refused_and_leaves_no_session_open(view):
    with pytest.raises(cfray.SourceError, match="holds no record"):
        cfray.read(view.model_copy(update={"letters": ""}))
    assert view.log("open") == ["open view-0"]
    assert view.log("close") == ["close view-0"]


def test_a_dataset_of_somebody_else_has_no_session(on_ray):
    import ray

    with pytest.raises(cfray.ConfigError, match=r"cfray\.read did not give it"):
        cfray.close(ray.data.range(3))


# -- from outside --------------------------------------------------------------------------------


def test_a_program_that_only_imports_cfray_runs_two_jobs_in_one_process(tmp_path):
    columns = runs.columns(0, 50, 8, runs.np.random.default_rng(3))
    pq.write_table(runs.table(columns), tmp_path / "articles.parquet")
    done = subprocess.run(
        [sys.executable, str(LIBRARY_USER)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=without_settings(runs.os.environ),
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    seen = json.loads(done.stdout)
    assert seen["loaded by the import"] == []
    first, second = seen["jobs"]
    assert first["fingerprint"] != second["fingerprint"]
    for name, job in (("articles", first), ("papers", second)):
        assert job["planned"] == 50
        assert job["migrated"] == [0, 50, f"{tmp_path}/out/{name}.lance"]
        assert (job["verified"], job["hits"]) == (0, 3)
    assert seen["read"] == [50, 50]
    assert "there is no target at" in seen["refused"]
