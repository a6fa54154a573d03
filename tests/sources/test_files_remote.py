"""The same folders on an object store: every name is read or named, whatever characters it has."""

import gzip
import io
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cfray.runtime import filesystems
from cfray.sources.files.delta import Delta
from tests.sources.corpus import CONTEXT, rows
from tests.sources.file_shapes import counts_by_file, notes_of, refusal, source_of

NAMES = ["50% off #1.jsonl", "größe %20.jsonl", "a+b&c=d.jsonl", "part[1].jsonl", "x/_notes.jsonl"]
NAMES += ["year=2024/lang=d e/a.jsonl", "plain.jsonl"]
LINES = b'{"id": 1}\n{"id": 2}\n'


def put(place, name, data):
    """Write an object by its key, as any other program would."""
    system, path = filesystems.open_filesystem(place)
    with system.open_output_stream(f"{path}/{name}") as stream:
        stream.write(data)


def parquet_bytes(**columns):
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


@pytest.fixture
def place(s3_place):
    for name in NAMES:
        put(s3_place, name, LINES)
    put(s3_place, "zipped.jsonl", gzip.compress(LINES))
    for name in (
        "_SUCCESS",
        "_temporary/0/a.jsonl",
        ".x.crc",
        "other.csv",
        "db.lance/_versions/1.manifest",
    ):
        put(s3_place, name, b"x")
    return s3_place


def test_every_object_is_read_or_named(place):
    assert counts_by_file("jsonl", place) == dict.fromkeys([*NAMES, "zipped.jsonl"], 2)
    notes = " ".join(notes_of("jsonl", place))
    for name in ("_SUCCESS", "_temporary/", ".x.crc", "other.csv", "db.lance/"):
        assert name in notes
    assert "year, lang" in notes


def test_globs_and_single_objects_are_read(place):
    assert set(counts_by_file("jsonl", f"{place}/*.jsonl")) == {
        name for name in [*NAMES, "zipped.jsonl"] if "/" not in name
    }
    assert counts_by_file("jsonl", f"{place}/**/a.jsonl") == {"year=2024/lang=d e/a.jsonl": 2}
    for name in NAMES:
        uri = f"{place}/{quote(name)}"
        assert counts_by_file("jsonl", uri) == {name.rpartition("/")[2]: 2}
    (batch,) = source_of("jsonl", f"{place}/year=2024").read(
        source_of("jsonl", f"{place}/year=2024").shards(CONTEXT)[0], CONTEXT
    )
    assert batch.schema.names == ["id", "year", "lang"]


def test_a_table_is_refused_from_above_and_from_within(place):
    put(place, "t/_delta_log/00000000000000000000.json", b"{}")
    put(place, "t/year=1/a.parquet", parquet_bytes(id=["a"]))
    for uri in (place, f"{place}/t", f"{place}/t/year=1", f"{place}/t/*/*.parquet"):
        assert f"{place}/t is a Delta table" in refusal("parquet", uri).what


def test_a_delta_table_is_read(s3_place):
    deltalake = pytest.importorskip("deltalake")
    location = f"{s3_place}/a%20table"
    options = filesystems.storage_options(location)
    table = pa.table({"id": ["a", "b", "c"], "lang": ["d e", "ü", None]})
    deltalake.write_deltalake(location, table, partition_by=["lang"], storage_options=options)
    source = Delta(uri=location)
    shards = source.shards(CONTEXT)
    deltalake.DeltaTable(location, storage_options=options).delete("id = 'a'")
    assert sorted(rows(source, shards), key=lambda row: row["id"]) == table.to_pylist()
    assert len(rows(source)) == 2


def test_a_listing_needs_no_request_a_folder(s3_place, monkeypatch):
    for number in range(30):
        put(s3_place, f"k={number}/a.jsonl", LINES)
    requests = []
    opened = filesystems.open_filesystem

    class Counting:
        def __init__(self, system):
            self.system = system

        def get_file_info(self, paths):
            requests.append(paths)
            return self.system.get_file_info(paths)

    def open_counting(uri):
        system, path = opened(uri)
        return (Counting(system), path) if uri.startswith("s3:") else (system, path)

    monkeypatch.setattr(filesystems, "open_filesystem", open_counting)
    assert len(source_of("jsonl", s3_place)._select().files) == 30
    assert len(requests) < 15
