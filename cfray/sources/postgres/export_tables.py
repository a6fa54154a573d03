"""A table as a file holds it, in the words for its types; it travels in a shard's ``where``."""

from __future__ import annotations

from dataclasses import dataclass

from cfray.sources.base import Shard
from cfray.sources.postgres.copytext import TEXT, TextForm
from cfray.sources.postgres.settings import PostgresSettings
from cfray.sources.postgres.types import Column, place_columns
from cfray.sources.postgres.typetext import read_column


@dataclass(frozen=True, slots=True)
class FileTable:
    """A table in a file.

    Attributes:
        name: of the source collection.
        columns: name and type of each, in the words of PostgreSQL.
        key: its primary key.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    key: tuple[str, ...]

    def placed(self) -> list[Column]:
        """Say how the columns are read."""
        return place_columns([read_column(*column) for column in self.columns], self.key)


def table_of(shard: Shard) -> FileTable:
    """Read the table of a shard back."""
    columns, key = shard.where["columns"], shard.where["key"]
    assert isinstance(columns, list)
    assert isinstance(key, list)
    pairs = [tuple(map(str, column)) for column in columns if isinstance(column, list)]
    return FileTable(
        shard.collection, tuple((name, words) for name, words in pairs), tuple(map(str, key))
    )


def text_form(settings: PostgresSettings, form: str) -> TextForm:
    """Say how rows in a form that the job file or the file names are written."""
    if form == "text":
        return TEXT
    return TextForm("," if form == "csv" else "\t", is_csv=True, null=settings.null)
