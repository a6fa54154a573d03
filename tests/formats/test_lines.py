"""A file of lines is split into byte ranges, and a stream is gathered into complete records.

A record over the limit must never be held in memory: only its head is.
"""

import io

from hypothesis import given
from hypothesis import strategies as st

from cfray.formats import lines
from cfray.formats.lines import (
    HEAD,
    OversizedRecord,
    RecordRun,
    gather_records,
    line_ends,
    read_blocks,
    split_at_newlines,
)

TEXT = st.lists(st.sampled_from([b"a", b"bb", b"\n", b"cccccccccc", b"\r\n"])).map(b"".join)


class TestAligned:
    @given(TEXT, st.integers(1, 30))
    def test_ranges_cover_the_file_and_begin_behind_line_breaks(self, text, step):
        ranges = split_at_newlines(io.BytesIO(text), 0, len(text), step)
        assert b"".join(text[start:end] for start, end in ranges) == text
        assert all(text[start - 1 : start] == b"\n" for start, _ in ranges[1:])
        assert all(start < end for start, end in ranges) or text == b""

    def test_a_range_is_no_longer_than_it_must_be(self):
        text = b"123456789\n" * 100
        assert {
            end - start for start, end in split_at_newlines(io.BytesIO(text), 0, len(text), 50)
        } == {50}

    def test_a_line_longer_than_ranges_makes_one_longer_range(self):
        text = b"a\n" + b"x" * 200_000 + b"\nb\n"
        assert split_at_newlines(io.BytesIO(text), 0, len(text), 1000) == [
            (0, 200_003),
            (200_003, 200_005),
        ]

    def test_reads_a_small_piece_for_each_cut(self):
        class Counting(io.BytesIO):
            read_bytes = 0

            def read(self, size=-1):
                data = super().read(size)
                self.read_bytes += len(data)
                return data

        stream = Counting(b"0123456789abcde\n" * 1_000_000)
        assert len(split_at_newlines(stream, 0, 16_000_000, 4_000_000)) == 4
        assert stream.read_bytes < 300_000


class TestBlocks:
    @given(st.binary(max_size=50), st.integers(1, 7), st.integers(0, 60))
    def test_give_exactly_the_bytes_asked_for(self, data, block, size):
        assert b"".join(read_blocks(io.BytesIO(data), size, block)) == data[:size]
        assert b"".join(read_blocks(io.BytesIO(data), None, block)) == data


class TestWholeRecords:
    @given(TEXT, st.integers(1, 9), st.integers(1, 25))
    def test_come_out_the_same_however_the_stream_is_cut(self, text, block, limit):
        expected = [
            (record if len(record) <= limit else record[:HEAD], len(record))
            for record in text.splitlines(keepends=True)
        ]
        records, offset = [], 0
        for run in gather_records(read_blocks(io.BytesIO(text), None, block), line_ends, limit):
            assert run.offset == offset
            if isinstance(run, OversizedRecord):
                assert run.size > limit
                records.append((run.head, run.size))
                offset += run.size
            else:
                records += [(record, len(record)) for _, record in run.records()]
                offset += len(run.data)
        assert records == expected
        assert offset == len(text)

    def test_a_record_over_the_limit_keeps_only_its_head(self):
        data = b"a\n" + b"x" * 300_000 + b"\nb"
        runs = list(gather_records(read_blocks(io.BytesIO(data), None, 1000), line_ends, 100_000))
        assert runs[0] == RecordRun(0, b"a\n", [2])
        assert runs[1] == OversizedRecord(2, b"x" * HEAD, 300_001, b"\n")
        assert runs[2] == RecordRun(300_003, b"b", [1], closed=False)

    def test_a_record_is_held_once(self):
        pending = lines._Pending(limit=1000)
        for _ in range(5000):
            pending.add(b"x" * 10)
        assert pending.size == 50_000
        assert sum(map(len, pending.blocks)) <= 1000 + HEAD
