"""RecordEnds ends each CSV record where pyarrow and Python's csv module end it.

A generated text shows it for any cut of the stream into blocks.
"""

import csv
import io
import itertools

import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cfray.errors import SourceError
from cfray.formats.csv_dialect import CsvDialect
from cfray.formats.csv_header import read_header
from cfray.formats.csv_records import RecordEnds, split_at_records
from cfray.formats.lines import gather_records

DEFAULT = CsvDialect()
CSV_BYTES = st.text(st.sampled_from('"""",,\n\r\n\rab'), max_size=40).map(str.encode)


def split_blocks(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


def records(data, size=1000):
    ends = RecordEnds(DEFAULT)
    return [
        record
        for run in gather_records(
            DEFAULT.keep_pairs_together(split_blocks(data, size)), ends, 10**6
        )
        for _, record in run.records()
    ]


def parse(record):
    return next(csv.reader(io.StringIO(record.decode(), newline="")), [])


class TestRecordEnds:
    @settings(max_examples=500)
    @given(CSV_BYTES, st.integers(1, 8))
    @example(b'ab"\n"c,d\n', 3)
    @example(b'"a""b\n",c\n', 4)
    def test_are_those_of_pythons_csv_module_however_the_stream_is_cut(self, data, size):
        expected = list(csv.reader(io.StringIO(data.decode(), newline="")))
        cut_records = records(data, size)
        assert b"".join(cut_records) == data
        assert [parse(record) for record in cut_records] == expected

    @settings(max_examples=500)
    @given(CSV_BYTES, st.integers(1, 8))
    @example(b'"a"b,"c"d\n"e"\n', 3)
    @example(b'x"y"z,"a""b"\n', 2)
    def test_torn_records_are_those_that_pythons_strict_reader_refuses(self, data, size):
        find_ends = RecordEnds(DEFAULT, 100)
        blocks = DEFAULT.keep_pairs_together(split_blocks(data, size))
        torn, expected = set(), set()
        for run in gather_records(blocks, find_ends, 10**6, 100):
            for offset, record in run.records():
                if find_ends.take_torn(offset + len(record)):
                    torn.add(record)
                try:
                    list(csv.reader(io.StringIO(record.decode(), newline=""), strict=True))
                except csv.Error as error:
                    if "expected after" in str(error):
                        expected.add(record)
        assert torn == expected

    @settings(max_examples=500)
    @given(CSV_BYTES)
    def test_are_those_of_pyarrow(self, data):
        cut_records = [record for record in records(data) if record.strip(b"\r\n")]
        table_rows, invalid_rows = 0, []
        if cut_records:
            table = pacsv.read_csv(
                pa.BufferReader(data),
                pacsv.ReadOptions(use_threads=False, column_names=["a", "b"]),
                pacsv.ParseOptions(
                    newlines_in_values=True,
                    invalid_row_handler=lambda row: invalid_rows.append(row.number) or "skip",
                ),
            )
            table_rows = table.num_rows
        assert table_rows + len(invalid_rows) == len(cut_records)
        assert [number - 1 for number in invalid_rows] == [
            row for row, record in enumerate(cut_records) if len(parse(record)) != 2
        ]

    @given(CSV_BYTES)
    def test_without_quoting_are_line_breaks(self, data):
        ends = RecordEnds(DEFAULT, quoting=False)
        assert [
            record
            for run in gather_records([data] if data else [], ends, 10**6)
            for _, record in run.records()
        ] == data.splitlines(keepends=True)


class TestRanges:
    @settings(max_examples=300)
    @given(CSV_BYTES, st.integers(1, 20), st.integers(1, 8))
    def test_hold_whole_records_and_count_them(self, data, step, size):
        ranges = split_at_records(
            DEFAULT.keep_pairs_together(split_blocks(data, size)), RecordEnds(DEFAULT), 100, step
        )
        assert ranges[0][0] == 100
        assert ranges[-1][1] == 100 + len(data)
        assert all(first[1] == second[0] for first, second in itertools.pairwise(ranges))
        slices = [data[start - 100 : end - 100] for start, end, _ in ranges]
        assert [record for range_data in slices for record in records(range_data)] == records(data)
        assert [rows for _, _, rows in ranges] == [
            sum(bool(record.strip(b"\r\n")) for record in records(range_data))
            for range_data in slices
        ]

    def test_are_about_as_long_as_asked(self):
        data = b'1,"a\nb"\n' * 1000
        assert {
            end - start
            for start, end, _ in split_at_records(
                split_blocks(data, 77), RecordEnds(DEFAULT), 0, 160
            )
        } == {160}


class TestHeader:
    def read(self, data, encoding="utf-8"):
        return read_header(
            DEFAULT.keep_pairs_together(split_blocks(data, 7)),
            CsvDialect(encoding=encoding),
            "a.csv",
            10**6,
        )

    def test_names_may_be_quoted_and_hold_line_breaks(self):
        header = self.read(b'\xef\xbb\xbf\r\n"a\nb","c,d",e\r\n1,2,3\r\n')
        assert header.columns == ("a\nb", "c,d", "e")
        assert header.end == len(b'\xef\xbb\xbf\r\n"a\nb","c,d",e\r\n')

    def test_a_byte_order_mark_is_no_part_of_a_name(self):
        assert self.read(b'\xef\xbb\xbf"id",b').columns == ("id", "b")

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "no header"),
            (b"\n\n", "no header"),
            (b"a,\xff\n", "cannot be read"),
        ],
    )
    def test_a_wrong_header_is_refused(self, data, reason):
        with pytest.raises(SourceError, match=reason):
            self.read(data)
