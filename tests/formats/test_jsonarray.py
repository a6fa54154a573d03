"""ElementEnds finds the elements of a JSON array for any cut of the stream into blocks.

Commas and brackets inside texts and nested values must not end an element.
"""

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from cfray.formats.json_structure import ElementEnds
from cfray.formats.lines import gather_records

TEXTS = st.text(st.sampled_from('"\\[]{},: \né'), max_size=8)
VALUES = st.recursive(
    st.one_of(st.none(), st.integers(), TEXTS),
    lambda values: st.one_of(st.lists(values), st.dictionaries(TEXTS, values)),
    max_leaves=10,
)


def records(data, size):
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    return [
        record
        for run in gather_records(iter(blocks), ElementEnds(), 10**6)
        for _, record in run.records()
    ]


class TestElementEnds:
    @settings(max_examples=400)
    @given(st.lists(VALUES, min_size=1, max_size=6), st.sampled_from([None, 1]), st.integers(1, 9))
    @example(['\\"', "\\\\", '\\\\"[,'], None, 1)
    def test_an_array_is_cut_at_its_own_commas(self, values, indent, size):
        data = json.dumps(values, indent=indent, ensure_ascii=False).encode()
        cut_records = records(data, size)
        assert b"".join(cut_records) == data
        assert cut_records[0] == b"["
        assert {record[-1:] for record in cut_records[1:-1]} <= {b","}
        assert cut_records[-1][-1:] == b"]"
        assert [json.loads(record[:-1]) for record in cut_records[1:]] == values

    @given(st.dictionaries(TEXTS, VALUES), st.integers(1, 9))
    def test_an_object_is_cut_at_its_end(self, value, size):
        data = json.dumps(value).encode()
        assert records(data + b" \n", size) == [data, b" \n"]
