"""Delimited and JSON texts as people have them, found by trying to break the drafts: each was read wrong."""

from __future__ import annotations

import json

import pytest

from cfray.formats.dialects import HEAD_BYTES, rank_dialects, rank_json
from cfray.formats.preamble import list_ends

BODIES = [f"Document {number}. The lake keeps its ice until late spring." for number in range(20)]


def table(header: str, row: str = '{n},T{n},"{body}"') -> bytes:
    rows = [row.format(n=number, body=body) for number, body in enumerate(BODIES)]
    return "\n".join([header, *rows, ""]).encode()


def best(text: bytes) -> dict[str, object]:
    return rank_dialects(text[:HEAD_BYTES])[0].source


@pytest.mark.parametrize(
    "header",
    [
        '"id","the\ntitle","body"',
        'Id,"Title\nof the document",Text',
        "id,title,1",
        'id,"What is your opinion of our service? Please answer in detail.",body',
        '"Timestamp","What is your name?","Please describe your experience (in a few words)."',
    ],
)
def test_odd_names_beside_a_known_one_are_a_header(header):
    assert best(table(header)) == {}


def test_first_rows_that_hold_no_known_name_stay_rows():
    assert best(table('100,T100,"Document 100."'))["columns"] == [
        "column_1",
        "column_2",
        "column_3",
    ]


def test_a_record_that_the_end_of_the_head_cuts_speaks_against_no_quotes():
    long_text = "long text " * 30_000
    rows = [f'{n},"Title {n}","{long_text if n == 3 else "short"}",x' for n in range(20)]
    assert best("\n".join(["id,title,body,tags", *rows, ""]).encode()) == {}


def test_one_line_of_the_whole_head_is_looked_at_once():
    """Trap: a regular expression that looks for the end of the line from each of its bytes."""
    assert list(list_ends(b"the lake keeps its ice " * 12_000, [","])) == []


@pytest.mark.parametrize("row", ["{n},T{n},{body}", "{n},T{n}"])
def test_a_known_header_is_split_although_rows_lack_fields(row):
    text = table("id,title,body,extra", row)
    assert "delimiter" not in best(text)
    assert rank_dialects(text)[0].width > 1


@pytest.mark.parametrize("sign", ["~", "^"])
def test_rare_delimiters_between_known_names_are_found(sign):
    source = best(table(f"id{sign}title{sign}body", f"{{n}}{sign}T{{n}}{sign}{{body}}"))
    assert source == {"delimiter": sign}


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ("{n},T{n},{body},", ["id", "title", "body", "column_4"]),
        ("row {n},{n},T{n},{body}", ["row_name", "id", "title", "body"]),
    ],
)
def test_a_header_that_leaves_a_name_out_gives_the_others(row, columns):
    source = best(table("id,title,body", row))
    assert source == {"columns": columns, "skip_lines": 1}


def test_one_row_of_another_encoding_does_not_change_the_encoding_of_all():
    text = "id,body\n" + "".join(f"{n},Größe über {n}\n" for n in range(500))
    lines = text.encode().split(b"\n")
    lines[7] = lines[7].decode().encode("latin-1")
    assert best(b"\n".join(lines)) == {}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Это документ о зимнем озере", "cp1251"),  # noqa: RUF001
        ("Это документ о зимнем озере", "koi8-r"),  # noqa: RUF001
        ("これは冬の湖についての文書です", "shift_jis"),
        ("这是关于冬天湖泊的文件", "gb18030"),
        ("이것은 겨울 호수에 관한 문서입니다", "euc_kr"),
        ("Die Straße über den See", "cp1252"),
    ],
)
def test_other_encodings_are_guessed_and_said_to_be_a_guess(text, encoding):
    rows = "".join(f"{n},T,{text}\n" for n in range(200))
    dialect = rank_dialects(f"id,title,body\n{rows}".encode(encoding))[0]
    assert dialect.source == {"encoding": encoding}
    assert "A GUESS, for the bytes are no UTF-8" in dialect.encoding_why


@pytest.mark.parametrize(
    ("value", "records"),
    [
        ({"vectors": {f"v{n}": {"id": f"v{n}", "values": [n]} for n in range(2)}}, "vectors"),
        (
            {
                "namespace": "",
                "vectors": {"a": {"id": "a", "metadata": {"x": {"y": 1}}}},
                "usage": {"readUnits": 1},
            },
            "vectors",
        ),
        (
            {
                "docstore/metadata": {f"n{n}": {"doc_hash": "h"} for n in range(6)},
                "docstore/data": {f"n{n}": {"__data__": {"text": "t"}} for n in range(7)},
            },
            "docstore/data",
        ),
    ],
)
def test_records_under_their_ids_stand_in_an_object(value, records):
    layout = rank_json(json.dumps(value).encode())[0]
    assert layout.source == {"kind": "json", "records": records, "orient": "index"}


@pytest.mark.parametrize(
    "record",
    [
        {"id": 1, "where": {"start": {"line": 1, "column": 2}, "end": {"line": 3, "column": 4}}},
        {"id": 1, "meta": {"a": {"x": 1}, "b": {"y": 2}, "c": {}, "d": {}, "e": {"z": 1}, "f": 1}},
    ],
)
def test_a_record_that_holds_objects_is_one_record(record):
    assert rank_json(json.dumps(record).encode())[0].source == {"kind": "json"}


def test_a_colon_between_words_that_name_no_column_is_no_delimiter():
    days = [f"Day {number}: the lake" + " and its ice" * (number % 5) for number in range(20)]
    lines = ["Weather: cold", *days, ""]
    dialect = rank_dialects("\n".join(lines).encode())[0]
    assert "delimiter" not in dialect.source
    assert dialect.width == 1
