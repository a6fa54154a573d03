"""Mapping: the declared rule that turns a Record into a Frame.

The model is what the job file may say; ``Fields`` finds the columns of a batch
that a rule names.  Rules name a source field by a dotted path; what no rule
takes goes to custom_metadata, so a mapping can never lose a field by silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field, model_validator

from cfray.records.record import MISSING, is_variant, parsed, variant_array
from cfray.runtime.models import Strict

Path = tuple[str, ...]


class Const(Strict):
    """The same text in every row."""

    const: str


class Template(Strict):
    """A text with source fields in braces: ``"{first} {last}"``."""

    template: str

    @property
    def paths(self) -> list[Path]:
        """Name the fields between the braces, in order."""
        return [as_path(name) for name in re.findall(r"\{([^{}]+)\}", self.template)]


class Literally(Strict):
    """A path whose names may hold dots: one list item a level."""

    path: list[str] = Field(min_length=1)


class Key(Strict):
    """A composite id: its parts in order."""

    key: list[str | Literally] = Field(min_length=1)


#: One field of the record.
FieldRule = str | Literally
#: Several fields: the first that is present.
FieldRules = Annotated[list[FieldRule], Field(min_length=1)]
#: Where a column's text comes from: the first path that is present, a constant or a template.
TextRule = FieldRule | FieldRules | Const | Template


class RelationshipRule(Strict):
    """A reference to another record, rewritten to its uuid.

    ``to`` holds the other record's id (a scalar or a list); ``collection`` names its source
    collection where that is another one.
    """

    type: Literal["parent", "child", "related", "reference", "contains", "member_of"]
    to: FieldRule | FieldRules | Key
    collection: str | None = None


def _as_list(value: object) -> object:
    return [value] if isinstance(value, dict) else value


class Mapping(Strict):
    """Which source fields become which columns; every key is a column unless said otherwise."""

    id: FieldRule | FieldRules | Key = "id"
    text_content: TextRule | None = None
    title: TextRule | None = None
    vector: FieldRule | None = None
    #: Further vectors, by the name behind ``x_vector_``.
    vectors: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], FieldRule] = Field(
        default_factory=dict
    )
    version: TextRule | None = None
    context: TextRule | None = None
    uri: TextRule | None = None
    local_path: TextRule | None = None
    cid: TextRule | None = None
    collection: TextRule | None = None
    position: FieldRule | None = None
    author: TextRule | None = None
    contributors: FieldRule | None = None
    tags: FieldRule | None = None
    created_at: FieldRule | FieldRules | None = None
    updated_at: FieldRule | FieldRules | None = None
    status: TextRule | None = None
    source_file: TextRule | None = None
    raw_data: FieldRule | None = None
    raw_data_type: TextRule | None = None
    relationships: Annotated[list[RelationshipRule], BeforeValidator(_as_list)] = Field(
        default_factory=list
    )
    #: Write membership in the collection as a relationship, too (contextframe.md: its 0.1.1 client
    #: cannot update such rows).
    member_of: bool = True
    #: Keep a source id that is a UUID as the frame's uuid.
    keep_uuid: bool = False
    on_duplicate: Literal["quarantine", "error"] = "quarantine"

    @model_validator(mode="after")
    def _columns_are_well_formed(self) -> Mapping:
        if self.raw_data is not None and self.raw_data_type is None:
            raise ValueError(
                "raw_data needs raw_data_type: a MIME type, for example {const: image/png}"
            )
        if isinstance(self.version, Const) and not re.fullmatch(
            r"\d+\.\d+\.\d+", self.version.const
        ):
            raise ValueError(
                f"version {self.version.const!r} is not MAJOR.MINOR.PATCH, for example 1.0.0"
            )
        return self

    def rules(self) -> Iterator[tuple[str, Path]]:
        """Name every (key of the job file, source path) this mapping uses."""
        for name, rule in self:
            if name in ("member_of", "keep_uuid", "on_duplicate"):
                continue
            if name == "relationships":
                for relation in self.relationships:
                    yield from (("relationships.to", path) for path in rule_paths(relation.to))
            elif name == "vectors":
                yield from (
                    (f"vectors.{key}", as_path(value)) for key, value in self.vectors.items()
                )
            else:
                yield from ((name, path) for path in rule_paths(rule))


def as_path(rule: FieldRule) -> Path:
    """Split a dotted path into names."""
    return tuple(rule.path) if isinstance(rule, Literally) else tuple(rule.split("."))


def rule_paths(rule: object) -> list[Path]:
    """List the source paths a rule reads."""
    if isinstance(rule, Key):
        return [as_path(part) for part in rule.key]
    if isinstance(rule, Template):
        return rule.paths
    if isinstance(rule, list):
        return [as_path(part) for part in rule]
    return (
        [as_path(rule)] if isinstance(rule, str | Literally) and not isinstance(rule, Const) else []
    )


def dotted(path: Path) -> str:
    """Write a path as the job file does."""
    return ".".join(path)


@dataclass(frozen=True, slots=True)
class SourceShape:
    """What the plan found out about a source, and every worker needs to agree on.

    Attributes:
        kind: the source's kind; ``source_type`` of every frame.
        url: the source's location without credentials; ``source_url`` of every frame.
        dimension: width of the target's vectors.
        source_dimension: width of the source's, where a model makes others of them; 0: the same.
        fixed: whether the source has a fixed schema (null means absent).
        types: dotted path -> type name, recorded once per dataset (schema metadata
            ``cfray.types``).
        vector: source path of the primary vector, where the job file does not name one.
        vectors: name behind ``x_vector_`` -> source path, for vectors beside the primary one.
        id_tag: tag of the ids a reference is cast to: s, i, u, b or j.
    """

    kind: str
    url: str
    dimension: int
    fixed: bool
    types: dict[str, str]
    vectors: dict[str, Path]
    id_tag: str
    vector: Path = ("vector",)
    source_dimension: int = 0

    @property
    def read_dimension(self) -> int:
        """Give the width of the vectors as they are read."""
        return self.source_dimension or self.dimension


def primary_vector(mapping: Mapping, layout: SourceShape) -> Path:
    """Name the field of the primary vector: the job file's, else what the plan found."""
    return as_path(mapping.vector) if mapping.vector is not None else layout.vector


class Fields:
    """The columns of one batch by path.

    A nested column is opened only where a rule reaches into it.
    """

    def __init__(
        self, batch: pa.RecordBatch, reach: set[Path], *, blank_is_null: bool = False
    ) -> None:
        """Open the columns that ``reach``, the paths the rules name, goes into.

        ``blank_is_null``: a rule takes an empty text for null (CSV, which cannot write a null).
        """
        self.blank_is_null = blank_is_null
        self.rows = batch.num_rows
        self.columns: dict[Path, pa.Array] = {}
        self.variants: set[Path] = set()
        #: First names of the paths that go into a nested field; a field named like ``meta.by``
        #: itself must not be mixed up with those.
        self.entered = {path[0] for path in reach if len(path) > 1}
        #: Opened structs that are null in some row: without their own entry, "null" and "all
        #: children null" would be one.
        self.opened: dict[Path, pa.Array] = {}
        for field, column in zip(batch.schema, batch.columns, strict=True):
            self._add((field.name,), column, reach, variant=is_variant(field))

    def given(self, path: Path) -> pa.Array | None:
        """Give a field's column as a rule sees it; None if there is no such field."""
        column = self.columns.get(path)
        if column is None or not self.blank_is_null or not pa.types.is_string(column.type):
            return column
        return pc.if_else(pc.equal(column, ""), None, column)

    def _add(self, path: Path, column: pa.Array, reach: set[Path], *, variant: bool) -> None:
        deeper = any(len(other) > len(path) and other[: len(path)] == path for other in reach)
        if not deeper or path in reach:
            self.columns[path] = column
            if variant:
                self.variants.add(path)
            return
        if variant:
            self._open_variant(path, column, reach)
        elif pa.types.is_struct(column.type):
            self.opened[path] = column
            for place, child in enumerate(column.type):
                self._add(
                    (*path, child.name), pc.struct_field(column, [place]), reach, variant=False
                )
        else:
            self.columns[path] = column

    def _open_variant(self, path: Path, column: pa.StructArray, reach: set[Path]) -> None:
        """Open a variant column's objects; values that are no object stay under the path itself."""
        kinds, texts = (
            pc.struct_field(column, [0]).to_pylist(),
            pc.struct_field(column, [1]).to_pylist(),
        )
        read = [
            parsed(text) if kind == "struct" else None
            for kind, text in zip(kinds, texts, strict=True)
        ]
        objects = [item if isinstance(item, dict) else None for item in read]
        rest = [item is None for item in objects]
        if any(rest) and not all(
            kind is None for kind, other in zip(kinds, rest, strict=True) if other
        ):
            kept = pc.if_else(pa.array(rest), column, pa.scalar(None, column.type))
            self.columns[path] = kept
            self.variants.add(path)
        names = dict.fromkeys(key for item in objects if item for key in item)
        for name in names:
            child = variant_array(
                MISSING if item is None else item.get(name, MISSING) for item in objects
            )
            self._add((*path, name), child, reach, variant=True)
        empty = [item is not None and not item for item in objects]
        if any(empty):  # an empty object has no children to carry it
            kept = self.columns.get(path, pa.nulls(self.rows, column.type))
            self.columns[path] = pc.if_else(pa.array(empty), column, kept)
            self.variants.add(path)
