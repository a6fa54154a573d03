"""A real tree of documentation, of this machine: every regular file is there once, and equal."""

import base64
import gzip
import hashlib
import os
import stat
from pathlib import Path

import pytest

from cfray.sources.base import Context
from cfray.sources.filesystem.source import Filesystem
from tests.sources.filesystem_bed import read
from tests.sources.test_files_remote import put

SHARE = Path("/usr/share")
#: Folders of documentation and data, of every kind of file; a bare system has few of them.
FOLDERS = ("doc", "info", "common-licenses", "mime", "perl", "perl5", "zoneinfo", "vim", "man")
#: Files that are compared at least.
LEAST = 5_000


def list_names(folders):
    """List regular files and links below folders with the operating system's own means.

    Return path below /usr/share -> path, of the files and of the links to files.
    """
    files, links = {}, {}
    for folder in folders:
        for above, _, names in os.walk(SHARE / folder):
            for name in names:
                path = Path(above, name)
                if any(part.endswith((".html", ".htm")) for part in path.parts):
                    continue  # no other program reads a page's text to the letter
                if stat.S_ISREG(path.lstat().st_mode):
                    files[str(path.relative_to(SHARE))] = path
                elif path.is_file():
                    links[str(path.relative_to(SHARE))] = path
    return files, links


def identity(path):
    status = path.stat()
    return status.st_dev, status.st_ino


def independent_text(data, name):
    """Give the text of a file as Python reads it; None where it is none."""
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    if b"\x00" in data:
        return None
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        return data  # compared as bytes, in the encoding that the record states


def test_a_real_tree_is_read_exactly(tmp_path):
    """Every regular file once, every link to a file elsewhere once, and equal to the letter."""
    folders, files, links = [], {}, {}
    for folder in FOLDERS:
        if (SHARE / folder).is_dir() and len(files) < LEAST:
            folders.append(folder)
            files, links = list_names(folders)
    if len(files) < LEAST:
        pytest.skip(f"this machine has {len(files)} files of documentation below {SHARE}")
    identities = set(map(identity, files.values()))
    files |= {name: path for name, path in links.items() if identity(path) not in identities}
    source = Filesystem(
        uri=str(SHARE),
        include=[f"/{folder}/" for folder in folders],
        exclude=["*.html", "*.htm"],
        extract="none",
        shard_bytes=2**24,
    )
    context = Context(scratch=str(tmp_path))
    shards = source.shards(context)
    assert sum(shard.rows for shard in shards) == len(files)
    records, rejects = read(source, context, shards)
    assert rejects == {}
    assert set(files) ^ set(records) == set()
    texts = binaries = 0
    for name, path in files.items():
        data = path.read_bytes()
        record = records[name]
        assert record["sha256"] == hashlib.sha256(data).hexdigest()
        assert record["size"] == len(data)
        if "text" not in record:
            binaries += 1
            assert base64.b64decode(record["raw"]) == data
            continue
        texts += 1
        expected = independent_text(data, name)
        if isinstance(expected, bytes):
            assert record["text"].encode(record["encoding"]) == expected
        elif record["mime"] == "text/html":
            assert "<p>" not in record["text"]
        elif record["mime"] == "text/markdown":
            assert expected.endswith(record["text"])
        else:
            assert (record["text"] == expected) is True, name
    assert texts > 1_000
    assert binaries > 10


def test_a_bucket_is_a_tree(s3_place, tmp_path):
    files = {f"a b/é {number}.txt": f"text {number}" for number in range(40)}
    for name, text in files.items():
        put(s3_place, name, text.encode())
    source = Filesystem(uri=s3_place, shard_bytes=60_000)
    context = Context(scratch=str(tmp_path))
    shards = source.shards(context)
    assert len(shards) > 1
    records, rejects = read(source, context, shards)
    assert ({name: record["text"] for name, record in records.items()}, rejects) == (files, {})
    put(s3_place, "a b/é 7.txt", b"another text")
    records, rejects = read(source, context, shards)
    assert len(records) == 39
    assert "changed since the plan" in rejects["a b/é 7.txt"]
    assert any("not compared" in note for note in source.describe(context, shards).notes)


def test_a_file_that_is_written_to_has_another_mark(tmp_path):
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text(name)
    (tmp_path / "c.md").symlink_to("/etc/hostname")
    source = Filesystem(uri=str(tmp_path))
    before = source.marks(Context())
    assert before.keys() == {"a.md", "b.md", "c.md"}
    assert before["c.md"].endswith(", link to /etc/hostname")
    os.utime(tmp_path / "b.md", ns=(0, 1))
    assert before | {"b.md": "4 bytes of 1970-01-01 00:00:00.000000001 UTC"} == source.marks(
        Context()
    )
