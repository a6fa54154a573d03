"""Which of the files at a location a kind of source reads, and why it leaves the others.

A file that the job file names, or that a glob matches, is read whatever its suffix.  In a folder a
kind reads the files with its suffixes, and files without any suffix whose first bytes are its own.
Everything else is named with its reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from cfray.errors import SourceError
from cfray.runtime import filesystems
from cfray.sources.files import compression, kinds, marks, table_formats
from cfray.sources.files.listing import PinnedFile, open_file, read_head
from cfray.sources.files.locations import Listing, list_location
from cfray.sources.files.walk import Entry

#: Files whose first bytes are read at the same time: an object store answers each in some 30 ms.
_THREADS = 32
#: Files for which no thread is started.
_FEW = 8

OTHER_KIND = "another kind of file"
_NO_SUFFIX = "without a suffix, and not known by their first bytes: a glob in source.uri reads them"
_BROKEN = "links that lead to no file"
_SAME_FILE = "the files behind links that are read"


@dataclass(frozen=True, slots=True)
class Selection:
    """The files that a source reads, and what it leaves.

    Attributes:
        listing: what lies at the location.
        files: the files that are read, sorted by name, with the codec that their suffix says.
        passed_over: reason -> names of what is not read, folders with a slash behind.
        twins: names that are one and the same file.
    """

    listing: Listing
    files: list[PinnedFile]
    passed_over: dict[str, list[str]]
    twins: list[list[str]]


def select_files(uri: str, kind: str, suffixes: tuple[str, ...]) -> Selection:
    """List a location, and choose the files that a kind of source reads.

    Args:
        uri: path or URI of a file, a folder or a glob.
        kind: of the source.
        suffixes: of the files that it reads in a folder.

    Raises:
        SourceError: a file that would be read is a link to nothing, has a name that is not UTF-8,
            or belongs to a table; or the location cannot be listed.
        SourceUnavailable: the filesystem did not answer.
    """
    listing = list_location(uri)
    reasons = {entry.name: _why_left(entry, listing, suffixes) for entry in listing.entries}
    chosen = [entry for entry in listing.entries if not reasons[entry.name]]
    identities = {entry.identity for entry in chosen} - {None}
    for entry in listing.entries:
        if reasons[entry.name] == _NO_SUFFIX:
            if entry.identity in identities:
                reasons[entry.name] = _SAME_FILE
            elif _begins_like(listing, entry, kind):
                reasons[entry.name] = ""
    chosen = [entry for entry in listing.entries if not reasons[entry.name]]
    files = [listing.pin(entry) for entry in chosen]
    table_formats.refuse_tables(listing, files, kind)
    passed_over: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        if reason:
            passed_over.setdefault(reason, []).append(name)
    return Selection(listing, files, passed_over, _find_twins(chosen))


def _why_left(entry: Entry, listing: Listing, suffixes: tuple[str, ...]) -> str:
    """Say why a name is not read, by what its folder and its suffix say; empty if it is read."""
    suffix = kinds.suffix_of(entry.name)
    if entry.why_passed_over or not listing.is_folder or suffix in suffixes:
        return entry.why_passed_over
    if entry.is_broken:
        return _BROKEN
    if marks.is_unfinished(entry.name):
        return marks.UNFINISHED
    return OTHER_KIND if suffix else _NO_SUFFIX


def _begins_like(listing: Listing, entry: Entry, kind: str) -> bool:
    """Tell whether a file without a suffix begins like a file of this kind.

    An archive does not, nor does a file that may not be read: its name does not ask for reading it.
    """
    try:
        file = replace(listing.pin(entry), codec=None)
        if kind in kinds.TEXT_KINDS:
            file = pin_codec(file)
        with open_file(file) as stream:
            return kinds.begins_like(kind, bytes(stream.read(compression.HEAD_BYTES)))
    except SourceError as error:
        if error.transient:
            raise
        return False


def _find_twins(entries: Iterable[Entry]) -> list[list[str]]:
    """Group the names that are one and the same file."""
    names: dict[tuple[int, int], list[str]] = defaultdict(list)
    for entry in entries:
        if entry.identity is not None:
            names[entry.identity].append(entry.name)
    return [group for group in names.values() if len(group) > 1]


def pin_codecs(files: list[PinnedFile]) -> list[PinnedFile]:
    """Pin how files are compressed, by their first bytes.

    Raises:
        SourceError: a file cannot be read, is an archive, or is compressed in a way that is not
            read.
        SourceUnavailable: the filesystem did not answer.
    """
    if len(files) <= _FEW or not filesystems.is_uri(files[0].uri):
        return [pin_codec(file) for file in files]
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(pin_codec, files))


def pin_codec(file: PinnedFile) -> PinnedFile:
    """Pin how a file is compressed; refuse an archive, and what is compressed twice.

    Raises:
        SourceError, SourceUnavailable: as ``pin_codecs``.
    """
    head = read_head(file)
    if not head and kinds.has_codec_suffix(file.name):
        raise SourceError(
            f"{file.uri} has no byte, which no compressed file is: it was cut short",
            "export or copy the file again, or remove it",
        )
    codec = compression.find_codec(head, file.uri)
    pinned = replace(file, codec=codec)
    if codec is not None:
        with open_file(pinned) as stream:
            compression.check_content(stream, codec, file.uri)
    return pinned
