"""What an export is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from cfray.errors import ConfigError

#: Formats of files.
Format = Literal["parquet", "arrow", "lance", "jsonl", "json", "csv", "markdown"]
#: ``records``: what the source held, its fields and types restored.  ``frames``: the rows of the
#: dataset as they are.
Form = Literal["records", "frames"]
#: How a vector is written: as a list of numbers, as the text of one (which pgvector reads), as
#: base64 of little-endian float32, as a column for each number, or not at all.
VectorForm = Literal["list", "text", "base64", "columns", "none"]

FORMATS: tuple[str, ...] = get_args(Format)
#: Formats whose columns have types, the same in every file.
TYPED: tuple[str, ...] = ("parquet", "arrow", "lance")
#: Formats with columns.
TABULAR: tuple[str, ...] = (*TYPED, "csv")
SUFFIXES = {
    "parquet": ".parquet",
    "arrow": ".arrow",
    "lance": "",
    "jsonl": ".jsonl",
    "json": ".json",
    "csv": ".csv",
    "markdown": ".md",
}


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What an export is asked for.

    Attributes:
        format: of the files.
        form: of the rows.
        where: SQL condition on columns of the dataset; empty: every row.
        columns: names of the fields that are written; empty: all.
        vectors: how vectors are written.
        by_collection: each collection has a folder of its own.
    """

    format: Format
    form: Form = "records"
    where: str = ""
    columns: tuple[str, ...] = ()
    vectors: VectorForm = "list"
    by_collection: bool = False

    def check(self) -> None:
        """Refuse settings that do not fit each other.

        Raises:
            ConfigError: names what to change.
        """
        if self.vectors == "columns" and self.format not in TABULAR:
            raise ConfigError(
                f"--vectors columns needs a format with columns, and {self.format} has none",
                f"choose one of {', '.join(TABULAR)}, or --vectors list",
            )
        if self.by_collection and self.format == "lance":
            raise ConfigError(
                "a Lance dataset has no folder for each collection",
                "leave --by-collection out; --where \"collection = '...'\" exports one of them",
            )
