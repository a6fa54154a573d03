"""A path may lead to an item of a list; nothing of the list is lost, and nothing carried twice."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract import oracle
from tests.conversion.converting import convert, faults_of, frames_of, single_frame

REPLY = {
    "id": "r1",
    "response": {
        "status": 200,
        "body": {
            "data": [{"index": 0, "embedding": [0.5, 0.25], "object": "embedding"}],
            "model": "m",
        },
    },
}
VECTOR = {"vector": "response.body.data[0].embedding"}


@pytest.mark.parametrize("fixed_schema", [True, False])
def test_a_vector_inside_a_reply_is_read_and_the_rest_stays_under_dotted_paths(fixed_schema):
    records = {key: [value] for key, value in REPLY.items()} if fixed_schema else [REPLY]
    row = single_frame(records, VECTOR)
    assert row["vector"] == [0.5, 0.25]
    assert row["meta"] == {
        "original_id": "r1",
        "response.status": "200",
        "response.body.model": "m",
        "response.body.data[0].index": "0",
        "response.body.data[0].object": "embedding",
    }


@pytest.mark.parametrize("fixed_schema", [True, False])
@pytest.mark.parametrize(
    "items", [[], [{"e": [1.0, 2.0], "n": 1}, {"e": [3.0, 4.0], "n": 2}], None]
)
def test_a_list_of_another_length_stays_whole(fixed_schema, items):
    rows = [{"id": "a", "d": [{"e": [9.0, 8.0], "n": 7}]}, {"id": "b", "d": items}]
    if fixed_schema:
        kind = pa.list_(pa.struct([("e", pa.list_(pa.float64())), ("n", pa.int64())]))
        records = {"id": ["a", "b"], "d": pa.array([row["d"] for row in rows], kind)}
    else:
        records = rows
    first, second = frames_of(records, {"vector": "d[0].e"})
    assert (first["vector"], first["meta"]) == ([9.0, 8.0], {"original_id": "a", "d[0].n": "7"})
    assert second["vector"] == ([1.0, 2.0] if items else [0.0, 0.0])
    carried = {} if fixed_schema and items is None else {"d": oracle.canonical(items)}
    assert second["meta"] == {"original_id": "b", **carried}


@pytest.mark.parametrize("fixed_schema", [True, False])
def test_a_field_that_really_has_the_name_wins(fixed_schema):
    record = {"id": "a", "d": [[5.0, 6.0]], "d[0]": [1.0, 2.0]}
    records = {key: [value] for key, value in record.items()} if fixed_schema else [record]
    row = single_frame(records, {"vector": "d[0]"})
    assert row["vector"] == [1.0, 2.0]
    assert row["meta"] == {"original_id": "a", "d": "[[5.0,6.0]]"}


@pytest.mark.parametrize("fixed_schema", [True, False])
def test_any_rule_may_lead_to_an_item_and_to_an_item_of_an_item(fixed_schema):
    record = {"id": "a", "choices": [{"text": "hello"}], "grid": [["x", "y"]], "tags": ["t", "u"]}
    records = {key: [value] for key, value in record.items()} if fixed_schema else [record]
    row = single_frame(
        records,
        {"text_content": "choices[0].text", "author": "grid[0][1]", "status": "tags[1]"},
    )
    assert (row["text_content"], row["author"], row["status"]) == ("hello", "y", "u")
    assert row["meta"] == {"original_id": "a", "grid[0]": '["x","y"]', "tags": '["t","u"]'}


def test_a_list_that_another_rule_takes_whole_is_not_opened():
    row = single_frame([{"id": "a", "tags": ["t"]}], {"tags": "tags", "title": "tags[0]"})
    assert (row["tags"], row["title"], row["meta"]) == (["t"], "t", {"original_id": "a"})


def test_an_item_that_no_record_has_is_refused():
    with pytest.raises(Exception, match=r"d\[1\]"):
        convert([{"id": "a", "d": [{"e": [1.0]}]}], {"vector": "d[1].e"})


def test_a_vector_of_another_width_in_an_item_is_a_fault():
    rows = [{"id": n, "d": [{"e": [1.0] * width}]} for n, width in enumerate([2, 2, 3])]
    assert list(faults_of(rows, {"vector": "d[0].e"})) == [2]


ITEMS = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "a[0]", "x.y"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def plain_text(value):
    return value if isinstance(value, str) else oracle.canonical(value)


def carried(values, mapping):
    """Give, for each value of the field v, its frame and what custom_metadata holds of the field."""
    records = [{"id": number, "v": value} for number, value in enumerate(values)]
    sample = [{"id": 0, "v": [{"a": 1}]}]
    for row in frames_of(records, mapping, sample=sample):
        yield row, {key: text for key, text in row["meta"].items() if key[0] == "v"}


def is_opened(value):
    return isinstance(value, list) and len(value) == 1 and value[0] is not None


@settings(max_examples=150, deadline=None)
@given(st.lists(ITEMS, min_size=1, max_size=5))
def test_a_rule_for_an_item_shows_the_whole_list_or_leaves_it_whole(values):
    for (row, texts), value in zip(carried(values, {"status": "v[0]"}), values, strict=True):
        if is_opened(value):
            assert (row["status"], texts) == (plain_text(value[0]), {})
        else:
            assert texts == {"v": oracle.metadata_text(value)}


@settings(max_examples=150, deadline=None)
@given(st.lists(ITEMS, min_size=1, max_size=5))
def test_a_rule_for_a_field_of_an_item_leaves_every_other_value_once(values):
    for (row, texts), value in zip(carried(values, {"author": "v[0].a"}), values, strict=True):
        item = value[0] if isinstance(value, list) and value else None
        if isinstance(item, dict) and item.get("a") is not None:
            assert row["author"] == plain_text(item["a"])
        if not is_opened(value):
            assert texts == {"v": oracle.metadata_text(value)}
        elif isinstance(item, dict) and item:
            assert texts == {
                f"v[0].{key}": oracle.metadata_text(inner)
                for key, inner in item.items()
                if key != "a"
            }
        else:
            assert texts == {"v[0]": oracle.metadata_text(item)}
