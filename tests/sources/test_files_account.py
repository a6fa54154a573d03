"""For every shape of a folder: records in its files = records read + records in files named unread.

The records are counted without our code, file by file, from what was written.
"""

import gzip
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sources.file_shapes import (
    all_files,
    counts_by_file,
    notes_of,
    records,
    write_arrow,
    write_jsonl,
    write_parquet,
)

FOLDERS = ["", "a/", "_drafts/", ".x/", "year=2024/", "year=2024/lang=de/", "[b]/", "c d%20/"]
FOLDERS += ["_temporary/0/", ".git/", "db.lance/", "__MACOSX/", "out.lance.cfray/", "k=/", "ü/"]
STEMS = [
    "part-0",
    "_notes",
    ".hidden",
    "_SUCCESS",
    "._x",
    "README",
    "a?b*c",
    "p[1]",
    "s3:x",
    "data.v1",
]
SUFFIXES = [
    ".jsonl",
    ".JSONL",
    ".jsonl.gz",
    ".ndjson",
    ".parquet",
    ".pq",
    ".arrow",
    ".txt",
    "",
    ".crc",
]


def write(path, count, suffix):
    """Write a file of so many records; return their number."""
    some = records(0, count)
    if suffix in (".parquet", ".pq"):
        write_parquet(path, some)
    elif suffix == ".arrow":
        write_arrow(path, some)
    else:
        write_jsonl(path, some)
        if suffix.endswith(".gz"):
            path.write_bytes(gzip.compress(path.read_bytes()))
    return count


FILES = st.dictionaries(
    st.tuples(st.sampled_from(FOLDERS), st.sampled_from(STEMS), st.sampled_from(SUFFIXES)),
    st.integers(0, 3),
    min_size=1,
    max_size=9,
)


def unread_names(notes):
    """List the names that notes say are not read, or hold no record; folders end with a slash."""
    return {
        name
        for note in notes
        if note.startswith(("not read (", "without any record ("))
        for name in note.rpartition(": ")[2].split(", ")
    }


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow"])
@settings(max_examples=120, deadline=None)
@given(files=FILES, links=st.integers(0, 2), glob=st.sampled_from(["", "**", "**/*"]))
def test_every_record_is_read_or_its_file_is_named(kind, files, links, glob):
    own_suffix = {"jsonl": ".jsonl", "parquet": ".parquet", "arrow": ".arrow"}[kind]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "export")
        written = {}
        for (above, stem, suffix), count in files.items():
            if glob and suffix not in (own_suffix, own_suffix.upper()):
                continue  # a glob reads whatever it matches: here only files of the kind
            path = folder / f"{above}{stem}{suffix}"
            written[f"{above}{stem}{suffix}"] = write(path, count, suffix)
        written["always" + own_suffix] = write(folder / f"always{own_suffix}", 2, own_suffix)
        for number in range(links):
            os.symlink(f"always{own_suffix}", folder / f"link-{number}{own_suffix}")
            written[f"link-{number}{own_suffix}"] = 2
        assert sorted(written) == all_files(folder)
        location = folder / glob if glob else folder
        read = counts_by_file(kind, location)
        unread = unread_names(notes_of(kind, location))
    for path, count in written.items():
        is_named = path in unread or any(
            path.startswith(above) for above in unread if above.endswith("/")
        )
        assert read.get(path, 0) == (0 if path not in read else count)
        assert path in read or is_named or not count, path
        assert not (path in read and path in unread and count)
    assert sum(read.values()) == sum(count for path, count in written.items() if path in read)
