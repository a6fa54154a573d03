"""An address that holds a secret is refused, and no error quotes the secret."""

import pytest

from cfray.runtime.credentials import check_no_secret_in_url


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hush@host:6333",
        "https://hush@host/path",
        "user:hush@host:19530",
        "hush@host",
        "s3://KEY:hush@bucket/x",
        "s3://KEY:hu/sh@bucket/x",
        "s3://KEY:1/hush@bucket/x",
        "https://user:hu?sh@host",
        "https://user:hu#sh@host",
        "abfs://:hush@account.dfs.core.windows.net/container",
        "https://host?api_key=hush",
        "https://host/path?region=eu&API-KEY=hush",
        "https://host/#token=hush",
        "host:8000?password=hush",
        "s3://bucket/x?access_key=KEY&secret_key=hush",
        "https://bucket.s3.amazonaws.com/x?X-Amz-Signature=hush",
        "mongodb://host/?authMechanismProperties=SERVICE_NAME:x,AWS_SESSION_TOKEN:hush",
        "https://account.blob.core.windows.net/x?sv=2022&sig=hush",
        "abfs://container@account/x?client_secret=hush",
    ],
)
def test_an_address_with_a_secret_is_refused_and_never_quoted(url):
    with pytest.raises(ValueError, match="holds a credential; use the environment") as refused:
        check_no_secret_in_url(url, "use the environment")
    assert "hu" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:6333",
        "host:19530",
        "https://host/v1?api-version=2024-02-01&region=eu",
        "http://[::1]:8000/path",
        "http://[bad",
        "s3://bucket/a@b/c:d@e.parquet",
        "hdfs://host:8020/a@b",
        "hdfs://user@host/path",
        "abfs://container@account.dfs.core.windows.net/path",
        "gs://anonymous@bucket/path",
        "s3://bucket/part-?.parquet",
        "s3://bucket/x?endpoint_override=localhost:9000&scheme=http",
        "https://host?token=",
    ],
)
def test_an_address_without_a_secret_passes_as_it_is(url):
    assert check_no_secret_in_url(url, "") == url
