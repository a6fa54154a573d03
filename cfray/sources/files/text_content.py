"""Refuse a file whose first bytes show that it is no text of its kind, whatever its suffix."""

from __future__ import annotations

from cfray.errors import SourceError
from cfray.formats.wrong_text import refuse_wrong_text
from cfray.sources.files import kinds
from cfray.sources.files.listing import PinnedFile


def refuse_other_content(head: bytes, kind: str, file: PinnedFile) -> None:
    """Refuse what another kind reads, and what no kind does.

    Args:
        head: the file's first bytes, decompressed.
        kind: csv, json or jsonl.
        file: the file.

    Raises:
        SourceError: says what the file is, and what to do.
    """
    if right_kind := kinds.kind_of_bytes(head):
        raise SourceError(
            f"{file.name} is no file for kind: {kind}; kind: {right_kind} reads it",
            f"write source.kind: {right_kind} in the job file, or correct source.uri",
        )
    refuse_wrong_text(head, kind, file.name)
