"""Trees of documents: the contract, every name of a tree, encodings, and files that change."""

import base64
import gzip
import hashlib
import json
import os
import re
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import ValidationError

from cfray.errors import SourceError
from cfray.sources.base import Context
from cfray.sources.filesystem import pinned
from cfray.sources.filesystem.source import Filesystem
from tests.sources.contract import SourceContract
from tests.sources.corpus import CONTEXT, SHARD_BYTES, as_json, items, plain_rows, rows
from tests.sources.filesystem_bed import described, read, write_tree
from tests.sources.permissions import public_folder, without_privileges

#: Time of the seeded files, and how a record shows it.
MODIFIED = 1_700_000_000_123_456_789
INSTANT = '"2023-11-14T22:13:20.123456789+00:00"'


def path_of(row):
    """Name a row's document by its id, as far as a path can hold it."""
    name = str(row["id"]).replace("/", "|")[:200]
    return f"n{len(str(row['id'])) % 3}/{name}.md"


def document_of(row):
    """Write a row as a Markdown document, with its fields in front of the text."""
    values = {key: value for key, value in row.items() if key != "text"}
    front = "".join(f"{json.dumps(key)}: {json.dumps(value)}\n" for key, value in values.items())
    return f"---\n{front}---\n{row['text']}".encode()


class TestFilesystem(SourceContract):
    cannot_tell_null = "a file has a text, and an empty file has an empty one"
    cannot_tell_missing = cannot_tell_null

    @pytest.fixture
    def seed(self, tmp_path):
        def write_documents(some_rows):
            root = tmp_path / "tree"
            root.mkdir()
            for row in some_rows:
                path = root / path_of(row)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(document_of(row))
                os.utime(path, ns=(MODIFIED, MODIFIED))
            return Filesystem(uri=str(root), shard_bytes=SHARD_BYTES)

        return write_documents

    @staticmethod
    def expected(row):
        data, path = document_of(row), path_of(row)
        folder, name = path.split("/")
        fields = {key: value for key, value in row.items() if key != "id"}
        own = as_json(
            {
                "id": path,
                "path": path,
                "collection": folder,
                "name": name,
                "mime": "text/markdown",
                "size": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "encoding": "utf-8",
                "front_matter": {"id": row["id"]},
            }
        )
        # a tab in a name is shown as an escape, and so is any other sign that cannot be printed
        for key in ("path", "name"):
            own[key] = ("string", own[key][1].replace("\t", "\\t"))
        tags = row.get("tags")
        return {
            **as_json({key: value for key, value in fields.items() if value != []}),
            **({"tags": ("list", "[]")} if tags == [] else {}),
            **own,
            "modified": ("timestamp[ns, tz=UTC]", INSTANT),
        }


@pytest.fixture
def tree(tmp_path):
    """Return a function that writes files, path -> content, and returns their source."""
    return partial(write_tree, tmp_path / "tree")


class TestNames:
    def test_a_name_that_is_not_utf8_is_read_and_its_bytes_are_its_id(self, tree, tmp_path):
        source = tree({"plain.txt": "p", "a, b; c.txt": "c", "x\\xff.txt": "the escape itself"})
        path = os.fsencode(tmp_path) + b"/tree/d\xe9p\xf4t/x\xff.txt"
        os.mkdir(os.path.dirname(path))
        with open(path, "wb") as file:
            file.write(b"odd")
        found = [row for _, item in items(source) for row in plain_rows(item)]
        ids = {row["id"] for row in found}
        assert ids == {
            ("string", "plain.txt"),
            ("string", "a, b; c.txt"),
            ("string", "x\\xff.txt"),
            ("binary", json.dumps(base64.b64encode(b"d\xe9p\xf4t/x\xff.txt").decode())),
        }
        [odd] = [row for row in found if row["id"][0] == "binary"]
        assert odd["text"] == ("string", "odd")
        assert odd["path"] == ("string", "d\\xe9p\\xf4t/x\\xff.txt")
        assert any("not UTF-8" in note for note in described(source).notes)

    def test_no_two_folders_become_one_collection(self, tree):
        folders = ["n\nl", r"n\nl", r"n\\nl", "n\\\nl", "x\x85", "x\udc85", r"x\x85", r"x\u0085"]
        names = [os.fsdecode(os.fsencode(name)) for name in folders]
        records, _ = read(tree({f"{name}/{n}.txt": str(n) for n, name in enumerate(names)}))
        collections = {record["collection"]: int(record["text"]) for record in records.values()}
        assert sorted(collections.values()) == list(range(len(folders)))
        assert collections["n\\nl"] == 0
        assert collections["x\\x85"] == 5

    def test_an_odd_name_leaves_its_folder_as_it_is(self, tree):
        records, _ = read(tree({r"a\b/plain.txt": "1", "a\\b/x\ny.txt": "2"}))
        assert {record["collection"] for record in records.values()} == {r"a\b"}

    def test_a_line_break_in_a_name_stays_in_the_id(self, tree):
        source = tree({"a\nb.txt": "text"})
        [row] = rows(source)
        assert row["id"] == ("string", "a\nb.txt")
        assert row["path"] == ("string", "a\\nb.txt")

    def test_the_folder_is_the_collection_and_a_file_at_the_root_has_none(self, tree):
        records, _ = read(tree({"a.txt": "a", "b/c/d.txt": "d"}))
        assert "collection" not in records["a.txt"]
        assert records["b/c/d.txt"]["collection"] == "b/c"
        assert records["b/c/d.txt"]["name"] == "d.txt"


class TestLinks:
    def test_a_circle_of_links_ends_and_each_file_is_read_once(self, tree, tmp_path):
        source = tree({"a/b/one.txt": "1", "two.txt": "2"})
        root = tmp_path / "tree"
        (root / "a/b/up").symlink_to("../..")
        (root / "a/again").symlink_to(root)
        (root / "self").symlink_to("self")
        (root / "copy.txt").symlink_to("two.txt")
        records, rejects = read(source)
        assert (sorted(records), rejects) == (["a/b/one.txt", "two.txt"], {})
        description = described(source)
        assert (description.rows, description.exact) == (2, True)
        assert "a/again/, a/b/up/" in str(description.notes)
        assert "copy.txt" in str(description.notes)
        assert "self" in str(description.unread)

    def test_a_link_to_a_file_elsewhere_is_read_and_says_where_it_leads(self, tree, tmp_path):
        source = tree({"a.txt": "a"})
        (tmp_path / "outside.txt").write_text("outside")
        (tmp_path / "folder").mkdir()
        (tmp_path / "tree/in.txt").symlink_to("../outside.txt")
        (tmp_path / "tree/in").symlink_to("../folder")
        (tmp_path / "tree/gone.txt").symlink_to("nothing")
        records, rejects = read(source)
        assert (sorted(records), rejects) == (["a.txt", "in.txt"], {})
        assert records["in.txt"]["text"] == "outside"
        assert records["in.txt"]["link"] == "../outside.txt"
        unread = described(source).unread
        assert ["gone.txt" in unread[0], "in/" in unread[1]] == [True, True]

    def test_a_link_that_leads_elsewhere_after_the_plan_is_rejected(self, tree, tmp_path):
        source = tree({"a.txt": "a"})
        for name in ("one", "two"):
            (tmp_path / name).write_text("same")
            os.utime(tmp_path / name, ns=(MODIFIED, MODIFIED))
        link = tmp_path / "tree/link.txt"
        link.symlink_to("../one")
        shards = source.shards(CONTEXT)
        link.unlink()
        link.symlink_to("../two")
        records, rejects = read(source, shards=shards)
        assert sorted(records) == ["a.txt"]
        assert "link" in rejects["link.txt"]


class TestSelection:
    FILES: ClassVar = {
        "readme.md": "r",
        "guide/a.md": "a",
        "guide/b.txt": "b",
        "guide/deep/c.md": "c",
        "build/d.md": "d",
        "x/build/e.md": "e",
        ".git/config": "g",
        ".DS_Store": "s",
        ".hidden.md": "h",
    }

    @pytest.mark.parametrize(
        ("options", "paths"),
        [
            ({}, "readme.md guide/a.md guide/b.txt guide/deep/c.md build/d.md x/build/e.md .hidden.md"),
            ({"include": ["*.txt"]}, "guide/b.txt"),
            ({"include": ["guide/*.md"]}, "guide/a.md"),
            ({"include": ["guide/"]}, "guide/a.md guide/b.txt guide/deep/c.md"),
            ({"include": ["guide/"], "exclude": ["deep"]}, "guide/a.md guide/b.txt"),
            ({"exclude": ["build/", "guide/**", "*.txt"]}, "readme.md .hidden.md"),
            ({"include": ["./guide/*.md", "./*.md"], "exclude": ["./guide/deep/"]}, "readme.md guide/a.md .hidden.md"),
            ({"exclude": ["/build/", "guide/deep/"]}, "readme.md guide/a.md guide/b.txt x/build/e.md .hidden.md"),
        ],
    )  # fmt: skip
    def test_globs_choose_the_files(self, tree, options, paths):
        records, rejects = read(tree(self.FILES, **options))
        assert (sorted(records), rejects) == (sorted(paths.split()), {})

    def test_what_is_left_is_named_with_its_reason(self, tree):
        notes = str(described(tree(self.FILES, exclude=["guide/"])).notes)
        assert re.search(r"source\.exclude: guide/", notes)
        assert ".git/" in notes
        assert ".DS_Store" in notes

    def test_a_pattern_that_matches_nothing_is_named(self, tree):
        options = {"include": ["*.md", "*.pdf"], "exclude": ["./guide/", "readme.md/ ", "Build/"]}
        notes = described(tree(self.FILES, **options)).notes
        assert "source.include: no file is read by '*.pdf'" in notes
        assert "source.exclude: nothing is left out by 'readme.md/ ', 'Build/'" in notes
        assert not any("left out by" in note for note in described(tree(self.FILES)).notes)

    def test_a_file_and_a_glob_are_locations(self, tree, tmp_path):
        tree(self.FILES)
        root = tmp_path / "tree"
        assert list(read(Filesystem(uri=str(root / "guide/a.md")))[0]) == ["a.md"]
        assert sorted(read(Filesystem(uri=str(root / "guide/**/*.md")))[0]) == ["a.md", "deep/c.md"]

    @pytest.mark.parametrize(
        ("options", "key"),
        [({"include": ["/"]}, "include"), ({"include": ["./"]}, "include"), ({"exclude": ["!a"]}, "exclude"), ({"encoding": "rot13"}, "encoding")],
    )  # fmt: skip
    def test_settings_that_mean_nothing_are_refused(self, options, key):
        with pytest.raises(ValidationError, match=key):
            Filesystem(uri="x", **options)

    def test_a_selection_without_files_is_an_error_that_says_what_is_left(self, tree):
        with pytest.raises(SourceError) as refused:
            tree(self.FILES, include=["*.pdf"]).shards(CONTEXT)
        assert "guide/a.md" in refused.value.what
        assert "source.include" in refused.value.remedy


class TestTexts:
    @pytest.mark.parametrize(
        ("data", "text", "encoding", "guessed"),
        [
            ("naïve ☕\r\n".encode(), "naïve ☕\r\n", "utf-8", False),
            (b"\xef\xbb\xbfmark", "mark", "utf-8", False),
            ("märk".encode("utf-16"), "märk", "utf-16-le", False),
            (b"\xfe\xff" + "märk".encode("utf-16-be"), "märk", "utf-16-be", False),
            ("\ufeffmärk".encode("utf-32-le"), "märk", "utf-32-le", False),
            (b"# -*- coding: koi8-r -*-\n" + "юфщ".encode("koi8-r"), "# -*- coding: koi8-r -*-\nюфщ", "koi8-r", False),
            (b"<?xml encoding='ISO-8859-1'?>caf\xe9 \x80", "<?xml encoding='ISO-8859-1'?>café €", "windows-1252", False),
            (b"caf\xe9 \x93quoted\x94", "café “quoted”", "windows-1252", True),
            (b"", "", "utf-8", False),
        ],
    )  # fmt: skip
    def test_the_encoding_is_found_and_stated(self, tree, data, text, encoding, guessed):
        records, _ = read(tree({"a.txt": data}))
        record = records["a.txt"]
        assert (record["text"], record["encoding"]) == (text, encoding)
        assert record.get("encoding_guessed", False) is guessed

    def test_the_job_names_the_encoding_of_all_others(self, tree):
        data = "żółw".encode("iso-8859-2")
        record = read(tree({"a.txt": data}, encoding="iso-8859-2"))[0]["a.txt"]
        assert (record["text"], record["encoding"]) == ("żółw", "iso8859-2")

    @pytest.mark.parametrize(
        "data",
        [
            *(b"\x00\x01", b"\xff\x07\xfe", b"\x81\x8d", b"\xff\xfe\x00", b"\x01\x02"),
            *(b"abc\x01def", b"\xef\xbb\xbfabc\x00"),
        ],
    )
    def test_bytes_that_are_no_text_are_kept_as_they_are(self, tree, data):
        record = read(tree({"a.dat": data}))[0]["a.dat"]
        assert "text" not in record
        assert base64.b64decode(record["raw"]) == data
        assert record["raw_type"] == "application/octet-stream"

    @pytest.mark.parametrize(
        "text", ["page\f\n", "\x1b[31mred\x1b[0m", "b\x08bold", "\x1f\nFile: a.info", "end\x1a", "\a"]
    )  # fmt: skip
    def test_control_characters_of_logs_and_manuals_are_text(self, tree, text):
        assert read(tree({"a": text}))[0]["a"]["text"] == text

    def test_front_matter_becomes_fields_and_hides_none_of_ours(self, tree):
        text = (
            "---\ntitle: The title\nid: own\ndate: 2024-01-31\nzip: 0042\nn: 9007199254740993\n"
            "version: 1.10\nscore: 0.25\nplus: +5\n"
            "on: yes\nratio: 1e3\nlist: [a, b]\nby: {name: Zoë}\nnothing:\n---\r\n# Heading\nbody\n"
        )
        record = read(tree({"a.md": text}))[0]["a.md"]
        expected = {
            "title": "The title",
            "text": "# Heading\nbody\n",
            "front_matter": {"id": "own"},
            "id": "a.md",
            "date": "2024-01-31",
            "zip": "0042",
            "n": 2**53 + 1,
            "version": "1.10",
            "score": 0.25,
            "plus": "+5",
            "on": "yes",
            "ratio": "1e3",
            "list": ["a", "b"],
            "by": {"name": "Zoë"},
            "nothing": None,
        }
        assert {key: record.get(key) for key in expected} == expected

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("---\na: [\n---\nbody", "parsing"),
            ("---\na: &x [1]\nb: *x\n---\nbody", "alias"),
            ("---\na: 1\na: 2\n---\nbody", "twice"),
            ("---\na: !!python/object:os.x {}\n---\nbody", "constructor"),
            ('---\nTrue: a\n"true": b\n---\nbody', "the key true stands there twice"),
            ("---\nnull: a\n~: b\n---\nbody", "the key null stands there twice"),
            ("---\n1.0e2: a\n100.0: b\n---\nbody", "the key 100.0 stands there twice"),
            ('---\nz: {True: 1, "true": 2}\n---\nbody', "the key true stands there twice"),
            ('---\n"\\ud83d\\ude00": 1\n😀: 2\n---\nbody', "the key 😀 stands there twice"),
            ("---\n? [a]\n: b\n---\nbody", "a key of type list"),
            ("---\na: !!bool maybe\n---\nbody", "tag"),
            ("---\na: !!map [b]\n---\nbody", "tag"),
            ("---\na: !!timestamp noon\n---\nbody", "tag"),
            ("+++\na = \n+++\nbody", "Invalid"),
            ("---\nA rule above, and one below.\n\n---\nbody", None),
            ("---\n# A heading between rules\n---\nbody", None),
            ("---\nno end", None),
        ],
    )
    def test_front_matter_that_cannot_be_read_stays_text(self, tree, text, problem):
        record = read(tree({"a.md": text}))[0]["a.md"]
        assert record["text"] == text
        assert (problem or "") in record.get("front_matter_problem", "")
        assert ("front_matter_problem" in record) is (problem is not None)

    @pytest.mark.parametrize(
        ("written", "value"),
        [
            ("7e12345", "7e12345"),
            ("123e4567", "123e4567"),
            ("12e3", "12e3"),
            ("1e-400", "1e-400"),
            ("1.0e-400", "1.0e-400"),
            ("1.0e400", "1.0e400"),
            ("1.0e99999999999999999999", "1.0e99999999999999999999"),
            ("1.2345678901234567890e5", "1.2345678901234567890e5"),
            ("3.14159265358979323846", "3.14159265358979323846"),
            ("1.5e3", 1500.0),
            ("2.5e-7", 2.5e-07),
            ("0.25", 0.25),
            ("-0.0", -0.0),
        ],
    )
    @pytest.mark.parametrize("form", ["---\nv: {}\n---\n", "+++\nv = {}\n+++\n"])
    def test_a_number_that_a_float_does_not_hold_stays_the_text_it_was(
        self, tree, form, written, value
    ):
        record = read(tree({"a.md": form.format(written)}))[0]["a.md"]
        assert repr(record["v"]) == repr(value)

    @pytest.mark.parametrize("front", ["---\n---\n", "---\n\n---\r\n", "+++\n+++\n"])
    def test_empty_front_matter_is_taken_off(self, tree, front):
        record = read(tree({"a.md": f"{front}body"}))[0]["a.md"]
        assert record["text"] == "body"
        assert "front_matter_problem" not in record

    def test_toml_front_matter(self, tree):
        text = '+++\ntitle = "T"\nday = 2024-01-31\ntags = ["x"]\n+++\nbody'
        record = read(tree({"a.md": text}))[0]["a.md"]
        found = [record[key] for key in ("title", "day", "tags", "text")]
        assert found == ["T", "2024-01-31", ["x"], "body"]

    @pytest.mark.parametrize(
        ("name", "text", "title"),
        [
            ("a.md", "```\n# no\n```\n# The title #\n", "The title"),
            ("a.md", "The title\n=========\n", "The title"),
            ("a.rst", "=====\nTitle\n=====\n", "Title"),
            ("a.md", "## only a second level\n", None),
            ("a.txt", "# no Markdown\n", None),
        ],
    )
    def test_the_first_heading_is_the_title(self, tree, name, text, title):
        assert read(tree({name: text}))[0][name].get("title") == title

    def test_a_compressed_text_is_a_text_and_a_compressed_binary_stays_as_it_is(self, tree):
        binary = gzip.compress(b"\x00\x01" * 99, mtime=0)
        files = {
            "a.txt.gz": gzip.compress("zoë".encode(), mtime=0),
            "b.bin.gz": binary,
            "c.txt.gz": gzip.compress(b"cut" * 999, mtime=0)[:-9],
            "d.gz": b"no gzip at all",
            "e.txt.gz": gzip.compress(b"x" * 300_000, mtime=0),
        }
        records, rejects = read(tree(files), Context(scratch=CONTEXT.scratch, max_record=200_000))
        a, b, d = (records[name] for name in ("a.txt.gz", "b.bin.gz", "d.gz"))
        assert (a["text"], a["mime"], a["compression"]) == ("zoë", "text/plain", "gzip")
        assert "raw" not in a
        assert (base64.b64decode(b["raw"]), b["mime"]) == (binary, "application/gzip")
        assert d["text"] == "no gzip at all"
        assert sorted(rejects) == ["c.txt.gz", "e.txt.gz"]
        assert "decompressed" in rejects["c.txt.gz"]
        assert "limits.max_document" in rejects["e.txt.gz"]


class TestRaw:
    IMAGE = b"\x89PNG\r\n\x1a\n\x00" + bytes(range(256))

    def test_a_binary_is_kept_with_its_mime_type(self, tree):
        record = read(tree({"a.png": self.IMAGE, "b": self.IMAGE}))[0]
        assert [record[name]["raw_type"] for name in ("a.png", "b")] == ["image/png"] * 2
        assert base64.b64decode(record["b"]["raw"]) == self.IMAGE

    def test_a_binary_over_the_limit_is_rejected_and_a_text_is_not(self, tree):
        source = tree({"a.png": self.IMAGE, "a.txt": "x" * 999}, max_raw=100)
        records, rejects = read(source)
        assert sorted(records) == ["a.txt"]
        assert "source.max_raw" in rejects["a.png"]

    @pytest.mark.parametrize(("raw", "kept"), [("none", []), ("others", ["a.png"]), ("all", ["a.png", "a.txt"])])  # fmt: skip
    def test_the_job_says_what_is_kept(self, tree, raw, kept):
        records, _ = read(tree({"a.png": self.IMAGE, "a.txt": "text"}, raw=raw))
        assert sorted(name for name, record in records.items() if "raw" in record) == kept
        assert sorted(name for name, record in records.items() if "raw_type" in record) == kept
        assert len(records) == 2

    def test_a_file_over_the_limit_of_a_document_is_rejected_unread(self, tree, monkeypatch):
        source = tree({"a.txt": "x" * 1001, "b.txt": "b"})
        context = Context(scratch=CONTEXT.scratch, max_record=1000)
        assert any("a.txt" in note for note in described(source, context).notes)
        shards = source.shards(context)
        monkeypatch.setattr(pinned, "_read_local", {}.__getitem__)  # fails for every file
        [shard] = shards
        assert next(iter(source.read(shard, context))).position == "a.txt"


class TestFilesThatAreNoRecord:
    def change(self, path):
        path.write_text("two")
        os.utime(path, ns=(MODIFIED, MODIFIED))

    def touch(self, path):
        os.utime(path, ns=(1, 1))

    def replace_by_pipe(self, path):
        path.unlink()
        os.mkfifo(path)

    def replace_by_folder(self, path):
        path.unlink()
        path.mkdir()

    def remove(self, path):
        path.unlink()

    @pytest.mark.parametrize("act", [change, touch, replace_by_pipe, replace_by_folder, remove])
    def test_a_file_that_changed_after_the_plan_is_rejected_and_the_others_are_read(
        self, tree, tmp_path, act
    ):
        source = tree({"a.txt": "x", "b.txt": "b"})
        path = tmp_path / "tree/a.txt"
        shards = source.shards(CONTEXT)
        act(self, path)
        records, rejects = read(source, shards=shards)
        assert sorted(records) == ["b.txt"]
        assert "since the plan" in rejects["a.txt"]

    def test_a_file_that_changes_while_it_is_read_is_rejected(self, tree, tmp_path, monkeypatch):
        source = tree({"a.txt": "old old", "b.txt": "b"})
        path = tmp_path / "tree/a.txt"
        shards = source.shards(CONTEXT)

        def fstat_and_replace(number):
            status = os.fstat(number)
            if os.path.samestat(status, os.stat(path)):
                (tmp_path / "new").write_text("new new")
                os.replace(tmp_path / "new", path)
            return status

        class OsOfAWriter:
            def __getattr__(self, name):
                return fstat_and_replace if name == "fstat" else getattr(os, name)

        monkeypatch.setattr(pinned, "os", OsOfAWriter())
        records, rejects = read(source, shards=shards)
        assert sorted(records) == ["b.txt"]
        assert "since the plan" in rejects["a.txt"]

    def test_a_folder_that_is_gone_ends_the_run(self, tree, tmp_path):
        source = tree({"a.txt": "x"})
        shards = source.shards(CONTEXT)
        shutil.rmtree(tmp_path / "tree")
        (tmp_path / "tree").mkdir()  # as where a disk is no longer mounted
        with pytest.raises(SourceError, match="holds nothing"):
            read(source, shards=shards)

    def test_a_file_without_permission_is_rejected_and_a_folder_stops_the_plan(self):
        with public_folder() as root:
            for name in ("open", "closed"):
                (root / name).mkdir()
                (root / name / "a.txt").write_text("a")
            (root / "open/secret.txt").write_text("s")
            (root / "open/secret.txt").chmod(0)
            (root / "closed").chmod(0)
            # the list of files is written by another user
            with public_folder() as scratch:
                scratch.chmod(0o777)
                context = Context(scratch=str(scratch))
                with without_privileges():
                    with pytest.raises(SourceError) as refused:
                        Filesystem(uri=str(root)).shards(context)
                    assert "closed/" in refused.value.what
                    assert "source.exclude" in refused.value.remedy
                    records, rejects = read(Filesystem(uri=str(root), exclude=["closed"]), context)
                assert sorted(records) == ["open/a.txt"]
                assert rejects == {"open/secret.txt": "no permission to read the file"}

    def test_a_pipe_is_named_and_not_read(self, tree, tmp_path):
        source = tree({"a.txt": "a"})
        os.mkfifo(tmp_path / "tree/pipe")
        assert sorted(read(source)[0]) == ["a.txt"]
        assert any("pipe" in note for note in described(source).notes)

    def test_a_damaged_list_is_refused(self, tree, tmp_path):
        source, context = tree({"a.txt": "a"}), Context(scratch=str(tmp_path / "scratch"))
        [shard] = source.shards(context)
        [path] = (tmp_path / "scratch").iterdir()
        path.write_text("[]\n")
        with pytest.raises(SourceError, match="damaged"):
            read(source, context, [shard])
        path.unlink()
        with pytest.raises(SourceError, match="gone"):
            read(source, context, [shard])

    def test_another_plan_does_not_change_the_list_of_a_run(self, tree, tmp_path):
        source, context = tree({"a.txt": "a"}), Context(scratch=str(tmp_path / "scratch"))
        shards = source.shards(context)
        tree({"b.txt": "b"}).shards(context)
        assert sorted(read(source, context, shards)[0]) == ["a.txt"]


@pytest.fixture
def memory_folder():
    """Make a folder in memory, where a filesystem keeps any time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        yield Path(name)


class TestOddTrees:
    @pytest.mark.parametrize("seconds", [253_402_300_800, -62_135_596_801])
    def test_a_time_outside_of_the_calendar_is_left_out(self, memory_folder, seconds):
        source = write_tree(memory_folder / "tree", {"a.txt": "a", "b.txt": "b"})
        path = memory_folder / "tree/a.txt"
        os.utime(path, ns=(seconds * 10**9, seconds * 10**9))
        if path.stat().st_mtime_ns != seconds * 10**9:
            pytest.skip("this filesystem has no such times")
        records, rejects = read(source)
        assert rejects == {}
        assert ["modified" in records[name] for name in ("a.txt", "b.txt")] == [False, True]
        assert f"{seconds}000000000 ns since 1970" in source.marks(CONTEXT)["a.txt"]
        assert any("no field modified: a.txt" in note for note in described(source).notes)

    def test_a_path_longer_than_the_system_takes_is_read(self, tree, tmp_path):
        source = tree({"a.txt": "a"})
        root = number = os.open(tmp_path / "tree", os.O_RDONLY)
        name = "d" * 250
        try:
            for _ in range(20):
                os.mkdir(name, dir_fd=number)
                number = os.open(name, os.O_RDONLY, dir_fd=number)
            with open("deep.txt", "w", opener=partial(os.open, dir_fd=number)) as file:
                file.write("deep")
            os.symlink("deep.txt", "link.txt", dir_fd=number)
            os.symlink("/etc/hostname", "out.txt", dir_fd=number)
            folder = "/".join([name] * 20)
            assert len(f"{folder}/deep.txt") > 4096
            records, rejects = read(source)
            assert (sorted(records), rejects) == (
                ["a.txt", f"{folder}/deep.txt", f"{folder}/out.txt"],
                {},
            )
            assert records[f"{folder}/deep.txt"]["text"] == "deep"
            assert records[f"{folder}/out.txt"]["link"] == "/etc/hostname"
        finally:
            shutil.rmtree(name, dir_fd=root)


class TestDescription:
    def test_copies_are_found_by_their_content(self, tree, tmp_path):
        source = tree({"a.txt": "same", "b/c.txt": "same", "d.txt": "diff", "e": "", "f": ""})
        os.link(tmp_path / "tree/d.txt", tmp_path / "tree/hard.txt")
        description = described(source)
        [note] = [note for note in description.notes if "same bytes" in note]
        assert note.startswith("2 files with the same bytes as another, in 2 groups")
        assert note.endswith(": a.txt, b/c.txt; d.txt, hard.txt")
        assert description.consistency == "pinned files"
        assert (description.rows, description.exact) == (6, True)

    def test_what_is_too_much_to_compare_is_said(self, tree, monkeypatch):
        monkeypatch.setattr("cfray.sources.filesystem.duplicates._MOST_BYTES", 10)
        description = described(tree({"a": "same", "b": "same", "c": "longer", "d": "longer"}))
        assert any("1 group, each a record: a, b" in note for note in description.notes)
        assert any(note.startswith("2 files of the size of another") for note in description.notes)
