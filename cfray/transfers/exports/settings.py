"""What an export is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from cfray.errors import ConfigError

#: Formats of files.
FileFormat = Literal["parquet", "arrow", "lance", "jsonl", "json", "csv", "markdown"]
#: Formats that are the layouts which vector databases import.
LayoutName = Literal["pinecone", "qdrant", "milvus", "weaviate", "chroma"]
Format = Literal[FileFormat, LayoutName]
#: ``records``: what the source held, its fields and types restored.  ``frames``: the rows of the
#: dataset as they are.
Form = Literal["records", "frames"]
#: How a vector is written: as a list of numbers, as the text of one (which pgvector reads), as
#: base64 of little-endian float32, as a column for each number, or not at all.
VectorForm = Literal["list", "text", "base64", "columns", "none"]

LAYOUTS: tuple[str, ...] = get_args(LayoutName)
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
    "pinecone": ".parquet",
    "qdrant": ".jsonl",
    "milvus": ".json",
    "weaviate": ".jsonl",
    "chroma": ".jsonl",
}
#: Texts and quoted names of SQL, in which a parenthesis is none.
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")


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

    @property
    def is_layout(self) -> bool:
        """Tell whether the files are in the layout that a vector database imports."""
        return self.format in LAYOUTS

    @property
    def has_folders(self) -> bool:
        """Tell whether each collection has a folder of its own."""
        return self.by_collection or self.is_layout

    def check(self) -> None:
        """Refuse settings that do not fit each other.

        Raises:
            ConfigError: names what to change.
        """
        if self.is_layout and self.form == "frames":
            raise ConfigError(
                f"{self.format} imports records, not the rows of a dataset",
                "leave --as frames out, or choose another format",
            )
        if self.is_layout and self.vectors != "list":
            raise ConfigError(
                f"the layout of {self.format} says how its vectors are written",
                "leave --vectors out",
            )
        if self.vectors == "columns" and self.format not in TABULAR:
            raise ConfigError(
                f"--vectors columns needs a format with columns, and {self.format} has none",
                f"choose one of {', '.join(TABULAR)}, or --vectors list",
            )
        if not _is_balanced(self.where):
            raise ConfigError(
                "--where has a parenthesis that it does not open or close",
                "write a single SQL condition",
            )
        if self.by_collection and self.format == "lance":
            raise ConfigError(
                "a Lance dataset has no folder for each collection",
                "leave --by-collection out; --where \"collection = '...'\" exports one of them",
            )


def _is_balanced(condition: str) -> bool:
    """Tell whether a condition stays within the parentheses that it is put into."""
    depth = 0
    for character in _QUOTED.sub("", condition):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            return False
    return depth == 0
