"""One file of the list, made into a record, or into a reject with its reason.

The record's own fields come first; the keys of a document's front matter stand beside them.  A key
that is called like a field of ours stands in the field ``front_matter``, so that neither is lost.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from dataclasses import dataclass

import pyarrow as pa

from cfray.errors import SourceError
from cfray.records.record import Reject, Typed
from cfray.sources.files import compression
from cfray.sources.files.listing import utc_second
from cfray.sources.files.locations import printable
from cfray.sources.filesystem import encodings, front_matter, media
from cfray.sources.filesystem.encodings import DecodedText
from cfray.sources.filesystem.extractor import Extracted, Extractor
from cfray.sources.filesystem.manifest import ListedFile
from cfray.sources.filesystem.pinned import Content
from cfray.sources.filesystem.settings import Settings

#: The fields that cfray makes; a key of the front matter never takes one's place.
OWN_FIELDS = (
    *("id", "path", "name", "collection", "title", "text", "mime", "size", "modified", "link"),
    *("compression", "encoding", "encoding_guessed", "sha256", "properties", "extraction_problem"),
    *("raw", "raw_type", "front_matter", "front_matter_problem"),
)
_INSTANT = "timestamp[ns, tz=UTC]"
#: A heading of Markdown (``# Title``), or a line that another one underlines.
_HEADING = re.compile(
    r"^(?:#[ \t]+(?P<marked>\S.*?)[ \t#]*|(?P<underlined>\S.*?)[ \t]*\n(?:={3,}|\*{3,})[ \t]*)$",
    re.MULTILINE,
)
_CODE = re.compile(r"^(```+|~~~+).*?(?:^\1|\Z)", re.MULTILINE | re.DOTALL)
#: Characters in which a heading is looked for.
_HEADING_WITHIN = 4096


@dataclass(frozen=True, slots=True)
class Made:
    """What a file became.

    Attributes:
        record: field -> value, parsed JSON or Typed; None where the file is rejected.
        reject: why; None where there is a record.
        size: bytes of the record, about.
    """

    record: dict[str, object] | None
    reject: Reject | None = None
    size: int = 0


class _Problem(Exception):
    """Why a file is no record."""


def make_record(
    file: ListedFile, content: Content, settings: Settings, extractor: Extractor, max_record: int
) -> Made:
    """Make the record of a file.

    Raises:
        SourceError: the extractor is not installed.
        SourceUnavailable: the extractor's process does not start.
    """
    if content.problem:
        return Made(None, Reject(content.problem, printable(file.name), b""))
    try:
        record = _Document(file, content.data, settings, extractor, max_record).record()
    except _Problem as problem:
        return Made(None, Reject(str(problem), printable(file.name), b""))
    size = sum(len(value) for value in record.values() if isinstance(value, str))
    raw = record.get("raw")
    return Made(record, size=size + (len(str(raw.value)) if isinstance(raw, Typed) else 0))


@dataclass(frozen=True, slots=True)
class _Document:
    file: ListedFile
    data: bytes
    settings: Settings
    extractor: Extractor
    max_record: int

    def record(self) -> dict[str, object]:
        """Make the record.

        Raises:
            _Problem: the document has no text, or may not be kept.
        """
        content, codec = self._decompressed()
        name = media.inner_name(self.file.name) if codec else self.file.name
        mime = media.mime_of(name, content[:16], is_text=False)
        decoded: DecodedText | None = None
        extracted: Extracted | None = None
        if not media.is_document(mime) or not media.begins_like(mime, content[: media.HEAD_BYTES]):
            decoded = encodings.decode(content, self.settings.encoding)
        if media.is_document(mime) and decoded is None:
            # also a damaged one, which no other program reads as a text
            if self.settings.extract == "documents":
                extracted = self.extractor.extract(content, mime)
        else:
            mime = media.mime_of(name, content[:16], is_text=decoded is not None)
            if decoded is not None and mime == media.HTML and content:
                extracted = self.extractor.extract(decoded.text.encode(), mime)
        record = self._common(name, mime, codec)
        if extracted is not None:
            self._add_extracted(record, extracted, is_empty_fine=not content)
        elif decoded is not None:
            record |= _text_fields(decoded.text, mime)
        else:
            # what a compressed file holds is no text: the file is kept as it is
            record["mime"] = media.mime_of(self.file.name, self.data[:16], is_text=False)
        if decoded is not None:
            record |= {"encoding": decoded.encoding}
            record |= {"encoding_guessed": True} if decoded.is_guessed else {}
        self._add_raw(record)
        return record

    def _decompressed(self) -> tuple[bytes, str | None]:
        """Give what a compressed file holds, and its codec; any other file as it is."""
        codec = media.codec_of(self.file.name, self.data[:16])
        if codec is None:
            return self.data, None
        try:
            with compression.decompress(
                pa.BufferReader(self.data), codec, printable(self.file.name)
            ) as stream:
                content = bytes(stream.read(self.max_record + 1))
        except SourceError as error:
            raise _Problem(error.what) from error
        except (pa.ArrowInvalid, OSError, EOFError, ValueError) as error:
            raise _Problem(f"it cannot be decompressed ({codec}): {error}") from error
        if len(content) > self.max_record:
            raise _Problem(f"decompressed it is over limits.max_document ({self.max_record})")
        return content, codec

    def _common(self, name: str, mime: str, codec: str | None) -> dict[str, object]:
        file = self.file
        path = printable(file.name)
        folder, _, own_name = path.rpartition("/")
        record: dict[str, object] = {
            "id": file_id(file.name),
            "path": path,
            "name": own_name,
            "mime": mime,
            "size": file.size,
        }
        if second := utc_second(file.modified):
            # isoformat writes the year with four digits
            instant = f"{second.replace(tzinfo=None).isoformat()}.{file.modified % 10**9:09d}+00:00"
            record["modified"] = Typed(_INSTANT, instant)
        record["sha256"] = hashlib.sha256(self.data).hexdigest()
        record |= {"collection": folder} if folder else {}
        record |= {"link": printable(file.links[-1])} if file.links else {}
        record |= {"compression": codec} if codec else {}
        return record

    def _add_extracted(
        self, record: dict[str, object], extracted: Extracted, *, is_empty_fine: bool
    ) -> None:
        problem = extracted.problem
        if not problem and not extracted.text.strip() and not is_empty_fine:
            problem = "no text was found in it"
        if not problem:
            record["text"] = extracted.text
            record |= {"title": extracted.title} if extracted.title else {}
            record |= {"properties": extracted.properties} if extracted.properties else {}
        elif self.settings.without_text == "reject":
            raise _Problem(f"{record['mime']}: {problem}")
        else:
            record["extraction_problem"] = problem

    def _add_raw(self, record: dict[str, object]) -> None:
        """Keep the file's bytes where the job asks for it."""
        keep = self.settings.raw
        if keep == "none" or (keep == "others" and "text" in record):
            return
        if self.file.size > self.settings.max_raw:
            raise _Problem(
                f"{record['mime']}: {self.file.size} bytes to be kept as they are, over "
                f"source.max_raw ({self.settings.max_raw})"
            )
        record["raw"] = Typed("binary", base64.b64encode(self.data).decode())
        record["raw_type"] = media.mime_of(
            self.file.name, self.data[:16], is_text=str(record["mime"]).startswith("text/")
        )


def file_id(name: str) -> str | Typed:
    """Give a record's id: the path, or where it is not UTF-8 its bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return Typed("binary", base64.b64encode(os.fsencode(name)).decode())
    return name


def _text_fields(text: str, mime: str) -> dict[str, object]:
    """Give the text of a file that is text, its title, and what its front matter says."""
    if mime not in (media.MARKDOWN, media.RST):
        return {"text": text}
    front = front_matter.split(text) if mime == media.MARKDOWN else front_matter.FrontMatter(text)
    fields: dict[str, object] = {"text": front.body}
    values = dict(front.values)
    title = values.get("title")
    if isinstance(title, str) and title.strip():
        del values["title"]
    else:
        title = _heading(front.body)
    fields |= {"title": title} if title else {}
    fields |= {"front_matter_problem": front.problem} if front.problem else {}
    nested = {key: values.pop(key) for key in OWN_FIELDS if key in values}
    fields |= {"front_matter": nested} if nested else {}
    return fields | values


def _heading(text: str) -> str:
    match = _HEADING.search(_CODE.sub("", text[:_HEADING_WITHIN].replace("\r\n", "\n")))
    return (match["marked"] or match["underlined"]).strip() if match else ""
