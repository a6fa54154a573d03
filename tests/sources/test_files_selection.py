"""Which files of a folder are read: every file that may hold records, and every other is named."""

import gzip
import json
import os
import socket

import lance
import pyarrow as pa
import pytest

from cfray.errors import SourceError
from cfray.sources.base import Context
from cfray.sources.files.locations import list_files, printable
from tests.sources.file_shapes import (
    counts_by_file,
    notes_of,
    records,
    refusal,
    source_of,
    write_arrow,
    write_jsonl,
    write_parquet,
)
from tests.sources.permissions import public_folder, without_privileges

MARKS = [
    "_SUCCESS",
    "_metadata",
    "_common_metadata",
    "_started_5921",
    "_committed_5921",
    ".a.jsonl.crc",
    "a.jsonl.crc",
    "._a.jsonl",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    ".gitattributes",
    ".gitignore",
    "README",
    "README.md",
    ".git/x.jsonl",
    ".ipynb_checkpoints/a-checkpoint.jsonl",
    "__MACOSX/a.jsonl",
    ".cache/huggingface/download/a.jsonl",
    "~$a.jsonl",
    "_committed_vacuum5921",
    "deep_$folder$",
    ".fuse_hidden0000abcd",
    ".Trash-1000/files/a.jsonl",
    "#recycle/a.jsonl",
    ".~lock.a.jsonl#",
    "_temporary/0/task/part.jsonl",
]
DATA = [
    "a.jsonl",
    "_notes.jsonl",
    ".hidden.jsonl",
    "_drafts/d.jsonl",
    ".private/p.jsonl",
    "deep/_x/.y/z.jsonl",
    ".cache/c.jsonl",
    "_SUCCESSFUL.jsonl",
    "_started.jsonl",
    "metadata/m.jsonl",
    "state.json.jsonl",
]


class TestMarks:
    @pytest.fixture
    def folder(self, tmp_path):
        for number, name in enumerate(DATA):
            write_jsonl(tmp_path / "e" / name, records(number * 2, 2))
        for name in MARKS:
            write_jsonl(tmp_path / "e" / name, records(900, 3))
        return tmp_path / "e"

    def test_only_well_known_marks_are_passed_over(self, folder):
        assert counts_by_file("jsonl", folder) == dict.fromkeys(DATA, 2)

    def test_what_is_passed_over_is_named_with_its_reason(self, folder):
        notes = [note for note in notes_of("jsonl", folder) if note.startswith("not read")]
        named = ", ".join(notes)
        for name in (".DS_Store", "_temporary/", ".git/", ".cache/huggingface/"):
            assert name in named
        assert any("did not finish" in note and "_temporary/" in note for note in notes)
        assert any(f"({len(MARKS) - 1})" in note for note in notes)

    @pytest.mark.parametrize(
        ("glob", "name"),
        [
            ("_SUCCESS", "_SUCCESS"),
            ("_S*S", "_SUCCESS"),
            ("*.crc", "a.jsonl.crc"),
            (".git/*", ".git/x.jsonl"),
            ("_temporary/**/*.jsonl", "_temporary/0/task/part.jsonl"),
            ("__MACOSX/?.jsonl", "__MACOSX/a.jsonl"),
        ],
    )
    def test_a_glob_that_spells_a_mark_reads_it(self, folder, glob, name):
        counts = counts_by_file("jsonl", folder / glob)
        assert counts[name.removeprefix(f"{glob.partition('/')[0]}/")] == 3

    def test_a_glob_of_wildcards_alone_reads_no_mark(self, folder):
        assert set(counts_by_file("jsonl", folder / "*")) == {
            name for name in DATA if "/" not in name
        }
        assert set(counts_by_file("jsonl", folder / "**")) == set(DATA)

    def test_a_mark_that_may_not_be_read_stops_nothing(self, folder):
        (folder / ".git").chmod(0)
        try:
            assert set(counts_by_file("jsonl", folder)) == set(DATA)
        finally:
            (folder / ".git").chmod(0o755)


def test_a_dataset_dict_that_datasets_wrote_is_read_split_by_split(tmp_path):
    datasets = pytest.importorskip("datasets")
    splits = {
        "train": datasets.Dataset.from_list(records(0, 5)),
        "test": datasets.Dataset.from_list(records(5, 2)),
    }
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "d"))
    counts = counts_by_file("arrow", tmp_path / "d")
    assert {name.split("/")[0]: count for name, count in counts.items()} == {"train": 5, "test": 2}
    notes = " ".join(notes_of("arrow", tmp_path / "d"))
    assert "dataset_dict.json" in notes
    assert "train/state.json" in notes


def test_the_cache_of_datasets_holds_no_record_in_json(tmp_path):
    write_arrow(tmp_path / "docs-train.arrow", records(0, 3))
    write_jsonl(tmp_path / "dataset_info.json", [{}])
    assert "kind: arrow" in refusal("json", tmp_path).remedy


def test_downloads_that_were_cut_are_named(tmp_path):
    for number in (0, 2):
        write_parquet(tmp_path / f"train-{number:05}-of-00004.parquet", records(number, 1))
    write_parquet(tmp_path / "test-00000-of-00001.parquet", records(9, 1))
    (tmp_path / "abc.incomplete").write_bytes(b"PAR1")
    (tmp_path / "train-00001-of-00004.parquet.part").write_bytes(b"PAR1")
    notes = notes_of("parquet", tmp_path)
    assert any("did not finish" in n and "abc.incomplete, train-00001" in n for n in notes)
    (note,) = [note for note in notes if "may be missing" in note]
    assert "4 files should be called train-*-of-*.parquet" in note
    assert "2 of them" in note


def test_files_of_save_to_disk_are_marks_beside_each_other_and_data_alone(tmp_path):
    write_arrow(tmp_path / "d/train/data-00000-of-00001.arrow", records(0, 3))
    write_arrow(tmp_path / "d/test/data-00000-of-00001.arrow", records(3, 2))
    for name in ("train/dataset_info.json", "train/state.json", "test/dataset_info.json"):
        write_jsonl(tmp_path / "d" / name, [{}])
    write_jsonl(tmp_path / "d/test/state.json", [{}])
    write_jsonl(tmp_path / "d/dataset_dict.json", [{}])
    assert counts_by_file("arrow", tmp_path / "d") == {
        "test/data-00000-of-00001.arrow": 2,
        "train/data-00000-of-00001.arrow": 3,
    }
    assert "kind: arrow" in refusal("json", tmp_path / "d").remedy
    (tmp_path / "x").mkdir()
    (tmp_path / "x/state.json").write_text('[{"id": 1}]')
    assert counts_by_file("json", tmp_path / "x") == {"state.json": 1}


class TestOtherFiles:
    def test_files_of_another_kind_are_named_ten_at_most(self, tmp_path):
        write_jsonl(tmp_path / "a.jsonl", records(0, 2))
        for number in range(12):
            (tmp_path / f"x{number:02}.csv").write_text("id\n1\n")
        (note,) = [note for note in notes_of("jsonl", tmp_path) if note.startswith("not read")]
        assert "not read (12)" in note
        assert "x09.csv and 2 more" in note
        assert "kind: csv" in note

    @pytest.mark.parametrize(
        ("kind", "write"),
        [("parquet", write_parquet), ("arrow", write_arrow), ("jsonl", write_jsonl)],
    )
    def test_a_file_without_suffix_is_read_where_its_first_bytes_are_the_kinds(
        self, tmp_path, kind, write
    ):
        write(tmp_path / "part-00000", records(0, 3))
        write(tmp_path / f"part-1.{kind}", records(3, 2))
        (tmp_path / "LATEST").write_text("part-00000\n")
        (tmp_path / "empty").write_bytes(b"")
        assert counts_by_file(kind, tmp_path) == {"part-00000": 3, f"part-1.{kind}": 2}
        (note,) = [note for note in notes_of(kind, tmp_path) if note.startswith("not read")]
        assert "LATEST, empty" in note
        assert "glob" in note

    def test_a_compressed_file_without_suffix_is_looked_into(self, tmp_path):
        plain = write_jsonl(tmp_path / "p", records(0, 3)).read_bytes()
        (tmp_path / "part-00000").write_bytes(gzip.compress(plain))
        assert counts_by_file("jsonl", tmp_path) == {"p": 3, "part-00000": 3}

    def test_a_csv_file_without_suffix_needs_a_glob(self, tmp_path):
        (tmp_path / "part-00000").write_text("id,n\na,1\n")
        assert "glob" in refusal("csv", tmp_path).remedy
        assert counts_by_file("csv", tmp_path / "part-*") == {"part-00000": 1}

    @pytest.mark.parametrize("suffix", [".JSONL", ".Jsonl", ".jsonl.GZ", ".NDJSON"])
    def test_the_case_of_a_suffix_does_not_matter(self, tmp_path, suffix):
        write_jsonl(tmp_path / f"a{suffix}", records(0, 2))
        assert counts_by_file("jsonl", tmp_path) == {f"a{suffix}": 2}

    def test_a_pipe_is_named_and_never_opened(self, tmp_path, monkeypatch):
        write_jsonl(tmp_path / "a.jsonl", records(0, 2))
        os.mkfifo(tmp_path / "b.jsonl")
        with socket.socket(socket.AF_UNIX) as listening:
            monkeypatch.chdir(tmp_path)
            listening.bind("c.jsonl")
            assert counts_by_file("jsonl", tmp_path) == {"a.jsonl": 2}
            (note,) = [n for n in notes_of("jsonl", tmp_path) if n.startswith("not read")]
        assert "b.jsonl, c.jsonl" in note
        assert "neither a file nor a folder" in refusal("jsonl", tmp_path / "b.jsonl").what

    def test_files_without_a_record_are_named(self, tmp_path):
        write_parquet(tmp_path / "p/a.parquet", records(0, 2))
        write_parquet(tmp_path / "p/b.parquet", [])
        write_jsonl(tmp_path / "j/a.jsonl", records(0, 2))
        (tmp_path / "j/b.jsonl").write_bytes(b"")
        assert any(
            "without any record (1): b.parquet" in n for n in notes_of("parquet", tmp_path / "p")
        )
        assert any(
            "without any record (1): b.jsonl" in n for n in notes_of("jsonl", tmp_path / "j")
        )

    def test_ten_thousand_small_files_are_all_listed(self, tmp_path):
        for number in range(10_000):
            (tmp_path / f"{number:05}.jsonl").write_text('{"id": 1}\n')
        assert len(source_of("jsonl", tmp_path).find_files()) == 10_000

    def test_a_folder_without_any_record_is_refused_with_the_names_of_its_files(self, tmp_path):
        (tmp_path / "a.jsonl").write_bytes(b"")
        source = source_of("jsonl", tmp_path)
        shards = source.shards(Context())
        assert shards == []
        with pytest.raises(SourceError, match=r"a\.jsonl holds none"):
            source.describe(Context(), shards)


class TestLance:
    @pytest.fixture
    def folder(self, tmp_path):
        for name in ("docs.lance", "users.lance"):
            dataset = lance.write_dataset(pa.table({"id": ["a", "b"]}), tmp_path / "db" / name)
            dataset.delete("id = 'a'")
        return tmp_path / "db"

    @pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl", "json", "csv"])
    def test_a_lancedb_folder_is_named_with_the_remedy(self, folder, kind):
        error = refusal(kind, folder)
        assert "docs.lance, users.lance" in error.what
        assert "kind: lance" in error.remedy
        assert f"{folder}/docs.lance" in error.remedy

    def test_a_lance_source_names_the_datasets_of_a_lancedb_folder(self, folder):
        error = refusal("lance", folder)
        assert "docs.lance, users.lance" in error.what
        assert f"source.uri: {folder}/docs.lance" in error.remedy

    def test_a_dataset_among_files_is_named_as_not_read(self, folder):
        write_arrow(folder / "a.arrow", records(0, 2))
        assert counts_by_file("arrow", folder) == {"a.arrow": 2}
        (note,) = [note for note in notes_of("arrow", folder) if "Lance" in note]
        assert "docs.lance/, users.lance/" in note

    def test_the_files_of_a_dataset_are_no_export(self, folder):
        assert "it is a Lance dataset" in refusal("arrow", folder / "docs.lance").what


class TestLinks:
    @pytest.fixture
    def folder(self, tmp_path):
        for part in range(2):
            write_parquet(tmp_path / f"blobs/sha{part}", records(part * 10, 10))
        (tmp_path / "data").mkdir()
        for part in range(2):
            (tmp_path / f"data/train-{part}.parquet").symlink_to(f"../blobs/sha{part}")
        return tmp_path / "data"

    def test_a_file_behind_a_link_is_read(self, folder):
        assert counts_by_file("parquet", folder) == {"train-0.parquet": 10, "train-1.parquet": 10}

    @pytest.mark.parametrize("location", ["", "*.parquet", "train-9.parquet"])
    def test_a_link_to_nothing_among_the_parts_is_an_error_that_names_it(self, folder, location):
        (folder / "train-9.parquet").symlink_to("../blobs/sha9")
        error = refusal("parquet", folder / location)
        assert "train-9.parquet is a link to ../blobs/sha9" in error.what
        assert "fetch or restore" in error.remedy

    def test_a_link_in_a_circle_leads_to_nothing(self, folder):
        (folder / "a.parquet").symlink_to("b.parquet")
        (folder / "b.parquet").symlink_to("a.parquet")
        assert "leads to no file" in refusal("parquet", folder).what

    def test_a_link_to_nothing_that_is_no_part_is_named(self, folder):
        (folder / "latest.txt").symlink_to("gone.txt")
        (folder / ".#train-0.parquet").symlink_to("someone@host.1:2")
        assert len(counts_by_file("parquet", folder)) == 2
        notes = notes_of("parquet", folder)
        assert any("links that lead to no file: latest.txt" in note for note in notes)

    def test_a_link_to_a_folder_is_refused(self, folder):
        (folder / "more").symlink_to("../blobs")
        assert "link to a folder" in refusal("parquet", folder).what
        assert "source.uri" in refusal("parquet", folder).remedy
        assert len(counts_by_file("parquet", folder / "*.parquet")) == 2

    def test_a_link_to_a_folder_is_a_location(self, folder, tmp_path):
        (tmp_path / "latest").symlink_to("data")
        assert len(counts_by_file("parquet", tmp_path / "latest")) == 2

    @pytest.mark.parametrize("link", [os.symlink, os.link])
    def test_two_names_of_one_file_are_two_files_and_said_to_be_one(self, folder, link):
        link(os.path.realpath(folder / "train-0.parquet"), folder / "again.parquet")
        assert counts_by_file("parquet", folder)["again.parquet"] == 10
        (note,) = [note for note in notes_of("parquet", folder) if "one and the same" in note]
        assert "again.parquet, train-0.parquet" in note

    def test_the_blobs_of_a_hub_cache_are_not_read_beside_the_links_to_them(self, folder, tmp_path):
        assert set(counts_by_file("parquet", tmp_path)) == {
            "data/train-0.parquet",
            "data/train-1.parquet",
        }
        assert any("behind links" in note for note in notes_of("parquet", tmp_path))

    def test_a_link_that_leads_elsewhere_since_the_plan_stops_the_run(self, folder, tmp_path):
        source = source_of("parquet", folder)
        (shard,) = source.shards(Context())
        times = os.stat(tmp_path / "blobs/sha0")
        other = write_parquet(tmp_path / "blobs/sha7", records(70, 10))
        os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
        (folder / "train-0.parquet").unlink()
        (folder / "train-0.parquet").symlink_to("../blobs/sha7")
        with pytest.raises(Exception, match=r"a link to \.\./blobs/sha7 now"):
            list(source.read(shard, Context()))


ODD_NAMES = ["a?b*c.jsonl", "50% off #1.jsonl", "größe %20.jsonl", "part[1].jsonl", "s3:x.jsonl"]
ODD_NAMES += [
    "a\nb.jsonl",
    "{x,y}.jsonl",
    " .jsonl",
    "**.jsonl",
    "[!a].jsonl",
    "é.jsonl",
    "x=1.jsonl",
]


class TestNames:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "export [2024] 100%"
        for number, name in enumerate(ODD_NAMES):
            write_jsonl(folder / name, records(number, 1))
        return folder

    def test_every_file_is_read_whatever_its_name(self, folder):
        assert counts_by_file("jsonl", folder) == dict.fromkeys(ODD_NAMES, 1)
        assert counts_by_file("jsonl", folder / "*.jsonl") == dict.fromkeys(ODD_NAMES, 1)

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_what_exists_is_no_glob(self, folder, name):
        assert counts_by_file("jsonl", folder / name) == {name: 1}

    def test_brackets_may_stand_for_themselves(self, folder):
        assert counts_by_file("jsonl", folder / "part[1]*") == {"part[1].jsonl": 1}
        write_jsonl(folder / "part1-x.jsonl", records(0, 3))
        error = refusal("jsonl", folder / "part[1]*")
        assert "part1-x.jsonl" in error.what
        assert "part[1].jsonl" in error.what
        assert counts_by_file("jsonl", folder / "part[[]1]*") == {"part[1].jsonl": 1}

    def test_globs_match_folder_by_folder(self, tmp_path):
        for name in ("a.jsonl", "x/a.jsonl", "x/y/a.jsonl", "x/y/b.jsonl"):
            write_jsonl(tmp_path / name, records(0, 1))
        found = {
            glob: sorted(counts_by_file("jsonl", tmp_path / glob))
            for glob in ("*.jsonl", "*/*.jsonl", "**/a.jsonl", "x/**", "?/y/[ab].jsonl", "x*/**/b*")
        }
        assert found == {
            "*.jsonl": ["a.jsonl"],
            "*/*.jsonl": ["x/a.jsonl"],
            "**/a.jsonl": ["a.jsonl", "x/a.jsonl", "x/y/a.jsonl"],
            "x/**": ["a.jsonl", "y/a.jsonl", "y/b.jsonl"],
            "?/y/[ab].jsonl": ["x/y/a.jsonl", "x/y/b.jsonl"],
            "x*/**/b*": ["x/y/b.jsonl"],
        }

    def test_a_folder_that_a_glob_matches_is_named(self, tmp_path):
        write_jsonl(tmp_path / "year=1/a.jsonl", records(0, 1))
        error = refusal("jsonl", tmp_path / "year=*")
        assert "matches folders, and no file: year=1/" in error.what
        assert "/**" in error.remedy
        assert counts_by_file("jsonl", f"{tmp_path}/year=*/**") == {"year=1/a.jsonl": 1}
        write_jsonl(tmp_path / "b.jsonl", records(1, 1))
        assert counts_by_file("jsonl", tmp_path / "*") == {"b.jsonl": 1}
        assert any("year=1/" in note for note in notes_of("jsonl", tmp_path / "*"))

    def test_a_name_that_is_not_utf8_stops_the_plan_only_where_it_would_be_read(self, tmp_path):
        write_jsonl(tmp_path / "a.jsonl", records(0, 1))
        (tmp_path / os.fsdecode(b"notes\xff.txt")).write_text("x")
        assert counts_by_file("jsonl", tmp_path) == {"a.jsonl": 1}
        assert any(r"notes\xff.txt" in note for note in notes_of("jsonl", tmp_path))
        (tmp_path / os.fsdecode(b"b\xff.jsonl")).write_text("{}")
        assert r"b\xff.jsonl" in refusal("jsonl", tmp_path).what

    def test_a_name_is_shown_on_one_line(self):
        assert printable("a\nb\t\x1b.é") == r"a\nb\t\x1b.é"


def test_a_folder_that_may_not_be_read_stops_the_plan():
    with public_folder() as folder:
        write_jsonl(folder / "a.jsonl", records(0, 1))
        write_jsonl(folder / "_drafts/b.jsonl", records(0, 1))
        (folder / "_drafts").chmod(0)
        with without_privileges():
            assert "no permission" in refusal("jsonl", folder).what
        (folder / "_drafts").chmod(0o755)
        (folder / "_drafts/b.jsonl").chmod(0)
        with without_privileges():
            assert "b.jsonl" in refusal("jsonl", folder).what


def test_stores_get_the_files_without_marks(tmp_path):
    for name in ("a.parquet", "_b.parquet", "_SUCCESS", "x/c.json"):
        write_jsonl(tmp_path / name, records(0, 1))
    assert [file.name for file in list_files(str(tmp_path))] == [
        "_b.parquet",
        "a.parquet",
        "x/c.json",
    ]


@pytest.mark.parametrize("table", ["iceberg", "iceberg-gz", "hudi"])
@pytest.mark.parametrize("location", ["", "data", "data/*.parquet", "data/year=1/a.parquet"])
def test_a_folder_of_an_iceberg_or_hudi_table_is_refused(tmp_path, table, location):
    path = tmp_path / "lake/docs"
    write_parquet(path / "data/year=1/a.parquet", records(0, 2))
    write_parquet(path / "data/b.parquet", records(2, 2))
    metadata = {
        "iceberg": "metadata/00002-8e7a5f5c-3f0c-4c7e-9d68-55f8a9d1a0b1.metadata.json",
        "iceberg-gz": "metadata/v3.gz.metadata.json",
        "hudi": ".hoodie/hoodie.properties",
    }[table]
    write_jsonl(path / metadata, [{}])
    for uri in (path / location, tmp_path / "lake"):
        error = refusal("parquet", uri)
        assert str(path) in error.what
        assert ("Iceberg" if "iceberg" in table else "Hudi") in error.what
        assert "plain Parquet" in error.remedy


def test_a_folder_called_metadata_is_no_table(tmp_path):
    write_parquet(tmp_path / "metadata/a.parquet", records(0, 2))
    write_jsonl(tmp_path / "metadata/book.metadata.json", [{}])
    assert counts_by_file("parquet", tmp_path) == {"metadata/a.parquet": 2}


def test_files_of_another_kind_beside_a_table_are_read(tmp_path):
    write_parquet(tmp_path / "table/a.parquet", records(0, 2))
    write_jsonl(tmp_path / "table/_delta_log/00000000000000000000.json", [{}])
    write_jsonl(tmp_path / "docs.json", [{"id": "a"}])
    write_jsonl(tmp_path / "x/docs.jsonl", records(0, 2))
    assert counts_by_file("jsonl", tmp_path) == {"x/docs.jsonl": 2}
    assert counts_by_file("json", tmp_path) == {"docs.json": 1}
    assert any("_delta_log/" in note for note in notes_of("json", tmp_path))


class TestSparkStream:
    """The folder that a stream of Spark wrote, with the log of its commits."""

    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "out put"
        for number in range(3):
            write_parquet(folder / f"part-{number}-x y.parquet", records(number * 2, 2))
        write_parquet(folder / "year=1/part-3.parquet", records(6, 2))
        names = ["part-0-x%20y.parquet", "part-1-x%20y.parquet", "part-2-x%20y.parquet"]
        log = [{"path": f"hdfs://old/place/{name}", "action": "add"} for name in names]
        log.append({"path": "hdfs://old/place/year=1/part-3.parquet", "action": "add"})
        for name, entries in {"9.compact": log[:3], "10": log[3:], ".10.crc": []}.items():
            lines = ["v1", *map(json.dumps, entries)]
            (folder / "_spark_metadata").mkdir(exist_ok=True)
            (folder / "_spark_metadata" / name).write_text("\n".join(lines))
        return folder

    def test_committed_files_are_read(self, folder):
        assert sum(counts_by_file("parquet", folder).values()) == 8
        assert any("_spark_metadata/" in note for note in notes_of("parquet", folder))

    @pytest.mark.parametrize("location", ["out put", "out put/*.parquet", ""])
    def test_a_file_that_was_never_committed_is_refused(self, folder, location):
        write_parquet(folder / "part-9.parquet", records(0, 2))
        error = refusal("parquet", folder.parent / location)
        assert "part-9.parquet is not in the log" in error.what


@pytest.mark.parametrize("kind", ["csv", "json", "jsonl", "arrow"])
def test_a_table_without_a_file_of_the_kind_is_named_at_once(tmp_path, kind):
    write_parquet(tmp_path / "t/a.parquet", records(0, 2))
    write_jsonl(tmp_path / "t/_delta_log/00000000000000000000.json", [{}])
    assert "source.kind: delta" in refusal(kind, tmp_path / "t").remedy


def test_a_file_in_a_folder_that_may_not_be_listed_is_read():
    with public_folder() as folder:
        write_jsonl(folder / "x/a.jsonl", records(0, 2))
        (folder / "x").chmod(0o311)
        try:
            with without_privileges():
                assert counts_by_file("jsonl", folder / "x/a.jsonl") == {"a.jsonl": 2}
        finally:
            (folder / "x").chmod(0o755)


def test_a_text_file_in_the_folder_of_a_table_is_none_of_its_files(tmp_path):
    write_parquet(tmp_path / "t/a.parquet", records(0, 2))
    write_jsonl(tmp_path / "t/_delta_log/00000000000000000000.json", [{}])
    write_jsonl(tmp_path / "t/exports/docs.jsonl", records(0, 3))
    assert counts_by_file("jsonl", tmp_path / "t/exports") == {"docs.jsonl": 3}
    assert counts_by_file("jsonl", tmp_path / "t") == {"exports/docs.jsonl": 3}
    assert counts_by_file("json", tmp_path / "t/_delta_log/*.json") == {
        "00000000000000000000.json": 1
    }


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_file_without_suffix_that_cannot_be_read_is_named_and_stops_nothing(kind):
    write = {"parquet": write_parquet, "jsonl": write_jsonl}[kind]
    with public_folder() as folder:
        write(folder / f"a.{kind}", records(0, 2))
        write(folder / "secret", records(0, 2)).chmod(0)
        write(folder / "plain", records(0, 2)).rename(folder / os.fsdecode(b"b\xff"))
        with without_privileges():
            assert counts_by_file(kind, folder) == {f"a.{kind}": 2}
            (note,) = [note for note in notes_of(kind, folder) if note.startswith("not read")]
    assert r"b\xff, secret" in note
