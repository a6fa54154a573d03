"""Records of several shapes are each mapped by the rules of their case, and lose nothing by it."""

import pytest
from pydantic import ValidationError

from cfray.conversion.cases import shape_numbers
from cfray.conversion.fields import Fields
from cfray.job.mapping import Case, Mapping, Rules
from tests.contract import oracle
from tests.conversion.converting import batch_of, convert, faults_of, frames_of

MAPPING = {
    "id": "id",
    "text_content": "body",
    "title": "title",
    "relationships": [{"type": "parent", "to": "up"}],
    "cases": [
        {"when": {"field": "v", "equals": 1}, "mapping": {"text_content": "content", "title": "name"}},
        {
            "when": {"field": "meta.kind", "equals": ["note", "memo"]},
            "mapping": {"text_content": "meta.text", "relationships": []},
        },
    ],
}  # fmt: skip
RECORDS = [
    {"id": "a", "v": 2, "title": "A", "body": "of a", "up": "c"},
    {"id": "b", "v": 1, "name": "B", "content": "of b", "title": "no title of it"},
    {"id": "c", "v": 2, "title": "C", "body": "of c", "content": "beside"},
    {"id": "d", "v": 2, "meta": {"kind": "memo", "text": "of d"}, "up": "a"},
    {"id": "e", "v": 1, "meta": {"kind": "note", "text": "no text of it"}, "content": "of e"},
]


def test_each_record_is_mapped_by_its_case_and_stays_in_its_place():
    frames = frames_of(RECORDS, MAPPING)
    assert [row["text_content"] for row in frames] == ["of a", "of b", "of c", "of d", "of e"]
    assert [row["title"] for row in frames] == ["A", "B", "C", "of d", "of e"]
    assert [row["meta"]["original_id"] for row in frames] == list("abcde")
    parents = [
        [item["id"] for item in row["relationships"] if item["type"] == "parent"] for row in frames
    ]
    uuid = {key: oracle.record_uuid("articles", "", "s", key) for key in "abcde"}
    assert parents == [[uuid["c"]], [], [], [], []]


def test_a_field_that_another_case_maps_stays_in_custom_metadata():
    a, b, c, d, e = frames_of(RECORDS, MAPPING)
    assert b["meta"]["title"] == "no title of it"
    assert c["meta"]["content"] == "beside"
    assert d["meta"]["up"] == "a"
    assert (d["meta"]["meta.kind"], e["meta"]["meta.text"]) == ("memo", "no text of it")
    assert "content" not in b["meta"]
    assert "body" not in a["meta"]
    assert [row["meta"]["v"] for row in (a, b, c, d, e)] == ["2", "1", "2", "2", "1"]


def test_what_does_not_fit_is_named_by_its_row():
    records = [
        {**record, "id": None if record["id"] in "be" else record["id"]} for record in RECORDS
    ]
    assert list(faults_of(records, MAPPING)) == [1, 4]
    converted = convert(records, MAPPING)
    assert converted.rows.tolist() == [0, 2, 3]
    assert converted.tagged_ids.to_pylist() == ["s:a", "s:c", "s:d"]


def test_frames_do_not_depend_on_the_batch_that_a_record_is_in():
    together = frames_of(RECORDS, MAPPING)
    apart = [frames_of([record], MAPPING, sample=RECORDS)[0] for record in RECORDS]
    for row in [*together, *apart]:
        del row[
            "custom_metadata"
        ]  # whose order is that of the batch's columns; meta has its entries
    assert apart == together


def test_columns_of_a_schema_are_asked_too():
    columns = {
        "id": ["a", "b"],
        "v": ["1", None],
        "content": ["of a", None],
        "body": [None, "of b"],
    }
    mapping = {"text_content": "body", "cases": MAPPING["cases"][:1]}
    mapping["cases"] = [{**mapping["cases"][0], "mapping": {"text_content": "content"}}]
    assert [row["text_content"] for row in frames_of(columns, mapping)] == ["of a", "of b"]


@pytest.mark.parametrize(
    ("condition", "of_case"),
    [
        ({"equals": 1}, "ab"),
        ({"equals": "1"}, "ab"),
        ({"equals": 1.0}, "c"),
        ({"equals": True}, "d"),
        ({"equals": [True, "x"]}, "dh"),
        ({"present": True}, "abcdh"),
        ({"present": False}, "efg"),
        ({"equals": "other"}, ""),
    ],
)
def test_conditions(condition, of_case):
    values = {"a": 1, "b": "1", "c": 1.0, "d": True, "e": None, "h": "x"}
    records = [
        {"id": key, "v": values[key]} if key in values else {"id": key} for key in "abcdefgh"
    ]
    case = Case.model_validate({"when": {"field": "v", **condition}, "mapping": {}})
    numbers = shape_numbers(Fields(batch_of(records), {("v",)}), [case])
    assert "".join(key for key, n in zip("abcdefgh", numbers, strict=True) if n == 0) == of_case
    nowhere = Case.model_validate({"when": {"field": "w", "present": False}, "mapping": {}})
    assert not shape_numbers(Fields(batch_of(records), {("w",)}), [nowhere]).any()


def test_a_case_has_the_keys_of_records_alone_and_one_condition():
    for case in (
        {"when": {"field": "v"}, "mapping": {}},
        {"when": {"field": "v", "equals": 1, "present": True}, "mapping": {}},
        {"when": {"field": "v", "equals": 1}, "mapping": {"vectors": {"x": "y"}}},
        {"when": {"field": "v", "equals": 1}, "mapping": {"keep_uuid": True}},
        {"when": {"field": "v", "equals": 1}, "mapping": {"cases": []}},
        {"when": {"field": "v", "equals": 1}, "mapping": {"raw_data": "x"}},
    ):
        with pytest.raises(ValidationError):
            Mapping.model_validate({"cases": [case]})


def test_a_mapping_without_cases_is_written_as_before_there_were_any():
    assert "cases" not in Mapping().model_dump(mode="json")
    assert set(Rules.model_fields) < set(Mapping.model_fields)


def test_vectors_may_be_called_differently_in_each_shape():
    records = [
        {"id": "a", "v": 1, "old": [1.0, 2.0]},
        {"id": "b", "v": 2, "new": [3.0, 4.0], "old": [9.0, 9.0]},
    ]
    case = {"when": {"field": "v", "equals": 1}, "mapping": {"vector": "old"}}
    a, b = frames_of(records, {"vector": "new", "cases": [case]})
    assert (a["vector"], b["vector"]) == ([1.0, 2.0], [3.0, 4.0])
    assert b["meta"]["old"] == "[9.0,9.0]"
