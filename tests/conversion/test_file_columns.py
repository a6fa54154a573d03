"""``$file`` in a rule of the mapping is the record's file, and no field of the record."""

import pyarrow as pa
import pytest

from cfray.conversion.convert import Conversion
from cfray.conversion.rejects import RejectedRow, row_from_text, row_to_text
from cfray.errors import ConfigError
from cfray.job.spec import JobSpec
from cfray.joining import repair
from cfray.joining.quarantine import QuarantinedRow
from cfray.planning.plan import preview
from cfray.records.record import file_of, with_file
from cfray.sources.base import Context
from tests.sources.file_shapes import records, write_jsonl, write_parquet


def job_of(folder, mapping, kind="parquet"):
    return JobSpec.model_validate(
        {
            "name": "x",
            "source": {"kind": kind, "uri": str(folder)},
            "mapping": mapping,
            "target": {"uri": str(folder.parent / "out.lance")},
        }
    )


def frames_of(job):
    """Plan and convert a job in this process; return its frames as rows, by their original id."""
    plan, forecast = preview(job)
    conversion = Conversion(job, plan.shape)
    context = Context()
    converted = [
        conversion.convert(batch, "")
        for shard in plan.shards
        for batch in job.source.read(shard, context)
    ]
    assert not any(batch.faults for batch in converted)
    rows = [row for batch in converted for row in batch.frames.to_pylist()]
    for row in rows:
        row["metadata"] = {entry["key"]: entry["value"] for entry in row["custom_metadata"]}
    return {row["metadata"]["original_id"]: row for row in rows}, plan, forecast


@pytest.fixture(params=["parquet", "jsonl"])
def kind(request):
    return request.param


@pytest.fixture
def folder(tmp_path, kind):
    write = {"parquet": write_parquet, "jsonl": write_jsonl}[kind]
    write(tmp_path / f"t/train/a.b.{kind}", records(0, 1))
    write(tmp_path / f"t/test/deep/c.{kind}", records(1, 1))
    write(tmp_path / f"t/d.{kind}", records(2, 1))
    return tmp_path / "t"


def test_source_file_is_the_path_below_the_location(folder, kind):
    frames, plan, _ = frames_of(job_of(folder, {"id": "id"}, kind))
    assert {name: row["source_file"] for name, row in frames.items()} == {
        "d0": f"train/a.b.{kind}",
        "d1": f"test/deep/c.{kind}",
        "d2": f"d.{kind}",
    }
    assert not any("$file" in key for row in frames.values() for key in row["metadata"])
    assert set(plan.shape.types) == {"id", "n"}


def test_a_rule_takes_parts_of_the_path(folder, kind):
    mapping = {
        "id": "id",
        "source_file": "$file.name",
        "status": "$file.top",
        "context": "$file.folder",
        "title": {"template": "{$file.stem}: {id}"},
        "local_path": "$file",
    }
    frames, _, forecast = frames_of(job_of(folder, mapping, kind))
    names = ("source_file", "status", "context", "title", "local_path")
    read = {key: tuple(row[name] for name in names) for key, row in frames.items()}
    assert read == {
        "d0": (f"a.b.{kind}", "train", "train", "a.b: d0", f"train/a.b.{kind}"),
        "d1": (f"c.{kind}", "test", "test/deep", "c: d1", f"test/deep/c.{kind}"),
        "d2": (f"d.{kind}", None, None, "d: d2", f"d.{kind}"),
    }
    assert not any("$file" in note for note in forecast.notes)


def test_a_rule_without_a_value_leaves_the_column_null(folder, kind):
    write = {"parquet": write_parquet, "jsonl": write_jsonl}[kind]
    more = {"origin": ["here"]} if kind == "parquet" else {}
    some = records(9, 1) if kind == "parquet" else [records(9, 1)[0] | {"origin": "here"}]
    write(folder / f"e.{kind}", some, **more)
    frames, _, _ = frames_of(job_of(folder, {"id": "id", "source_file": "origin"}, kind))
    assert (frames["d9"]["source_file"], frames["d0"]["source_file"]) == ("here", None)


@pytest.mark.parametrize("rule", ["$file", "$file.stem", {"key": ["$file.top", "n"]}])
def test_the_file_may_be_an_id_or_a_part_of_it(folder, kind, rule):
    if rule == "$file.stem":
        (folder / f"d.{kind}").unlink()
    frames, _, _ = frames_of(job_of(folder, {"id": rule}, kind))
    assert set(frames) == {
        "$file": {f"train/a.b.{kind}", f"test/deep/c.{kind}", f"d.{kind}"},
        "$file.stem": {"a.b", "c"},
    }.get(rule if isinstance(rule, str) else "", {'["train",0]', '["test",1]', "[null,2]"})


def test_an_unknown_part_is_refused_with_the_nearest_name(folder, kind):
    with pytest.raises(ConfigError, match=r"did you mean \$file.folder"):
        preview(job_of(folder, {"id": "$file.foldr"}, kind))


def test_a_field_of_that_very_name_comes_first(tmp_path):
    table = records(0, 1)
    write_parquet(tmp_path / "t/a.parquet", table, **{"$file": ["own"]})
    frames, plan, _ = frames_of(job_of(tmp_path / "t", {"id": "id", "local_path": "$file"}))
    assert (frames["d0"]["local_path"], frames["d0"]["source_file"]) == ("own", "a.parquet")
    assert plan.shape.types["$file"] == "string"


def test_partition_keys_are_fields_for_every_rule(tmp_path):
    for number, lang in enumerate(["de", "__HIVE_DEFAULT_PARTITION__"]):
        write_parquet(tmp_path / f"t/year=2024/lang={lang}/a.parquet", records(number, 1))
    frames, plan, _ = frames_of(job_of(tmp_path / "t", {"id": "id", "status": "lang"}))
    assert {key: row["status"] for key, row in frames.items()} == {"d0": "de", "d1": None}
    assert [row["metadata"]["year"] for row in frames.values()] == ["2024", "2024"]
    assert (plan.shape.types["year"], plan.shape.types["lang"]) == ("string", "string")
    assert any("year, lang" in note for note in plan.notes)


def test_a_quarantined_record_keeps_its_file():
    batch = with_file(pa.record_batch({"id": ["a", "b"]}), "train/a.parquet")
    assert file_of(row_from_text(row_to_text(batch.slice(1, 1)))) == "train/a.parquet"


def test_a_replay_never_converts_records_of_two_files_at_once():
    long = "x" * 200
    rows = [
        QuarantinedRow(
            "q", "f", line, RejectedRow("convert", "why", "here", None, {}, row_to_text(batch))
        )
        for line, name in enumerate(["a", "b", "a"])
        for batch in [with_file(pa.record_batch({"id": ["a"]}), f"{long}/{name}.parquet")]
    ]
    groups = [[row.line for row in group] for group in repair._groups(iter(rows))]
    assert groups == [[0, 2], [1]]


def test_the_plan_shows_where_the_file_lands(folder, kind):
    def landings(mapping):
        _, forecast = preview(job_of(folder, mapping, kind))
        return {item.field: item.lands for item in forecast.landings if "$file" in item.field}

    assert landings({"id": "id"}) == {"$file": "source_file"}
    assert landings({"id": "id", "source_file": "n", "tags": "$file.top"}) == {"$file.top": "tags"}
    assert landings({"id": "id", "title": "$file"}) == {"$file": "source_file, title"}
