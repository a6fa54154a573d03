"""A property's value in a record, alike for a live read and for an export.

Both first give the JSON that REST shows, then the record's value by the declared type; so the
two agree by construction.  To the server an absent property and a null are the same: the
record has no such key.

Source: https://docs.weaviate.io/weaviate/config-refs/datatypes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any

import numpy as np

from cfray.records.record import Typed
from cfray.sources.weaviate.schema import Message, Property

#: Property type -> the field of a gRPC value that holds it.
_SCALAR_FIELDS = {
    "text": "text_value",
    "string": "text_value",
    "int": "int_value",
    "number": "number_value",
    "boolean": "bool_value",
    "date": "date_value",
    "uuid": "uuid_value",
    "blob": "blob_value",
    "blobHash": "blob_value",
}
#: Property type -> the field of a gRPC list that holds its elements.
_LIST_FIELDS = {
    "text[]": "text_values",
    "string[]": "text_values",
    "boolean[]": "bool_values",
    "date[]": "date_values",
    "uuid[]": "uuid_values",
}
#: Key of a phone number in JSON -> field of its gRPC message.
_PHONE_FIELDS = {
    "countryCode": "country_code",
    "defaultCountry": "default_country",
    "input": "input",
    "internationalFormatted": "international_formatted",
    "national": "national",
    "nationalFormatted": "national_formatted",
    "valid": "valid",
}
#: Property type -> the type that is recorded, where it is not one of JSON's.
_RECORDED_TYPES = {
    "date": "date",
    "uuid": "uuid",
    "blob": "binary",
    "blobHash": "blobHash",
    "geoCoordinates": "geoCoordinates",
    "phoneNumber": "phoneNumber",
}
#: Type of a list's elements -> its name in the recorded type.
_ELEMENT_TYPES = {
    "text": "string",
    "string": "string",
    "int": "int64",
    "number": "double",
    "boolean": "bool",
    "date": "date",
    "uuid": "uuid",
}
#: Stands for the collection of references that name none; a collection's name begins with a
#: capital.
_NO_COLLECTION = "beacons"
#: The greatest integer up to which float64 holds all integers.
_EXACT_IN_FLOAT64 = 2**53


def message_reader(property_type: str) -> Callable[[Message], object]:
    """Give a function that turns a gRPC value of this type into the JSON that REST shows."""
    if property_type in _SCALAR_FIELDS:
        return attrgetter(_SCALAR_FIELDS[property_type])
    if property_type == "geoCoordinates":
        return lambda value: {
            "latitude": _shortest_float(value.geo_value.latitude),
            "longitude": _shortest_float(value.geo_value.longitude),
        }
    if property_type in _LIST_FIELDS:
        elements = attrgetter(f"list_value.{_LIST_FIELDS[property_type]}.values")
        return lambda value: list(elements(value))
    if property_type == "phoneNumber":
        return lambda value: {
            key: content
            for key, field in _PHONE_FIELDS.items()
            if (content := getattr(value.phone_value, field))
        }
    # lists of numbers are bytes, and objects name the types of their values
    return _read_value


def _shortest_float(value: float) -> float:
    """Give the float64 whose shortest text is that of the float32."""
    return float(str(np.float32(value)))


def _read_value(value: Message) -> object:
    field = value.WhichOneof("kind")
    if field == "object_value":
        return _read_object(value.object_value)
    if field == "list_value":
        return _read_list(value.list_value)
    if field == "geo_value":
        return message_reader("geoCoordinates")(value)
    if field == "phone_value":
        return message_reader("phoneNumber")(value)
    return None if field == "null_value" else getattr(value, field)


def _read_object(message: Message) -> dict[str, object]:
    return {name: _read_value(value) for name, value in message.fields.items()}


def _read_list(message: Message) -> list[Any]:
    field = message.WhichOneof("kind")
    if field is None:
        return []
    values = getattr(message, field).values
    if field == "int_values":
        return list(np.frombuffer(values, "<i8").tolist())
    if field == "number_values":
        return list(np.frombuffer(values, "<f8").tolist())
    if field == "object_values":
        return [_read_object(value) for value in values]
    return list(values)


def value_converter(declared: Property) -> Callable[[Any], object]:
    """Give a function that turns the JSON of a property into the record's value."""
    element_type = declared.type.removesuffix("[]")
    convert = _json_converter(declared)
    if declared.type in _RECORDED_TYPES:
        recorded_type = _RECORDED_TYPES[declared.type]
        return lambda value: Typed(recorded_type, value)
    if not declared.type.endswith("[]") or element_type == "object":
        return convert
    list_type = f"list<{_ELEMENT_TYPES[element_type]}>"
    if element_type in ("date", "uuid"):
        return lambda value: Typed(list_type, value)
    # an empty list shows no type of its elements, so its type is recorded
    return lambda value: convert(value) if value else Typed(list_type, value)


def _json_converter(declared: Property) -> Callable[[Any], Any]:
    """Give a function that restores what JSON does not show.

    A number with no fraction is a float where it is declared as a number.
    """
    convert: Callable[[Any], Any]
    element_type = declared.type.removesuffix("[]")
    if element_type == "number":
        convert = float
    elif element_type == "int":
        convert = _server_integer
    elif element_type == "object":
        convert = _object_converter(declared.nested)
    else:
        return lambda value: value
    if element_type == declared.type:
        return convert
    return lambda values: [convert(value) for value in values]


def _object_converter(nested: Sequence[Property]) -> Callable[[Any], Any]:
    converters = {child.name: _json_converter(child) for child in nested}

    def convert_object(content: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: value if value is None or key not in converters else converters[key](value)
            for key, value in content.items()
        }

    return convert_object


def _server_integer(value: float) -> int:
    """Give the integer that the server has.

    The server keeps a float64, and an export writes the shortest digits of that float64.
    """
    return int(value) if abs(value) <= _EXACT_IN_FLOAT64 else int(float(value))


def reference_values(
    name: str, beacons: Sequence[Mapping[str, str]], target_collections: Sequence[str]
) -> dict[str, object]:
    """Give the keys and values that a record has of a reference property.

    A beacon that names a collection is right about it, whatever the definition says: the server
    takes references into collections that the property does not declare.

    Args:
        name: of the property.
        beacons: the references, as ``{"beacon": "weaviate://localhost/Collection/uuid"}``; a beacon
            may lack the collection.
        target_collections: the collections that the property may point into.

    Returns:
        Where the property declares one collection, the list of uuids in it, and under
        ``name.Collection`` those in another; else collection -> list of uuids.  ``beacons`` stands
        for the collection of those that name none, where several are declared.
    """
    sole_target = target_collections[0] if len(target_collections) == 1 else None
    uuids: dict[str, list[str]] = {}
    for reference in beacons:
        collection, uuid = _split_beacon(reference)
        uuids.setdefault(collection or sole_target or _NO_COLLECTION, []).append(uuid)
    if sole_target is None:
        return {name: uuids}
    return {
        name if collection == (sole_target or _NO_COLLECTION) else f"{name}.{collection}": Typed(
            "list<uuid>", group
        )
        for collection, group in uuids.items()
    }


def beacon_collections(beacons: Sequence[Mapping[str, str]]) -> list[str]:
    """Name the collections that references point into; empty for a beacon that names none."""
    return sorted({_split_beacon(reference)[0] for reference in beacons})


def _split_beacon(reference: Mapping[str, str]) -> tuple[str, str]:
    """Give the collection, empty where an old beacon lacks it, and the uuid behind the host."""
    *_, collection, uuid = ["", *reference["beacon"].removeprefix("weaviate://").split("/")[1:]]
    return collection, uuid


def object_time(milliseconds: int) -> Typed:
    """Write an object's creation or update time (milliseconds since 1970) as a date."""
    return Typed("date", f"{_format_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z")


@lru_cache(1024)
def _format_second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"
