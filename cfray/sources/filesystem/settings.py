"""What a job file says of files: which are read, how their texts are made, what is kept of them."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from cfray.runtime.models import MIB, ByteSize, Location
from cfray.sources.base import Source
from cfray.sources.filesystem import encodings


class Settings(Source):
    """The section ``source`` of a job that reads a tree of documents."""

    #: They decide how long a document may try, not what a record is.
    unfingerprinted: ClassVar[frozenset[str]] = frozenset({"extract_seconds", "extract_memory"})

    nests_collections: ClassVar[bool] = True
    is_repeatable: ClassVar[bool] = False  # an extractor may run out of time, or be another version

    kind: Literal["filesystem"] = "filesystem"
    #: A folder (read with all its folders), a file or a glob; relative to the job file.
    uri: Location
    #: Globs of the files that are read; default: all.  ``*.md`` is a name at any depth,
    #: ``guides/*.md`` a path below the root, ``guides/`` everything in a folder.
    include: list[str] = Field(default_factory=list)
    #: Globs of files and folders that are not read; stronger than ``include``.
    exclude: list[str] = Field(default_factory=list)
    #: Encoding of texts that are not UTF-8 and name no other.
    encoding: str = "windows-1252"
    #: ``documents``: the text of PDF, DOCX and their like is extracted (needs ``cfray[documents]``
    #: where there is such a file).  ``none``: such files are binaries as any others.
    extract: Literal["documents", "none"] = "documents"
    #: Seconds that the extraction of a document may take.
    extract_seconds: float = Field(default=60, gt=0, le=24 * 3600)
    #: Memory that the extraction of a document may take.
    extract_memory: ByteSize = 2048 * MIB
    #: What becomes of a document without a text: a scan, a damaged file, one that stalls or ends
    #: the extractor.  ``raw``: a record without text and with the file's bytes.
    without_text: Literal["reject", "raw"] = "reject"
    #: Which files' bytes are kept: of the ``others``, from which no text comes; of ``all``; of
    #: ``none``, whose records then say only what the file is.
    raw: Literal["others", "all", "none"] = "others"
    #: Size of a file whose bytes are kept at most; a larger one is rejected.
    max_raw: ByteSize = 16 * MIB

    @field_validator("include", "exclude")
    @classmethod
    def _are_patterns(cls, value: list[str]) -> list[str]:
        for pattern in value:
            if not pattern.removeprefix("./").strip("/") or pattern.startswith("!"):
                raise ValueError(
                    f"{pattern!r} is no pattern: write *.md, guides/*.md or guides/; what is read "
                    "stands in include, what is not in exclude"
                )
        return value

    @field_validator("encoding")
    @classmethod
    def _is_encoding(cls, value: str) -> str:
        if not encodings.file_encoding(value):
            raise ValueError(f"{value!r} is no encoding, as windows-1252 and shift_jis are")
        return value
