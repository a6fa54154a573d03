"""The kind of a file by its first bytes, where its suffix is wrong, unknown or absent."""

from __future__ import annotations

from collections.abc import Sequence

from cfray.errors import SourceError
from cfray.formats import dialects
from cfray.formats.lines import BOM
from cfray.sources.files import kinds
from cfray.sources.files.listing import PinnedFile, open_file
from cfray.sources.files.selection import pin_codec
from cfray.sources.postgres.dump import DUMP_MARK, DUMP_MARK_WITHIN

#: Share of the records of a text that must agree before a text without a suffix is a table.
_MOSTLY = 0.9


def read_head(file: PinnedFile) -> bytes:
    """Read the first bytes of a file's content, decompressed.

    Raises:
        SourceError: the file cannot be read.
    """
    with open_file(pin_codec(file)) as stream:
        return bytes(stream.read(dialects.HEAD_BYTES))


def is_postgres_dump(file: PinnedFile) -> bool:
    """Tell a plain dump of pg_dump; a file that cannot be read is none."""
    try:
        return DUMP_MARK in read_head(file)[:DUMP_MARK_WITHIN]
    except SourceError:
        return False


def find_kind(file: PinnedFile, suffix_kind: str | None, *, is_alone: bool) -> str:
    """Find the kind of source that reads a file; empty where none does.

    A file that cannot be opened is taken for what its suffix says: reading it gives the reason.
    Of the others only one that stands alone must be read.

    Args:
        file: the file.
        suffix_kind: the kind that its suffix says, if any.
        is_alone: whether there is no file of a known suffix beside it: then a table without a
            known suffix may be an export, too.
    """
    try:
        head = read_head(file)
    except SourceError:
        if suffix_kind is None and is_alone:
            raise
        return suffix_kind or ""
    binary_kind = kinds.kind_of_bytes(head[: kinds.FIRST_BYTES_NEEDED])
    if binary_kind is None and suffix_kind is None and kinds.begins_like("arrow", head):
        binary_kind = "arrow"
    if binary_kind is not None:
        return binary_kind
    if suffix_kind is not None and suffix_kind not in kinds.TEXT_KINDS:
        return suffix_kind
    return _kind_of_text(head, suffix_kind, is_alone=is_alone)


def _kind_of_text(head: bytes, suffix_kind: str | None, *, is_alone: bool) -> str:
    if suffix_kind == "xml":
        return suffix_kind
    json_kind = _kind_of_json(head, suffix_kind)
    if json_kind:
        return json_kind
    is_like_json = head.removeprefix(BOM).lstrip()[:1] in (b"{", b"[")
    if suffix_kind in ("json", "jsonl") and is_like_json:
        return suffix_kind  # not quite JSON: reading it names the place
    if suffix_kind == "csv" or (suffix_kind is None and not is_alone):
        return suffix_kind or ""
    return "csv" if _is_table(head) else suffix_kind or ""


def _kind_of_json(head: bytes, suffix_kind: str | None) -> str:
    """Tell one object a line from a whole document of JSON; empty for what is neither."""
    ranked = dialects.rank_json(head)
    if not ranked:
        return ""
    best = ranked[0]
    is_single = best.source == {"kind": "json"} and best.records <= 1
    return suffix_kind if is_single and suffix_kind == "jsonl" else str(best.source["kind"])


def _is_table(head: bytes) -> bool:
    """Tell a text of delimited records that agree."""
    return bool(_table_keys(head))


def _table_keys(head: bytes) -> tuple[object, ...]:
    """Give delimiter and number of columns of a table; empty for any other text."""
    if b"\0" in head:
        return ()
    ranked = dialects.rank_dialects(head)
    if not ranked:
        return ()
    best = ranked[0]
    delimiter = str(best.source.get("delimiter", ","))
    is_table = best.width > 1 and best.records > 1 and best.agreeing >= _MOSTLY * best.records
    return () if not is_table or _is_prose(head, delimiter) else (delimiter, best.width)


def _is_prose(head: bytes, delimiter: str) -> bool:
    """Tell commas of sentences: people write a space behind them, and programs do not."""
    commas = head.count(delimiter.encode())
    followed = head.count(f"{delimiter} ".encode())
    return delimiter in ",;:" and followed > commas / 2


def are_one_table(files: Sequence[PinnedFile], kinds: Sequence[str]) -> bool:
    """Tell whether texts are parts of one table: of one delimiter, with as many columns each.

    Args:
        files: the files.
        kinds: their kinds by themselves.
    """
    if set(kinds) != {"csv"}:
        return False
    return len({_table_keys(read_head(file)) for file in files}) == 1
