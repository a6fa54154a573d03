"""The variables of Azure and Google Cloud, as Arrow, Lance and Azure's client are told of them."""

from __future__ import annotations

import json
import sys

import pytest

from cfray.errors import ConfigError
from cfray.runtime import azure, gcs
from cfray.runtime.filesystems import Folder, check_location, open_filesystem, storage_options
from cfray.target.conditional_put import check_conditional_put

KEY = "c2VjcmV0LWtleQ=="


@pytest.fixture
def account(monkeypatch):
    for name in (azure.ACCOUNT, azure.KEY, azure.ENDPOINT):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(azure.ACCOUNT, "corpora")
    monkeypatch.setenv(azure.KEY, KEY)
    return monkeypatch


@pytest.mark.parametrize(
    ("endpoint", "blob", "dfs", "scheme"),
    [
        ("", ".blob.core.windows.net", ".dfs.core.windows.net", "https"),
        (
            "https://corpora.blob.core.usgovcloudapi.net/",
            ".blob.core.usgovcloudapi.net",
            ".dfs.core.usgovcloudapi.net",
            "https",
        ),
        ("http://127.0.0.1:10000/corpora", "127.0.0.1:10000", "127.0.0.1:10000", "http"),
    ],
)
def test_arrow_reads_where_the_endpoint_says(account, endpoint, blob, dfs, scheme):
    account.setenv(azure.ENDPOINT, endpoint)
    assert azure.read_account().arrow_services == {
        "blob_storage_authority": blob,
        "blob_storage_scheme": scheme,
        "dfs_storage_authority": dfs,
        "dfs_storage_scheme": scheme,
    }


def test_lance_gets_the_endpoint_and_never_the_key(account):
    assert storage_options("az://corpus/docs.lance") == {}
    account.setenv(azure.ENDPOINT, "http://127.0.0.1:10000/corpora")
    options = storage_options("az://corpus/docs.lance")
    assert options == {"azure_endpoint": "http://127.0.0.1:10000/corpora", "allow_http": "true"}


@pytest.mark.parametrize(
    "uri", ["az://", "az:///docs", "az://corpus@corpora/docs", "az://corpus/a?b", "az://corpus/a#b"]
)
def test_an_address_that_lance_would_read_otherwise_is_refused(account, uri):
    with pytest.raises(ConfigError, match="az://CONTAINER/PATH"):
        open_filesystem(uri)


@pytest.mark.parametrize(
    ("location", "module", "extra"),
    [
        ("az://corpus/docs", "azure.storage.blob", "azure"),
        ("gs://corpus/docs", "google.auth", "gcs"),
    ],
)
def test_a_missing_client_is_named_with_its_extra(account, location, module, extra):
    account.delenv(gcs.EMULATOR, raising=False)
    account.setenv(azure.ACCOUNT, "withoutclient")
    account.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError) as refused:
        check_conditional_put(location)
    assert f"cfray[{extra}]" in refused.value.remedy
    if extra == "azure":
        with pytest.raises(ConfigError, match="not installed"):
            Folder(location).publish("job.json", b"{}")


def test_special_characters_of_a_path_stand_as_escapes(account):
    assert open_filesystem("az://corpus/a%20b%3F/c/")[1] == "corpus/a b?/c"


@pytest.mark.parametrize("missing", [azure.ACCOUNT, azure.KEY])
def test_a_missing_variable_is_named(account, missing):
    account.delenv(missing)
    with pytest.raises(ConfigError, match=f"{missing} is not set"):
        open_filesystem("az://corpus/docs.lance")


def test_what_is_no_key_is_refused_without_repeating_it(account):
    account.setenv(azure.KEY, "hush hush")
    with pytest.raises(ConfigError, match="no key") as refused:
        open_filesystem("az://corpus/docs.lance")
    assert "hush" not in str(refused.value)


def test_an_endpoint_that_is_none_is_refused(account):
    account.setenv(azure.ENDPOINT, "ftp://corpora")
    with pytest.raises(ConfigError, match=azure.ENDPOINT) as refused:
        open_filesystem("az://corpus/docs.lance")
    assert KEY not in str(refused.value)


def test_the_account_does_not_show_its_key(account):
    assert KEY not in repr(azure.read_account())


@pytest.mark.parametrize(
    ("host", "endpoint", "http"),
    [
        ("127.0.0.1:4443", "http://127.0.0.1:4443", "true"),
        ("https://emulator/", "https://emulator", "false"),
    ],
)
def test_lance_is_told_of_an_emulator_of_google_cloud(monkeypatch, host, endpoint, http):
    monkeypatch.setenv(gcs.EMULATOR, host)
    options = storage_options("gs://corpus/docs.lance")
    account = json.loads(options["google_service_account_key"])
    assert (account["gcs_base_url"], account["disable_oauth"]) == (endpoint, True)
    assert account["private_key"] == ""
    assert options["allow_http"] == http


def test_google_cloud_itself_needs_no_options(monkeypatch):
    monkeypatch.delenv(gcs.EMULATOR, raising=False)
    assert storage_options("gs://corpus/docs.lance") == {}
    assert not gcs.has_emulator()


@pytest.mark.parametrize(
    ("location", "variable"),
    [
        ("az://container/x?sig=hush", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("gs://bucket/x?access_token=hush", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("s3://bucket/x?secret=hush", "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_a_secret_in_an_address_belongs_into_the_variable_of_its_cloud(location, variable):
    with pytest.raises(ValueError, match=variable) as refused:
        check_location(location)
    assert "hush" not in str(refused.value)
