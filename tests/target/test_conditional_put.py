"""The probe of conditional PUTs passes on real stores and refuses careless stores.

Each error that it raises tells the operator what to do, and repeats no credential.
"""

from __future__ import annotations

import pytest

from cfray.errors import ConfigError, TargetUnavailable
from cfray.runtime import azure, gcs
from cfray.target.conditional_put import check_conditional_put
from tests.testbeds.careless_s3 import careless_s3
from tests.testbeds.s3 import environment
from tests.testbeds.server import free_ports


def test_a_store_with_conditional_put_passes_and_is_left_clean(s3, s3_place):
    target = f"{s3_place}/docs.lance"
    check_conditional_put(target)
    assert s3.keys(s3_place) == []


def test_a_missing_bucket_is_named(s3, s3_place):
    with pytest.raises(ConfigError, match="no bucket for s3://cfray-nowhere-at-all/docs"):
        check_conditional_put("s3://cfray-nowhere-at-all/docs.lance")


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_refused_without_repeating_them(s3, s3_place, monkeypatch, variable):
    if not s3.checks_keys:
        pytest.skip(f"{s3.name} lets any key in")
    monkeypatch.setenv(variable, "a-wrong-value")
    with pytest.raises(ConfigError) as refused:
        check_conditional_put(f"{s3_place}/docs.lance")
    assert "AWS_ACCESS_KEY_ID" in refused.value.remedy
    assert not any(
        value in str(refused.value)
        for value in ("a-wrong-value", s3.env["AWS_ACCESS_KEY_ID"], s3.env["AWS_SECRET_ACCESS_KEY"])
    )


@pytest.fixture
def careless(request, no_aws, monkeypatch):
    with careless_s3(request.param) as (endpoint, objects):
        for name, value in {**environment(1), "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(name, value)
        yield objects


@pytest.mark.parametrize(
    ("careless", "finding"),
    [
        ("ignored", "If-Match was answered with 200"),
        ("no match", "If-Match was answered with 200"),
        ("unknown", "answered with 501"),
    ],
    indirect=["careless"],
)
def test_a_store_that_does_not_know_conditions_is_refused(careless, finding):
    with pytest.raises(ConfigError, match=finding) as refused:
        check_conditional_put("s3://bucket/docs.lance")
    assert "conditional writes" in refused.value.remedy
    assert careless == {}


@pytest.mark.parametrize("careless", ["late", "no none match"], indirect=True)
def test_a_store_that_lets_two_racers_win_is_refused(careless):
    with pytest.raises(ConfigError, match=r"[2-8] of 8 racing PUTs"):
        check_conditional_put("s3://bucket/docs.lance")
    assert careless == {}


@pytest.mark.parametrize("careless", ["atomic"], indirect=True)
def test_the_negative_control_passes_where_it_is_careful(careless):
    check_conditional_put("s3://bucket/docs.lance")
    assert careless == {}


@pytest.mark.parametrize("careless", ["failing"], indirect=True)
def test_a_failing_store_may_be_tried_again(careless):
    with pytest.raises(TargetUnavailable, match="does not answer"):
        check_conditional_put("s3://bucket/docs.lance")


def test_an_absent_store_may_be_tried_again(no_aws, monkeypatch):
    for name, value in environment(free_ports(1)[0]).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TargetUnavailable, match="AWS_ENDPOINT_URL"):
        check_conditional_put("s3://bucket/docs.lance")


def test_another_cloud_passes_and_is_left_clean(cloud, cloud_place):
    check_conditional_put(f"{cloud_place}/docs.lance")
    assert cloud.names(cloud_place) == []


def test_a_missing_bucket_of_another_cloud_is_named(cloud, cloud_place):
    missing = f"no {cloud.container} for {cloud.scheme}://cfray-nowhere/docs"
    with pytest.raises(ConfigError, match=missing):
        check_conditional_put(f"{cloud.scheme}://cfray-nowhere/docs.lance")


def test_a_wrong_key_of_another_cloud_is_refused_without_repeating_it(
    cloud, cloud_place, monkeypatch
):
    if not cloud.checks_keys:
        pytest.skip(f"{cloud.server.name} asks for no key")
    monkeypatch.setenv(azure.KEY, "d3Jvbmc=")
    with pytest.raises(ConfigError) as refused:
        check_conditional_put(f"{cloud_place}/docs.lance")
    assert azure.KEY in refused.value.remedy
    assert "d3Jvbmc=" not in str(refused.value)


@pytest.mark.parametrize(
    ("scheme", "variable", "value"),
    [
        ("az", azure.ENDPOINT, "http://127.0.0.1:{port}/corpora"),
        ("gs", gcs.EMULATOR, "127.0.0.1:{port}"),
    ],
)
def test_another_cloud_that_is_absent_may_be_tried_again(monkeypatch, scheme, variable, value):
    monkeypatch.setenv(azure.ACCOUNT, "corpora")
    monkeypatch.setenv(azure.KEY, "d3Jvbmc=")
    monkeypatch.setenv(variable, value.format(port=free_ports(1)[0]))
    with pytest.raises(TargetUnavailable, match="does not answer") as absent:
        check_conditional_put(f"{scheme}://bucket/docs.lance")
    assert variable in absent.value.remedy


def test_a_missing_credential_of_google_cloud_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv(gcs.EMULATOR, raising=False)
    monkeypatch.setenv(gcs.CREDENTIALS, str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match="no credential") as refused:
        check_conditional_put("gs://bucket/docs.lance")
    assert gcs.CREDENTIALS in refused.value.remedy


def test_missing_credentials_are_named(no_aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="AWS_SECRET_ACCESS_KEY"):
        check_conditional_put("s3://bucket/docs.lance")


@pytest.mark.parametrize(
    "uri", ["/out/docs.lance", "hdfs://host/docs.lance", "s3+ddb://bucket/docs.lance"]
)
def test_other_targets_are_left_alone(no_aws, uri):
    check_conditional_put(uri)
