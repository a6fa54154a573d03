"""What a file is by its name and its first bytes: its MIME type, and what treats it.

The tables are the same on every machine: those of the operating system are not asked.
"""

from __future__ import annotations

import mimetypes
import os

#: Documents whose text the extractor makes.
DOCUMENTS = {
    ".pdf": "application/pdf",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".doc": "application/msword",
    ".ppt": "application/vnd.ms-powerpoint",
    ".xls": "application/vnd.ms-excel",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".ods": "application/vnd.oasis.opendocument.spreadsheet",
    ".epub": "application/epub+zip",
    ".rtf": "application/rtf",
    ".eml": "message/rfc822",
    ".msg": "application/vnd.ms-outlook",
}
MARKDOWN, HTML, RST = "text/markdown", "text/html", "text/x-rst"
#: Texts that Python's table does not know, or knows by another name.
_TEXTS = {
    **dict.fromkeys((".md", ".markdown", ".mdx", ".mkd", ".qmd", ".rmd"), MARKDOWN),
    **dict.fromkeys((".html", ".htm", ".xhtml"), HTML),
    ".rst": RST,
    ".adoc": "text/asciidoc",
    ".org": "text/org",
    ".tex": "text/x-tex",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".toml": "application/toml",
    ".jsonl": "application/x-ndjson",
    ".ts": "text/x-typescript",
}
#: Suffixes of compressed files -> codec, its first bytes, MIME type.
_CODECS = {
    ".gz": ("gzip", b"\x1f\x8b\x08", "application/gzip"),
    ".zst": ("zstd", b"\x28\xb5\x2f\xfd", "application/zstd"),
    ".xz": ("xz", b"\xfd7zXZ\x00", "application/x-xz"),
    ".bz2": ("bz2", b"BZh", "application/x-bzip2"),
}
#: First bytes of files without a suffix that says more.
_BEGINNINGS = {
    b"%PDF-": "application/pdf",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"PK\x03\x04": "application/zip",
    b"\x1f\x8b\x08": "application/gzip",
    b"\x7fELF": "application/x-executable",
    b"\x28\xb5\x2f\xfd": "application/zstd",
    b"\xfd7zXZ\x00": "application/x-xz",
}
#: First bytes of documents: of PDF (which may stand behind others), packages, old Office files.
_PDF, _ZIP, _OLE, _RTF = b"%PDF-", b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"{\\rtf"
_DOCUMENT_BEGINNINGS = {
    **dict.fromkeys((".docx", ".pptx", ".xlsx", ".odt", ".ods", ".epub"), _ZIP),
    **dict.fromkeys((".doc", ".ppt", ".xls", ".msg"), _OLE),
    ".rtf": _RTF,
    ".eml": b"",
}
#: Bytes in which a PDF must begin (Adobe, PDF Reference 1.7, appendix H, note 13).
HEAD_BYTES = 1024
_TABLE = mimetypes.MimeTypes(filenames=())
_DOCUMENT_TYPES = frozenset(DOCUMENTS.values())


def suffix_of(name: str) -> str:
    """Give a file's suffix in lower case."""
    return os.path.splitext(name)[1].lower()


def codec_of(name: str, head: bytes) -> str | None:
    """Give the codec of a compressed file, by its suffix and its first bytes."""
    codec, first_bytes, _ = _CODECS.get(suffix_of(name), (None, b"", ""))
    return codec if head.startswith(first_bytes) else None


def inner_name(name: str) -> str:
    """Give the name of what a compressed file holds."""
    return os.path.splitext(name)[0]


def mime_of(name: str, head: bytes, *, is_text: bool) -> str:
    """Give a file's MIME type."""
    suffix = suffix_of(name)
    if suffix in _CODECS and head.startswith(_CODECS[suffix][1]):
        return _CODECS[suffix][2]
    known = DOCUMENTS.get(suffix) or _TEXTS.get(suffix)
    known = known or _TABLE.types_map[True].get(suffix) or _TABLE.types_map[False].get(suffix)
    if known in _DOCUMENT_TYPES and suffix not in DOCUMENTS:
        known = None  # .dot and others, which are also called so by programs that know no Word
    if is_text and known in _DOCUMENT_TYPES and suffix != ".eml":
        known = None  # a catalogue of messages (.msg), a text that calls itself .doc
    if known and not (is_text and known.startswith(("audio/", "video/", "font/"))):
        return known
    if is_text:
        return "text/plain"
    return next(
        (mime for mark, mime in _BEGINNINGS.items() if head.startswith(mark)),
        "application/octet-stream",
    )


def is_document(mime: str) -> bool:
    """Tell whether the extractor makes the text of files of this type."""
    return mime in _DOCUMENT_TYPES


def begins_like(mime: str, head: bytes) -> bool:
    """Tell whether a file's first bytes are those of a document of this type."""
    if mime == DOCUMENTS[".pdf"]:
        return _PDF in head
    return any(
        head.startswith(mark)
        for suffix, mark in _DOCUMENT_BEGINNINGS.items()
        if DOCUMENTS[suffix] == mime
    )
