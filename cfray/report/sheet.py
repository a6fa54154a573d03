"""A sheet: a title, lines and tables that Python shows as text and a notebook as HTML.

What stands on a sheet comes from data and from job files, so HTML escapes every word of it.  No
sheet knows what it shows; the command line has a display of its own (``text.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a header; a row has as many cells as the header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def as_text(self) -> str:
        """Write the table with its columns aligned."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        return "\n".join(
            "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def as_html(self) -> str:
        """Write the table as HTML."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in self.header)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True, slots=True)
class Sheet:
    """What is shown, top to bottom."""

    title: str
    parts: Sequence[str | Table]

    def as_text(self) -> str:
        """Write the sheet for a terminal."""
        parts = [part if isinstance(part, str) else part.as_text() for part in self.parts]
        return "\n".join(
            [self.title, *("  " + line for part in parts for line in part.split("\n"))]
        )

    def as_html(self) -> str:
        """Write the sheet for a notebook."""
        parts = [
            f"<div>{escape(part)}</div>" if isinstance(part, str) else part.as_html()
            for part in self.parts
        ]
        return f"<div><strong>{escape(self.title)}</strong>{''.join(parts)}</div>"
