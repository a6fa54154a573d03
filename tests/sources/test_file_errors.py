"""What is said of files that may not be read, or that another kind of source reads."""

import gzip
import itertools
import json

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

from cfray.errors import SourceError, SourceUnavailable
from cfray.runtime import filesystems
from cfray.sources.base import Context
from cfray.sources.files.arrow import Arrow
from cfray.sources.files.csv import Csv
from cfray.sources.files.json import JsonFile
from cfray.sources.files.jsonl import JsonLines
from cfray.sources.files.lance import Lance
from cfray.sources.files.listing import open_file
from cfray.sources.files.locations import list_files
from cfray.sources.files.parquet import Parquet
from tests.sources.permissions import public_folder, without_privileges

TABLE = pa.table({"id": ["a", "b"], "n": [1, 2]})
KINDS = {"parquet": Parquet, "jsonl": JsonLines, "json": JsonFile, "csv": Csv, "arrow": Arrow}


def write(folder, kind, name="one", *, suffix=None):
    path = folder / f"{name}{suffix or f'.{kind}'}"
    rows = TABLE.to_pylist()
    if kind == "parquet":
        pq.write_table(TABLE, path)
    elif kind == "arrow":
        with ipc.new_file(path, TABLE.schema) as writer:
            writer.write_table(TABLE)
    elif kind == "csv":
        path.write_text("id,n\na,1\nb,2\n")
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def refusal(kind, location):
    with pytest.raises(SourceError) as refused:
        KINDS[kind](uri=str(location)).shards(Context())
    assert refused.value.transient is False
    return refused.value


@pytest.mark.parametrize(("kind", "other_kind"), list(itertools.permutations(KINDS, 2)))
def test_a_folder_of_another_kind_says_what_it_holds_and_which_kind_reads_it(
    tmp_path, kind, other_kind
):
    for name in ("one", "two", "three"):
        write(tmp_path, other_kind, name)
    (tmp_path / "notes.txt").write_text("not part of the export")
    error = refusal(kind, tmp_path)
    assert f"3 .{other_kind} files (kind: {other_kind} reads them), 1 .txt file" in error.what
    assert f"source.kind: {other_kind}" in error.remedy


@pytest.mark.parametrize(
    ("kind", "other_kind"),
    [pair for pair in itertools.permutations(KINDS, 2) if pair[1] in ("parquet", "arrow")],
)
@pytest.mark.parametrize("suffix", [None, ".data", ".parquet.backup"])
def test_a_named_file_of_another_kind_is_known_by_its_first_bytes(
    tmp_path, kind, other_kind, suffix
):
    path = write(tmp_path, other_kind, suffix=suffix)
    for location in (path, tmp_path / "*"):
        error = refusal(kind, location)
        assert path.name in error.what
        assert f"kind: {other_kind} reads it" in error.what
        assert f"source.kind: {other_kind}" in error.remedy


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("other_kind", ["jsonl", "json", "csv"])
def test_a_named_text_file_is_known_by_its_suffix_where_a_binary_one_is_expected(
    tmp_path, kind, other_kind
):
    error = refusal(kind, write(tmp_path, other_kind))
    assert f"kind: {other_kind} reads it" in error.what


@pytest.mark.parametrize(("kind", "other_kind"), [("arrow", "parquet"), ("parquet", "arrow")])
def test_a_file_with_the_wrong_suffix_is_known_by_its_first_bytes(tmp_path, kind, other_kind):
    error = refusal(kind, write(tmp_path, other_kind, suffix=f".{kind}"))
    assert f"kind: {other_kind} reads it" in error.what


@pytest.mark.parametrize("kind", KINDS)
def test_a_named_file_is_read_whatever_its_suffix(tmp_path, kind):
    path = write(tmp_path, kind, suffix=".data")
    assert KINDS[kind](uri=str(path)).shards(Context())


def test_a_compressed_file_is_named_by_the_suffix_before_its_codec(tmp_path):
    (tmp_path / "one.csv.gz").write_bytes(gzip.compress(b"id\n1\n"))
    assert "1 .csv file (kind: csv reads it)" in refusal("jsonl", tmp_path).what


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_folder_and_files_of_no_kind_are_said_to_be_so(tmp_path, kind):
    assert "there is no file at all" in refusal(kind, tmp_path).what
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "NOTES").write_text("text")
    error = refusal(kind, tmp_path)
    assert "1 .txt file" in error.what
    assert "1 suffixless file" in error.what
    assert "glob" in error.remedy


@pytest.mark.parametrize("kind", KINDS)
def test_a_lance_dataset_is_known_by_its_versions(tmp_path, kind):
    lance.write_dataset(TABLE, tmp_path / "one.lance")
    error = refusal(kind, tmp_path / "one.lance")
    assert "kind: lance reads" in error.what
    assert "source.kind: lance" in error.remedy


def test_a_folder_that_is_no_lance_dataset_says_what_it_holds(tmp_path):
    write(tmp_path, "parquet")
    with pytest.raises(SourceError) as refused:
        Lance(uri=str(tmp_path)).shards(Context())
    assert "1 .parquet file (kind: parquet reads it)" in refused.value.what
    assert "source.kind: parquet" in refused.value.remedy


def test_a_lance_error_names_no_file_of_the_machine_that_built_lance(tmp_path):
    lance.write_dataset(TABLE, tmp_path / "one.lance")
    sources = [
        Lance(uri=str(tmp_path / "nowhere.lance")),
        Lance(uri=str(tmp_path / "one.lance"), version=9),
    ]
    for source in sources:
        with pytest.raises(SourceError) as refused:
            source.shards(Context())
        assert ".rs" not in refused.value.what
        assert "source.uri or source.version" in refused.value.remedy
    source = Lance(uri=str(tmp_path / "one.lance"))
    shards = source.shards(Context())
    for path in (tmp_path / "one.lance/data").iterdir():
        path.unlink()
    with pytest.raises(SourceError) as refused:
        list(source.read(shards[0], Context()))
    assert ".rs" not in refused.value.what
    assert "restore" in refused.value.remedy


def refused_permission(action, path):
    with without_privileges(), pytest.raises(SourceError) as refused:
        action()
    assert refused.value.transient is False
    assert "no permission" in refused.value.what
    assert path.name in refused.value.what
    assert "chmod" in refused.value.remedy
    assert ".rs" not in refused.value.what


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_may_not_be_read_names_the_permission(kind):
    with public_folder() as folder:
        path = write(folder, kind)
        source = KINDS[kind](uri=str(folder))
        shards = source.shards(Context())
        assert list(source.read(shards[0], Context()))
        path.chmod(0)
        if kind != "json":  # a JSON file is not opened before it is read
            refused_permission(lambda: source.shards(Context()), path)
        refused_permission(lambda: list(source.read(shards[0], Context())), path)


def test_a_folder_that_may_not_be_searched_names_the_permission():
    with public_folder() as folder:
        (folder / "export").mkdir()
        path = write(folder / "export", "csv")
        source = Csv(uri=str(folder / "export"))
        shards = source.shards(Context())
        (folder / "export").chmod(0)
        refused_permission(lambda: source.shards(Context()), folder / "export")
        refused_permission(lambda: list(source.read(shards[0], Context())), path)


def test_a_folder_in_the_export_that_may_not_be_read_is_never_passed_over():
    with public_folder() as folder:
        write(folder, "csv")
        (folder / "deep").mkdir()
        write(folder / "deep", "csv", "two")
        source = Csv(uri=str(folder))
        assert [file.name for file in source.find_files()] == ["deep/two.csv", "one.csv"]
        (folder / "deep").chmod(0)
        refused_permission(source.find_files, folder / "deep")


def test_a_lance_dataset_that_may_not_be_read_names_the_permission():
    with public_folder() as folder:
        path = folder / "one.lance"
        lance.write_dataset(TABLE, path)
        source = Lance(uri=str(path))
        shards = source.shards(Context())
        assert list(source.read(shards[0], Context()))
        for data_file in (path / "data").iterdir():
            data_file.chmod(0)
        refused_permission(lambda: list(source.read(shards[0], Context())), path)
        for manifest in (path / "_versions").iterdir():
            manifest.chmod(0)
        refused_permission(lambda: source.shards(Context()), path)


@pytest.mark.parametrize(
    ("error", "expected", "remedy"),
    [
        (OSError("Truncated compressed stream"), SourceError, "export or copy the file again"),
        (OSError("zlib inflate failed: invalid block type"), SourceError, "export or copy"),
        (OSError("Couldn't deserialize thrift: TProtocolException"), SourceError, "is damaged"),
        (OSError(5, "Input/output error"), SourceUnavailable, "filesystem answers"),
        (OSError(116, "Stale file handle"), SourceUnavailable, "filesystem answers"),
        (PermissionError(13, "Permission denied"), SourceError, "chmod"),
    ],
)
def test_only_wrong_bytes_are_damage(tmp_path, error, expected, remedy):
    (file,) = list_files(str(write(tmp_path, "csv")))
    with pytest.raises(expected) as refused, open_file(file):
        raise error
    assert type(refused.value) is expected
    assert file.name in refused.value.what
    assert remedy in refused.value.remedy


def test_an_object_store_that_refuses_access_names_the_credentials(monkeypatch):
    class Refusing:
        def get_file_info(self, _):
            raise OSError("AWS Error ACCESS_DENIED during HeadObject operation: No response body.")

    monkeypatch.setattr(filesystems, "open_filesystem", lambda uri: (Refusing(), uri))
    with pytest.raises(SourceError) as refused:
        list_files("s3://bucket/export")
    assert refused.value.transient is False
    assert "no permission to read s3://bucket/export" in refused.value.what
    assert "AWS_ACCESS_KEY_ID" in refused.value.remedy


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl"])
@pytest.mark.parametrize("other_kind", ["parquet", "arrow"])
def test_a_binary_file_with_the_suffix_of_a_text_is_known_by_its_first_bytes(
    tmp_path, kind, other_kind
):
    path = write(tmp_path, other_kind, suffix=f".{kind}")
    for location in (path, tmp_path):
        error = refusal(kind, location)
        assert path.name in error.what
        assert f"kind: {other_kind} reads it" in error.what
