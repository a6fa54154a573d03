"""A location that cannot be opened is named in the error without its secret."""

import traceback

import pytest

from cfray.errors import ConfigError
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
