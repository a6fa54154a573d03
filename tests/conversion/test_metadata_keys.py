"""Every field has a key of custom_metadata of its own, from which its path can be read back."""

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfray.conversion.metadata_keys import entered_paths, metadata_key
from tests.conversion.converting import convert, shape_of, single_frame
from tests.restoring import path_of, plain_values, read_frames, read_type, read_value

NAMES = st.sampled_from(
    [
        *["a", "b", "a.b", "b.a", "a.b.a", "", ".", "a.", ".a", "source", "source.a"],
        *["source.source", "source.original_id", "_source", "original_id"],
        *["cfray.types", "cfray", "types", "id.x"],
    ]
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(tuple)


@given(st.lists(PATHS, max_size=4), st.lists(PATHS, min_size=1, max_size=40))
def test_no_two_fields_share_a_key(rules, candidates):
    entered = entered_paths(rules)
    paths = {path for path in candidates if len(path) == 1 or path[:-1] in entered}
    keys = {path: metadata_key(path, entered) for path in paths}
    assert len(set(keys.values())) == len(paths)
    assert not {"original_id", "cfray.types"} & set(keys.values())
    assert {path: path_of(key, rules) for path, key in keys.items()} == {
        path: path for path in keys
    }


@pytest.mark.parametrize(
    ("path", "rules", "key"),
    [
        (("meta", "by"), [("meta", "by")], "meta.by"),
        (("meta.by",), [("meta", "by")], "source.meta.by"),
        (("meta.by",), [("title",)], "meta.by"),
        (("original_id",), [], "source.original_id"),
        (("source.original_id",), [], "source.source.original_id"),
        (("source.meta.by",), [("meta", "by")], "source.source.meta.by"),
        (("_source", "author", "name"), [("_source", "author", "org")], "_source.author.name"),
        (
            ("_source", "author.name"),
            [("_source", "author", "org")],
            "source.source._source.author.name",
        ),
        (("_source.author.name",), [("_source", "author", "org")], "source._source.author.name"),
    ],
)
def test_the_deepest_field_keeps_the_dotted_path(path, rules, key):
    assert metadata_key(path, entered_paths(rules)) == key


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["x", "null", "1"]),
    lambda inner: st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
RECORDS = st.lists(st.dictionaries(NAMES, VALUES, max_size=5), min_size=1, max_size=3)


def rules_into(records, draw):
    """Choose paths that lead into objects of the records."""
    paths = {path for record in records for path in inner_paths((), record) if len(path) > 1}
    return draw.draw(st.lists(st.sampled_from(sorted(paths)), max_size=3)) if paths else []


def inner_paths(parent, value):
    for name, child in value.items():
        yield (*parent, name)
        if isinstance(child, dict):
            yield from inner_paths((*parent, name), child)


def mapping_of(rules):
    """Map dates, for their fields stay in custom_metadata whole."""
    mapping = {"id": {"path": ["the id"]}}
    return mapping | ({"created_at": [{"path": list(path)} for path in rules]} if rules else {})


def put(record, path, value):
    for name in path[:-1]:
        record = record.setdefault(name, {})
    record[path[-1]] = value


def canonical(value):
    return json.dumps(value, sort_keys=True)


@settings(max_examples=40)
@given(RECORDS, st.data())
def test_objects_are_given_back_exactly(records, draw):
    rules = rules_into(records, draw)
    records = [record | {"the id": f"r{n}"} for n, record in enumerate(records)]
    converted = convert(records, mapping_of(rules))
    for record, (texts, types) in zip(records, read_frames(converted.frames), strict=True):
        restored = {"the id": texts.pop("original_id")}
        kinds = shape_of(records, mapping_of(rules)).types | types
        for key, text in texts.items():
            value = text if kinds[key] == "string" else json.loads(text)
            put(restored, path_of(key, rules), value)
        assert canonical(restored) == canonical(record)


STRUCTS = st.recursive(
    st.sampled_from([pa.int8(), pa.string(), pa.list_(pa.int8())]),
    lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(
        lambda fields: pa.struct(list(fields.items()))
    ),
    max_leaves=6,
)


def values_of(kind):
    if pa.types.is_struct(kind):
        return st.none() | st.fixed_dictionaries(
            {field.name: values_of(field.type) for field in kind}
        )
    plain = {pa.int8(): st.integers(-9, 9), pa.string(): st.sampled_from(["", "x", "null"])}
    return st.none() | plain.get(kind, st.lists(st.integers(-9, 9), max_size=2))


def type_paths(parent, kind):
    yield parent
    if pa.types.is_struct(kind):
        for field in kind:
            yield from type_paths((*parent, field.name), field.type)


@settings(max_examples=40)
@given(st.dictionaries(NAMES, STRUCTS, min_size=1, max_size=4), st.data())
def test_structs_are_given_back_exactly(kinds, draw):
    kinds = {name: kind for name, kind in kinds.items() if name != "the id"}
    paths = sorted(
        path for name, kind in kinds.items() for path in type_paths((name,), kind) if len(path) > 1
    )
    rules = draw.draw(st.lists(st.sampled_from(paths), max_size=3)) if paths else []
    columns = {
        name: pa.array(draw.draw(st.lists(values_of(kind), min_size=2, max_size=2)), kind)
        for name, kind in kinds.items()
    }
    records = {"the id": pa.array(["r0", "r1"]), **columns}
    converted = convert(records, mapping_of(rules))
    types = shape_of(records, mapping_of(rules)).types
    for row, (texts, row_types) in enumerate(read_frames(converted.frames)):
        texts.pop("original_id")
        nulls = {path_of(key, rules) for key, name in row_types.items() if name == "null"}
        restored = {path_of(key, rules): None for key in types} | {
            path_of(key, rules): read_value(read_type(row_types.get(key, types[key])), text)
            for key, text in texts.items()
        }
        for name, column in columns.items():
            value = rebuilt((name,), column.type, restored, nulls, rules)
            assert value == plain_values(column)[row]


def rebuilt(path, kind, restored, nulls, rules):
    """Put a value together from the fields that a rule opened it into.

    What a rule takes whole is there whole, and the fields below it are copies.
    """
    is_open = any(other[: len(path)] == path and len(other) > len(path) for other in restored)
    if path in rules or not is_open:
        return restored[path]
    if path in nulls:
        return None
    return tuple(
        (field.name, rebuilt((*path, field.name), field.type, restored, nulls, rules))
        for field in kind
    )


@pytest.mark.parametrize(
    "make", [lambda meta: {"meta": pa.array([meta])}, lambda meta: {"meta": meta}]
)
def test_a_rule_takes_an_object_whole_and_another_takes_a_part_of_it(make):
    meta = {"title": "T", "x": 1}
    columns = make(meta)
    records = [{"id": "a", **columns}] if columns["meta"] is meta else {"id": ["a"], **columns}
    frame = single_frame(records, {"title": "meta.title", "context": "meta"})
    assert (frame["title"], frame["context"]) == ("T", '{"title":"T","x":1}')
    assert frame["meta"] == {"original_id": "a"}
    frame = single_frame(records, {"title": "meta.title", "created_at": "meta"})
    assert frame["title"] == "T"
    assert frame["meta"] == {"meta": '{"title":"T","x":1}', "original_id": "a"}
