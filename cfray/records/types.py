"""Arrow types of vectors that stores share, and the names by which a plan records them."""

from __future__ import annotations

import re

import pyarrow as pa

#: A sparse vector: the positions of the numbers that are not zero, and these numbers.
SPARSE = pa.struct([("indices", pa.list_(pa.uint32())), ("values", pa.list_(pa.float32()))])

#: Number types of vectors, by Arrow's name.
_NUMBERS = {
    "halffloat": pa.float16(),
    "float": pa.float32(),
    "double": pa.float64(),
    "int8": pa.int8(),
    "uint8": pa.uint8(),
}
_FIXED_SIZE_LIST = re.compile(r"fixed_size_list<(?P<item>.*)>\[(?P<size>\d+)\]")
_LIST = re.compile(r"(large_)?list<(?P<item>.*)>")
#: What stands before the type of a list's items: their name.
_ITEM_NAME = re.compile(r"^[^<>]*?: ")


def vector_type(name: str) -> pa.DataType:
    """Read the name of a vector's type back, as ``values.type_name`` or a variant writes it.

    The plan and the dataset record the types of fields as such names: ``fixed_size_list<item:
    halffloat>[384]``, ``list<double>``, a list of fixed-size lists (a multi-vector) or the struct
    of a sparse vector.  Numbers of any other type are read as float64.
    """
    if name == str(SPARSE):
        return SPARSE
    fixed = _FIXED_SIZE_LIST.fullmatch(name)
    if fixed:
        return pa.list_(_item_type(fixed["item"]), int(fixed["size"]))
    variable = _LIST.fullmatch(name)
    return pa.list_(_item_type(variable["item"]) if variable else pa.float64())


def _item_type(item: str) -> pa.DataType:
    """Read the type of a list's items, which may be lists."""
    name = _ITEM_NAME.sub("", item, count=1).removesuffix(" not null")
    if "list<" in name:
        return vector_type(name)
    return _NUMBERS.get(name, pa.float64())
