"""A vector is read exactly from every form in which people keep vectors, or refused by name."""

import base64
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from cfray.records.record import Typed, from_objects
from cfray.records.vector_texts import loses_digits
from cfray.records.vectors import read_vectors, width_of

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = numpy_strategies.arrays(np.float32, st.integers(1, 24), elements=FLOATS)


def saved(vector):
    """Write a vector as ``numpy.save`` does."""
    file = io.BytesIO()
    np.save(file, vector)
    return file.getvalue()


def printed(vector, write=str):
    """Write a vector as numpy prints it, over several lines and not shortened."""
    with np.printoptions(threshold=10**6, linewidth=40, floatmode="unique"):
        return write(vector)


def numbered(vector):
    return {str(index): number for index, number in enumerate(vector.tolist())}


#: Texts of a float32 vector and the form that reads them.
TEXTS = {
    "JSON": (lambda v: json.dumps(v.tolist()), "auto"),
    "JSON, declared": (lambda v: json.dumps(v.tolist()), "json"),
    "JSON, short numbers": (lambda v: f"[{','.join(map(str, v))}]", "auto"),
    "JSON in JSON": (lambda v: json.dumps(json.dumps(v.tolist())), "auto"),
    "1 x d": (lambda v: json.dumps([v.tolist()]), "auto"),
    "a list's repr": (lambda v: str(v.tolist()), "auto"),
    "a list of numpy numbers": (lambda v: str(list(v)), "auto"),
    "a tuple": (lambda v: str((*v.tolist(), 0.0)[:-1]), "auto"),
    "numpy": (printed, "auto"),
    "numpy, declared": (printed, "numpy"),
    "numpy, 1 x d": (lambda v: printed(v.reshape(1, -1)), "numpy"),
    "numpy's repr": (lambda v: printed(v, repr), "auto"),
    "PyTorch's repr": (lambda v: f"tensor({v.tolist()})", "auto"),
    "PostgreSQL's array": (lambda v: "{" + ",".join(map(str, v)) + "}", "auto"),
    "a Float32Array": (lambda v: json.dumps(numbered(v)), "auto"),
    "extended JSON": (
        lambda v: json.dumps([{"$numberDouble": repr(x)} for x in v.tolist()]),
        "auto",
    ),
    "separated by blanks": (lambda v: " ".join(map(str, v)), "separated"),
    "separated by commas": (lambda v: ", ".join(map(str, v)), "separated"),
    "base64": (lambda v: base64.b64encode(v.tobytes()).decode(), "base64"),
    "base64 of URLs": (lambda v: base64.urlsafe_b64encode(v.tobytes()).decode(), "base64"),
    "hexadecimal digits": (lambda v: f"\\x{v.tobytes().hex()}", "floats"),
    "bytes as Python prints them": (lambda v: str(v.tobytes()), "floats"),
    "base64 of doubles": (
        lambda v: base64.b64encode(v.astype("<f8").tobytes()).decode(),
        "doubles",
    ),
    "base64 of numpy.save": (lambda v: base64.b64encode(saved(v)).decode(), "npy"),
}
BYTES = {
    "floats": (lambda v: v.astype("<f4").tobytes(), "floats"),
    "doubles": (lambda v: v.astype("<f8").tobytes(), "doubles"),
    "numpy.save": (saved, "npy"),
    "text as bytes": (lambda v: json.dumps(v.tolist()).encode(), "auto"),
}


def check_exact(column, vector, form):
    assert width_of(column, form) == len(vector)
    read = read_vectors(column, len(vector), form)
    assert (read.faults, read.missing.any(), read.empty) == ({}, False, None)
    assert read.values.tobytes() == vector.reshape(1, -1).tobytes()


@pytest.mark.parametrize("name", TEXTS)
@settings(max_examples=40, deadline=None)
@given(vector=VECTORS)
def test_a_text_gives_the_same_bits_from_every_kind_of_source(name, vector):
    write, form = TEXTS[name]
    text = write(vector)
    for kind in (pa.string(), pa.large_string()):
        check_exact(pa.array([text], kind), vector, form)
    check_exact(from_objects([{"v": text}]).column("v"), vector, form)


@pytest.mark.parametrize("name", BYTES)
@settings(max_examples=40, deadline=None)
@given(vector=VECTORS)
def test_bytes_give_the_same_bits(name, vector):
    write, form = BYTES[name]
    blob = write(vector)
    for kind in (pa.binary(), pa.large_binary(), pa.binary(len(blob))):
        check_exact(pa.array([blob], kind), vector, form)


@settings(max_examples=40, deadline=None)
@given(vector=VECTORS)
def test_nested_values_give_the_same_bits(vector):
    numbers = vector.tolist()
    check_exact(pa.array([[numbers]]), vector, "auto")
    check_exact(pa.array([[numbers]], pa.list_(pa.list_(pa.float32()))), vector, "auto")
    check_exact(pa.array([numbered(vector)]), vector, "auto")
    for keys in (pa.string(), pa.int32()):
        pairs = [(str(n) if keys == pa.string() else n, x) for n, x in enumerate(numbers)]
        check_exact(pa.array([pairs], pa.map_(keys, pa.float64())), vector, "auto")
    for value in (numbers, [numbers], numbered(vector)):
        check_exact(from_objects([{"v": value}]).column("v"), vector, "auto")


@settings(max_examples=40, deadline=None)
@given(vector=VECTORS)
def test_objects_that_stand_for_bytes_give_the_same_bits(vector):
    text = base64.b64encode(vector.tobytes()).decode()
    for value in (
        {"$binary": {"base64": text, "subType": "00"}},
        {"$binary": text, "$type": "00"},
        {"type": "Buffer", "data": list(vector.tobytes())},
        Typed("binary", text),
    ):
        check_exact(from_objects([{"v": value}]).column("v"), vector, "floats")


def test_float16_is_widened_exactly():
    vector = np.array([0.1, -2.5, 65504, 6e-8], np.float16)
    check_exact(pa.array([vector.tobytes()]), vector.astype(np.float32), "halves")


@pytest.mark.parametrize("empty", ["[]", "", "  ", "[ ]", "{}", "null", '""'])
def test_an_empty_text_is_a_missing_vector_and_called_empty(empty):
    for column in (pa.array([empty]), from_objects([{"v": empty}]).column("v")):
        read = read_vectors(column, 3)
        assert (read.faults, read.missing.tolist(), read.empty.tolist()) == ({}, [True], [True])
        assert width_of(column) is None


def test_an_empty_list_is_a_missing_vector_and_called_empty():
    lists = [[1.0, 2.0], [], None]
    columns = [
        pa.array(lists),
        pa.array(lists, pa.large_list(pa.float32())),
        pa.array([[[1.0, 2.0]], [], None]),
        from_objects([{"v": value} for value in lists]).column("v"),
    ]
    for column in columns:
        read = read_vectors(column, 2)
        assert read.missing.tolist() == [False, True, True]
        assert read.empty.tolist() == [False, True, False]
        assert read.faults == {}


@pytest.mark.parametrize(
    ("value", "form", "reason"),
    [
        ("[0.1 0.2 ... 0.3 0.4]", "auto", "shortened"),
        ("[0.1, 0.2, … 0.4]", "json", "shortened"),
        ("[0.1, 0.2, 0.", "auto", "closing bracket is missing"),
        ("[0.1, NaN]", "auto", "NaN"),
        ("[0.1 inf]", "auto", "infinite"),
        ("[1, 1e39]", "auto", "infinite"),
        ("[1_0 2]", "auto", "no number"),
        ("[1, null]", "auto", "null"),
        ("[true, 2]", "auto", "boolean"),
        ('["1", 2]', "auto", "a text"),
        ("[[1, 2], [3, 4]]", "auto", "list of 2 lists"),
        ("[[1 2]\n [3 4]]", "auto", "not a list"),
        ('{"1": 0.1, "2": 0.2}', "auto", "from 0 to d-1"),
        ('{"values": [1, 2]}', "auto", "name the field"),
        ("0.1 0.2", "auto", "as: separated"),
        ("[0,1; 0,2]", "auto", "decimal commas"),
        ("0,1 0,2", "separated", "decimal commas"),
        ("[0.1,,0.2]", "auto", "no number"),
        ("b'\\x00'", "auto", "as: floats"),
        ("b'\\x00", "floats", "not base64"),
        ("[0.1 0.2]", "json", "not a list"),
        ("north", "auto", "not a list"),
        ("north", "base64", "not base64"),
        ("AAAA", "base64", "3 bytes"),
        (base64.b64encode(bytes(range(64))).decode(), "auto", "as: base64"),
        ("\\x0000803f", "auto", "as: floats"),
        (bytes(8), "auto", "8 bytes: the job file must say what they are"),
        (saved(np.ones(2, np.float32)), "auto", "as: npy"),
        (saved(np.ones(2, np.float32)), "floats", "as: npy"),
        (saved(np.ones((2, 2), np.float32)), "npy", "shape (2, 2)"),
        (saved(np.array(["a"])), "npy", "something else than numbers"),
        (bytes(10), "floats", "10 bytes"),
        (bytes(10), "npy", "not what numpy.save writes"),
    ],
)
def test_what_cannot_be_read_whole_is_refused_with_its_reason(value, form, reason):
    read = read_vectors(pa.array([value]), 2, form)
    assert list(read.faults) == [0]
    assert reason in read.faults[0]
    assert width_of(pa.array([value]), form) in (None, 2)


def test_numbers_are_no_bytes():
    for column in (pa.array([[1, 2]]), from_objects([{"v": [1, 2]}]).column("v")):
        assert "not bytes" in read_vectors(column, 2, "floats").faults[0]
        assert width_of(column, "floats") is None


@given(st.lists(FLOATS, min_size=1, max_size=20))
def test_a_text_of_a_float32_loses_no_digits(numbers):
    for write in (str, lambda x: repr(float(x)), "{:.9g}".format, "{:.8g}".format):
        written = [float(write(np.float32(number))) for number in numbers]
        floats = np.array(written).astype(np.float32)
        if write != "{:.8g}".format or (floats == np.array(numbers, np.float32)).all():
            assert not loses_digits(np.array(written))


def test_a_double_loses_digits():
    assert loses_digits(np.array([0.5, 0.1234567890123]))
