"""The kind ``frames``: exports of frames, whole or refused.

That every format brings every document back is proven by ``tests/scenarios/test_export.py``.
"""

from __future__ import annotations

import json

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from cfray.errors import ConfigError, SourceError
from cfray.frames.schema import frame_schema
from cfray.job.file import read_job
from cfray.job.spec import JobSpec
from cfray.records.values import type_name
from cfray.sources.base import Context
from cfray.sources.files.frames import MANIFEST, Frames

CONTEXT = Context()
ROWS = 5


def write(folder, **changes):
    """Write an export of two Parquet files."""
    folder.mkdir()
    schema = frame_schema(2, [pa.field("x_vector_origin", pa.string())])
    schema = pa.schema([pa.field(field.name, field.type) for field in schema])
    files = []
    for number in range(2):
        rows = [
            {
                "uuid": f"00000000-0000-0000-0000-{number:04}{row:08}",
                "title": f"t{row}",
                "vector": [1.0, row],
                "collection": "c",
                "collection_id": "00000000-0000-0000-0000-000000000000",
                "custom_metadata": [{"key": "original_id", "value": f"{number}-{row}"}],
                "record_type": "document",
                "x_vector_origin": "kept",
            }
            for row in range(ROWS)
        ]
        path = folder / f"part-{number}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
        data = path.read_bytes()
        file = {"path": path.name, "size": len(data), "digest": xxhash.xxh3_128_hexdigest(data)}
        files.append({"file": file, "rows": ROWS, "collection": ""})
    manifest = {
        "format": 1,
        "settings": {"format": "parquet", "form": "frames", "vectors": "list"},
        "source": "file:///x.lance",
        "rows": 2 * ROWS,
        "types": {"a": "int64"},
        "fields": [{"name": field.name, "type": type_name(field.type)} for field in schema],
        "files": files,
    }
    for key, value in changes.items():
        manifest["settings" if key in manifest["settings"] else key] = (
            {**manifest["settings"], key: value} if key in manifest["settings"] else value
        )
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return Frames(uri=str(folder))


def test_every_file_is_a_shard_and_every_row_a_frame(tmp_path):
    source = write(tmp_path / "x")
    shards = source.shards(CONTEXT)
    assert [shard.rows for shard in shards] == [ROWS, ROWS]
    assert shards == source.shards(CONTEXT)
    batches = [batch for shard in shards for batch in source.read(shard, CONTEXT)]
    description = source.describe(CONTEXT, shards)
    assert all(batch.schema == description.schema for batch in batches)
    assert sum(batch.num_rows for batch in batches) == description.rows == 2 * ROWS
    assert description.frame_types == {"a": "int64"}


def test_batches_are_bounded_in_bytes(tmp_path):
    source = write(tmp_path / "x")
    (first, *_) = source.shards(CONTEXT)
    sizes = [batch.num_rows for batch in source.read(first, Context(batch_bytes=1))]
    assert sizes == [1] * ROWS


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_file_that_is_not_what_was_exported_is_refused(tmp_path, damage):
    source = write(tmp_path / "x")
    shards = source.shards(CONTEXT)
    path = tmp_path / "x" / "part-0.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:-9])
    with pytest.raises(SourceError, match=r"part-0\.parquet"):
        list(source.read(shards[0], CONTEXT))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"form": "records"}, "holds records"),
        ({"vectors": "none"}, "vectors as none"),
        ({"fields": [{"name": "uuid", "type": "string"}]}, "frames without collection"),
        ({"fields": 7}, "is no manifest"),
    ],
)
def test_an_export_that_is_no_dataset_is_refused(tmp_path, changes, said):
    with pytest.raises(SourceError, match=said):
        write(tmp_path / "x", **changes).shards(CONTEXT)


def test_a_folder_that_is_no_export_is_refused(tmp_path):
    with pytest.raises(SourceError, match="it is no export of cfray's"):
        Frames(uri=str(tmp_path)).shards(CONTEXT)


def job(**sections):
    body = {"name": "x", "source": {"kind": "frames", "uri": "x"}, "target": {"uri": "y"}}
    return {**body, **sections}


def test_a_job_of_frames_maps_nothing():
    made = JobSpec.model_validate(job())
    assert made.mapping.keep_uuid
    # as a later command makes it of what was agreed
    again = JobSpec.model_validate(job(**made.agreed))
    assert again.fingerprint == made.fingerprint
    with pytest.raises(ValueError, match="leave mapping out"):
        JobSpec.model_validate(job(mapping={"title": "name"}))
    with pytest.raises(ValueError, match="cfray embed"):
        JobSpec.model_validate(job(embedding={"policy": "regenerate", "model": "m"}))


def test_a_job_file_of_frames_says_what_is_wrong(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(job(mapping={"title": "name"})))
    with pytest.raises(ConfigError, match="leave mapping out"):
        read_job(path)


@pytest.mark.parametrize("path", ["../part-0.parquet", "/etc/hostname", "a/../../x"])
def test_a_manifest_that_leads_out_of_the_folder_is_refused(tmp_path, path):
    source = write(tmp_path / "x")
    manifest = json.loads((tmp_path / "x" / MANIFEST).read_text())
    manifest["files"][0]["file"]["path"] = path
    (tmp_path / "x" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(SourceError, match="outside of the folder"):
        source.shards(CONTEXT)


def write_lance(folder):
    """Make the Parquet export a Lance dataset."""
    source = write(folder)
    tables = [pq.read_table(folder / f"part-{number}.parquet") for number in range(2)]
    dataset = lance.write_dataset(pa.concat_tables(tables), str(folder))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["settings"]["format"] = "lance"
    manifest["files"] = []
    for fragment in dataset.get_fragments():
        for file in fragment.metadata.files:
            data = (folder / "data" / file.path).read_bytes()
            digest = xxhash.xxh3_128_hexdigest(data)
            body = {"path": f"data/{file.path}", "size": len(data), "digest": digest}
            manifest["files"].append({"file": body, "rows": 2 * ROWS, "collection": ""})
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return source, dataset


def test_a_lance_dataset_is_read_for_its_hashes(tmp_path):
    source, _ = write_lance(tmp_path / "x")
    shards = source.shards(CONTEXT)
    batches = [batch for shard in shards for batch in source.read(shard, CONTEXT)]
    assert sum(batch.num_rows for batch in batches) == 2 * ROWS
    (path,) = (tmp_path / "x" / "data").glob("*.lance")
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(SourceError, match="is not what was exported"):
        list(source.read(shards[0], CONTEXT))


def test_a_lance_dataset_that_was_changed_since_is_refused(tmp_path):
    source, dataset = write_lance(tmp_path / "x")
    dataset.delete("title = 't1'")
    with pytest.raises(SourceError, match="was changed since"):
        source.shards(CONTEXT)
    dataset.insert(dataset.to_table(limit=2))
    shards = source.shards(CONTEXT)
    with pytest.raises(SourceError, match="is not what was exported"):
        list(source.read(shards[-1], CONTEXT))
