"""Compressed files: known by their first bytes, and decompressed as a stream.

A suffix proves nothing, for downloads are renamed and decompressed on the way.  What pyarrow or the
standard library can stream is read; any other archive is refused with the command that unpacks it.
Bytes behind the end of a compressed stream are never passed over, unless they are zeros, with which
tapes and some object stores fill up a block.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import pyarrow as pa

from cfray.errors import SourceError

#: Bytes that show what a file is: the mark of a tar archive stands at byte 257.
HEAD_BYTES = 512
#: Bytes of compressed data that are decompressed at a time.
_BLOCK = 1024 * 1024

#: First bytes and the codec.  Sources: RFC 1952, RFC 8878, the xz file format 1.2, the LZ4 frame
#: format 1.6, PKWARE's APPNOTE 6.3.
_MAGIC = {
    b"\x1f\x8b\x08": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\x00": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\x03\x04": "zip",
}
#: A block, or the end of a stream without blocks, behind the header.
_BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
#: A frame that zstd and LZ4 skip: its length stands in the four bytes behind.
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18", re.DOTALL)

#: First bytes of what cannot be read, its name, and what the operator can do.
_UNREADABLE = {
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", "unpack it (7z x FILE)"),
    b"Rar!\x1a\x07": ("a RAR archive", "unpack it (unrar x FILE)"),
    b"\xff\x06\x00\x00sNaPpY": ("compressed with snappy", "decompress it (snzip -d FILE)"),
    b"\x89LZO\x00\r\n\x1a\n": ("compressed with lzop", "decompress it (lzop -d FILE)"),
    b"\x02\x21\x4c\x18": ("compressed with LZ4's legacy format", "decompress it (lz4 -d FILE)"),
    b"\x1f\x9d": ("compressed with compress", "decompress it (uncompress FILE)"),
    b"PK\x05\x06": ("an empty zip archive", "remove it"),
    b"version https://git-lfs.github.com/spec/": (
        "the pointer that Git LFS leaves in place of a file",
        "fetch the file (git lfs pull)",
    ),
}
#: The mark of a tar archive (POSIX, GNU) and where it stands; no text holds its zero byte.
_TAR, _TAR_POSITION = (b"ustar\x00", b"ustar  \x00"), 257
#: Suffixes of codecs that have no mark in their first bytes.
_UNMARKED = {".br": "brotli", ".snappy": "snappy", ".lzo": "LZO", ".deflate": "deflate"}

#: Words of Arrow's error where a window is larger than it allows (128 MiB).
_LONG_WINDOW = "too much memory"


def find_codec(head: bytes, location: str) -> str | None:
    """Name the codec of a file by its first bytes; None where it is not compressed.

    Args:
        head: the first ``HEAD_BYTES`` bytes, or the whole file.
        location: path or URI, for messages and for the suffix.

    Raises:
        SourceError: the file is an archive or compressed in a way that cannot be read.
    """
    for magic, (what, remedy) in _UNREADABLE.items():
        if head.startswith(magic):
            raise SourceError(f"{location} is {what}", f"{remedy}, and name what comes of it")
    if head[_TAR_POSITION:].startswith(_TAR):
        raise SourceError(
            f"{location} is a tar archive",
            "unpack it (tar xf FILE), and name the folder that comes of it",
        )
    while _SKIPPABLE.match(head):
        head = head[8 + int.from_bytes(head[4:8], "little") :] or b"\x28\xb5\x2f\xfd"
    if _BZIP2.match(head):
        return "bz2"
    codec = next((codec for magic, codec in _MAGIC.items() if head.startswith(magic)), None)
    unmarked = next((name for end, name in _UNMARKED.items() if location.lower().endswith(end)), "")
    if codec is None and unmarked and not _is_text(head):
        raise SourceError(
            f"{location} is compressed with {unmarked}, which is not read",
            "decompress it, or write it with gzip or zstd",
        )
    return codec


def _is_text(head: bytes) -> bool:
    """Tell whether bytes are UTF-8 without control characters; a character may be cut at the end.

    Line breaks and tabs are no control characters here.
    """
    text = head.decode("utf-8", "replace")[:-3]
    return "\N{REPLACEMENT CHARACTER}" not in text and not re.search(r"[\x00-\x08\x0e-\x1f]", text)


def check_content(stream: pa.NativeFile, codec: str, location: str) -> None:
    """Refuse a compressed file that holds an archive, or another compressed file.

    Args:
        stream: the decompressed bytes, at their start.
        codec: of the file.
        location: path or URI, for messages.

    Raises:
        SourceError: names what the file holds.
    """
    inner = find_codec(bytes(stream.read(HEAD_BYTES)), f"what {location} holds")
    if inner is not None:
        raise SourceError(
            f"{location} is compressed twice ({codec}, and {inner} inside)",
            "decompress it once, and name the file that comes of it",
        )


def decompress(raw: pa.NativeFile, codec: str, location: str) -> pa.NativeFile:
    """Read a compressed file as a stream of its content, in bounded memory.

    Args:
        raw: the file, at its start.
        codec: as ``find_codec`` names it.
        location: path or URI, for messages.

    Returns:
        a stream with ``read`` and ``close``.

    Raises:
        SourceError: a zip archive that holds more than a file, or none.  Reading raises it, too,
            where the data is damaged, cut short, or has something behind its end.
    """
    if codec == "zip":
        return _open_zip(raw, location)
    new_decoder = _DECODERS.get(codec)
    if new_decoder is None:
        return pa.CompressedInputStream(raw, codec)
    members = _Members(raw, new_decoder, f"{location} cannot be decompressed as {codec}")
    return cast("pa.NativeFile", io.BufferedReader(members, _BLOCK))


#: Codecs that Arrow does not read (xz), reads too strictly (gzip: no padding), or fails at where a
#: stream holds nothing (bzip2, in 26.0.1).
_DECODERS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16),
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ),
}

_EXPORT_AGAIN = "export or copy the file again, then start anew with another target"


def explain_error(error: OSError, location: str) -> SourceError | None:
    """Explain an error of Arrow's decompression that has a remedy of its own; None for others."""
    if _LONG_WINDOW not in str(error):
        return None
    return SourceError(
        f"{location} is compressed with zstd and a window of more than 128 MiB (zstd --long), "
        "which is not read",
        "decompress it (zstd -d --long=31 FILE), or compress it without --long",
    )


class _Members(io.RawIOBase):
    """The content of a file of one compressed stream, or of several, one behind the other."""

    def __init__(self, raw: pa.NativeFile, new_decoder: Callable[[], Any], what: str) -> None:
        self._raw, self._new_decoder, self._what = raw, new_decoder, what
        self._decoder: Any = new_decoder()
        #: Compressed bytes that were read and not handed to the decoder yet.
        self._input = b""
        self._is_begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._has_member():
            content = self._decode(len(buffer))
            if content:
                buffer[: len(content)] = content
                return len(content)
        return 0

    def _has_member(self) -> bool:
        """Tell whether there is more to decode; begin the next member where one has ended."""
        if not self._decoder.eof:
            return True
        remaining = self._decoder.unused_data.lstrip(b"\x00")
        while not remaining:
            block = self._raw.read(_BLOCK)
            if not block:
                return False
            remaining = block.lstrip(b"\x00")
        self._decoder, self._input = self._new_decoder(), remaining
        return True

    def _decode(self, limit: int) -> bytes:
        """Decode at most ``limit`` bytes; none where the decoder needs more input first."""
        if tail := getattr(self._decoder, "unconsumed_tail", b""):
            return self._feed(tail, limit)
        if not getattr(self._decoder, "needs_input", True):
            return self._feed(b"", limit)
        block = self._input or self._raw.read(_BLOCK)
        self._input = b""
        content = self._feed(block, limit)
        if not block and not content and not self._decoder.eof:
            raise SourceError(
                f"{self._what}: it ends in the middle of its data, so it was cut short",
                _EXPORT_AGAIN,
            )
        return content

    def _feed(self, data: bytes, limit: int) -> bytes:
        try:
            return bytes(self._decoder.decompress(data, limit))
        except (zlib.error, lzma.LZMAError, OSError) as error:
            # OSError: bz2 has no error of its own
            raise SourceError(f"{self._what}: {error}", _EXPORT_AGAIN) from error


class _ZipMember(io.RawIOBase):
    """The content of the only file in a zip archive."""

    def __init__(self, member: BinaryIO, location: str) -> None:
        self._member, self._location = member, location

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._member.read(len(buffer))
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
            what = f"{self._location} cannot be decompressed: {error or 'it is cut short'}"
            raise SourceError(what, _EXPORT_AGAIN) from error
        buffer[: len(content)] = content
        return len(content)


def _open_zip(raw: pa.NativeFile, location: str) -> pa.NativeFile:
    """Open the only file in a zip archive."""
    try:
        archive = zipfile.ZipFile(cast("BinaryIO", raw))
        # macOS adds a folder of its own to the archives that it makes
        members = [
            member
            for member in archive.infolist()
            if not member.is_dir() and not member.filename.startswith("__MACOSX/")
        ]
        if len(members) != 1:
            raise SourceError(
                f"{location} is a zip archive of {len(members):,} files",
                "unpack it (unzip FILE), and name the folder that comes of it",
            )
        member = archive.open(members[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, pa.ArrowInvalid) as error:
        # RuntimeError: a password is needed; ArrowInvalid: it is shorter than any archive
        raise SourceError(
            f"{location} cannot be unpacked: {error}",
            "unpack it (unzip FILE), and name what comes of it",
        ) from error
    return cast("pa.NativeFile", io.BufferedReader(_ZipMember(cast("BinaryIO", member), location)))
