"""A compressed file is known by its first bytes, and read to its end or refused by name."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfray.errors import SourceError
from cfray.sources.files import compression
from tests.sources.file_shapes import (
    batches_of,
    counts_by_file,
    records,
    refusal,
    write_jsonl,
    write_parquet,
)

LINES = b"".join(json.dumps(row).encode() + b"\n" for row in records(0, 400))


def zipped(data, name="docs.jsonl", **more):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
        for other, content in more.items():
            archive.writestr(other, content)
    return sink.getvalue()


def tarred(data):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        entry = tarfile.TarInfo("docs.jsonl")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return sink.getvalue()


CODECS = {
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: pa.Codec("zstd").compress(data).to_pybytes(),
    "lz4": lambda data: pa.Codec("lz4").compress(data).to_pybytes(),
    "zip": zipped,
}
STREAMS = [codec for codec in CODECS if codec != "zip"]
SKIPPABLE = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"


def rows_in(path):
    return sum(counts_by_file("jsonl", path).values())


def refused_reading(path):
    """Return the error with which planning or reading a file ends."""
    with pytest.raises(SourceError) as refused:
        batches_of("jsonl", path)
    assert refused.value.transient is False
    assert path.name in refused.value.what
    return refused.value


@pytest.fixture
def path(tmp_path):
    return tmp_path / "docs.jsonl"


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip"])
def test_bytes_decide_and_not_the_suffix(tmp_path, codec, suffix):
    path = tmp_path / f"docs.jsonl{suffix}"
    path.write_bytes(CODECS[codec](LINES))
    assert rows_in(path) == 400
    assert counts_by_file("jsonl", tmp_path) == {path.name: 400}


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip", ".snappy", ".br"])
def test_plain_bytes_are_read_whatever_their_suffix_says(tmp_path, suffix):
    (tmp_path / f"docs.jsonl{suffix}").write_bytes(LINES)
    assert counts_by_file("jsonl", tmp_path) == {f"docs.jsonl{suffix}": 400}


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_every_text_kind_reads_compressed_files(tmp_path, codec, kind):
    data = {"csv": b"id,n\na,1\nb,2\n", "json": b'[{"id": 1}, {"id": 2}]'}[kind]
    (tmp_path / f"docs.{kind}").write_bytes(CODECS[codec](data))
    assert counts_by_file(kind, tmp_path) == {f"docs.{kind}": 2}


@pytest.mark.parametrize("codec", STREAMS)
def test_members_one_behind_the_other_are_all_read(path, codec):
    path.write_bytes(b"".join(CODECS[codec](part) for part in (LINES, b"", LINES[: len(LINES)])))
    assert rows_in(path) == 800


@pytest.mark.parametrize("codec", ["gzip", "xz", "bz2"])
@pytest.mark.parametrize("count", [1, 4, 8, 512, 3_000_000])
def test_zeros_behind_the_end_are_padding(path, codec, count):
    path.write_bytes(CODECS[codec](LINES) + bytes(count))
    assert rows_in(path) == 400
    path.write_bytes(CODECS[codec](LINES) + bytes(count) + CODECS[codec](LINES))
    assert rows_in(path) == 800


@pytest.mark.parametrize("codec", STREAMS)
@pytest.mark.parametrize("tail", [b"garbage", b"\n", b"\x00x", LINES, b"\x1f"])
def test_anything_else_behind_the_end_is_refused(path, codec, tail):
    path.write_bytes(CODECS[codec](LINES) + tail)
    refused_reading(path)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.99, -1, -4, -8])
def test_a_cut_file_is_an_error_and_never_fewer_rows(path, codec, share):
    data = CODECS[codec](LINES)
    end = share if share < 0 else max(12, int(len(data) * share))
    path.write_bytes(data[:end])
    refused_reading(path)


@pytest.mark.parametrize("codec", ["gzip", "bz2", "xz", "zip"])
def test_a_flipped_byte_is_an_error(path, codec):
    data = bytearray(CODECS[codec](LINES))
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)
    refused_reading(path)


def test_an_empty_file_that_should_be_compressed_was_cut(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(b"")
    write_jsonl(tmp_path / "b.jsonl", records(0, 2))
    error = refusal("jsonl", tmp_path)
    assert "a.jsonl.gz" in error.what
    assert "cut short" in error.what


ARCHIVES = {
    "tar": (tarred(LINES), "tar xf"),
    "tar in gzip": (gzip.compress(tarred(LINES)), "tar xf"),
    "two in zip": (zipped(LINES, more=b"{}"), "unzip"),
    "gzip in gzip": (gzip.compress(gzip.compress(LINES)), "decompress it once"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + LINES, "7z x"),
    "rar": (b"Rar!\x1a\x07\x01" + LINES, "unrar"),
    "snappy": (b"\xff\x06\x00\x00sNaPpY" + LINES, "snzip"),
    "lzop": (b"\x89LZO\x00\r\n\x1a\n" + LINES, "lzop"),
    "compress": (b"\x1f\x9d\x90" + LINES, "uncompress"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
}


@pytest.mark.parametrize("archive", ARCHIVES)
def test_an_archive_is_refused_with_the_command_that_unpacks_it(path, archive):
    data, command = ARCHIVES[archive]
    path.write_bytes(data)
    assert command in refusal("jsonl", path).remedy
    assert command in refusal("jsonl", path.parent).remedy


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_is_known_and_a_text_with_its_word_is_none(path, form):
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        archive.addfile(tarfile.TarInfo("x"))
    path.write_bytes(sink.getvalue())
    assert "tar xf" in refusal("jsonl", path).remedy
    path.write_text(f'{{"id": "{"m" * 249}ustard"}}\n')
    assert path.read_bytes()[257:262] == b"ustar"
    assert rows_in(path) == 1


def test_codecs_without_a_mark_are_known_by_their_suffix(tmp_path):
    (tmp_path / "docs.jsonl.br").write_bytes(b"\x0b\x02\x80" + bytes(range(200, 256)))
    error = refusal("jsonl", tmp_path)
    assert "docs.jsonl.br is compressed with brotli" in error.what


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_compressed_binary_file_says_that_it_is_compressed(tmp_path, kind):
    plain = write_parquet(tmp_path / "x", records(0, 2)).read_bytes()
    (tmp_path / "docs.parquet.gz").write_bytes(gzip.compress(plain))
    error = refusal(kind, tmp_path / "docs.parquet.gz")
    assert "docs.parquet.gz" in error.what
    assert "gzip" in error.what or "kind: parquet" in error.what


def test_a_pointer_of_git_lfs_in_place_of_a_parquet_file_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(ARCHIVES["lfs"][0])
    assert "git lfs pull" in refusal("parquet", tmp_path).remedy


def test_a_long_window_of_zstd_is_refused_with_the_remedy(path):
    zstandard = pytest.importorskip("zstandard")
    settings = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    sink = io.BytesIO()
    with zstandard.ZstdCompressor(compression_params=settings).stream_writer(
        sink, closefd=False
    ) as out:
        out.write(LINES)
    path.write_bytes(sink.getvalue())
    error = refusal("jsonl", path)
    assert "window" in error.what
    assert "zstd -d --long=31" in error.remedy


def test_a_skippable_frame_in_front_is_skipped(path):
    path.write_bytes(SKIPPABLE + CODECS["zstd"](LINES))
    assert rows_in(path) == 400


def test_a_zip_of_macos_is_read(path):
    path.write_bytes(zipped(LINES, **{"__MACOSX/._docs.jsonl": b"\x00\x05\x16\x07"}))
    assert rows_in(path) == 400


def test_a_zip_with_a_password_or_without_a_file_is_refused(path):
    data = bytearray(zipped(LINES))
    for start in (6, data.rindex(b"PK\x01\x02") + 8):
        data[start] |= 1
    path.write_bytes(data)
    assert "unzip" in refusal("jsonl", path).remedy
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.mkdir("folder")
    path.write_bytes(sink.getvalue())
    assert "unzip" in refusal("jsonl", path).remedy


@pytest.mark.parametrize("codec", STREAMS)
@given(st.lists(st.binary(max_size=400), max_size=5), st.integers(1, 700), st.integers(0, 9))
def test_any_content_comes_back_in_pieces_of_any_size(codec, contents, size, padding):
    data = b"".join(CODECS[codec](content) for content in contents or [b""])
    data += bytes(padding if codec in ("gzip", "xz", "bz2") else 0)
    stream = compression.decompress(pa.BufferReader(data), codec, "x")
    read = b""
    while piece := stream.read(size):
        assert len(piece) <= size
        read += piece
    assert read == b"".join(contents)


def test_a_gzip_bomb_is_decompressed_piece_by_piece():
    bomb = gzip.compress(bytes(200_000_000))
    stream = compression.decompress(pa.BufferReader(bomb), "gzip", "x")
    before = pa.total_allocated_bytes()
    assert sum(len(piece) for piece in iter(lambda: stream.read(1 << 20), b"")) == 200_000_000
    assert pa.total_allocated_bytes() - before < 1 << 24
