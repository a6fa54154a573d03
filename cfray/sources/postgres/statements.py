"""The statements of a script of SQL, cut where the server would cut them.

A semicolon, a line break or a word within quotes or within a comment is none of the language, so
nothing may look for a statement in a script line by line.  Nothing is run here.

Source: https://www.postgresql.org/docs/current/sql-syntax-lexical.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LETTER = r"A-Za-z_\x80-\U0010ffff"
#: What opens a quoted text or a comment, and the words that may end with a letter or a dollar of
#: such an opening.
_OPENING = re.compile(
    rf"(?P<line>--)|/\*|[eE]'|'|\"|\$(?:[{_LETTER}][\w{_LETTER}]*)?\$"
    rf"|(?P<word>[\w{_LETTER}][\w${_LETTER}]*)"
)
#: Opening -> what may end it, and what only looks like that.
_ENDINGS = {
    "'": re.compile("''|'"),
    '"': re.compile('""|"'),
    "E'": re.compile(r"''|\\.|'", re.DOTALL),
    "/*": re.compile(r"/\*|\*/"),
}
#: Stands in a statement's code for what is quoted.
QUOTED = '"'


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement, or the part of one that was read.

    Attributes:
        text: of the statement, with its semicolon, without what stands before it.
        code: as long as the text; what is quoted is ``QUOTED``, comments are blanks.
    """

    text: str = ""
    code: str = ""


class Statements:
    """Cuts a script, line by line."""

    def __init__(self, kept: tuple[str, ...]) -> None:
        """Begin outside of quotes.

        Args:
            kept: first words, in capitals, of the statements that are wanted whole; of others only
                the begin is kept.
        """
        self._kept, self._open, self._depth = kept, "", 0
        self._statement = Statement()
        #: Whether a backslash is an escape in every text (standard_conforming_strings is off).
        self.has_escapes = False

    @property
    def is_between(self) -> bool:
        """Tell whether no statement and no comment is open."""
        return not self._statement.text and not self._open

    def add(self, line: str) -> list[Statement]:
        """Take in the next line; give the statements that end in it."""
        code = self._code(line)
        ended, start = [], 0
        for match in re.finditer(";", code):
            self._extend(line[start : match.end()], code[start : match.end()])
            ended.append(self._statement)
            self._statement, start = Statement(), match.end()
        self._extend(line[start:], code[start:])
        return ended

    def _extend(self, text: str, code: str) -> None:
        if not self._statement.text:
            blanks = len(code) - len(code.lstrip())
            self._statement = Statement(text[blanks:], code[blanks:])
        elif self._statement.text[:20].upper().startswith(self._kept):
            self._statement = Statement(self._statement.text + text, self._statement.code + code)

    def _code(self, line: str) -> str:
        """Put ``QUOTED`` and blanks in the place of what is no code."""
        parts: list[str] = []
        position = 0
        while position < len(line):
            if self._open:
                end = self._find_end(line, position)
                mark = " " if self._open == "/*" else QUOTED
                parts.append(mark * ((len(line) if end is None else end) - position))
                if end is None:
                    break
                self._open, position = "", end
                continue
            match = _OPENING.search(line, position)
            if match is None:
                parts.append(line[position:])
                break
            parts.append(line[position : match.start()])
            position = match.end()
            if match["word"]:
                parts.append(match[0])
            elif match["line"]:
                end = line.find("\n", position)
                end = len(line) if end < 0 else end
                parts.append(" " * (end - match.start()))
                position = end
            else:
                self._open, self._depth = match[0].upper() if match[0] == "e'" else match[0], 1
                if self._open == "'" and self.has_escapes:
                    self._open = "E'"
                parts.append((" " if match[0] == "/*" else QUOTED) * len(match[0]))
        return "".join(parts)

    def _find_end(self, line: str, position: int) -> int | None:
        """Give the offset behind the end of what is open; None where it does not end here."""
        if self._open.startswith("$"):
            end = line.find(self._open, position)
            return None if end < 0 else end + len(self._open)
        for match in _ENDINGS[self._open].finditer(line, position):
            if self._open == "/*":
                self._depth += 1 if match[0] == "/*" else -1
                if not self._depth:
                    return match.end()
            elif len(match[0]) == 1:
                return match.end()
        return None


def list_items(statement: Statement, start: int) -> tuple[list[Statement], int]:
    """Cut a list in parentheses at its commas.

    Args:
        statement: holds the list.
        start: offset behind the parenthesis that opens it.

    Returns:
        the items; the offset behind the parenthesis that closes it.
    """
    items, depth, position = [], 0, start
    text, code = statement.text, statement.code
    for match in re.finditer(r"[()\[\],]", code[start:]):
        offset = start + match.start()
        if match[0] in "([":
            depth += 1
        elif match[0] in ")]" and depth:
            depth -= 1
        elif not depth:
            blanks = len(code[position:offset]) - len(code[position:offset].lstrip())
            end = position + len(code[position:offset].rstrip())
            items.append(Statement(text[position + blanks : end], code[position + blanks : end]))
            position = offset + 1
            if match[0] != ",":
                break
    return [item for item in items if item.text], position
