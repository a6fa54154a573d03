"""Files as a stranger brings them first: several exports in one file, copies, odd dates, no id.

Each input is one that somebody typed; the draft is right and runs, or says first what it lacks.
"""

import csv
import gzip
import io
import json
import re
import sqlite3
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from rich.console import Console

from cfray.cli import _say_of_draft
from cfray.conversion.dates import days
from cfray.errors import ConfigError, SourceError
from cfray.inspection import source as inspection
from cfray.job.file import read_job
from cfray.job.spec import JobSpec
from cfray.planning import show
from cfray.planning.plan import preview


def text(number):
    return f"This is the text number {number} of a document, which is prose and long enough."


def records(letter, count, **more):
    """Make records with an id and a text; ``more`` holds functions of the record's number."""
    return [
        {"id": f"{letter}{n}", "text": text(n)} | {key: make(n) for key, make in more.items()}
        for n in range(count)
    ]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def as_csv(rows, delimiter=","):
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def drafts_of(tmp_path, **files):
    """Write files to a folder, draft it, and write the drafts: label -> draft, label -> path."""
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(
            content if isinstance(content, str) else json.dumps(content)
        )
    return written(folder, tmp_path / "job.yaml")


def written(folder, out):
    drafts = inspection.draft_all(str(folder), out)
    paths = {draft.label: inspection.path_of(draft, out) for draft in drafts}
    for draft in drafts:
        paths[draft.label].write_text(draft.text)
    return {draft.label: draft for draft in drafts}, paths


def plan_of(path, **changes):
    job = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            job[section][name] = value
        else:
            job[section] = value
    path.write_text(yaml.safe_dump(job, allow_unicode=True, sort_keys=False))
    return preview(read_job(path))


def sentences_of(draft, path, monkeypatch):
    console = io.StringIO()
    monkeypatch.setattr(
        "cfray.cli._say",
        lambda sentence: Console(file=console, width=10_000).print(sentence, markup=False),
    )
    _say_of_draft(draft, path)
    return console.getvalue().splitlines()


SEVERAL = {
    "splits": ({"train": records("t", 30), "test": records("s", 12)}, {"train": 30, "test": 12}),
    "tables": (
        {"users": [{"id": n, "name": f"User {n}"} for n in range(9)], "posts": records("p", 20)},
        {"users": 9, "posts": 20},
    ),
    "side table": (
        {
            "data": records("p", 20),
            "included": [{"id": n, "type": "author"} for n in range(5)],
            "meta": {"total": 20},
        },
        {"data": 20, "included": 5},
    ),
    "nested": (
        {"animals": {"items": records("a", 10)}, "plants": {"items": records("p", 11)}},
        {"animals.items": 10, "plants.items": 11},
    ),
}


#: What ``collection.get()`` of Chroma gives, written as JSON.
COLUMNS = {
    "ids": [f"a{n}" for n in range(20)],
    "documents": [text(n) for n in range(20)],
    "metadatas": [{"page": n, "source": f"f{n}.pdf"} for n in range(20)],
    "embeddings": [[n / 7 + k for k in range(8)] for n in range(20)],
    "included": ["documents", "metadatas", "embeddings"],
    "uris": None,
}


class TestSeveralArrays:
    @pytest.mark.parametrize(("content", "counts"), SEVERAL.values(), ids=SEVERAL)
    def test_each_array_is_drafted_and_the_plan_warns_of_the_others(
        self, tmp_path, content, counts
    ):
        drafts, paths = drafts_of(tmp_path, dump__json=content)
        assert len(drafts) == len(counts)
        targets = set()
        for label, draft in drafts.items():
            assert "all of the source" not in draft.text
            job = read_job(paths[label])
            plan, forecast = preview(job)
            targets.add(job.target.uri)
            assert forecast.sampled == counts[job.source.records]
            others = {name: count for name, count in counts.items() if name != job.source.records}
            for sentences in (forecast.warnings, plan.notes):
                for name, count in others.items():
                    (warning,) = (text for text in sentences if f" in {name}," in text)
                    assert warning.startswith(f"RECORDS NOT READ: {count} records in {name}")
        assert len(targets) == len(counts)

    def test_an_array_of_one_record_a_file_is_drafted_too(self, tmp_path):
        pages = {
            f"p{n}__json": {"data": records(f"{n}-", 9), "included": [{"id": n, "kind": "x"}]}
            for n in range(3)
        }
        drafts, paths = drafts_of(tmp_path, **pages)
        assert list(drafts) == ["data", "included"]
        assert [preview(read_job(path))[1].sampled for path in paths.values()] == [27, 3]

    def test_a_file_that_lacks_the_array_is_refused_by_name(self, tmp_path):
        files = {"a__json": {"users": records("u", 12), "log": [{"t": 1}]}}
        with pytest.raises(ConfigError, match=r"under users in b\.json") as refused:
            drafts_of(tmp_path, **files, b__json={"posts": records("p", 12)})
        assert "name only the files that have it in source.uri" in refused.value.remedy

    def test_strict_refuses_until_the_job_file_says_that_the_others_are_known(self, tmp_path):
        _, paths = drafts_of(tmp_path, dump__json=SEVERAL["splits"][0])
        with pytest.raises(ConfigError, match=r"12 records in test.*source\.ignore: \[test\]"):
            plan_of(paths["train"], strict=True)
        plan, forecast = plan_of(paths["train"], strict=True, source__ignore=["test"])
        assert (forecast.warnings, forecast.lossy) == ([], [])
        assert "not read, as source.ignore says: 12 records in test" in plan.notes

    def test_ignoring_what_does_not_exist_is_refused(self, tmp_path):
        _, paths = drafts_of(tmp_path, dump__json=SEVERAL["splits"][0])
        with pytest.raises(SourceError, match=r"source\.ignore names tset, but beside the records"):
            plan_of(paths["train"], source__ignore=["tset"])

    def test_a_file_of_many_arrays_warns_of_all_of_them_in_few_sentences(self, tmp_path):
        months = {f"month {n}": records(f"{n}-", n + 2) for n in range(30)}
        drafts, paths = drafts_of(tmp_path, dump__json=months)
        _, forecast = preview(read_job(paths[""]))
        assert len(drafts) == 1
        assert len(forecast.warnings) == 11
        assert "in 19 more arrays" in forecast.warnings[-1]

    def test_a_description_of_the_columns_is_no_export(self, tmp_path):
        (tmp_path / "in").mkdir()
        frame = pd.DataFrame(records("a", 20))
        frame.to_json(tmp_path / "in" / "d.json", orient="table", index=False)
        drafts, paths = written(tmp_path / "in", tmp_path / "job.yaml")
        plan, forecast = preview(read_job(paths[""]))
        assert (list(drafts), forecast.sampled, forecast.warnings) == ([""], 20, [])
        assert any("schema.fields" in note for note in plan.notes)

    def test_columns_beside_the_records_are_not_read_in_silence(self, tmp_path):
        _, paths = drafts_of(tmp_path, dump__json=COLUMNS)
        job = yaml.safe_load(paths[""].read_text())
        del job["source"]["orient"]
        job["source"]["records"] = "metadatas"
        job["mapping"] = {"id": "page"}
        paths[""].write_text(yaml.safe_dump(job))
        _, forecast = preview(read_job(paths[""]))
        assert [warning.split(", as many")[0] for warning in forecast.warnings] == [
            "RECORDS NOT READ: 20 values in ids",
            "RECORDS NOT READ: 20 values in documents",
            "RECORDS NOT READ: 20 values in embeddings",
        ]

    def test_a_file_of_columns_is_read_by_columns(self, tmp_path):
        drafts, paths = drafts_of(tmp_path, dump__json=COLUMNS)
        job = read_job(paths[""])
        mapping = job.mapping
        assert (mapping.id, mapping.text_content, mapping.vector) == (
            "ids",
            "documents",
            "embeddings",
        )
        plan, forecast = preview(job)
        assert (forecast.sampled, forecast.warnings, forecast.quarantined) == (20, [], {})
        assert any("dump.json: included" in note for note in plan.notes)
        assert "all of the source" in drafts[""].text

    @pytest.mark.parametrize(
        "content",
        [
            {"id": "a", "text": text(1), "tags": ["x", "y"], "authors": ["p", "q"]},
            {"tags": ["x", "y"], "authors": ["p"]},
            {"a": records("a", 3), "b": records("b", 3)},
        ],
    )
    def test_a_record_that_has_lists_is_no_file_of_columns(self, tmp_path, content):
        drafts, _ = drafts_of(tmp_path, dump__json=content)
        assert all("orient" not in draft.text for draft in drafts.values())

    def test_columns_of_different_lengths_are_refused(self, tmp_path):
        (tmp_path / "d.json").write_text('{"id": ["a", "b"], "text": ["c"]}')
        (tmp_path / "job.yaml").write_text(
            "name: a\nsource: {kind: json, uri: d.json, orient: list}\ntarget: {uri: out.lance}\n"
        )
        with pytest.raises(SourceError, match=r"source\.orient: list: it is no object of columns"):
            preview(read_job(tmp_path / "job.yaml"))

    def test_pages_one_a_line_warn_of_their_other_arrays(self, tmp_path):
        pages = [{"data": records(f"{n}-", 3), "included": [{"id": n}]} for n in range(4)]
        (tmp_path / "d.jsonl").write_text(lines(pages))
        (tmp_path / "job.yaml").write_text(
            "name: a\nsource: {kind: jsonl, uri: d.jsonl, records: data}\n"
            "target: {uri: out.lance}\n"
        )
        _, forecast = preview(read_job(tmp_path / "job.yaml"))
        (warning,) = forecast.warnings
        assert warning.startswith("RECORDS NOT READ: at least 4 records in included")

    def test_a_file_of_one_array_is_all_of_the_source(self, tmp_path):
        page = {"data": records("a", 20), "total": 20, "errors": []}
        (draft,) = drafts_of(tmp_path, dump__json=page)[0].values()
        assert "from 20 records, all of the source" in draft.text
        assert draft.warnings == ()


class TestCopies:
    @pytest.mark.parametrize("name", ["a.jsonl.gz", "a_backup.jsonl", "b.jsonl"])
    def test_a_copy_is_named_by_the_draft_and_by_the_plan(self, tmp_path, name):
        (tmp_path / "in").mkdir()
        content = lines(records("x", 36)).encode()
        copied = gzip.compress(content) if name.endswith(".gz") else content
        (tmp_path / "in" / "a.jsonl").write_bytes(content)
        (tmp_path / "in" / name).write_bytes(copied)
        drafts, paths = written(tmp_path / "in", tmp_path / "job.yaml")
        first, second = sorted(["a.jsonl", name])
        warning = f"36 of 36 sampled records stand in {first} and in {second}"
        (draft,) = drafts.values()
        _, forecast = preview(read_job(paths[""]))
        assert warning in draft.text.split("name:")[0]
        assert "BUT FILES HOLD THE SAME RECORDS" in draft.text
        assert "  # id: id" in draft.text
        for warnings in (draft.warnings, forecast.warnings):
            assert any(warning in sentence for sentence in warnings)

    def test_a_copy_beyond_the_sample_is_known_by_its_first_bytes(self, tmp_path):
        (tmp_path / "in").mkdir()
        content = lines(records("x", 3_000)).encode()
        for name in ("a.jsonl", "a (1).jsonl"):
            (tmp_path / "in" / name).write_bytes(content)
        _, paths = written(tmp_path / "in", tmp_path / "job.yaml")
        _, forecast = preview(read_job(paths[""]))
        (warning,) = forecast.warnings
        assert warning.startswith(
            "THE SAME RECORDS TWICE: a (1).jsonl and a.jsonl seem to hold the same content"
        )

    def test_parts_of_one_size_that_share_a_column_are_no_copies(self, tmp_path):
        (tmp_path / "in").mkdir()
        body = [f"{text(n)} {n * 7919 % 10007:05d}" for n in range(10_000)]
        for part in range(2):
            ids = [f"{part}-{n:06d}" for n in range(10_000)]
            frame = pd.DataFrame({"body": body, "id": ids})
            frame.to_parquet(tmp_path / "in" / f"part-{part}.parquet")
        drafts, paths = written(tmp_path / "in", tmp_path / "job.yaml")
        assert preview(read_job(paths[""]))[1].warnings == []
        assert drafts[""].warnings == ()

    def test_parts_of_one_export_are_no_copies(self, tmp_path):
        drafts, _ = drafts_of(
            tmp_path, a__jsonl=lines(records("a", 20)), b__jsonl=lines(records("b", 20))
        )
        assert [draft.warnings for draft in drafts.values()] == [()]


DATES = {
    "01/03/2024": "is ambiguous",
    "13.03.2024": "is ambiguous",
    "2024/03/01": "is not ISO 8601",
    "2024-3-1": "is not ISO 8601",
    1709251200: "perhaps seconds since 1970",
    1709251200000: "perhaps milliseconds since 1970",
    "1709251200": "perhaps seconds since 1970",
    2024: "is a year alone",
    "March 1, 2024": "no date in a form that is read",
}


class TestDates:
    @pytest.mark.parametrize(("value", "why"), DATES.items(), ids=str)
    def test_a_column_named_like_a_date_says_why_it_is_none(self, tmp_path, value, why):
        rows = records("a", 36, created=lambda n: value)
        drafts, paths = drafts_of(tmp_path, d__jsonl=lines(rows))
        (line,) = (
            line for line in drafts[""].text.splitlines() if line.startswith("  # created_at:")
        )
        assert f"named like a date, but {value} " in line
        assert why in line
        assert preview(read_job(paths[""]))[1].warnings == []

    @pytest.mark.parametrize("value", DATES, ids=str)
    def test_a_mapped_date_that_cannot_be_read_is_foretold_and_refused_under_strict(
        self, tmp_path, value
    ):
        rows = records("a", 36, created=lambda n: value)
        _, paths = drafts_of(tmp_path, d__jsonl=lines(rows))
        plan, forecast = plan_of(paths[""], mapping__created_at="created")
        start = f"DATES NOT READ: 36 of 36 sampled values of created read as no date (for example {value})"
        assert [warning.startswith(start) for warning in forecast.warnings] == [True]
        assert not any(value in note for note in plan.notes), "a saved plan holds no text"
        with pytest.raises(ConfigError, match=r"strict is true.*36 of 36 sampled values"):
            plan_of(paths[""], strict=True)

    @pytest.mark.parametrize("name", ["data", "times", "posts"])
    def test_texts_and_counts_of_such_names_are_no_dates(self, tmp_path, name):
        rows = records("a", 20, **{name: lambda n: n})
        drafts, _ = drafts_of(tmp_path, d__jsonl=lines(rows))
        assert "created_at" not in drafts[""].text

    def test_single_values_that_cannot_be_read_are_counted(self, tmp_path):
        rows = records("a", 36, created=lambda n: "soon" if n == 7 else "2024-03-01")
        _, paths = drafts_of(tmp_path, d__jsonl=lines(rows))
        (warning,) = preview(read_job(paths[""]))[1].warnings
        assert "1 of 36 sampled values of created read as no date (for example soon)" in warning


class TestVectorsOfSeveralWidths:
    @pytest.mark.parametrize("name", ["vector", "embedding"])
    def test_the_draft_runs_and_says_what_becomes_of_the_others(self, tmp_path, name, monkeypatch):
        rows = records("a", 20, **{name: lambda n: [0.1 * (n + 1)] * (8 if n % 2 else 16)})
        drafts, paths = drafts_of(tmp_path, d__jsonl=lines(rows))
        _, forecast = preview(read_job(paths[""]))
        assert "A RUN WOULD STOP" not in drafts[""].text
        assert f"  vector: {{path: {name}, other_widths: keep}}   # " in drafts[""].text
        assert (forecast.quarantined, forecast.warnings) == ({}, [])
        assert any("10 of 20 sampled records have a vector of another" in n for n in forecast.notes)
        sentences = sentences_of(drafts[""], paths[""], monkeypatch)
        assert any("vectors of several widths (16 numbers in 10, 8" in line for line in sentences)
        assert sentences[-1].endswith(f"next: see the warnings above, then cfray plan {paths['']}")

    @pytest.mark.parametrize("name", ["vector", "embedding"])
    def test_without_the_key_the_plan_warns(self, tmp_path, name):
        rows = records("a", 20, **{name: lambda n: [0.1 * (n + 1)] * (8 if n % 2 else 16)})
        _, paths = drafts_of(tmp_path, d__jsonl=lines(rows))
        job = yaml.safe_load(paths[""].read_text())
        del job["mapping"]["vector"]
        paths[""].write_text(yaml.safe_dump(job))
        _, forecast = preview(read_job(paths[""]))
        (warning,) = forecast.warnings
        start = "THIS RUN WOULD STOP" if name == "vector" else "NO PRIMARY VECTOR"
        assert warning.startswith(start)


class TestIds:
    def test_an_empty_id_is_said_before_anything_else(self, tmp_path, monkeypatch):
        rows = [{"text": "same words " * 9, "n": n % 3} for n in range(20)]
        drafts, paths = drafts_of(tmp_path, d__csv=as_csv(rows))
        sentences = sentences_of(drafts[""], paths[""], monkeypatch)
        assert sentences[0].startswith(f"mapping.id is empty in {paths['']}: no field")
        assert sentences[-1].endswith(
            f"next: fill in mapping.id there, then cfray plan {paths['']}"
        )

    def test_a_question_that_no_two_records_share_is_the_id(self, tmp_path):
        rows = [{"question": f"How do I do {n}?", "answer": text(n)} for n in range(20)]
        _, paths = drafts_of(tmp_path, d__csv=as_csv(rows))
        job = read_job(paths[""])
        assert (job.mapping.id, job.mapping.text_content) == ("question", "answer")
        assert preview(job)[1].duplicates == 0

    def test_where_only_a_part_was_seen_such_a_text_is_offered(self, tmp_path):
        rows = [{"question": f"How do I do {n}?", "answer": text(n)} for n in range(5_000)]
        drafts, _ = drafts_of(tmp_path, d__csv=as_csv(rows))
        assert drafts[""].missing
        assert "  # id: question   # a text that is unique in" in drafts[""].text

    def test_the_document_is_never_its_own_id(self, tmp_path):
        drafts, _ = drafts_of(tmp_path, d__csv=as_csv([{"text": text(n)} for n in range(20)]))
        assert drafts[""].missing

    @pytest.mark.parametrize("index", [[f"key-{n * 7}" for n in range(20)], range(5, 105, 5)])
    def test_the_index_of_a_frame_is_the_id_and_its_name_the_title(self, tmp_path, index):
        (tmp_path / "in").mkdir()
        columns = {"name": [f"Town{n}" for n in range(20)], "text": [text(n) for n in range(20)]}
        pd.DataFrame(columns, index=list(index)).to_parquet(tmp_path / "in" / "d.parquet")
        _, paths = written(tmp_path / "in", tmp_path / "job.yaml")
        mapping = read_job(paths[""]).mapping
        assert (mapping.id, mapping.title) == ("__index_level_0__", "name")

    @pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
    def test_an_empty_id_is_no_id_in_any_kind_of_file(self, tmp_path, kind):
        (tmp_path / "in").mkdir()
        rows = [{"id": "" if n < 2 else f"a{n}", "text": text(n)} for n in range(300)]
        path = tmp_path / "in" / f"d.{kind}"
        if kind == "parquet":
            pd.DataFrame(rows).to_parquet(path)
        else:
            path.write_text({"csv": as_csv, "jsonl": lines, "json": json.dumps}[kind](rows))
        drafts, paths = written(tmp_path / "in", tmp_path / "job.yaml")
        assert "unique in 298 of 300 sampled records; records without it go" in drafts[""].text
        forecast = preview(read_job(paths[""]))[1]
        assert (forecast.quarantined.total(), forecast.duplicates) == (2, 0)


class TestTitles:
    @pytest.mark.parametrize("write", [lines, as_csv])
    def test_a_title_of_numbers_is_the_title(self, tmp_path, write):
        rows = records("a", 20, title=lambda n: 1900 + n)
        name = "d__csv" if write is as_csv else "d__jsonl"
        _, paths = drafts_of(tmp_path, **{name: write(rows)})
        assert read_job(paths[""]).mapping.title == "title"

    def test_a_label_of_numbers_is_passed_over_by_name(self, tmp_path):
        rows = records("a", 20, label=lambda n: n % 2)
        drafts, _ = drafts_of(tmp_path, d__jsonl=lines(rows))
        assert "# title:   # passed over: label (of type int64" in drafts[""].text


class TestOtherFiles:
    @pytest.mark.parametrize(
        ("name", "content", "what"),
        [
            ("n{}.xlsx", "PK\x03\x04 {}", "spreadsheets"),
            ("n{}.npy", "\x93NUMPY {}", "arrays"),
        ],
    )
    def test_files_that_no_kind_reads_are_refused_with_a_way_out(
        self, tmp_path, name, content, what
    ):
        (tmp_path / "in").mkdir()
        for number in range(4):
            path = tmp_path / "in" / name.format(number)
            path.write_text(content.format(number), encoding="latin-1")
        with pytest.raises(ConfigError, match=f"no known kind of file.*{what}") as refused:
            inspection.draft_all(str(tmp_path / "in"), None)
        assert len(refused.value.remedy) > 20

    def test_a_database_is_refused_with_the_command_that_exports_it(self, tmp_path):
        with sqlite3.connect(tmp_path / "x.sqlite") as database:
            database.execute("create table t(a)")
        with pytest.raises(ConfigError, match="SQLite") as refused:
            inspection.draft_all(str(tmp_path / "x.sqlite"), None)
        assert "sqlite3 -header -csv" in refused.value.remedy

    @pytest.mark.parametrize("name", ["dump.sql", "dump.sql.gz", "dump", "folder/dump.sql"])
    def test_a_plain_dump_of_postgresql_is_drafted(self, tmp_path, name):
        lines = [
            "--\n-- PostgreSQL database dump\n--\n",
            "CREATE TABLE public.docs (\n    id integer NOT NULL,\n    body text\n);",
            "COPY public.docs (id, body) FROM stdin;\n1\tone text\n2\tanother text\n\\.\n",
            "ALTER TABLE ONLY public.docs\n    ADD CONSTRAINT docs_pkey PRIMARY KEY (id);",
            "--\n-- PostgreSQL database dump complete\n--\n",
        ]
        data = "\n".join(lines).encode()
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        location = path.parent if "/" in name else path
        (draft,) = inspection.draft_all(str(location), tmp_path / "job.yaml")
        section = yaml.safe_load(draft.text)
        assert section["name"] == location.name.partition(".")[0]
        assert section["source"] == {"kind": "postgres", "uri": f"./in/{name}"}
        assert section["mapping"] == {"id": "id", "text_content": "body"}

    def test_any_other_dump_is_refused_with_the_way_out(self, tmp_path):
        for number, data in enumerate((b"PGDMP\1\2", b"-- MySQL dump 10.13\n", b"INSERT INTO t")):
            path = tmp_path / f"dump{number}.sql"
            path.write_bytes(data)
            with pytest.raises(ConfigError, match="only a plain one of pg_dump") as refused:
                inspection.draft_all(str(path), None)
            assert "pg_restore --file" in refused.value.remedy

    def test_texts_with_other_suffixes_that_are_tables_are_tables(self, tmp_path):
        rows = [{"id": n, "title": f"T {n}", "text": text(n)} for n in range(20)]
        parts = {f"d{k}__txt": as_csv(rows[k * 10 : k * 10 + 10], "|") for k in range(2)}
        drafts, paths = drafts_of(tmp_path, **parts)
        assert list(drafts) == [""]
        assert preview(read_job(paths[""]))[1].sampled == 20

    def test_a_wrong_delimiter_is_named(self, tmp_path):
        rows = [{"Nr": n, "Titel": f"T {n}", "Inhalt": text(n)} for n in range(20)]
        _, paths = drafts_of(tmp_path, d__csv=as_csv(rows, ";"))
        with pytest.raises(ConfigError, match="its header is one column: Nr;Titel") as refused:
            plan_of(paths[""], source__delimiter=",")
        assert 'source.delimiter: ";"' in refused.value.remedy


class TestTargets:
    def test_two_drafts_of_one_stem_have_two_targets(self, tmp_path):
        targets = []
        for number, kind in enumerate(["jsonl", "csv"]):
            rows = records("a", 20)
            path = tmp_path / f"notes.{kind}"
            path.write_text(lines(rows) if kind == "jsonl" else as_csv(rows))
            _, paths = written(path, tmp_path / f"job{number}.yaml")
            targets.append(read_job(paths[""]).target.uri)
        assert targets == [str(tmp_path / "notes.lance"), str(tmp_path / "notes-2.lance")]

    def test_tables_of_one_name_in_two_folders_have_two_names_and_two_targets(self, tmp_path):
        tables = {"people": {"id": 1, "name": "A", "text": text(1)}, "towns": {"id": 1, "zip": "2"}}
        for folder, row in tables.items():
            (tmp_path / "in" / folder).mkdir(parents=True)
            (tmp_path / "in" / folder / "data.csv").write_text(as_csv([row, row | {"id": 2}]))
        _, paths = written(tmp_path / "in", tmp_path / "job.yaml")
        jobs = [read_job(path) for path in paths.values()]
        assert list(paths) == ["people-data", "towns-data"]
        assert len({job.name for job in jobs}) == len({job.target.uri for job in jobs}) == 2

    def test_a_second_draft_of_the_same_data_keeps_the_target(self, tmp_path):
        (tmp_path / "notes.jsonl").write_text(lines(records("a", 20)))
        for number in range(2):
            _, paths = written(tmp_path / "notes.jsonl", tmp_path / f"job{number}.yaml")
            assert read_job(paths[""]).target.uri == str(tmp_path / "notes.lance")


@pytest.mark.parametrize("write", [lines, json.dumps, as_csv])
def test_records_that_were_all_seen_are_counted(tmp_path, write):
    name = {lines: "d__jsonl", json.dumps: "d__json", as_csv: "d__csv"}[write]
    _, paths = drafts_of(tmp_path, **{name: write(records("a", 12))})
    plan, forecast = preview(read_job(paths[""]))
    first = show.size_lines("a", plan, forecast)[0]
    assert "exactly 12 records" in first
    assert "no vectors (a placeholder of zeros, 1 wide)" in first


DOCS = Path(__file__).parents[2] / "docs"


class TestDocumentation:
    def test_the_way_out_without_an_id_numbers_the_records(self, tmp_path, monkeypatch):
        page = (DOCS / "inspect.md").read_text()
        (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        rows = [{"n": n % 3, "text": text(n % 5)} for n in range(20)]
        (tmp_path / "in.csv").write_text(as_csv([{"code": "001", **row} for row in rows]))
        (tmp_path / "in.jsonl").write_text(lines(rows))
        pd.DataFrame(rows).to_parquet(tmp_path / "in.parquet")
        monkeypatch.chdir(tmp_path)
        exec(code, {})  # the page's own snippet
        for kind in ("csv", "jsonl", "parquet"):
            _, paths = written(tmp_path / f"numbered.{kind}", tmp_path / f"{kind}.yaml")
            job = read_job(paths[""])
            _, forecast = preview(job)
            assert (job.mapping.id, forecast.sampled) == ("row", 20)
            assert (forecast.duplicates, forecast.quarantined) == (0, {})
        assert "001" in (tmp_path / "numbered.csv").read_text()

    def test_the_dates_that_the_page_names_are_read(self):
        page = (DOCS / "files.md").read_text().partition("## Dates\n")[2].partition("\n## ")[0]
        marked = re.findall(r"`([^`]+)`", page.replace("\n", " "))
        named = [value for value in marked if re.fullmatch(r"(Fri|\d)[\w ,:+./-]+", value)]
        read = days(pa.array(named)).to_pylist()
        assert len(named) == 7
        for value, day in zip(named, read, strict=True):
            is_named_as_unread = value in ("01/03/2024", "01.03.2024")
            assert (day is None) == is_named_as_unread, value


def test_the_values_of_a_sparse_vector_are_no_vector(tmp_path):
    """Trap: sparse vectors of one length look like vectors of one width."""
    rows = [
        {
            "id": number,
            "payload": {"text": f"Document {number}. The lake keeps its ice until late spring."},
            "vector": {
                "dense": [number / 7 + i for i in range(8)],
                "sparse": {"indices": [number, 30, 31, 32], "values": [0.5, 0.25, number / 3, 1.5]},
            },
        }
        for number in range(20)
    ]
    (tmp_path / "points.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = inspection.draft(str(tmp_path / "points.jsonl"), None).text
    mapping = yaml.safe_load(text)["mapping"]
    assert mapping["vector"] == "vector.dense"
    assert "vectors" not in mapping


def test_a_column_that_lacks_an_element_is_named_and_refused_where_nothing_may_be_lost(tmp_path):
    columns = {"id": [*range(20)], "text": ["a text"] * 19, "title": ["a title"] * 20}
    path = tmp_path / "columns.json"
    path.write_text(json.dumps(columns))
    draft = inspection.draft(str(path), None)
    assert any("19 values in text" in warning for warning in draft.warnings)
    source = {"kind": "json", "uri": str(path), "orient": "list"}
    job = {"name": "n", "source": source, "mapping": {"id": "id"}, "target": {"uri": "t"}}
    with pytest.raises(ConfigError, match="the export is torn there"):
        preview(JobSpec.model_validate(job | {"strict": True}))
    # what Chroma's get() says of itself is no column
    chroma = {
        "ids": ["a", "b", "c"],
        "documents": ["x", "y", "z"],
        "included": ["documents", "ids"],
    }
    path.write_text(json.dumps(chroma))
    assert not inspection.draft(str(path), None).warnings
