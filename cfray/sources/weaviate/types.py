"""Weaviate's objects as records, alike from the wire and from an export.

Both ways a property first becomes the JSON that REST shows, then the record's
value by its declared type; so a live read and an export agree by construction.
An absent property and a null are one to the server: the key is missing.

Source: https://docs.weaviate.io/weaviate/config-refs/datatypes
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa

from cfray.formats import points
from cfray.records.record import Typed
from cfray.sources.weaviate.schema import Declared, Property

#: Property type -> the field of the wire's value that holds it.
_SCALARS = {
    "text": "text_value", "string": "text_value", "int": "int_value", "number": "number_value", "boolean": "bool_value",
    "date": "date_value", "uuid": "uuid_value", "blob": "blob_value", "blobHash": "blob_value",
}  # fmt: skip
_LISTS = {
    "text[]": "text_values",
    "string[]": "text_values",
    "boolean[]": "bool_values",
    "date[]": "date_values",
    "uuid[]": "uuid_values",
}
#: Property type -> the type that is recorded, where it is not one of JSON's.
_NAMES = {
    "date": "date",
    "uuid": "uuid",
    "blob": "binary",
    "blobHash": "blobHash",
    "geoCoordinates": "geoCoordinates",
    "phoneNumber": "phoneNumber",
}
_ITEMS = {
    "text": "string",
    "string": "string",
    "int": "int64",
    "number": "double",
    "boolean": "bool",
    "date": "date",
    "uuid": "uuid",
}
_PHONE = {
    "countryCode": "country_code", "defaultCountry": "default_country", "input": "input", "internationalFormatted": "international_formatted",
    "national": "national", "nationalFormatted": "national_formatted", "valid": "valid",
}  # fmt: skip


def _from_wire(kind: str) -> Callable[[Any], object]:
    if kind in _SCALARS:
        return attrgetter(_SCALARS[kind])
    if kind == "geoCoordinates":
        return lambda value: {
            "latitude": _short(value.geo_value.latitude),
            "longitude": _short(value.geo_value.longitude),
        }
    if kind in _LISTS:
        items = attrgetter(f"list_value.{_LISTS[kind]}.values")
        return lambda value: list(items(value))
    if kind == "phoneNumber":
        return lambda value: {
            key: found
            for key, field in _PHONE.items()
            if (found := getattr(value.phone_value, field))
        }
    return _any  # numbers in lists are bytes; objects say what they hold


def _short(value: float) -> float:
    """Give the float64 whose shortest text is that of the float32."""
    return float(str(np.float32(value)))


def _any(value: Any) -> object:
    kind = value.WhichOneof("kind")
    if kind == "object_value":
        return {name: _any(one) for name, one in value.object_value.fields.items()}
    if kind == "list_value":
        return _list(value.list_value)
    if kind in ("geo_value", "phone_value"):
        return _from_wire("geoCoordinates" if kind == "geo_value" else "phoneNumber")(value)
    return None if kind == "null_value" else getattr(value, kind)


def _list(value: Any) -> list[Any]:
    held = value.WhichOneof("kind")
    if held in ("int_values", "number_values"):
        return list(
            np.frombuffer(
                getattr(value, held).values, "<i8" if held == "int_values" else "<f8"
            ).tolist()
        )
    if held == "object_values":
        return [
            {name: _any(each) for name, each in one.fields.items()}
            for one in value.object_values.values
        ]
    return list(getattr(value, held).values) if held else []


def typed(declared: Property) -> Callable[[Any], object]:
    """Give what makes a record's value of a property's JSON."""
    kind, item = declared.type, declared.type.removesuffix("[]")
    plain = _plain(declared)
    if kind in _NAMES:
        return lambda value: Typed(_NAMES[kind], value)
    if item not in (kind, "object"):
        name = f"list<{_ITEMS[item]}>"
        return lambda value: (
            plain(value) if value and item not in ("date", "uuid") else Typed(name, value)
        )
    return plain


def _plain(declared: Property) -> Callable[[Any], Any]:
    """Restore what JSON does not tell.

    A number with no fraction is a float where it is declared so.
    """
    if declared.type == "number":
        return float
    if declared.type == "number[]":
        return lambda value: [float(one) for one in value]
    if declared.type == "int":
        return _exact
    if declared.type == "int[]":
        return lambda value: [_exact(one) for one in value]
    if declared.type.startswith("object"):
        inside = {one.name: _plain(one) for one in declared.nested}

        def restored(value: Mapping[str, Any]) -> dict[str, Any]:
            return {
                key: one if one is None or key not in inside else inside[key](one)
                for key, one in value.items()
            }

        return (
            restored
            if declared.type == "object"
            else lambda value: [restored(one) for one in value]
        )
    return lambda value: value


def _exact(value: float) -> int:
    """Give the integer that the server has.

    It keeps float64, and an export writes that one's shortest digits.
    """
    return int(value) if abs(value) <= 2**53 else int(float(value))


def referred(beacons: Sequence[Mapping[str, str]], targets: Sequence[str] = ()) -> object:
    """Read references: a list of uuids where one collection is pointed into.

    Else collection -> list of uuids.
    """
    found: dict[str, list[str]] = {}
    for one in beacons:
        *_, name, target = ["", *one["beacon"].removeprefix("weaviate://").split("/")[1:]]
        found.setdefault(name or (targets[0] if targets else ""), []).append(target)
    several = len(targets) > 1 or len(found) > 1
    return (
        found
        if several
        else Typed("list<uuid>", [target for some in found.values() for target in some])
    )


def widths(declared: Declared, objects: Sequence[Any]) -> Iterator[tuple[str, int]]:
    """Give (column, width) of the vectors that some objects have."""
    for one in objects:
        for name, raw in _raw_vectors(declared, one.metadata).items():
            multi = declared.vectors[name].multi
            yield name, int.from_bytes(raw[:2], "little") if multi else len(raw) // 4


def _raw_vectors(declared: Declared, metadata: Any) -> dict[str, bytes]:
    """Give the bytes of an object's vectors by column."""
    if metadata.vector_bytes:  # of a collection with an unnamed index only
        return {"": metadata.vector_bytes}
    found = {
        "" if one.name == "default" else one.name: one.vector_bytes for one in metadata.vectors
    }
    return {name: raw for name, raw in found.items() if name in declared.vectors and raw}


def batch(
    declared: Declared,
    objects: Sequence[Any],
    references: Sequence[Mapping[str, Any]] | None,
    known: Mapping[str, int],
    *,
    times: bool,
) -> pa.RecordBatch:
    """Make records of a page as the wire has it.

    Args:
        declared: the collection.
        objects: ``SearchResult`` messages.
        references: for each object the properties that REST gave, where the collection has
            references.
        known: width of each vector that the plan saw.
        times: whether the object's own two instants become keys.
    """
    steps = [(one.name, _from_wire(one.type), typed(one)) for one in declared.properties]
    made, changed = declared.times
    payload: list[dict[str, object]] = []
    for row, one in enumerate(objects):
        fields = one.properties.non_ref_props.fields
        found: dict[str, object] = {}
        for name, plain, restored in steps:
            value = fields[name]
            if (value.WhichOneof("kind") or "null_value") != "null_value":
                found[name] = restored(plain(value))
        if references is not None:
            found |= {
                name: referred(references[row][name], to)
                for name, to in declared.references.items()
                if references[row].get(name)
            }
        if times:
            found[made], found[changed] = (
                instant(one.metadata.creation_time_unix),
                instant(one.metadata.last_update_time_unix),
            )
        payload.append(found)
    raw = [_raw_vectors(declared, one.metadata) for one in objects]
    ids = pa.array([one.metadata.id_as_bytes for one in objects], pa.binary(16))
    columns = {
        name: (_multi if index.multi else dense)([one.get(name) for one in raw], known.get(name))
        for name, index in declared.vectors.items()
    }
    return assembled(ids, columns, payload)


def assembled(
    ids: pa.Array, vectors: Mapping[str, pa.Array | None], payload: Sequence[Mapping[str, object]]
) -> pa.RecordBatch:
    """Put ids (16 bytes each), vectors (None where no width is known) and payload together."""
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), ids)
    return points.batch(
        uuids,
        {name: column for name, column in vectors.items() if column is not None},
        payload,
        inside="properties",
    )


def dense(raw: Sequence[bytes | None], width: int | None) -> pa.Array | None:
    """Make a column of float32 vectors; None where neither the plan nor the page knows a width."""
    width = width or next((len(one) // 4 for one in raw if one), None)
    if width is None:
        return None
    return points.dense(
        [np.frombuffer(one, "<f4") if one else None for one in raw], pa.list_(pa.float32(), width)
    )


def _multi(raw: Sequence[bytes | None], width: int | None) -> pa.Array | None:
    """Make a column of lists of float32 vectors.

    A cell is its width in two bytes, then the numbers.
    """
    own = [int.from_bytes(one[:2], "little") if one else None for one in raw]
    width = width or next((one for one in own if one), None)
    if width is None:
        return None
    cells = [np.frombuffer(one, "<f4", offset=2) if one else None for one in raw]
    if any(one not in (None, width) for one in own):  # each row is judged for itself
        lists = [
            None if cell is None or not one else cell.reshape(-1, one).tolist()
            for cell, one in zip(cells, own, strict=True)
        ]
        return pa.array(lists, pa.list_(pa.list_(pa.float32())))
    offsets = np.cumsum(
        [0, *(0 if cell is None else len(cell) // width for cell in cells)], dtype=np.int32
    )
    numbers = np.concatenate(
        [np.empty(0, np.float32), *(cell for cell in cells if cell is not None)]
    )
    inner = pa.FixedSizeListArray.from_arrays(pa.array(numbers, pa.float32()), width)
    return pa.ListArray.from_arrays(
        pa.array(offsets), inner, mask=pa.array([cell is None for cell in cells])
    )


def instant(milliseconds: int) -> Typed:
    """Write an object's own time as a date."""
    return Typed("date", f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z")


@lru_cache(1024)
def _second(number: int) -> str:
    return f"{datetime.fromtimestamp(number, UTC):%Y-%m-%dT%H:%M:%S}"
