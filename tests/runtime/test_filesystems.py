"""A location is opened as it is written; one that cannot be is named without its secret."""

import traceback
from pathlib import Path

import pytest

from cfray.errors import ConfigError
from cfray.runtime import filesystems
from cfray.runtime.filesystems import open_filesystem


@pytest.mark.parametrize(
    "uri",
    [
        "s3://KEY:hush@bucket/x?bogus=1",
        "s3://KEY:hush@buc ket/x",
        "s3://KEY:hush@:bad/x?region",
        "s3://KEY:hush/@bucket/x",
        "s3://KEY:hush@bucket/x?scheme=%zz",
        "nowhere://KEY:hush@bucket/x",
    ],
)
def test_a_location_that_cannot_be_opened_is_named_without_its_secret(uri):
    with pytest.raises(ConfigError) as refused:
        open_filesystem(uri)
    assert "cannot open" in refused.value.what
    assert "://" in refused.value.what
    assert "hush" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///a%20b/50%25%20%231.jsonl", "/a b/50% #1.jsonl"),
        ("file:///a b/50% off #1?.jsonl", "/a b/50% off #1?.jsonl"),
        ("file://localhost/a/b", "/a/b"),
        ("s3:x.jsonl", "/base/s3:x.jsonl"),
        ("s3://bucket/a%20b", "s3://bucket/a%20b"),
    ],
)
def test_a_file_uri_becomes_the_path_that_it_escapes(uri, path):
    assert filesystems.resolve_path(uri, Path("/base")) == path


def test_a_file_uri_of_a_file_that_has_that_very_name_is_that_file(tmp_path):
    (tmp_path / "a%20b").write_text("")
    location = f"file://{tmp_path}/a%20b"
    assert filesystems.resolve_path(location, tmp_path) == f"{tmp_path}/a%20b"
    assert filesystems.resolve_path(filesystems.strip_credentials(location[7:]), tmp_path) == (
        f"{tmp_path}/a%20b"
    )
