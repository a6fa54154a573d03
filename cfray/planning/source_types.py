"""What the plan says of a source's types and names: what they lose, and which are numbered."""

from __future__ import annotations

from cfray.formats.arrow_types import loss_of, shared_names, source_type_name
from cfray.records import values
from cfray.sources.base import Description


def lossy_fields(description: Description) -> list[str]:
    """Name the records that are not read, and the fields whose values cannot be carried exactly."""
    return [
        *description.unread,
        *_lossy_types(description),
    ]


def _lossy_types(description: Description) -> list[str]:
    return [
        f"{item.name} ({source_type_name(item) or values.type_name(item.type)}): {reason}"
        for item in description.schema or []
        if (reason := loss_of(item)) is not None
    ]


def name_notes(description: Description) -> list[str]:
    """Name the fields that share a name in the source, and what they are called here."""
    if description.schema is None:
        return []
    return [
        f"{len(names)} fields of the source are called {name}: they are read as {', '.join(names)}"
        for name, names in shared_names(description.schema).items()
    ]
