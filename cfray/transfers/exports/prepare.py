"""Before anything is written: the way back to the records, the columns, and what cannot be.

Whatever is refused is refused here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import lance
import pyarrow as pa

from cfray.conversion.restore import Restoration
from cfray.engine.lines import LineOptions
from cfray.errors import ConfigError
from cfray.job.agreement import agreed_to_make_vectors
from cfray.job.mapping import FRAME_KINDS, Mapping, rule_paths
from cfray.records.values import type_name
from cfray.runtime.error_text import describe_error
from cfray.target.commit import Target
from cfray.target.state import State
from cfray.transfers.exports.fields import Column, columns_of, describe_columns
from cfray.transfers.exports.held_types import held_columns
from cfray.transfers.exports.manifest import PartReceipt
from cfray.transfers.exports.part import FragmentReader, Part
from cfray.transfers.exports.planned_layout import described_fields, plan_layout
from cfray.transfers.exports.rows import RowMaker, plain_fields
from cfray.transfers.exports.settings import TABULAR, TYPED, ExportSettings
from cfray.transfers.exports.survey import survey_kinds

#: Bytes of the dataset's files that a part is made of at least, and parts of a smaller dataset.
_PART_BYTES = 128 * 1024 * 1024
_PARTS_AT_LEAST = 16


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is settled before the first row is written.

    Attributes:
        rows: that will be exported.
        maker: of the rows.
        is_fixed: whether every row has every field.
        text_field: the field that is a document's text, in Markdown.
        fields: of the rows with their types; empty in formats without columns, and of the layout
            of a vector database, which says more once the rows are written.
        types: of the keys of ``custom_metadata``, as the dataset records them.
    """

    rows: int
    maker: RowMaker
    is_fixed: bool
    text_field: str | None
    fields: list[dict[str, str]]
    types: dict[str, str]

    def described(self, receipts: Sequence[PartReceipt]) -> list[dict[str, str]]:
        """Say what fields the export has, and what it does not say of them."""
        layout = self.maker.layout
        return self.fields if layout is None else described_fields(layout, receipts)


def prepare(
    reader: FragmentReader, state: State, parts: list[Part], options: LineOptions
) -> Prepared:
    """Settle how the rows of a version are written.  Ray must be running.

    Args:
        reader: of the version.
        state: of the target.
        parts: of the export.
        options: of the line that surveys the types of fields.

    Raises:
        ConfigError: the settings do not fit the target.
    """
    settings, dataset = reader.settings, reader.open()
    plan, rows = state.plan(), _count(reader)
    assert plan is not None
    restoration = _restoration(state, reader) if settings.form == "records" else None
    columns = None
    if restoration is not None and not settings.is_layout:
        columns = _columns(reader, restoration, parts, options)
    maker = _row_maker(settings, restoration, columns, dataset.schema)
    text_field = _text_field(restoration)
    if restoration is not None and settings.is_layout:
        layout = plan_layout(reader, restoration, parts, options, text_field=text_field)
        maker = replace(maker, layout=layout)
    return Prepared(
        rows=rows,
        maker=maker,
        is_fixed=restoration is None or restoration.shape.fixed,
        text_field=text_field,
        fields=_described(columns, dataset, settings),
        types=plan.shape.metadata_types,
    )


def parts_of(dataset: lance.LanceDataset) -> Iterator[Part]:
    """Divide the fragments of a version: few that are large, or many that are small, a part."""
    sizes = {
        fragment.fragment_id: sum(file.file_size_bytes or 0 for file in fragment.metadata.files)
        for fragment in dataset.get_fragments()
    }
    enough = min(_PART_BYTES, sum(sizes.values()) / _PARTS_AT_LEAST)
    numbers: list[int] = []
    size = count = 0
    for number, bytes_there in sizes.items():
        numbers.append(number)
        size += bytes_there
        if size >= enough:
            yield Part(count, tuple(numbers))
            count, numbers, size = count + 1, [], 0
    if numbers:
        yield Part(count, tuple(numbers))


def _count(reader: FragmentReader) -> int:
    """Count the rows that are exported; the condition is read here for the first time.

    Raises:
        ConfigError: it is wrong.
    """
    try:
        return reader.count()
    except (ValueError, OSError) as error:
        if not reader.settings.where:
            raise
        names = ", ".join(reader.open().schema.names)
        raise ConfigError(
            f"--where cannot be read: {describe_error(error)[:300]}",
            f"write a SQL condition on the columns of the dataset: {names}",
        ) from error


def _restoration(state: State, reader: FragmentReader) -> Restoration:
    """Find how the records of a target are given back.

    Raises:
        ConfigError: no single mapping made its rows, or nobody knows it any more.
    """
    plan = state.plan()
    assert plan is not None
    if plan.shape.kind in FRAME_KINDS:
        raise ConfigError(
            "this target was made of frames, and does not know the fields of the source behind "
            "them",
            "export its rows as they are (--as frames), or the records of the dataset it came from",
        )
    accepted = Target(reader.uri).ledger_of(reader.version).fingerprints
    agreed = [job["agreed"] for job in state.jobs() if job["fingerprint"] in accepted]
    if not agreed:
        raise ConfigError(
            f"{state.folder.uri}/job.json does not say what the rows of this target were made of",
            "export its rows as they are: --as frames",
        )
    if any(other["mapping"] != agreed[0]["mapping"] for other in agreed):
        raise ConfigError(
            "rows of this target came in by a replay with another mapping, so its records cannot "
            "be given back by one",
            "export its rows as they are: --as frames",
        )
    return Restoration(
        Mapping.model_validate(agreed[0]["mapping"]),
        plan.shape,
        has_made_vectors=any(agreed_to_make_vectors(job["embedding"]) for job in agreed),
    )


def _columns(
    reader: FragmentReader, restoration: Restoration, parts: list[Part], options: LineOptions
) -> list[Column] | None:
    """Give the columns of records, in a format that has columns; None in another.

    Raises:
        ConfigError: a field that was asked for is none of them.
    """
    settings, schema = reader.settings, reader.open().schema
    if settings.format not in TABULAR and not settings.columns:
        return None
    kinds = survey_kinds(reader, restoration, parts, options)
    columns = columns_of(restoration, kinds, schema)
    _check_chosen(settings, [column.name for column in columns])
    if settings.format in TYPED:
        columns = held_columns(columns, settings.format)
    if settings.vectors == "columns":
        columns = [_of_one_width(column, restoration, schema) for column in columns]
        _check_numbered(columns, restoration)
    return columns if settings.format in TABULAR else None


def _of_one_width(column: Column, restoration: Restoration, schema: pa.Schema) -> Column:
    """Give a column of vectors the type of the dataset's, which says how many numbers there are."""
    if (column.name,) not in restoration.vector_paths or column.is_json:
        return column
    name = restoration.column_of_vectors((column.name,))
    return replace(column, type=schema.field(name).type)


def _check_numbered(columns: list[Column], restoration: Restoration) -> None:
    """Find that no field has the name of a column of numbers.

    Raises:
        ConfigError: one has.
    """
    vectors = [path[0] for path in restoration.vector_paths if len(path) == 1]
    for column in columns:
        stem, _, number = column.name.rpartition("_")
        if stem in vectors and number.isdigit():
            raise ConfigError(
                f"--vectors columns would write numbers of {stem} under the name of the field "
                f"{column.name}",
                "choose another form of vectors, or --columns without one of them",
            )


def _check_chosen(settings: ExportSettings, names: list[str]) -> None:
    """Find that the fields that are asked for are there.

    Raises:
        ConfigError: one is not.
    """
    unknown = [name for name in settings.columns if name not in names]
    if unknown:
        raise ConfigError(
            f"--columns: there is no field {unknown[0]}", f"there are {', '.join(names)}"
        )


def _row_maker(
    settings: ExportSettings,
    restoration: Restoration | None,
    columns: list[Column] | None,
    schema: pa.Schema,
) -> RowMaker:
    """Make what makes the rows.

    Raises:
        ConfigError: a field that was asked for is not there.
    """
    if restoration is None:
        vectors = {"vector", *_vector_columns(schema)}
        _check_chosen(settings, [field.name for field in plain_fields(schema)])
    else:
        vectors = {path[0] for path in restoration.vector_paths if len(path) == 1}
    typed = None if columns is None else tuple(columns)
    return RowMaker(settings, restoration, typed, frozenset(vectors))


def _vector_columns(schema: pa.Schema) -> list[str]:
    """List further columns that hold one list of numbers a row."""
    return [
        field.name
        for field in schema
        if field.name.startswith("x_")
        and pa.types.is_fixed_size_list(field.type)
        and pa.types.is_floating(field.type.value_type)
    ]


def _text_field(restoration: Restoration | None) -> str | None:
    """Name the field that is the text of every document, which Markdown has behind the others."""
    if restoration is None:
        return "text_content"
    paths = rule_paths(restoration.mapping.text_content)
    if restoration.mapping.text_content is None and ("text",) in restoration.types:
        return "text"
    is_single = len(paths) == 1 and len(paths[0]) == 1 and not restoration.mapping.cases
    return paths[0][0] if is_single else None


def _described(
    columns: list[Column] | None, dataset: lance.LanceDataset, settings: ExportSettings
) -> list[dict[str, str]]:
    """Say what fields the export has."""
    if columns is not None:
        described = describe_columns(columns)
    elif settings.form == "frames":
        described = [
            {"name": field.name, "type": type_name(field.type)}
            for field in plain_fields(dataset.schema)
        ]
    else:
        return []
    chosen = settings.columns
    return [item for item in described if not chosen or item["name"] in chosen]
