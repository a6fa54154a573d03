"""Mapping: the rules of a job file that turn a Record into a Frame.

A rule names fields of the source by dotted paths.  A field that no rule takes goes to
custom_metadata, so a mapping cannot lose a field by saying nothing of it.  What a rule means for
the columns of a batch is not decided here but in ``conversion``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from cfray.records.vector_forms import VectorForm
from cfray.runtime.models import Strict

Path = tuple[str, ...]

#: Begin of the keys of a case's rules.
_CASES = "cases."


class Const(Strict):
    """The same text in every row."""

    const: str


class Template(Strict):
    """A text with source fields in braces: ``"{first} {last}"``."""

    template: str

    @property
    def paths(self) -> list[Path]:
        """List the paths of the fields between the braces, in order."""
        return [as_path(name) for name in re.findall(r"\{([^{}]+)\}", self.template)]


class LiteralPath(Strict):
    """A path as a list with a name for each level; a name may hold a dot."""

    path: list[str] = Field(min_length=1)


class Key(Strict):
    """A composite id, made of several fields in order."""

    key: list[str | LiteralPath] = Field(min_length=1)


class VectorRule(Strict):
    """A field that holds a vector, and the form in which it is written there.

    A list of numbers needs no such rule, nor do most texts: ``auto`` reads them.  A form that the
    values do not have sends their records to quarantine.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    #: The field: its name, a dotted path, or the names of a path level by level.
    path: str | Annotated[list[str], Field(min_length=1)]
    #: ``auto``: a list of numbers, a list of one such list, an object with the keys 0 to d-1,
    #: numbers of extended JSON, and the texts that ``json``, ``numpy`` and PostgreSQL
    #: (``{0.1,0.2}``) write; bytes and base64 must be declared.  ``json``: JSON only.  ``numpy``:
    #: numbers in brackets with white space or commas between them, on any number of lines.
    #: ``separated``: numbers with commas, semicolons or white space between them, without
    #: brackets.  ``floats``, ``doubles``, ``halves``: little-endian float32, float64 or float16
    #: numbers as bytes; where the field is a text, as base64, as hexadecimal digits behind ``\x``
    #: or ``0x``, or as Python prints bytes.  ``base64``: base64 of float32 numbers, as OpenAI sends
    #: them.  ``npy``: what ``numpy.save`` writes, as bytes or base64.
    form: VectorForm = Field(default="auto", alias="as")
    #: What becomes of a vector that has another width than the target's.  ``quarantine``: its
    #: record goes there.  ``keep``: custom_metadata keeps the vector, and the record counts as one
    #: without a vector (``embedding.missing_vector``).  Default: quarantine.
    other_widths: Literal["quarantine", "keep"] = Field(
        # a default that is not written keeps the fingerprints of earlier jobs
        default="quarantine",
        exclude_if=lambda value: value == "quarantine",
    )


#: A field of the record.
FieldRule = str | LiteralPath
#: A field that holds a vector.
VectorFieldRule = FieldRule | VectorRule
#: Several fields, of which the first that is present counts.
FieldRules = Annotated[list[FieldRule], Field(min_length=1)]
#: Where a column's text comes from: the first field that is present, a constant or a template.
TextRule = FieldRule | FieldRules | Const | Template


class RelationshipRule(Strict):
    """A reference to another record, rewritten to its uuid.

    ``to`` names the field that holds the other record's id, or a list of ids.  ``collection`` names
    the other record's source collection, where that differs from this record's.
    """

    type: Literal["parent", "child", "related", "reference", "contains", "member_of"]
    to: FieldRule | FieldRules | Key
    collection: str | None = None
    #: Name of the job that migrates the other record, where that is another job; a dataset that is
    #: made of both targets (``kind: targets``) has both records.
    job: str | None = None
    #: Type of the other job's ids, where it is not the type of the field.
    ids: Literal["string", "integer", "uuid", "objectId", "binary"] | None = None

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        if self.ids is not None and self.job is None:
            raise ValueError("ids is of another job's records: name it by job")
        return self

    @model_serializer(mode="wrap")
    def _leave_unset_out(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave keys of later versions out where they are not set: a fingerprint has no nulls."""
        body: dict[str, Any] = serialize(self)
        later = {name for name in ("job", "ids") if body.get(name) is None}
        return {name: value for name, value in body.items() if name not in later}


def _as_list(value: object) -> object:
    """Read a single relationship as a list of it."""
    return [value] if isinstance(value, dict) else value


class Rules(Strict):
    """Which source fields become which columns, for the records of a single shape.

    A key is the name of a column unless a comment says otherwise.
    """

    id: FieldRule | FieldRules | Key = "id"
    text_content: TextRule | None = None
    title: TextRule | None = None
    #: The primary vector; of several fields, the first that is present in a record, so that
    #: collections may call their vectors differently.  Default: the source's only vector.
    vector: VectorFieldRule | Annotated[list[VectorFieldRule], Field(min_length=1)] | None = None
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

    @model_validator(mode="after")
    def _are_well_formed(self) -> Self:
        if self.raw_data is not None and self.raw_data_type is None:
            raise ValueError(
                "raw_data needs raw_data_type: a MIME type, for example {const: image/png}"
            )
        if isinstance(self.version, Const) and not re.fullmatch(
            r"\d+\.\d+\.\d+", self.version.const
        ):
            raise ValueError("version is not MAJOR.MINOR.PATCH, for example 1.0.0")
        return self

    def rules(self) -> Iterator[tuple[str, Path]]:
        """List every source path that these rules read, as (key of the job file, path)."""
        for key, rule in self:
            if key == "relationships":
                for relationship in self.relationships:
                    yield from (("relationships.to", path) for path in rule_paths(relationship.to))
            elif key in Rules.model_fields:
                yield from ((key, path) for path in rule_paths(rule))


#: A value that a condition compares with.
Scalar = str | bool | int | float


class Condition(Strict):
    """Which records a case is for: what one of their fields says."""

    #: The field that is asked; it stays in custom_metadata, whether or not a rule takes it.
    field: FieldRule
    #: The value that the field has, or several of which it has one.  Values are compared as
    #: custom_metadata shows them: ``2`` is also the text ``2``, ``true`` the text ``true``.
    equals: Scalar | Annotated[list[Scalar], Field(min_length=1)] | None = None
    #: Whether the field is there, and not null.
    present: bool | None = None

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        if (self.equals is None) is (self.present is None):
            raise ValueError("a condition has either equals or present")
        return self

    @property
    def path(self) -> Path:
        """Give the path of the field."""
        return as_path(self.field)


class Case(Strict):
    """Rules for records of another shape, in place of the mapping's own rules for the same keys."""

    #: Which records they are.
    when: Condition
    #: Their rules; a key that is left out is as the mapping itself has it.
    mapping: Rules


class Mapping(Rules):
    """Which source fields become which columns.

    A key is the name of a column unless a comment says otherwise.
    """

    #: Further vectors: name behind ``x_vector_`` -> field.
    vectors: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")], VectorFieldRule] = Field(
        default_factory=dict
    )
    #: Other rules for records of another shape, such as documents of an earlier version; the first
    #: case counts whose condition holds.  A key that a case leaves out is as the mapping has it.
    cases: list[Case] = Field(
        # a default that is not written keeps the fingerprints of earlier jobs
        default_factory=list,
        exclude_if=lambda value: not value,
    )
    #: Write a document's membership in its collection as a relationship, too.  The client of
    #: ContextFrame 0.1.1 cannot update rows that have such a relationship.
    member_of: bool = True
    #: Keep a source id that is a UUID as the frame's uuid.
    keep_uuid: bool = False
    on_duplicate: Literal["quarantine", "error"] = "quarantine"

    @model_validator(mode="after")
    def _vectors_are_well_formed(self) -> Self:
        for name, rule in self.vectors.items():
            if isinstance(rule, VectorRule) and rule.other_widths == "keep":
                raise ValueError(
                    f"vectors.{name}: other_widths is for mapping.vector; a further vector of "
                    "another width stays in custom_metadata without it"
                )
        return self

    def rules(self) -> Iterator[tuple[str, Path]]:
        """List every source path that this mapping reads, as (key of the job file, path)."""
        yield from super().rules()
        yield from ((f"vectors.{name}", as_path(rule)) for name, rule in self.vectors.items())
        for number, case in enumerate(self.cases):
            named = case.mapping.model_fields_set
            for key, path in case.mapping.rules():
                if key.split(".")[0] in named:
                    yield f"{_CASES}{number}.{key}", path

    def rule_of(self, key: str) -> object:
        """Give the rule of a key that ``rules`` lists; of ``vectors`` and relationships all."""
        rules: Rules = self
        if key.startswith(_CASES):
            number, key = key.removeprefix(_CASES).split(".", maxsplit=1)
            rules = self.cases[int(number)].mapping
        return getattr(rules, key.split(".", maxsplit=1)[0], None)

    @property
    def paths(self) -> set[Path]:
        """Give every source path that a rule reads or a case asks for."""
        return {path for _, path in self.rules()} | {case.when.path for case in self.cases}

    @property
    def shapes(self) -> list[Mapping]:
        """Give a mapping without cases for each shape: the cases' in their order, last its own."""
        own = self.model_copy(update={"cases": []})
        return [
            *(
                own.model_copy(
                    update={
                        key: getattr(case.mapping, key) for key in case.mapping.model_fields_set
                    }
                )
                for case in self.cases
            ),
            own,
        ]


#: Kinds of the sources whose records are frames already.
FRAME_KINDS = frozenset({"frames", "targets"})
#: The mapping of records that are frames already; the conversion takes over their other columns.
FRAME_MAPPING: dict[str, Any] = {
    "id": "uuid",
    "keep_uuid": True,
    "member_of": False,
    **{
        name: name
        for name in (
            *("text_content", "vector", "title", "version", "context", "uri", "local_path", "cid"),
            *("collection", "position", "author", "contributors", "tags", "created_at"),
            *("updated_at", "status", "source_file", "raw_data", "raw_data_type"),
        )
    },
}


def rules_by_shape(mapping: Mapping, key: str) -> list[tuple[Any, list[int]]]:
    """Give each distinct rule of a key with the numbers of the shapes that have it.

    Args:
        mapping: with or without cases.
        key: of the mapping; of ``relationships`` each is a rule.
    """
    by_rule: list[tuple[Any, list[int]]] = []
    for number, shape in enumerate(mapping.shapes):
        rules = getattr(shape, key)
        for rule in rules if key == "relationships" else [rules]:
            numbers = next((numbers for other, numbers in by_rule if other == rule), None)
            if numbers is None:
                by_rule.append((rule, [number]))
            else:
                numbers.append(number)
    return [(rule, numbers) for rule, numbers in by_rule if rule is not None]


def as_path(rule: VectorFieldRule) -> Path:
    """Split a dotted path into names."""
    path = rule if isinstance(rule, str) else rule.path
    return tuple(path.split(".")) if isinstance(path, str) else tuple(path)


def rule_paths(rule: object) -> list[Path]:
    """List the source paths that a rule reads; a constant and a key without a rule read none."""
    if isinstance(rule, Key):
        return [as_path(field) for field in rule.key]
    if isinstance(rule, Template):
        return rule.paths
    if isinstance(rule, list):
        return [as_path(field) for field in rule]
    return [as_path(rule)] if isinstance(rule, str | LiteralPath | VectorRule) else []


def dotted(path: Path) -> str:
    """Write a path as the job file does."""
    return ".".join(path)


@dataclass(frozen=True, slots=True)
class SourceShape:
    """What the plan found out about a source, and every worker must agree on.

    Attributes:
        kind: the source's kind; ``source_type`` of every frame.
        url: the source's location without credentials; ``source_url`` of every frame.
        dimension: width of the target's vectors.
        fixed: whether the source has a fixed schema, in which null means absent.
        types: dotted path -> type name, recorded once a dataset (schema metadata
            ``cfray.types``).
        vectors: name behind ``x_vector_`` -> source path, for vectors beside the primary vector.
        id_tag: tag of the ids that a reference is cast to: s, i, u, b or j.
        vector: source path of the primary vector, where the job file does not name it.
        vector_types: name behind ``x_vector_`` -> type name of the column, where it is not the
            type that ``types`` records for its path.
        references: dotted path of a field that refers to records -> the source collection they are
            in, as the source declares it.
        collection_references: source collection -> the same for its own fields, where not all
            source collections declare the same.
        frame_types: type of each key of ``custom_metadata``, where the records are frames; their
            columns have the types of ``types``.
        source_dimension: width of the source's vectors, where the target's are other vectors; 0
            where they have the same width.
        blank_is_null: whether an empty text stands for null, as ``Description.blank_is_null``.
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
    blank_is_null: bool = False
    vector_types: dict[str, str] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    collection_references: dict[str, dict[str, str]] = field(default_factory=dict)
    frame_types: dict[str, str] = field(default_factory=dict)

    @property
    def metadata_types(self) -> dict[str, str]:
        """Give the type of each key of ``custom_metadata``, as the dataset records it."""
        return self.frame_types or self.types

    @property
    def read_dimension(self) -> int:
        """Give the width of the vectors as they are read from the source."""
        return self.source_dimension or self.dimension


@dataclass(frozen=True, slots=True)
class VectorField:
    """A field of the source that holds a vector.

    Attributes:
        path: of the field.
        form: in which the vector is written there.
        keeps_other_widths: whether custom_metadata keeps a vector of another width than the
            target's.
    """

    path: Path
    form: VectorForm = "auto"
    keeps_other_widths: bool = False


def vector_fields(mapping: Mapping, default: Path) -> list[VectorField]:
    """List the fields of the primary vector; ``default`` where the mapping names none.

    Of several fields, the first that is present in a record holds its vector; the fields that
    cases name come behind the mapping's own.
    """
    fields: dict[VectorField, None] = {}
    for shape in reversed(mapping.shapes):
        rules = shape.vector if isinstance(shape.vector, list) else [shape.vector]
        for rule in rules:
            fields[VectorField(default) if rule is None else vector_field(rule)] = None
    return list(fields)


def primary_vectors(mapping: Mapping, shape: SourceShape) -> list[VectorField]:
    """List the fields of the primary vector: the job file's, or the field that the plan chose."""
    return vector_fields(mapping, shape.vector)


def vector_field(rule: VectorFieldRule) -> VectorField:
    """Read a rule for a vector."""
    if isinstance(rule, VectorRule):
        return VectorField(as_path(rule), rule.form, rule.other_widths == "keep")
    return VectorField(as_path(rule))
