"""parse_json returns what a JSON text says, or raises an error that says why it cannot.

It must not change or drop a value silently: no rounded integer and no duplicate key.
"""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfray.formats.jsontext import MAX_DEPTH, InexactJson, parse_json

NUMBERS = st.one_of(
    st.integers(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False)
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.text(),
    st.sampled_from(['":', '" :', '\\":', "{", '"', ':"x']),
)
VALUES = st.recursive(
    LEAVES,
    lambda values: st.one_of(
        st.lists(values),
        st.lists(NUMBERS, min_size=3),
        st.dictionaries(st.text(max_size=3), values),
    ),
    max_leaves=20,
)


def are_identical(first, second):
    """Compare two values and their types: 1 equals neither 1.0 nor true, and 0.0 not -0.0."""
    return repr(first) == repr(second)


class TestParse:
    @given(
        VALUES,
        st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : "), (",", "\t:\r")]),
        st.booleans(),
    )
    def test_gives_back_what_was_written(self, value, separators, ascii_only):
        text = json.dumps(value, separators=separators, ensure_ascii=ascii_only)
        assert are_identical(parse_json(text.encode()), value)

    @given(st.dictionaries(st.text(max_size=3), VALUES, min_size=1), st.data(), st.integers(0, 2))
    def test_names_a_duplicate_key_wherever_it_stands(self, item, data, depth):
        key = data.draw(st.sampled_from(sorted(item)))
        members = [f"{json.dumps(name)}:{json.dumps(value)}" for name, value in item.items()]
        members.insert(data.draw(st.integers(0, len(members))), f"{json.dumps(key)} : 1")
        text = '[{"in":' * depth + "{" + ",".join(members) + "}" + "}]" * depth
        with pytest.raises(InexactJson) as caught:
            parse_json(text.encode())
        assert f"duplicate key {key!r}" in str(caught.value)

    @pytest.mark.parametrize(
        "number",
        [
            2**53 + 1,
            2**63 - 1,
            2**63,
            2**64 - 1,
            2**64,
            -(2**63),
            -(2**63) - 1,
            10**300,
            10**400,
            -(10**25),
        ],
    )
    @pytest.mark.parametrize(
        "shape", ["%s", "[%s]", '{"a": %s}', "[0.5, %s]", '[[1.5], {"a": [%s, "x"]}]']
    )
    def test_keeps_an_integer_of_any_size(self, number, shape):
        text = shape % number
        assert are_identical(parse_json(text.encode()), json.loads(text))
        assert str(number) in repr(parse_json(text.encode()))

    def test_reads_large_floats_as_floats(self):
        assert are_identical(
            parse_json(b"[1e19, 1.5e300, -9.3e18, 0.1]"), [1e19, 1.5e300, -9.3e18, 0.1]
        )

    def test_reads_the_bare_words_as_floats(self):
        value = parse_json(b'{"v": [NaN, Infinity, -Infinity, 1.5, 2]}')
        assert math.isnan(value["v"][0])
        assert are_identical(value["v"][1:], [math.inf, -math.inf, 1.5, 2])

    def test_keeps_escaped_pairs_and_zero_characters(self):
        assert parse_json(b'"\\ud83d\\ude00 \\u0000 \\u20ac"') == "\U0001f600 \0 \u20ac"

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            (b'{"a": 1e400}', "the number 1e400 is beyond float64"),
            (b"[-1.0E999]", "the number -1.0E999 is beyond float64"),
            (b'{"a": 1e-400}', "the number 1e-400 is beyond float64"),
            (b"[0.5, -20.0E-999]", "the number -20.0E-999 is beyond float64"),
            (b'{"a": "\\ud800"}', r"a lone surrogate escape \ud800"),
            (b'{"\\uDC00x": 1}', r"a lone surrogate escape \udc00"),
            (b'{"a": "\xff"}', "invalid UTF-8 at its byte 7"),
            (b'"\xed\xa0\x80"', "invalid UTF-8"),
            (b'{"a": 1', "not JSON"),
            (b'{"a": 1} {"b": 2}', "not JSON"),
            (b"{'a': 1}", "not JSON"),
            (b"", "not JSON"),
            (b'"a\tb"', "not JSON"),
            (b"9" * 5000, "5000 digits"),
            (b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2), "nested deeper"),
            (b'{"a":' * 700 + b"NaN" + b"}" * 700, "nested deeper"),
            (b"[" * 100_000, "nested deeper"),
        ],
    )
    def test_says_why_a_text_cannot_be_kept(self, text, reason):
        with pytest.raises(InexactJson) as caught:
            parse_json(text)
        assert reason in str(caught.value)

    def test_reads_nesting_up_to_its_limit(self):
        text = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
        assert json.dumps(parse_json(text)).encode() == text
