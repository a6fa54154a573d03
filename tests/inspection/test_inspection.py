"""An inspection drafts a job file that runs unedited on a sane export.

Each guess of the draft stands beside its reason, and the draft never invents an id: where no field
is unique, the line stays empty and the job file is refused.
"""

import csv
import json
import random
import re
import string
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from cfray.errors import ConfigError
from cfray.inspection import source as inspection
from cfray.inspection.drafts import plain, scalar
from cfray.inspection.plain_names import plain_name
from cfray.inspection.text_looks import is_data, is_prose
from cfray.job.file import read_job
from cfray.job.mapping import as_path
from cfray.planning.plan import preview

KINDS = ("parquet", "jsonl", "json", "csv", "arrow", "lance")


def make_rows(count=200):
    """Return the rows of a sane export: each field has the type that its name suggests."""
    random_numbers = random.Random(7)
    ids = [str(uuid.UUID(int=random_numbers.getrandbits(128), version=4)) for _ in range(count)]
    return [
        {
            "uuid": ids[n],
            "title": f"Note {n}",
            "body": " ".join(
                random_numbers.choice(["alpha", "beta", "gamma", "delta"]) for _ in range(60)
            ),
            "embedding": [random_numbers.uniform(-1, 1) for _ in range(16)],
            "score": random_numbers.random(),
            "views": random_numbers.randrange(count),
            "parent": ids[n // 3] if n % 3 else None,
            "published": (datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=n)).isoformat(),
            "tags": random_numbers.sample(["red", "green", "blue"], 2),
            "category": random_numbers.choice(["news", "essay"]),
            "zip": f"{n % 100:05d}",
        }
        for n in range(count)
    ]


def write_export(folder, kind, rows, name="notes"):
    """Write rows to a file without cfray, and return its path."""
    path = folder / f"{name}.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(
                {
                    key: json.dumps(value) if isinstance(value, list) else value
                    for key, value in row.items()
                }
                for row in rows
            )
    else:
        table = pa.Table.from_pylist(rows)
        if kind == "parquet":
            pq.write_table(table, path, row_group_size=50)
        elif kind == "arrow":
            with ipc.new_file(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=50)
        else:
            lance.write_dataset(table, path)
    return path


def draft_and_plan(source, out):
    """Draft a job file, write the draft unedited, and plan its job.

    Returns:
        The job, its plan, the forecast of the preview, and the guesses by key.
    """
    draft = inspection.draft(str(source), out)
    out.write_text(draft.text)
    job = read_job(out)
    plan, forecast = preview(job)
    return job, plan, forecast, {guess["key"]: guess for guess in draft.guesses}


class TestSaneExports:
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_draft_runs_unedited_and_its_guesses_are_right(self, tmp_path, kind):
        export_path = write_export(tmp_path, kind, make_rows())
        job, plan, forecast, guesses = draft_and_plan(export_path, tmp_path / "job.yaml")
        mapping = job.mapping.model_dump(exclude_unset=True)
        assert mapping == {
            "id": "uuid",
            "text_content": "body",
            "title": "title",
            "vector": "embedding",
            "tags": "tags",
            "created_at": "published",
            "relationships": [{"type": "parent", "to": "parent"}],
        }
        assert (job.name, job.source.kind, job.source.uri) == ("notes", kind, str(export_path))
        assert plan.shape.dimension == 16
        assert not forecast.quarantined
        assert not forecast.lossy
        assert forecast.duplicates == 0
        assert guesses["mapping.id"]["why"] == "unique in 200 of 200 sampled records"
        assert guesses["mapping.vector"]["why"] == "16 numbers in every sampled record"
        assert (
            guesses["mapping.relationships"]["why"]
            == "every sampled value is an id of another record"
        )

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_guess_stands_in_the_draft_with_its_reason(self, tmp_path, kind):
        draft = inspection.draft(
            str(write_export(tmp_path, kind, make_rows(30))), tmp_path / "job.yaml"
        )
        for guess in draft.guesses:
            assert any(
                guess["why"] in line and guess["key"].rpartition(".")[2][:8] in line
                for line in draft.text.replace("- {", "relationships").splitlines()
            )
        assert "# collection: category" in draft.text
        assert "# keep_uuid: true" in draft.text
        assert "# index:" in draft.text

    def test_a_folder_is_sampled_from_its_first_and_last_file(self, tmp_path):
        folder = tmp_path / "my notes"
        folder.mkdir()
        rows = make_rows(90)
        for number in range(3):
            write_export(
                folder, "jsonl", rows[number * 30 : number * 30 + 30], name=f"part-{number}"
            )
        (folder / "README.md").write_text("not data")
        job, plan, *_ = draft_and_plan(folder, tmp_path / "job.yaml")
        assert (job.name, job.mapping.id, plan.shape.dimension) == ("my-notes", "uuid", 16)
        assert "uri: ./my notes" in (tmp_path / "job.yaml").read_text()

    @pytest.mark.parametrize("kind", ["jsonl", "csv"])
    def test_compressed_files_are_known_by_the_suffix_before(self, tmp_path, kind):
        export_path = write_export(tmp_path, kind, make_rows(20))
        compressed_path = tmp_path / f"notes.{kind}.gz"
        with pa.output_stream(str(compressed_path), compression="gzip") as stream:
            stream.write(export_path.read_bytes())
        job, *_ = draft_and_plan(compressed_path, tmp_path / "job.yaml")
        assert (job.name, job.source.kind, job.mapping.id) == ("notes", kind, "uuid")


class TestLocations:
    def test_without_out_the_source_is_absolute_and_the_draft_runs_anywhere(
        self, tmp_path, monkeypatch
    ):
        write_export(tmp_path, "jsonl", make_rows(20))
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(tmp_path)
        (elsewhere / "job.yaml").write_text(inspection.draft("notes.jsonl", None).text)
        job = read_job(elsewhere / "job.yaml")
        assert job.source.uri == str(tmp_path / "notes.jsonl")
        assert job.target.uri == str(elsewhere / "notes.lance")
        preview(job)

    def test_with_out_the_source_is_relative_to_the_draft(self, tmp_path):
        export_path = write_export(tmp_path, "jsonl", make_rows(20))
        (tmp_path / "jobs").mkdir()
        job, *_ = draft_and_plan(export_path, tmp_path / "jobs/job.yaml")
        assert "uri: ../notes.jsonl" in (tmp_path / "jobs/job.yaml").read_text()
        assert job.source.uri == str(export_path)

    def test_the_target_is_never_the_source_nor_inside_it(self, tmp_path):
        dataset = write_export(tmp_path, "lance", make_rows(20))
        assert draft_and_plan(dataset, tmp_path / "job.yaml")[0].target.uri == str(
            tmp_path / "notes-frames.lance"
        )
        folder = tmp_path / "export"
        folder.mkdir()
        write_export(folder, "json", make_rows(20))
        for source in (folder, folder / "*.json"):
            assert draft_and_plan(source, folder / "job.yaml")[0].target.uri == str(
                tmp_path / "export.lance"
            )

    def test_the_target_is_not_something_that_is_there_already(self, tmp_path):
        write_export(tmp_path, "lance", make_rows(20))
        export_path = write_export(tmp_path, "jsonl", make_rows(20))
        assert draft_and_plan(export_path, tmp_path / "job.yaml")[0].target.uri == str(
            tmp_path / "notes-frames.lance"
        )


class TestYaml:
    def test_a_source_section_keeps_its_options_and_the_name(self, tmp_path):
        write_export(tmp_path, "csv", make_rows(20))
        (tmp_path / "s.yaml").write_text(
            "name: Old notes\n"
            "source: {kind: csv, uri: notes.csv, shard_bytes: 1KiB, types: {score: float}}\n"
        )
        job, *_ = draft_and_plan(tmp_path / "s.yaml", tmp_path / "job.yaml")
        assert (
            job.name,
            job.source.shard_bytes,
            job.source.types["score"],
            job.source.types["views"],
        ) == ("Old notes", 1024, "float", "int64")
        assert job.target.uri == str(tmp_path / "Old-notes.lance")

    def test_the_kind_may_be_left_out_and_the_target_given(self, tmp_path):
        write_export(tmp_path, "jsonl", make_rows(20))
        (tmp_path / "out").mkdir()
        (tmp_path / "s.yaml").write_text(
            "source: {uri: notes.jsonl}\ntarget: {uri: there.lance}\nmapping: {id: nonsense}\n"
        )
        job, *_ = draft_and_plan(tmp_path / "s.yaml", tmp_path / "out/job.yaml")
        assert (job.source.kind, job.mapping.id, job.target.uri) == (
            "jsonl",
            "uuid",
            str(tmp_path / "there.lance"),
        )
        assert (
            "not taken over from the inspected file: mapping"
            in (tmp_path / "out/job.yaml").read_text()
        )

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("source: {kind: parqet, uri: x}", "did you mean parquet"),
            (
                "source: {kind: jsonl, uri: notes.jsonl, delimitr: x}",
                "source.delimitr: unknown key",
            ),
            ("source: {kind: jsonl, uri: notes.jsonl}\nsauce: 1", "unknown key"),
            ("sources: {}", "no section source"),
            ("[1]", "holds no job"),
        ],
    )
    def test_a_wrong_file_is_refused_by_name(self, tmp_path, text, reason):
        write_export(tmp_path, "jsonl", make_rows(3))
        (tmp_path / "s.yaml").write_text(text)
        with pytest.raises(ConfigError, match=reason):
            inspection.draft(str(tmp_path / "s.yaml"), None)


class TestRefusals:
    def test_a_location_without_files_is_refused(self, tmp_path):
        (tmp_path / "empty").mkdir()
        for name in ("empty", "missing.jsonl", "empty/*.csv"):
            with pytest.raises(ConfigError, match="no file at"):
                inspection.draft(str(tmp_path / name), None)

    def test_files_of_two_kinds_need_two_jobs(self, tmp_path):
        write_export(tmp_path, "jsonl", make_rows(3))
        write_export(tmp_path, "csv", make_rows(3))
        with pytest.raises(ConfigError, match="needs a job for each of: csv, jsonl"):
            inspection.draft(str(tmp_path), None)
        assert [draft.label for draft in inspection.draft_all(str(tmp_path), None)] == [
            "csv",
            "jsonl",
        ]
        assert inspection.draft(str(tmp_path / "*.csv"), None).guesses

    def test_an_unknown_suffix_lists_the_known_kinds(self, tmp_path):
        (tmp_path / "notes.bin").write_bytes(b"x")
        with pytest.raises(ConfigError, match=r"no known kind of file.*notes.bin") as caught:
            inspection.draft(str(tmp_path / "notes.bin"), None)
        assert all(kind in caught.value.remedy for kind in KINDS)

    def test_a_damaged_file_is_the_command_lines_fault_too(self, tmp_path):
        (tmp_path / "notes.parquet").write_bytes(b"no parquet")
        with pytest.raises(ConfigError, match="Parquet"):
            inspection.draft(str(tmp_path / "notes.parquet"), None)

    def test_a_file_without_a_readable_row_is_refused(self, tmp_path):
        (tmp_path / "notes.csv").write_bytes("id,text\n1,café\n".encode("latin-1"))
        (tmp_path / "s.yaml").write_text("source: {kind: csv, uri: notes.csv, encoding: utf-8}\n")
        with pytest.raises(ConfigError, match="not valid utf-8"):
            inspection.draft(str(tmp_path / "s.yaml"), None)
        assert "encoding: cp1252" in inspection.draft(str(tmp_path / "notes.csv"), None).text

    def test_a_draft_path_that_cannot_be_written_is_refused(self, tmp_path):
        export_path = write_export(tmp_path, "jsonl", make_rows(3))
        for out in (tmp_path, tmp_path / "no/such/job.yaml"):
            with pytest.raises(ConfigError, match="cannot write"):
                inspection.draft(str(export_path), out)


class TestIds:
    def test_without_an_id_the_line_is_empty_and_the_draft_is_refused(self, tmp_path):
        rows = [{"text": "some words", "n": n % 3, "size": n * n} for n in range(30)]
        draft = inspection.draft(str(write_export(tmp_path, "jsonl", rows)), tmp_path / "job.yaml")
        assert "  id:   # FILL THIS IN" in draft.text
        (tmp_path / "job.yaml").write_text(draft.text)
        with pytest.raises(ConfigError, match=r"mapping\.id: is empty; write the name of a field"):
            read_job(tmp_path / "job.yaml")

    def test_one_record_proves_no_unnamed_id(self, tmp_path):
        assert (
            "id:   # FILL"
            in inspection.draft(
                str(write_export(tmp_path, "jsonl", [{"slot": "x1", "views": 5, "text": "words"}])),
                None,
            ).text
        )

    def test_a_unique_field_is_the_id_whatever_its_name(self, tmp_path):
        rows = [{"url": f"https://example.org/{n}", "text": "some words"} for n in range(20)]
        assert (
            draft_and_plan(write_export(tmp_path, "parquet", rows), tmp_path / "job.yaml")[
                0
            ].mapping.id
            == "url"
        )

    def test_a_pair_where_no_field_alone_is_unique(self, tmp_path):
        rows = [
            {"doc_id": n // 2, "tenant": f"t{n % 2}", "text": "the same words"} for n in range(40)
        ]
        job, _, forecast, _ = draft_and_plan(
            write_export(tmp_path, "parquet", rows), tmp_path / "job.yaml"
        )
        assert job.mapping.id.key == ["tenant", "doc_id"]
        assert not forecast.duplicates

    def test_three_fields_where_no_two_are_unique(self, tmp_path):
        rows = [
            {
                "lang": "de" if n % 2 else "en",
                "doc_id": n // 12,
                "chunk": n // 2 % 6,
                "text": "words",
            }
            for n in range(48)
        ]
        job, _, forecast, guesses = draft_and_plan(
            write_export(tmp_path, "parquet", rows), tmp_path / "job.yaml"
        )
        assert job.mapping.id.key == ["lang", "doc_id", "chunk"]
        assert guesses["mapping.id"]["why"].startswith("no field alone is unique; these 3 together")
        assert not forecast.duplicates

    def test_few_duplicates_do_not_hide_the_id_and_are_reported(self, tmp_path):
        rows = make_rows(300)
        rows[40]["uuid"] = rows[39]["uuid"]
        job, _, _, guesses = draft_and_plan(
            write_export(tmp_path, "jsonl", rows), tmp_path / "job.yaml"
        )
        assert job.mapping.id == "uuid"
        assert guesses["mapping.id"]["why"].startswith("unique in 298 of 300 sampled records; ")

    def test_a_named_field_that_repeats_is_no_id(self, tmp_path):
        rows = [
            {"id": n % 5, "isbn": f"978-{n}", "title": f"T{n}", "text": "words " * 20}
            for n in range(30)
        ]
        assert (
            draft_and_plan(write_export(tmp_path, "jsonl", rows), tmp_path / "job.yaml")[
                0
            ].mapping.id
            == "isbn"
        )

    def test_a_unique_measure_is_no_id(self, tmp_path):
        rows = [
            {
                "size": (n * 37) % 101,
                "bytes": n * n,
                "at": f"2024-01-{n + 1:02d}",
                "text": f"words {n}",
            }
            for n in range(28)
        ]
        assert (
            "id:   # FILL"
            in inspection.draft(str(write_export(tmp_path, "jsonl", rows)), None).text
        )


class TestPassedOver:
    def test_a_better_named_field_that_is_no_id_is_named_with_its_reason(self, tmp_path):
        rows = [
            {"id": n % 5, "key": float(n), "isbn": f"978-{n}", "text": "words " * 20}
            for n in range(30)
        ]
        text = inspection.draft(str(write_export(tmp_path, "parquet", rows)), None).text
        assert "passed over: key (of type double, which cannot be an id)" in text
        assert "id (unique in 0 of 30)" in text

    def test_a_row_number_that_begins_anew_in_a_second_file_is_an_id_with_its_file(self, tmp_path):
        (tmp_path / "parts").mkdir()
        for part in ("a", "b"):
            rows = [{"row": n, "text": f"words of part {part}, number {n}"} for n in range(200)]
            write_export(tmp_path / "parts", "parquet", rows, name=part)
        job, _, forecast, _ = draft_and_plan(tmp_path / "parts", tmp_path / "job.yaml")
        assert job.mapping.id.key == ["$file", "row"]
        assert not forecast.duplicates

    def test_single_objects_beside_an_export_are_named_and_not_drafted(self, tmp_path):
        (tmp_path / "hub").mkdir()
        write_export(tmp_path / "hub", "parquet", make_rows(20))
        (tmp_path / "hub/stats.json").write_text('{"splits": {"train": 20}}')
        (tmp_path / "hub/notes.pdf").write_bytes(b"%PDF-1.7")
        draft = inspection.draft(str(tmp_path / "hub"), tmp_path / "job.yaml")
        assert "stats.json" in draft.text
        assert re.search(r"# not read \(2\), another kind of file.*notes\.pdf", draft.text)
        (tmp_path / "job.yaml").write_text(draft.text)
        assert read_job(tmp_path / "job.yaml").name == "hub"

    def test_the_head_of_every_file_counts(self, tmp_path):
        """A field of a later file is a field, and an id that a later file lacks is none."""
        (tmp_path / "parts").mkdir()
        for part in range(30):
            rows = [
                {"id": part * 10 + n, "text": f"words {part} {n}"}
                | ({"author": "Ann"} if part else {})
                for n in range(10)
            ]
            write_export(tmp_path / "parts", "jsonl", rows, name=f"p{part:02d}")
        job, *_ = draft_and_plan(tmp_path / "parts", tmp_path / "job.yaml")
        assert (job.mapping.id, job.mapping.author) == ("id", "author")

    def test_a_line_that_costs_records_is_left_out_and_says_why(self, tmp_path):
        rows = [{"id": n, "text": "words", "embedding": [0.5] * 8} for n in range(100)]
        for row in rows[:3]:
            row["embedding"] = [0.5] * 9
        text = inspection.draft(str(write_export(tmp_path, "jsonl", rows)), None).text
        assert "limits: {max_quarantined: 0.05}   # 3 of 100 sampled records" in text


class TestTextLooks:
    @pytest.mark.parametrize(
        ("text", "data", "prose"),
        [
            ("The lake keeps ice until late spring.", False, True),
            ("湖面的冰到春天才化", False, True),
            ("ทะเลสาบมีน้ำแข็ง", False, True),
            ("[Verse 1] The lake keeps ice", False, True),
            ('{"html": "the lake keeps ice until spring"}', True, False),
            ("[0.1, 0.2, 0.3]", True, False),
            ("[ 0.1  0.2\n -0.3]", True, False),
            ("2024-05-06 07:08", True, False),
            ("iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4", True, False),
            ("https://example.org/a", False, False),
            ("", False, False),
        ],
    )
    def test_prose_is_told_from_data(self, text, data, prose):
        assert (is_data(text), is_prose(text)) == (data, prose)

    @pytest.mark.parametrize(
        ("name", "plain_text"),
        [
            ("publishedAt", "published_at"),
            ("Published-At", "published_at"),
            ("Título", "titulo"),
            ("HTMLBody", "html_body"),
            ("_id", "id"),
            ("Überschrift", "uberschrift"),
            ("标题", "标题"),
            ("Unnamed: 0", "unnamed_0"),
        ],
    )
    def test_names_are_compared_in_one_spelling(self, name, plain_text):
        assert plain_name(name) == plain_text


class TestFields:
    def test_names_with_dots_and_nested_fields(self, tmp_path):
        rows = [
            {
                "_id": {"$oid": f"{n:024x}"},
                "doc.text": "many words " * 10,
                "meta": {
                    "by": "Ann",
                    "head.line": f"T{n}",
                    "deep": {"vec": [n * 0.5 + i for i in range(8)]},
                },
                "links": [f"{(n + 1) % 40:024x}"],
                "updatedAt": "2024-05-06T07:08:09Z",
            }
            for n in range(40)
        ]
        rows[3]["meta"] = None
        for kind in ("jsonl", "parquet"):
            export_path = write_export(tmp_path, kind, rows, name=kind)
            job, plan, forecast, _ = draft_and_plan(export_path, tmp_path / f"{kind}.yaml")
            mapping = job.mapping
            assert (mapping.id, as_path(mapping.text_content), mapping.author) == (
                "_id.$oid",
                ("doc.text",),
                "meta.by",
            )
            assert (mapping.vector, mapping.updated_at, plan.shape.dimension) == (
                "meta.deep.vec",
                "updatedAt",
                8,
            )
            assert [(rule.type, rule.to) for rule in mapping.relationships] == [
                ("reference", "links")
            ]
            assert not forecast.quarantined

    @pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
    def test_of_several_vectors_the_field_named_embedding_is_primary(self, tmp_path, kind):
        rows = [
            {
                "id": n,
                "title.vec": [n + i / 4 for i in range(8)],
                "embedding": [n + i / 8 for i in range(12)],
                "text": "w",
            }
            for n in range(20)
        ]
        job, plan, forecast, _ = draft_and_plan(
            write_export(tmp_path, kind, rows), tmp_path / "job.yaml"
        )
        assert job.mapping.vector == "embedding"
        assert {name: as_path(value) for name, value in job.mapping.vectors.items()} == {
            "title_vec": ("title.vec",)
        }
        assert (plan.shape.dimension, forecast.quarantined) == (12, {})

    def test_lists_of_other_widths_are_no_vectors(self, tmp_path):
        rows = [
            {
                "id": n,
                "text": "w",
                "box": [0.5, 0.5],
                "tokens": list(range(n % 9 + 8)),
                "tail": [0.5] * (8 + n % 2),
            }
            for n in range(20)
        ]
        assert (
            draft_and_plan(write_export(tmp_path, "jsonl", rows), tmp_path / "job.yaml")[
                0
            ].mapping.vector
            is None
        )

    def test_vectors_of_several_widths_are_named_and_those_of_most_are_mapped(self, tmp_path):
        rows = [
            {"id": n, "text": "w", "embedding": [0.5] * (8 + 8 * (n % 3 == 0))} for n in range(21)
        ]
        export_path = write_export(tmp_path, "jsonl", rows)
        job, plan, forecast, _ = draft_and_plan(export_path, tmp_path / "job.yaml")
        assert (job.mapping.vector.path, job.mapping.vector.other_widths) == ("embedding", "keep")
        assert (plan.shape.dimension, forecast.quarantined) == (8, {})
        assert any(
            note.startswith("7 of 21 sampled records have a vector of") for note in plan.notes
        )
        text = (tmp_path / "job.yaml").read_text()
        assert "   # vectors of several widths (8 numbers in 14, 16 numbers in 7 sampled" in text

    def test_numbers_that_happen_to_be_ids_are_no_references(self, tmp_path):
        rows = [
            {"id": n, "views": n // 2, "author_id": n % 4, "reply_to": n // 2, "text": "words"}
            for n in range(40)
        ]
        job, *_ = draft_and_plan(write_export(tmp_path, "csv", rows), tmp_path / "job.yaml")
        assert [rule.to for rule in job.mapping.relationships] == ["reply_to"]

    def test_references_to_nothing_in_the_source_are_left_alone(self, tmp_path):
        rows = [
            {"id": f"a{n}", "parent_id": f"other-{n}", "category": "x", "text": "words"}
            for n in range(40)
        ]
        assert (
            draft_and_plan(write_export(tmp_path, "jsonl", rows), tmp_path / "job.yaml")[
                0
            ].mapping.relationships
            == []
        )

    def test_a_field_is_a_date_by_its_type_or_because_its_texts_are_dates(self, tmp_path):
        rows = [
            {
                "id": n,
                "text": "w",
                "created": datetime(2024, 1, 1, tzinfo=UTC),
                "modified": "soon",
                "posted": "2024-01-01",
            }
            for n in range(20)
        ]
        mapping = draft_and_plan(write_export(tmp_path, "parquet", rows), tmp_path / "job.yaml")[
            0
        ].mapping
        assert (mapping.created_at, mapping.updated_at) == ("created", None)

    def test_epoch_numbers_are_not_guessed(self, tmp_path):
        rows = [{"id": n, "text": "w", "created_at": 1_700_000_000 + n} for n in range(20)]
        assert (
            draft_and_plan(write_export(tmp_path, "jsonl", rows), tmp_path / "job.yaml")[
                0
            ].mapping.created_at
            is None
        )

    def test_csv_types_are_declared_only_where_no_character_is_lost(self, tmp_path):
        rows = [
            {
                "id": n,
                "text": "w",
                "n": n,
                "half": n / 2,
                "price": f"{n}.50",
                "zip": f"0{n}",
                "phone": n,
                "ok": "true",
                "yes": "True",
                "day": "2024-01-02",
            }
            for n in range(20)
        ]
        rows[5]["n"] = ""
        job, *_ = draft_and_plan(write_export(tmp_path, "csv", rows), tmp_path / "job.yaml")
        assert job.source.types == {"n": "int64", "half": "double", "ok": "bool", "day": "date32"}
        text = (tmp_path / "job.yaml").read_text()
        assert all(f"# {name}: " in text for name in ("price", "zip", "phone", "'yes'"))

    @pytest.mark.parametrize("delimiter", ["\t", ";", "|"])
    def test_the_delimiter_is_found_in_the_header(self, tmp_path, delimiter):
        with (tmp_path / "notes.csv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerows([["id", "text, with comma", "n"], *([n, "a, b", n] for n in range(9))])
        job, *_ = draft_and_plan(tmp_path / "notes.csv", tmp_path / "job.yaml")
        assert (job.source.delimiter, job.mapping.id) == (delimiter, "id")

    def test_rows_that_cannot_be_read_are_reported(self, tmp_path):
        export_path = write_export(tmp_path, "jsonl", make_rows(20))
        export_path.write_text(export_path.read_text() + "{oops\n")
        assert (
            "# 1 row of the sample cannot be read and would go to quarantine: line: not JSON"
            in inspection.draft(str(export_path), None).text
        )


class TestYamlText:
    @given(
        st.recursive(
            st.text(),
            lambda values: (
                st.lists(values, max_size=3)
                | st.dictionaries(st.text(max_size=5), values, max_size=3)
            ),
        )
    )
    def test_any_value_stands_on_one_line_inside_braces(self, value):
        assert len(scalar(value).splitlines()) <= 1
        assert yaml.safe_load("{a: " + scalar(value) + ", b: 1}   # why") == {"a": value, "b": 1}

    @given(st.text())
    def test_any_comment_stays_a_comment(self, text):
        assert yaml.safe_load(f"a: 1   # {plain(text)}\nb: 2\n") == {"a": 1, "b": 2}

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        st.text(st.characters(codec="utf-8"), max_size=12).filter(
            lambda name: name not in ("id", "n")
        )
    )
    def test_a_field_of_any_name_can_be_the_text(self, tmp_path, name):
        rows = [
            {
                "id": n,
                name: "many words that read like a document, do they not",
                "n": {name: string.ascii_letters},
            }
            for n in range(5)
        ]
        (tmp_path / "any.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        job, *_ = draft_and_plan(tmp_path / "any.jsonl", tmp_path / "job.yaml")
        text_rules = [
            rule
            for rule in (job.mapping.text_content, job.mapping.title, job.mapping.author)
            if rule is not None
        ]
        assert as_path(text_rules[0])[-1] == name


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
    | st.sampled_from(["2024-01-02T03:04:05Z", "the lake keeps ice until late spring " * 3])
    | st.lists(st.floats(-1, 1), min_size=8, max_size=8),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "text", "a.b", "x[0]", "vector"]), values)
    ),
    max_leaves=6,
)
_NAMES = ["id", "title", "text", "vector", "embedding", "parent_id", "tags", "meta", "$file", ""]


class TestAnyRecords:
    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.lists(st.dictionaries(st.sampled_from(_NAMES), _VALUES), min_size=1, max_size=12))
    def test_a_draft_with_an_id_has_a_plan(self, tmp_path, records):
        lines = [json.dumps({"pid": f"k{n}", **record}) for n, record in enumerate(records)]
        (tmp_path / "any.jsonl").write_text("\n".join(lines) + "\n")
        (draft,) = inspection.draft_all(str(tmp_path / "any.jsonl"), tmp_path / "job.yaml")
        (tmp_path / "job.yaml").write_text(draft.text)
        assert any(guess["key"] == "mapping.id" and guess["value"] for guess in draft.guesses)
        preview(read_job(tmp_path / "job.yaml"))


class TestCommand:
    def inspect(self, folder, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "cfray.cli", "inspect", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_it_writes_the_draft_and_answers_in_json(self, tmp_path):
        write_export(tmp_path, "jsonl", make_rows(20))
        process = self.inspect(tmp_path, "notes.jsonl", "--out", "job.yaml", "--json")
        assert process.returncode == 0, process.stderr
        answer = json.loads(process.stdout)
        assert answer["job_file"] == (tmp_path / "job.yaml").read_text()
        (draft,) = answer["drafts"]
        assert (draft["file"], draft["guesses"]) == ("job.yaml", answer["guesses"])
        assert {
            "key": "mapping.id",
            "value": "uuid",
            "why": "unique in 20 of 20 sampled records",
        } in answer["guesses"]
        preview(read_job(tmp_path / "job.yaml"))

    def test_two_kinds_are_two_files_two_documents_or_two_drafts(self, tmp_path):
        (tmp_path / "data").mkdir()
        write_export(tmp_path / "data", "jsonl", make_rows(20))
        write_export(tmp_path / "data", "csv", make_rows(20))
        process = self.inspect(tmp_path, "data", "--out", "job.yaml")
        assert process.returncode == 0, process.stderr
        assert not (tmp_path / "job.yaml").exists()
        assert "data needs 2 jobs, and here is a draft for each" in process.stderr
        for kind in ("csv", "jsonl"):
            assert f"wrote job-{kind}.yaml; next: cfray plan job-{kind}.yaml" in process.stderr
            job = read_job(tmp_path / f"job-{kind}.yaml")
            assert (job.name, job.source.kind) == (f"data-{kind}", kind)
            preview(job)
        again = self.inspect(tmp_path, "data", "--out", "job.yaml")
        assert (again.returncode, "job-csv.yaml exists" in again.stderr) == (2, True)
        documents = list(yaml.safe_load_all(self.inspect(tmp_path, "data").stdout))
        assert [document["source"]["kind"] for document in documents] == ["csv", "jsonl"]
        answer = json.loads(self.inspect(tmp_path, "data", "--json").stdout)
        assert [yaml.safe_load(draft["job_file"])["name"] for draft in answer["drafts"]] == [
            "data-csv",
            "data-jsonl",
        ]
        assert "job_file" not in answer

    def test_a_refusal_is_exit_2_without_a_traceback(self, tmp_path):
        process = self.inspect(tmp_path, "nothing.csv")
        assert (process.returncode, process.stdout) == (2, "")
        assert "remedy:" in process.stderr
        assert "Traceback" not in process.stderr


class TestNumberedColumns:
    @pytest.mark.parametrize("kind", ["parquet", "csv"])
    def test_a_vector_spread_over_columns_is_named(self, tmp_path, kind):
        rows = [
            {"id": n, "text": f"words of {n}"} | {f"v{k}": n + k / 7 for k in range(32)}
            for n in range(20)
        ]
        draft = inspection.draft(str(write_export(tmp_path, kind, rows)), tmp_path / "job.yaml")
        assert "v0 to v31 look like a vector of 32 numbers" in draft.text

    def test_a_few_numbers_are_no_vector(self, tmp_path):
        rows = [{"id": n, "text": "words"} | {f"q{k}": n / 3 for k in range(9)} for n in range(20)]
        draft = inspection.draft(
            str(write_export(tmp_path, "parquet", rows)), tmp_path / "job.yaml"
        )
        assert "look like a vector" not in draft.text
