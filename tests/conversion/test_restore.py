"""The records of a source come back from its frames."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfray.conversion.convert import Conversion
from cfray.conversion.restore import Restoration
from cfray.errors import CfrayError
from cfray.formats.arrow_types import loss_of, normal_schema
from cfray.formats.columns import normal_batch
from cfray.job.spec import JobSpec
from cfray.planning.shape import work_out_shape
from cfray.records.record import Typed, from_objects, variant_texts, variant_types
from cfray.sources.base import Description
from tests.arrow_arrays import make_array
from tests.conversion.test_rules_on_arrow_types import KINDS, RULES
from tests.restoring import plain_values, unnumbered

#: Rules that need fields of their own, or under which a vector comes back as a list of numbers.
OTHERS = ("vector", "further vector", "an inner field", "an item")


def conversion_of(mapping, schema, batch):
    job = JobSpec.model_validate(
        {
            "name": "rules",
            "source": {"kind": "arrow" if schema else "jsonl", "uri": "x"},
            "target": {"uri": "t"},
            "mapping": mapping,
        }
    )
    description = Description(
        normal_schema(schema) if schema else None, None, exact=False, size=0, consistency="none"
    )
    return Conversion(job, work_out_shape(job, description, [batch]))


def restore(conversion, frames):
    return Restoration(conversion.job.mapping, conversion.shape).records(frames)


@pytest.mark.parametrize("rule", [name for name in RULES if name not in OTHERS])
@pytest.mark.parametrize("seed", range(2))
def test_records_of_any_arrow_type_come_back_under_every_rule(rule, seed):
    restored_any = False
    for number, kind in enumerate(KINDS):
        rows = 9
        batch = pa.RecordBatch.from_pydict(
            {
                "id": pa.array([f"r{n}" for n in range(rows)]),
                "c": make_array(kind, rows + 3, 100 * seed + number).slice(2, rows),
            }
        )
        normal = normal_batch(batch)
        try:
            conversion = conversion_of(RULES[rule], batch.schema, normal)
        except CfrayError:
            continue
        converted = conversion.convert(normal, "")
        if loss_of(normal_schema(batch.schema).field("c")) or not converted.frames.num_rows:
            continue
        records = restore(conversion, converted.frames)
        records.validate(full=True)
        restored_any = True
        for name in ("id", "c"):
            before = plain_values(batch.column(name))
            expected = [before[row] for row in converted.rows]
            restored = plain_values(records.column(name))
            assert unnumbered(restored) == unnumbered(expected), (rule, kind)
    assert restored_any


def check_arrow(columns, mapping):
    batch = pa.RecordBatch.from_pydict(columns)
    normal = normal_batch(batch)
    conversion = conversion_of(mapping, batch.schema, normal)
    converted = conversion.convert(normal, "")
    assert not converted.faults
    records = restore(conversion, converted.frames)
    records.validate(full=True)
    for name, column in columns.items():
        assert records.column(name).type == column.type
        assert records.column(name).to_pylist() == column.to_pylist()
    again = conversion.convert(normal_batch(records), "")
    assert again.frames.equals(converted.frames)


IDS = pa.array([1, 2, 3, 4])
STRUCTS = pa.array(
    [{"a": "x", "n": 1}, None, {"a": None, "n": None}, {"a": "y", "n": None}],
    pa.struct([("a", pa.string()), ("n", pa.int16())]),
)


@pytest.mark.parametrize(
    "mapping",
    [
        {"title": "s.a"},
        {"title": ["s.n", "s.a"]},
        {"title": "s.a", "text_content": "s"},
        {"title": ["id", "s.a"], "author": "s.a", "position": "s.n"},
    ],
)
def test_structs_that_rules_lead_into_come_back(mapping):
    check_arrow({"id": IDS, "s": STRUCTS}, mapping)


@pytest.mark.parametrize("rule", ["l[0].a", "l[1].a", ["l[0].n", "l[0].a"]])
def test_lists_that_rules_lead_into_come_back(rule):
    kind = pa.list_(STRUCTS.type)
    lists = pa.array([[{"a": "x", "n": 1}], None, [], [{"a": "y", "n": 2}, None]], kind)
    check_arrow({"id": IDS, "l": lists}, {"title": rule})


def test_vectors_come_back_in_the_type_of_the_source():
    vectors = pa.array([[1.5, 2], [0, 0.25], None, [3, 4]], pa.list_(pa.float64()))
    halves = pa.array([[1.5], None, [2], [3]], pa.list_(pa.float16(), 1))
    mapping = {"vector": "v", "vectors": {"h": "h"}}
    check_arrow({"id": IDS, "v": vectors, "h": halves}, mapping)


def test_the_first_vector_that_is_present_comes_back_to_its_field():
    small = pa.list_(pa.float32())
    first = pa.array([[1, 2], None, None, [7, 8]], small)
    second = pa.array([[3, 4], [5, 6], None, None], small)
    check_arrow({"id": IDS, "a": first, "b": second}, {"vector": ["a", "b"]})


@pytest.mark.parametrize("first", [pa.float64(), pa.string(), pa.uuid(), pa.decimal128(9, 2)])
def test_of_several_ids_each_comes_back_to_its_field(first):
    values = {
        pa.float64(): [1.5, None, 2.0, None],
        pa.string(): ["a", None, "b", None],
        pa.uuid(): [bytes(16), None, bytes(range(16)), None],
        pa.decimal128(9, 2): [3, None, 4, None],
    }
    check_arrow({"id": IDS, "a": pa.array(values[first], first)}, {"id": ["a", "id"]})


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.sampled_from(["null", "1", "true", "1.5", "", "[1]"])
)
NAMES = st.sampled_from(["a", "b", "a.b", "source.a", "original_id", "cfray.types", "l", "o"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.lists(st.dictionaries(NAMES, VALUES, max_size=5), min_size=1, max_size=5)
MAPPINGS = [
    {},
    {"title": "a"},
    {"title": ["a", "b"], "text_content": ["b", "a"]},
    {"title": "o.a", "author": "o.b", "text_content": ["o.a", "a"]},
    {"title": "o.a.b", "tags": "l", "status": "l"},
    {"title": "l[0].a", "author": "l[0].b"},
    {"title": "l[1]", "text_content": "l"},
    {"position": "a", "version": "b", "created_at": ["a", "b"]},
    {"raw_data": "a", "raw_data_type": {"const": "text/plain"}},
    {"title": {"template": "{a}-{b}"}, "collection": "a", "contributors": "b"},
    {"id": ["a", "id"], "tags": "a"},
    {"id": {"key": ["id", "a"]}, "title": "a"},
    {"title": {"path": ["a.b"]}, "author": {"path": ["source.a"]}},
    {"title": "b", "cases": [{"when": {"field": "a", "present": True}, "mapping": {"title": "a"}}]},
    {
        "text_content": "a",
        "cases": [
            {
                "when": {"field": "b", "equals": ["1", "null"]},
                "mapping": {"text_content": "b", "title": "a"},
            }
        ],
    },
]


@pytest.mark.parametrize("number", range(len(MAPPINGS)))
@settings(max_examples=50)
@given(records=RECORDS)
def test_any_json_comes_back_under_every_rule(number, records):
    objects = [{"id": f"r{row}", **record} for row, record in enumerate(records)]
    batch = from_objects(objects)
    try:
        conversion = conversion_of(MAPPINGS[number], None, batch)
    except CfrayError:
        return
    converted = conversion.convert(batch, "")
    restored = objects_of(restore(conversion, converted.frames))
    assert restored == [in_json(objects[row]) for row in converted.rows]


def objects_of(records):
    """Give the objects of variants, each value as (type, canonical text)."""
    columns = {
        field.name: list(zip(variant_types(column), variant_texts(column), strict=True))
        for field, column in zip(records.schema, records.columns, strict=True)
    }
    return [
        {
            name: (column[row][0].as_py(), column[row][1].as_py())
            for name, column in columns.items()
            if column[row][0].is_valid
        }
        for row in range(records.num_rows)
    ]


def in_json(record):
    (row,) = objects_of(from_objects([record]))
    return row


def check_json(objects, mapping, *, sample=None):
    """Convert and give back objects whose types are those of a sample of them."""
    batch = from_objects(objects)
    conversion = conversion_of(mapping, None, from_objects(sample or objects))
    converted = conversion.convert(batch, "")
    assert not converted.faults
    restored = objects_of(restore(conversion, converted.frames))
    assert restored == [in_json(item) for item in objects]


@pytest.mark.parametrize("mapping", [{}, {"title": "name"}])
def test_a_text_that_the_sample_lacks_comes_back(mapping):
    objects = [{"id": "a", "name": "n"}, {"id": "b", "text": "hello"}, {"id": "c", "text": None}]
    check_json(objects, mapping, sample=objects[:1])


@pytest.mark.parametrize(
    "value",
    [
        Typed("keyword", 'a"b\\c\n'),
        Typed("keyword", "[1]"),
        Typed("keyword", "{}"),
        Typed("xml", '<a b="c"/>'),
        Typed("minKey", 1),
    ],
)
@pytest.mark.parametrize(
    "mapping",
    [
        {"title": "c"},
        {"title": ["c", "d"], "text_content": ["d", "c"]},
        {"raw_data": "c", "raw_data_type": {"const": "text/plain"}},
    ],
)
def test_texts_of_a_stores_own_types_come_back(value, mapping):
    check_json([{"id": "a", "c": value, "d": "x"}, {"id": "b"}, {"id": "c", "d": value}], mapping)


def test_a_column_shows_what_a_text_of_a_stores_own_type_says():
    batch = from_objects([{"id": "a", "c": Typed("xml", '<a b="\\"/>')}])
    converted = conversion_of({"text_content": "c"}, None, batch).convert(batch, "")
    assert converted.frames.column("text_content").to_pylist() == ['<a b="\\"/>']


def test_vectors_that_cases_take_from_several_fields_come_back():
    objects = [
        {"id": "a", "kind": "x", "v": [1.0, 2.0], "w": [3.0, 4.0]},
        {"id": "b", "kind": "y", "v": [5.0, 6.0], "w": [7.0, 8.0]},
    ]
    case = {"when": {"field": "kind", "equals": "x"}, "mapping": {"vector": "w"}}
    check_json(objects, {"vector": "v", "cases": [case]})


def test_a_source_without_vectors_gets_no_field_for_them():
    batch = normal_batch(pa.RecordBatch.from_pydict({"id": IDS}))
    conversion = conversion_of({}, batch.schema, batch)
    assert restore(conversion, conversion.convert(batch, "").frames).schema.names == ["id"]


def test_keys_that_another_program_wrote_come_back_as_texts():
    batch = normal_batch(pa.RecordBatch.from_pydict({"id": IDS}))
    conversion = conversion_of({}, batch.schema, batch)
    frames = conversion.convert(batch, "").frames
    column = frames.schema.get_field_index("custom_metadata")
    field = frames.schema.field(column)
    entries = [[{"key": "more", "value": "1"}], None, [], [{"key": "original_id", "value": "7"}]]
    records = restore(conversion, frames.set_column(column, field, pa.array(entries, field.type)))
    assert records.to_pylist() == [
        {"id": None, "more": "1"},
        {"id": None, "more": None},
        {"id": None, "more": None},
        {"id": 7, "more": None},
    ]


@pytest.mark.parametrize(
    "value",
    [Typed("uuid", "12345678-1234-1234-1234-123456789ABC"), Typed("date", "2020"), Typed("n", 5)],
)
def test_parts_of_a_composite_id_come_back(value):
    check_json([{"a": value, "b": "x"}, {"a": 1, "b": value}], {"id": {"key": ["a", "b"]}})


@pytest.mark.parametrize("kind", [pa.timestamp("ns", "UTC"), pa.uuid(), pa.binary()])
def test_parts_of_a_composite_id_come_back_in_their_arrow_types(kind):
    check_arrow({"id": IDS, "a": make_array(kind, 4, 3)}, {"id": {"key": ["id", "a"]}})
