"""Which kind of source reads which file: by its suffix, or by its first bytes.

A job file may name the wrong kind for its files.  Then the error says which files lie at
the location and which kind reads them; nothing here decides what is read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

import pyarrow.fs as pafs

from cfray.runtime import filesystems

#: Suffixes of compressed files and their codec.  The suffix decides only whether a folder's file is
#: read; how it is compressed is known by its first bytes.
CODECS = {
    ".gz": "gzip",
    ".gzip": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
    ".bz2": "bz2",
    ".xz": "xz",
    ".lz4": "lz4",
    ".zip": "zip",
    ".snappy": "snappy",
    ".sz": "snappy",
    ".lzo": "lzo",
    ".br": "brotli",
}
#: The codecs that version 0.1 knew, by their suffix alone.
_CODECS_BY_NAME = {".gz": "gzip", ".zst": "zstd"}

#: Suffixes, without a codec's, of the files that a kind reads in a folder.
SUFFIXES = {
    "parquet": (".parquet", ".pq", ".parq"),
    "jsonl": (".jsonl", ".ndjson", ".jsonlines", ".jl", ".ldjson"),
    "json": (".json",),
    "csv": (".csv", ".tsv"),
    "arrow": (".arrow", ".feather", ".ipc", ".arrows"),
    "xml": (".xml",),
}

#: Kinds whose files are text: a text's first bytes say nothing about its kind.
TEXT_KINDS = frozenset({"jsonl", "json", "csv", "xml"})

#: Kinds whose records have no fixed schema, so that every value carries its type.
VARIANT_KINDS = frozenset({"jsonl", "json", "xml"})

#: First bytes of binary formats, which no text file begins with.
_FIRST_BYTES = {b"PAR1": "parquet", b"ARROW1": "arrow"}
FIRST_BYTES_NEEDED = max(map(len, _FIRST_BYTES))
#: What a file without suffix must begin with to be read in a folder.  A message of an Arrow stream
#: begins with the bytes of -1; whatever a CSV file begins with, so may any text.
_BEGINNINGS = {
    "parquet": (b"PAR1",),
    "arrow": (b"ARROW1", b"\xff\xff\xff\xff"),
    "jsonl": (b"{",),
    "json": (b"{", b"["),
    "xml": (b"<?xml",),
}


def suffix_of(name: str) -> str:
    """Give a file name's suffix, in lower case and without the suffix of a codec."""
    stem, suffix = os.path.splitext(name.lower())
    return os.path.splitext(stem)[1] if suffix in CODECS else suffix


def codec_of_name(name: str) -> str | None:
    """Give the codec that version 0.1 took a file to have, by its suffix."""
    return _CODECS_BY_NAME.get(os.path.splitext(name)[1].lower())


def has_codec_suffix(name: str) -> bool:
    """Tell whether a file is called like a compressed file."""
    return os.path.splitext(name)[1].lower() in CODECS


def begins_like(kind: str, head: bytes) -> bool:
    """Tell whether a file's first bytes, decompressed, show that a kind reads it."""
    if kind in TEXT_KINDS:
        head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith(_BEGINNINGS.get(kind, ())) if kind in _BEGINNINGS else False


def kind_of_name(name: str) -> str | None:
    """Give the kind that reads files with this name; None where no kind does."""
    suffix = suffix_of(name)
    return next((kind for kind, suffixes in SUFFIXES.items() if suffix in suffixes), None)


def kind_of_bytes(first_bytes: bytes) -> str | None:
    """Give the kind of a binary file by its first bytes; None where they say nothing."""
    return next(
        (kind for magic, kind in _FIRST_BYTES.items() if first_bytes.startswith(magic)), None
    )


def is_lance_dataset(location: str) -> bool:
    """Tell whether a folder is a Lance dataset: it holds a folder ``_versions``."""
    system, path = filesystems.open_filesystem(location)
    info: pafs.FileInfo = system.get_file_info(f"{path.rstrip('/')}/_versions")
    return bool(info.type == pafs.FileType.Directory)


def describe_names(names: Iterable[str]) -> tuple[str, str]:
    """Say how many files of which suffix there are, and which kind reads most of them.

    Returns:
        A text such as ``3 .parquet files (kind: parquet reads them), 1 .txt file``, and that kind;
        the kind is empty where no kind reads any of the files.
    """
    counts = Counter(suffix_of(name) for name in names)
    texts, kinds = [], []
    for suffix, count in counts.most_common():
        kind = kind_of_name(suffix and f"x{suffix}")
        kinds.append(kind)
        files = f"{count:,} {suffix or 'suffixless'} file{'s' if count > 1 else ''}"
        pronoun = "them" if count > 1 else "it"
        texts.append(f"{files} (kind: {kind} reads {pronoun})" if kind else files)
    return ", ".join(texts[:5]), next((kind for kind in kinds if kind), "")
