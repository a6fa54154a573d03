"""Lance and cfray's filesystems use the emulators of Azure and Google Cloud.

What a killed process began to write is not there.
"""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import lance
import pyarrow.fs as pafs
import pytest
from lance.commit import CommitConflictError

from cfray.errors import ConfigError, TargetError, TargetUnavailable
from cfray.runtime import azure
from cfray.runtime.filesystems import Folder, open_filesystem, storage_options
from cfray.sources.files.locations import list_files
from tests.testbeds.test_object_stores import ROWS, merge_commit

#: Sizes on both sides of what is sent to Azure at once.
SIZES = [0, 1, azure.BLOCK, azure.BLOCK + 1, 2 * azure.BLOCK + 5]


def test_a_merge_commit_brings_rows_and_ledger_together(cloud_place):
    uri = f"{cloud_place}/docs.lance"
    made = lance.write_dataset(
        ROWS[:0], uri, enable_stable_row_ids=True, storage_options=storage_options(uri)
    )
    merge_commit(merge_commit(made, ROWS[:150], "one"), ROWS[150:], "two")
    found = lance.dataset(uri, storage_options=storage_options(uri))
    assert found.to_table().equals(ROWS)
    assert found.schema.metadata[b"cfray.ledger"] == b"two"


def test_a_merge_on_an_outdated_version_is_refused(cloud_place):
    uri = f"{cloud_place}/docs.lance"
    made = lance.write_dataset(
        ROWS[:0], uri, enable_stable_row_ids=True, storage_options=storage_options(uri)
    )
    merge_commit(made, ROWS[:150], "one")
    with pytest.raises(CommitConflictError):
        merge_commit(made, ROWS[150:], "another")
    assert lance.dataset(uri, storage_options=storage_options(uri)).count_rows() == 150


def test_appends_at_the_same_time_all_arrive(cloud_place):
    uri = f"{cloud_place}/docs.lance"
    options = storage_options(uri)
    lance.write_dataset(ROWS[:0], uri, storage_options=options)

    def append(number):
        for _ in range(3):
            lance.write_dataset(ROWS, uri, mode="append", storage_options=options)

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(append, range(4)))
    assert lance.dataset(uri, storage_options=options).count_rows() == 12 * len(ROWS)


def test_a_folder_keeps_small_files(cloud_place):
    folder = Folder(f"{cloud_place}/docs.lance.cfray")
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
    folder.remove("plan.json")
    folder.child("staged").remove("a.json")
    assert folder.child("staged").list_names() == []


def test_folders_are_seen_beside_names_that_begin_alike_and_go_as_a_whole(cloud, cloud_place):
    for name in ("docs", "docs.cfray", "docs/inner", "docs!"):
        Folder(cloud_place).child(name).publish("x", b"1")
    system, path = open_filesystem(cloud_place)
    listed = system.get_file_info(pafs.FileSelector(path))
    assert {(info.base_name, info.type) for info in listed} == {
        (name, pafs.FileType.Directory) for name in ("docs", "docs!", "docs.cfray")
    }
    assert Folder(f"{cloud_place}/docs").exists()
    assert not Folder(f"{cloud_place}/doc").exists()
    system.delete_dir(f"{path}/docs")
    assert not Folder(f"{cloud_place}/docs").exists()
    assert {name for name in cloud.names(cloud_place) if name.endswith("x")} == {
        "docs!/x",
        "docs.cfray/x",
    }


@pytest.mark.parametrize("size", SIZES)
def test_a_file_holds_what_was_written_to_it(cloud_place, size):
    data = os.urandom(size)
    Folder(cloud_place).publish("file", b"before")
    Folder(cloud_place).publish("file", data)
    assert Folder(cloud_place).read("file") == data
    system, path = open_filesystem(f"{cloud_place}/stream")
    with system.open_output_stream(path) as stream:
        for start in range(0, size, 5_000_000):
            stream.write(data[start : start + 5_000_000])
        assert stream.tell() == size
    assert Folder(cloud_place).read("stream") == data


BEGIN = """
import os, signal, sys
from cfray.runtime.filesystems import open_filesystem
system, path = open_filesystem(sys.argv[1])
stream = system.open_output_stream(path)
stream.write(b"x" * int(sys.argv[2]))
stream.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("size", [3, 2 * azure.BLOCK])
@pytest.mark.parametrize("before", [None, b"the file before"])
def test_a_killed_process_leaves_the_file_as_it_was(cloud, cloud_place, size, before):
    if before is not None:
        Folder(cloud_place).publish("file", before)
    begun = f"{cloud_place}/file"
    command = [sys.executable, "-c", BEGIN, begun, str(size)]
    assert subprocess.run(command, timeout=60, check=False).returncode == -signal.SIGKILL
    assert cloud.names(cloud_place) == ([] if before is None else ["file"])
    assert Folder(cloud_place).read("file") == before
    Folder(cloud_place).publish("file", b"after")
    assert Folder(cloud_place).read("file") == b"after"


def test_publishing_to_a_missing_bucket_is_final(cloud, cloud_place):
    with pytest.raises(TargetError, match="create the bucket") as refused:
        Folder(f"{cloud.scheme}://cfray-nowhere/docs.lance.cfray").publish("job.json", b"{}")
    assert not isinstance(refused.value, TargetUnavailable)


WRONG_KEY = "d3Jvbmc="


def test_publishing_with_a_wrong_key_is_final(cloud, cloud_place, monkeypatch):
    if not cloud.checks_keys:
        pytest.skip(f"{cloud.server.name} asks for no key")
    monkeypatch.setenv(azure.KEY, WRONG_KEY)
    with pytest.raises(TargetError) as refused:
        Folder(cloud_place).publish("job.json", b"{}")
    assert not isinstance(refused.value, TargetUnavailable)
    assert azure.KEY in refused.value.remedy
    assert WRONG_KEY not in str(refused.value)
    for look in (Folder.exists, Folder.list_names, lambda folder: folder.read("job.json")):
        with pytest.raises(TargetError, match="no permission") as unread:
            look(Folder(cloud_place))
        assert azure.KEY in unread.value.remedy
        assert WRONG_KEY not in str(unread.value)


def test_azure_is_not_written_to_by_the_address_that_arrow_opens():
    address = "abfs://container@account.dfs.core.windows.net/docs.lance.cfray"
    with pytest.raises(ConfigError, match="empty files") as refused:
        Folder(address).publish("job.json", b"{}")
    assert "az://" in refused.value.remedy


@pytest.mark.parametrize("codec", [None, "gzip"])
def test_records_are_read_from_files_on_the_store(cloud_place, codec):
    lines = b"".join(b'{"id": %d}\n' % number for number in range(10))
    suffix = ".gz" if codec else ""
    Folder(cloud_place).child("in/deep").publish(
        f"a.jsonl{suffix}", gzip.compress(lines) if codec else lines
    )
    Folder(cloud_place).child("in").publish("b.jsonl", lines)
    wanted = ["b.jsonl", f"deep/a.jsonl{suffix}"]
    assert [file.name for file in list_files(f"{cloud_place}/in")] == wanted
    matched = list_files(f"{cloud_place}/in/*/*.jsonl*")
    assert [file.name for file in matched] == [f"deep/a.jsonl{suffix}"]
