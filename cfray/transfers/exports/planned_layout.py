"""Plans the layout that a vector database imports: surveys the dataset, refuses what would fail.

A store that takes no record without a vector gets none: such rows are counted before anything is
written, and the export is refused.  None of them is left out in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cfray.conversion.restore import Restoration
from cfray.engine.lines import LineOptions
from cfray.errors import ConfigError
from cfray.frames.schema import ORIGIN
from cfray.runtime.plurals import counted
from cfray.transfers.exports.fields import columns_of
from cfray.transfers.exports.layouts.base import Layout
from cfray.transfers.exports.layouts.choose import layout_of
from cfray.transfers.exports.layouts.facts import Facts, facts_of
from cfray.transfers.exports.manifest import PartReceipt
from cfray.transfers.exports.part import FragmentReader, Part
from cfray.transfers.exports.survey import survey_collections, survey_kinds


def plan_layout(
    reader: FragmentReader,
    restoration: Restoration,
    parts: list[Part],
    options: LineOptions,
    *,
    text_field: str | None,
) -> Layout:
    """Give the layout of the store that the export is for.

    Raises:
        ConfigError: records have no vector, and the store takes none without; a field that was
            asked for is not there.
    """
    kinds = survey_kinds(reader, restoration, parts, options)
    collections = survey_collections(reader, parts, options)
    schema = reader.open().schema
    columns = columns_of(restoration, kinds, schema)
    facts = facts_of(
        restoration,
        kinds,
        schema,
        has_primary=reader.count(f"NOT ({_is_missing('vector', schema.names)})") > 0,
        columns=columns,
        collections=collections,
        text_field=text_field,
    )
    if chosen := reader.settings.columns:
        facts = _with_chosen(facts, chosen)
    layout = layout_of(reader.settings.format, facts)
    _check_vectors(layout, reader, schema.names)
    return layout


def _with_chosen(facts: Facts, chosen: Sequence[str]) -> Facts:
    """Leave out the columns that nobody asked for; id and vectors always go.

    Raises:
        ConfigError: a field is not there.
    """
    unknown = [name for name in chosen if name not in facts.names]
    if unknown:
        raise ConfigError(
            f"--columns: there is no field {unknown[0]}", f"there are {', '.join(facts.names)}"
        )
    columns = tuple(column for column in facts.columns if column.name in chosen)
    return replace(facts, columns=columns)


def _is_missing(column: str, names: Sequence[str]) -> str:
    """Give the SQL condition of rows without a vector."""
    if column == "vector" and ORIGIN in names:
        return f"vector IS NULL OR {ORIGIN} IS NULL"
    return f"{column} IS NULL"


def _check_vectors(layout: Layout, reader: FragmentReader, names: Sequence[str]) -> None:
    """Find that every record has the vector that the store needs.

    Raises:
        ConfigError: some have none.
    """
    needed, total = layout.needed_vector(), reader.count()
    if not layout.needs_vector or not total:
        return
    column = "vector" if needed is None else needed.column
    condition = _is_missing(column, names)
    missing = total if needed is None else reader.count(condition)
    if not missing:
        return
    if missing == total:
        raise ConfigError(
            f"none of {counted(total, 'record')} has a vector, and {layout.store} takes none "
            "without",
            "make vectors first (cfray embed), or choose another format",
        )
    marker = ORIGIN if column == "vector" and ORIGIN in names else column
    raise ConfigError(
        f"{missing:,} of {counted(total, 'record')} have no vector, and {layout.store} takes none "
        "without",
        f'leave them out with --where "{marker} IS NOT NULL", or choose another format',
    )


def described_fields(layout: Layout, receipts: Sequence[PartReceipt]) -> list[dict[str, str]]:
    """Say of each field what the store calls its type, and what the layout does not say of it."""
    lost: dict[str, set[str]] = {}
    for receipt in receipts:
        for name, reasons in receipt.lost.items():
            lost.setdefault(name, set()).update(reasons)
    described = layout.described()
    return [
        {
            "name": name,
            "type": described.get(name, ""),
            **({"lost": "; ".join(sorted(lost[name]))} if name in lost else {}),
        }
        for name in [*described, *(name for name in sorted(lost) if name not in described)]
    ]
