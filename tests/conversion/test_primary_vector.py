"""Of several fields the first that is present is a record's vector, and no other one is lost."""

import numpy as np
import pyarrow as pa
import pytest

from tests.conversion.converting import convert, faults_of, frames_of

BOTH = {"vector": ["title_vector", "body_vector"]}


def rows_of(records, fixed_schema, mapping=BOTH, **job):
    if fixed_schema:
        names = dict.fromkeys(key for record in records for key in record)
        records = {name: [record.get(name) for record in records] for name in names}
    return frames_of(records, mapping, **job)


RECORDS = [
    {"id": "a", "title_vector": [1.0, 2.0]},
    {"id": "b", "body_vector": [3.0, 4.0]},
    {"id": "c", "title_vector": [5.0, 6.0], "body_vector": [7.0, 8.0]},
    {"id": "d"},
]


@pytest.mark.parametrize("fixed_schema", [True, False])
def test_each_record_has_the_first_vector_that_it_has(fixed_schema):
    rows = rows_of(RECORDS, fixed_schema)
    assert [row["vector"] for row in rows] == [[1, 2], [3, 4], [5, 6], [0, 0]]
    assert [row["meta"].get("body_vector") for row in rows] == [None, None, "[7.0,8.0]", None]
    assert not any("title_vector" in row["meta"] for row in rows)


@pytest.mark.parametrize("fixed_schema", [True, False])
def test_the_row_says_which_field_had_no_vector(fixed_schema):
    absent = "null" if fixed_schema else "missing"
    rows = rows_of(RECORDS, fixed_schema)
    assert [row["types"].get("title_vector") for row in rows] == [None, absent, None, absent]
    assert [row["types"].get("body_vector") for row in rows] == [absent, None, None, absent]


def test_a_batch_that_lacks_a_field_says_so_in_every_row():
    sample = {"id": ["x"], "title_vector": [[1.0, 2.0]], "body_vector": [[3.0, 4.0]]}
    for name, other in (("title_vector", "body_vector"), ("body_vector", "title_vector")):
        (row,) = frames_of({"id": ["a"], name: [[5.0, 6.0]]}, BOTH, sample=sample)
        assert (row["vector"], row["types"]) == ([5.0, 6.0], {other: "null"})


@pytest.mark.parametrize("fixed_schema", [True, False])
def test_an_empty_first_vector_gives_way_and_stays_in_custom_metadata(fixed_schema):
    records = [
        {"id": "a", "title_vector": [], "body_vector": [1.0, 2.0]},
        {"id": "b", "title_vector": [], "body_vector": []},
        {"id": "c", "title_vector": [3.0, 4.0], "body_vector": [5.0, 6.0]},
    ]
    rows = rows_of(records, fixed_schema)
    assert [row["vector"] for row in rows] == [[1, 2], [0, 0], [3, 4]]
    assert [row["meta"].get("title_vector") for row in rows] == ["[]", "[]", None]
    assert [row["meta"].get("body_vector") for row in rows] == [None, "[]", "[5.0,6.0]"]


def test_a_first_vector_that_is_wrong_is_a_fault_whatever_the_second_is():
    records = [
        {"id": "a", "title_vector": [1.0, 2.0]},
        {"id": "b", "title_vector": [1.0], "body_vector": [3.0, 4.0]},
        {"id": "c", "title_vector": "north", "body_vector": [3.0, 4.0]},
        {"id": "d", "title_vector": [3.0, 4.0], "body_vector": "north"},
    ]
    assert list(faults_of(records, BOTH)) == [1, 2]


def test_several_fields_may_be_written_in_several_forms():
    vector = np.array([0.1, -3.5], "<f4")
    records = {
        "id": ["a", "b"],
        "blob": pa.array([vector.tobytes(), None], pa.binary()),
        "text": [None, "[0.1 -3.5]"],
    }
    rows = frames_of(records, {"vector": [{"path": "blob", "as": "floats"}, "text"]})
    assert [np.array(row["vector"], "<f4").tobytes() for row in rows] == [vector.tobytes()] * 2
    assert [row["meta"] for row in rows] == [{"original_id": "a"}, {"original_id": "b"}]


@pytest.mark.parametrize("policy", ["zero", "null", "quarantine"])
@pytest.mark.parametrize("fixed_schema", [True, False])
def test_an_empty_vector_follows_missing_vector_and_is_counted(fixed_schema, policy):
    records = [{"id": "a", "v": [1.0, 2.0]}, {"id": "b", "v": []}]
    job = {"mapping": {"vector": "v"}, "embedding": {"missing_vector": policy}}
    given = {"id": ["a", "b"], "v": [[1.0, 2.0], []]} if fixed_schema else records
    converted = convert(given, **job)
    if policy == "quarantine":
        assert [fault.row for fault in converted.faults] == [1]
        return
    assert (converted.counts["empty_vectors"], converted.counts["missing_vectors"]) == (1, 1)
    second = frames_of(given, **job)[1]
    assert second["vector"] == ([0, 0] if policy == "zero" else None)
    assert second["meta"] == {"original_id": "b", "v": "[]"}


KEPT = {"vector": {"path": "v", "other_widths": "keep"}}


@pytest.mark.parametrize("policy", ["zero", "null", "quarantine"])
@pytest.mark.parametrize("written", ["lists", "json", "mixed"])
def test_a_vector_of_another_width_can_stay_whole_in_custom_metadata(written, policy):
    lists = [[1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0], None]
    records = [{"id": str(n), "v": value} for n, value in enumerate(lists)]
    if written == "json":
        records = {"id": list("0123"), "v": [None if v is None else str(v) for v in lists]}
    elif written == "mixed":
        records[1]["v"] = "[3.0, 4.0, 5.0]"
    job = {"mapping": KEPT, "embedding": {"missing_vector": policy}}
    converted = convert(records, **job)
    if policy == "quarantine":
        assert [fault.row for fault in converted.faults] == [1, 3]
        return
    assert converted.faults == []
    assert (converted.counts["other_width_vectors"], converted.counts["missing_vectors"]) == (1, 2)
    rows = frames_of(records, **job)
    absent = [0, 0] if policy == "zero" else None
    assert [row["vector"] for row in rows] == [[1, 2], absent, [6, 7], absent]
    kept = "[3.0,4.0,5.0]" if written == "lists" else "[3.0, 4.0, 5.0]"
    assert [row["meta"].get("v") for row in rows] == [None, kept, None, None]
    assert rows[1]["types"].get("v") in (None, "string")  # neither null nor missing


def test_a_vector_that_is_wrong_otherwise_is_a_fault_all_the_same():
    records = [{"id": "a", "v": [1.0, 2.0]}, {"id": "b", "v": [1.0, float("nan")]}]
    assert list(faults_of([*records, {"id": "c", "v": "north"}], KEPT)) == [1, 2]


def test_behind_a_vector_of_another_width_the_next_field_counts():
    records = [
        {"id": "a", "v": [1.0, 2.0], "w": [3.0, 4.0]},
        {"id": "b", "v": [1.0, 2.0, 3.0], "w": [5.0, 6.0]},
        {"id": "c", "v": [1.0, 2.0]},
    ]
    mapping = {"vector": [{"path": "v", "other_widths": "keep"}, "w"]}
    rows = frames_of(records, mapping)
    assert [row["vector"] for row in rows] == [[1, 2], [5, 6], [1, 2]]
    assert rows[1]["meta"]["v"] == "[1.0,2.0,3.0]"
    assert convert(records, mapping=mapping).counts["other_width_vectors"] == 0


def test_an_empty_text_stays_beside_the_vector_that_stands_for_it():
    first, second = frames_of({"id": ["a", "b"], "v": ["[1, 2]", " "]}, {"vector": "v"})
    assert (first["vector"], "v" in first["meta"]) == ([1, 2], False)
    assert (second["vector"], second["meta"]["v"]) == ([0, 0], " ")


@pytest.mark.parametrize(
    ("column", "form"),
    [
        (pa.array([np.array([1.5, 2.5], "<f4").tobytes(), b"odd"]), "floats"),
        (pa.array(["[1.5 2.5]", "odd"]), "auto"),
        (pa.array(["AADAPwAAIEA=", "odd"]), "base64"),
    ],
    ids=["bytes", "numpy", "base64"],
)
def test_a_further_vector_is_decoded_and_what_is_none_stays(column, form):
    records = {"id": ["a", "b"], "v": [[1.0], [2.0]], "w": column}
    rows = frames_of(records, {"vector": "v", "vectors": {"w": {"path": "w", "as": form}}})
    assert [row["x_vector_w"] for row in rows] == [[1.5, 2.5], None]
    assert [row["meta"].get("w") is None for row in rows] == [True, False]


@pytest.mark.parametrize("second", [[3.5, 4.5], "[3.5, 4.5]", {"0": 3.5, "1": 4.5}], ids=str)
def test_a_further_vector_may_be_a_text_here_and_a_list_there(second):
    records = [{"id": 1, "v": [1.0], "w": "[1.5, 2.5]"}, {"id": 2, "v": [2.0], "w": second}]
    rows = frames_of(records, {"vector": "v", "vectors": {"w": "w"}})
    assert [row["x_vector_w"] for row in rows] == [[1.5, 2.5], [3.5, 4.5]]
    assert [row["meta"] for row in rows] == [{"original_id": "1"}, {"original_id": "2"}]


def test_a_further_vector_that_nothing_can_read_is_refused():
    with pytest.raises(Exception, match="as: floats"):
        convert(
            {"id": ["a"], "v": [[1.0]], "w": pa.array([bytes(8)])},
            {"vector": "v", "vectors": {"w": "w"}},
        )
