"""Which targets lie in a folder that a source reads."""

import pytest

from cfray.sources.files.delta import Delta
from cfray.sources.files.jsonl import JsonLines
from cfray.sources.files.lance import Lance
from cfray.sources.files.parquet import Parquet
from cfray.sources.filesystem.source import Filesystem


@pytest.fixture
def folder(tmp_path):
    """Make a folder ``t`` with a file and a folder in it, and a link to it."""
    (tmp_path / "t/sub").mkdir(parents=True)
    (tmp_path / "t/a.md").write_text("a")
    (tmp_path / "link").symlink_to("t")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "target", "is_refused"),
    [
        (Filesystem(uri="t"), "t/out.lance", True),
        (Filesystem(uri="t/"), "t/sub/deep/out.lance/", True),
        (Filesystem(uri="t"), "t", True),
        (Filesystem(uri="t"), "out.lance", False),
        (Filesystem(uri="t"), "tt/out.lance", False),
        (Filesystem(uri="link"), "t/out.lance", True),
        (Filesystem(uri="t"), "link/out.lance", True),
        (Filesystem(uri="t/a.md"), "t/out.lance", False),
        (Filesystem(uri="t/*.md"), "t/out.lance", False),
        (Filesystem(uri="t/**/*.md"), "t/out.lance", True),
        (Filesystem(uri="t", include=["/sub/"]), "t/out.lance", False),
        (Filesystem(uri="t", include=["/sub/"]), "t/sub/out.lance", True),
        (Filesystem(uri="t", exclude=["out.lance/"]), "t/out.lance", False),
        (Filesystem(uri="t", exclude=["./sub/"]), "t/sub/out.lance", False),
        (Filesystem(uri="t", exclude=["out/"]), "t/out", True),
        (Filesystem(uri="t", exclude=["out/", "out.cfray/"]), "t/out", False),
        (JsonLines(uri="t"), "t/out.lance", False),
        (JsonLines(uri="t"), "t/out", True),
        (JsonLines(uri="t/*.jsonl"), "t/out", False),
        (JsonLines(uri="t/out*/**"), "t/out.lance", True),
        (Parquet(uri="t"), "t/out", True),
        (Parquet(uri="t/*.parquet"), "t/out.lance", False),
        (Lance(uri="t"), "t/out.lance", True),
        (Delta(uri="t"), "t/out.lance", True),
    ],
)
def test_a_target_is_refused_where_the_listing_would_enter_it(folder, source, target, is_refused):
    assert source.resolve_paths(folder).would_read(f"{folder}/{target}") is is_refused


@pytest.mark.parametrize(
    ("target", "is_refused"),
    [
        ("s3://bucket/a b/table/out.lance", True),
        ("s3://bucket/a%20b/table/out.lance", True),
        ("s3://bucket/a%20b/tables/out.lance", False),
        ("s3://other/a%20b/table/out.lance", False),
        ("/bucket/a b/table/out.lance", False),
    ],
)
def test_a_bucket_is_a_folder_too(target, is_refused):
    assert Delta(uri="s3://bucket/a%20b/table/?region=x").would_read(target) is is_refused
