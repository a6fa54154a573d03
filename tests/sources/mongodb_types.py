"""A value of each type that MongoDB's driver writes, what becomes of it, and raw BSON."""

import struct
import uuid

import bson
from bson.binary import Binary
from bson.code import Code
from bson.regex import Regex

#: A value of each type of BSON -> the type and the text of the field that it becomes.
EVERY_TYPE = {
    "double": (1.5, ("double", "1.5")),
    "whole": (2.0, ("double", "2.0")),
    "nan": (float("nan"), ("double", "NaN")),
    "far": (float("-inf"), ("double", "-Infinity")),
    "zero": (-0.0, ("double", "-0.0")),
    "string": ("null", ("string", "null")),
    "document": ({"b": 1, "a": {"c": None}}, ("struct", '{"a":{"c":null},"b":1}')),
    "empty": ({}, ("struct", "{}")),
    "array": ([1, "x", {"y": 2.0}], ("list", '[1,"x",{"y":2.0}]')),
    "nothing": ([], ("list", "[]")),
    "int32s": ([1, 2], ("list<int32>", "[1,2]")),
    "int64s": ([bson.Int64(1), bson.Int64(2)], ("list<int64>", "[1,2]")),
    "large": ([2**62, 2**62 + 1], ("list<int64>", f"[{2**62},{2**62 + 1}]")),
    "oids": ([bson.ObjectId("5" * 24)], ("list<objectId>", f'["{"5" * 24}"]')),
    "binary": (b"\x00\xff", ("binary", '"AP8="')),
    "md5": (Binary(b"\x01", 5), ("binary(5)", '"AQ=="')),
    "uuid": (Binary(bytes(15) + b"\x01", 4), ("uuid", f'"{uuid.UUID(int=1)}"')),
    "old_uuid": (Binary(bytes(16), 3), ("binary(3)", '"AAAAAAAAAAAAAAAAAAAAAA=="')),
    "oid": (bson.ObjectId("5" * 24), ("objectId", f'"{"5" * 24}"')),
    "bool": (True, ("bool", "true")),
    "date": (bson.DatetimeMS(1_700_000_000_120), ("date", '"2023-11-14T22:13:20.12+00:00"')),
    "null": (None, ("null", "null")),
    "regex": (Regex("^a", "im"), ("regex", '{"options":"im","pattern":"^a"}')),
    "code": (Code("f()"), ("javascript", '"f()"')),
    "scoped": (
        Code("f(x)", {"x": 1}),
        ("javascriptWithScope", '{"$code":"f(x)","$scope":{"x":1}}'),
    ),
    "int32": (-5, ("int32", "-5")),
    "int64": (bson.Int64(-5), ("int64", "-5")),
    "timestamp": (bson.Timestamp(7, 2), ("timestamp", '{"i":2,"t":7}')),
    "decimal": (bson.Decimal128("1.10"), ("decimal", '"1.10"')),
    "least": (bson.MinKey(), ("minKey", '{"$minKey":1}')),
    "most": (bson.MaxKey(), ("maxKey", '{"$maxKey":1}')),
    "inside": (
        {"at": bson.DatetimeMS(0), "n": bson.Int64(5), "far": 2**40, "by": bson.ObjectId("6" * 24)},
        (
            "struct",
            '{"at":{"$date":"1970-01-01T00:00:00Z"},"by":{"$oid":"'
            + "6" * 24
            + '"},"far":1099511627776,"n":{"$numberLong":"5"}}',
        ),
    ),
    "reference": (
        bson.DBRef("people", bson.ObjectId("7" * 24)),
        ("struct", '{"$id":{"$oid":"' + "7" * 24 + '"},"$ref":"people"}'),
    ),
}


def raw_document(identity, elements):
    body = b"\x10_id\0" + struct.pack("<i", identity) + elements
    return struct.pack("<i", len(body) + 5) + body + b"\0"
