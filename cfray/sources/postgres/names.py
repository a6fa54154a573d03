"""Names and texts of PostgreSQL, written so that a statement holds them and nothing else.

A name of a table or column may hold quotes, blanks, dots and any letters.  No other module puts a
name or a text into a statement by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

#: The schema that a source collection's name leaves out.
DEFAULT_SCHEMA = "public"


def quote_name(name: str) -> str:
    """Write a name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def quote_relation(schema: str, name: str) -> str:
    """Write a table's name with its schema, so that no search path decides which table it is."""
    return f"{quote_name(schema)}.{quote_name(name)}"


def quote_names(names: Iterable[str]) -> str:
    """Write names as a list."""
    return ", ".join(map(quote_name, names))


def quote_text(text: str) -> str:
    """Write a text as a literal of SQL; the session has ``standard_conforming_strings`` on."""
    return "'" + text.replace("'", "''") + "'"


def source_collection(schema: str, name: str) -> str:
    """Name a table as a source collection: with its schema, unless that is ``public``.

    A part that holds a dot or a quote stands in quotes, so that no two tables share a name.
    """
    parts = [name] if schema == DEFAULT_SCHEMA else [schema, name]
    return ".".join(quote_name(part) if set(part) & {".", '"'} else part for part in parts)
