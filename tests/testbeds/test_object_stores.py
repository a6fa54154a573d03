"""Lance and pyarrow use every S3 store with the four variables that a user sets."""

from __future__ import annotations

import os
import subprocess
import sys

import lance
import pyarrow as pa
import pytest
from lance.commit import CommitConflictError
from lance.schema import LanceSchema

from cfray.errors import TargetError, TargetUnavailable
from cfray.runtime.filesystems import Folder, open_filesystem, storage_options

ROWS = pa.table({"uuid": [f"row {number}" for number in range(200)], "number": list(range(200))})


def merge_commit(dataset: lance.LanceDataset, rows: pa.Table, ledger: str) -> lance.LanceDataset:
    """Commit rows and ledger as cfray does: one Merge on the version read, never retried."""
    new = lance.fragment.write_fragments(
        rows, dataset.uri, schema=dataset.schema, storage_options=storage_options(dataset.uri)
    )
    schema = LanceSchema.from_pyarrow(dataset.schema.with_metadata({"cfray.ledger": ledger}))
    merge = lance.LanceOperation.Merge(
        [fragment.metadata for fragment in dataset.get_fragments()] + new, schema
    )
    transaction = lance.Transaction(dataset.version, merge)
    return lance.LanceDataset.commit(dataset, transaction, max_retries=0)


def test_a_merge_commit_brings_rows_and_ledger_together(s3_place):
    uri = f"{s3_place}/docs.lance"
    made = lance.write_dataset(
        ROWS[:0], uri, enable_stable_row_ids=True, storage_options=storage_options(uri)
    )
    merged = merge_commit(made, ROWS[:150], "one")
    merge_commit(merged, ROWS[150:], "two")
    found = lance.dataset(uri, storage_options=storage_options(uri))
    assert found.to_table().equals(ROWS)
    assert found.schema.metadata[b"cfray.ledger"] == b"two"


def test_a_merge_on_an_outdated_version_is_refused(s3_place):
    uri = f"{s3_place}/docs.lance"
    made = lance.write_dataset(
        ROWS[:0], uri, enable_stable_row_ids=True, storage_options=storage_options(uri)
    )
    merge_commit(made, ROWS[:150], "one")
    with pytest.raises(CommitConflictError):
        merge_commit(made, ROWS[150:], "another")
    assert lance.dataset(uri, storage_options=storage_options(uri)).count_rows() == 150


def test_pyarrow_reads_what_it_wrote(s3, s3_place):
    system, path = open_filesystem(f"{s3_place}/x.bin")
    with system.open_output_stream(path) as stream:
        stream.write(b"whole")
    with system.open_input_file(path) as stream:
        assert stream.read_at(3, 2) == b"ole"
    assert s3.keys(s3_place) == [path.partition("/")[2]]


def test_a_folder_on_s3_keeps_small_files(s3_place):
    folder = Folder(f"{s3_place}/docs.lance.cfray")
    assert not folder.exists()
    assert folder.list_names() == []
    assert folder.read("job.json") is None
    folder.publish("job.json", b"old")
    folder.publish("job.json", b"new")
    folder.publish("plan.json", b"")
    folder.child("staged").publish("a.json", b"{}")
    assert folder.exists()
    assert folder.list_names() == ["job.json", "plan.json"]
    assert folder.child("staged").list_names() == ["a.json"]
    assert (folder.read("job.json"), folder.read("plan.json")) == (b"new", b"")
    folder.remove("job.json")
    folder.remove("job.json")
    assert folder.list_names() == ["plan.json"]
    assert folder.read("job.json") is None


def test_a_folder_emptied_on_s3_lists_nothing(s3_place):
    folder = Folder(f"{s3_place}/docs.lance.cfray/staged")
    folder.publish("a.json", b"{}")
    folder.remove("a.json")
    assert folder.list_names() == []


def test_publishing_is_one_request(s3, s3_place):
    """A kill would leave a multipart upload open; below pyarrow's buffer of 10 MB none is used."""
    Folder(s3_place).publish("big.json", b"x" * 6_000_000)
    bucket, _, prefix = s3_place.removeprefix("s3://").partition("/")
    head = s3.client().head_object(Bucket=bucket, Key=f"{prefix}/big.json")
    assert "-" not in head["ETag"]  # a multipart object's ETag ends with its number of parts


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_publishing_with_wrong_credentials_is_final(s3, s3_place, monkeypatch, variable):
    if not s3.checks_keys:
        pytest.skip(f"{s3.name} lets any key in")
    monkeypatch.setenv(variable, "a-wrong-value")
    with pytest.raises(TargetError) as refused:
        Folder(s3_place).publish("job.json", b"{}")
    assert not isinstance(refused.value, TargetUnavailable)
    assert "AWS_SECRET_ACCESS_KEY" in refused.value.remedy


def test_publishing_to_a_missing_bucket_is_final(s3_place):
    with pytest.raises(TargetError, match="create the bucket") as refused:
        Folder("s3://cfray-nowhere-at-all/docs.lance.cfray").publish("job.json", b"{}")
    assert not isinstance(refused.value, TargetUnavailable)


ELSEWHERE = """
import lance, sys
from cfray.runtime.filesystems import Folder, storage_options
lance.write_dataset({"number": [1, 2]}, sys.argv[1] + "/docs.lance", storage_options=storage_options(sys.argv[1]))
Folder(sys.argv[1]).publish("job.json", b"{}")
print(lance.dataset(sys.argv[1] + "/docs.lance", storage_options=storage_options(sys.argv[1])).count_rows(), Folder(sys.argv[1]).list_names())
"""
RENAMED = {
    "endpoint only for S3": (
        {"AWS_ENDPOINT_URL_S3": "AWS_ENDPOINT_URL"},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
    ),
    "Lance's own name": ({"AWS_ENDPOINT": "AWS_ENDPOINT_URL"}, {}),
    "boto's region": ({"AWS_DEFAULT_REGION": "AWS_REGION"}, {}),
}
"""What a user may write instead: new name by usual name, and what else is set at the same time."""


@pytest.mark.parametrize("variant", RENAMED)
def test_other_names_for_the_same_settings_work_for_lance_and_pyarrow_alike(
    s3_place, monkeypatch, variant
):
    names, extra = RENAMED[variant]
    for new, usual in names.items():
        monkeypatch.setenv(new, os.environ[usual])
        monkeypatch.delenv(usual)
    for name, value in extra.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-c", ELSEWHERE, s3_place]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split(maxsplit=1) == ["2", "['job.json']\n"], done.stderr
