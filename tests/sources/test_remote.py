"""Stores behind a network share their retries, throttle, credentials, paging and manifests.

No store is asked: each request is a function that fails as its test demands.
"""

import pickle
import threading

import pytest
from pydantic import ValidationError

from cfray.errors import ConfigError, SourceError, SourceUnavailable
from cfray.runtime.credentials import Secret
from cfray.runtime.sdk import import_sdk
from cfray.sources import manifests
from cfray.sources.base import Context
from cfray.sources.paging import PageSize, fetch_ahead
from cfray.sources.remote import RemoteSource


class Store(RemoteSource):
    kind: str = "store"

    def shards(self, context):
        return []

    def read(self, shard, context):
        return iter(())

    def classify_error(self, error):
        if isinstance(error, ConnectionError):
            return SourceUnavailable(f"{self.address}: {error}", "try again", 0.0)
        return (
            SourceError(f"{self.address}: {error}", "correct it")
            if isinstance(error, ValueError)
            else None
        )


class CountingThrottle:
    def __init__(self):
        self.requests, self.pauses = 0, []

    def take(self, requests=1):
        self.requests += requests

    def hold_off(self, seconds):
        self.pauses.append(seconds)


def fail_with(*errors):
    remaining = list(errors)

    def send():
        if remaining:
            raise remaining.pop(0)
        return "answer"

    return send


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("cfray.runtime.retry.FIRST_PAUSE", 0.0)
    monkeypatch.setattr("cfray.runtime.retry.JITTER", 0.0)


def test_a_transient_error_is_asked_again_within_the_budget_and_a_terminal_one_is_not():
    budget = CountingThrottle()
    assert (
        Store(url="http://s").send_request(
            fail_with(ConnectionError("a"), ConnectionError("b")), Context(throttle=budget)
        )
        == "answer"
    )
    assert budget.requests == 3
    with pytest.raises(SourceError, match="wrong"):
        Store(url="http://s").send_request(
            fail_with(ValueError("wrong"), ValueError("never met")), Context(throttle=budget)
        )
    assert budget.requests == 4


def test_an_error_that_the_store_did_not_cause_is_raised_unchanged():
    with pytest.raises(KeyError):
        Store(url="http://s").send_request(fail_with(KeyError("ours")), Context())


def test_the_last_attempt_lets_the_error_through_with_its_pause():
    with pytest.raises(SourceUnavailable) as refused:
        Store(url="http://s").send_request(fail_with(*[ConnectionError("down")] * 9), Context())
    unpickled = pickle.loads(pickle.dumps(refused.value))
    assert (unpickled.what, unpickled.remedy, unpickled.retry_after, unpickled.transient) == (
        refused.value.what,
        "try again",
        0.0,
        True,
    )


def test_a_store_that_wants_to_be_left_alone_for_an_hour_ends_the_run_at_once():
    class Closed(Store):
        def classify_error(self, error):
            return SourceUnavailable("maintenance", "come back", 3600.0)

    budget = CountingThrottle()
    with pytest.raises(SourceUnavailable):
        Closed(url="http://s").send_request(
            fail_with(*[ConnectionError()] * 9), Context(throttle=budget)
        )
    assert budget.requests == 1
    assert budget.pauses == [3600.0]


def test_a_secret_never_shows(monkeypatch):
    monkeypatch.setenv("STORE_KEY", "hush-hush")
    store = Store(url="http://s", api_key=Secret(env="STORE_KEY"))
    assert store.read_secret() == "hush-hush"
    with pytest.raises(SourceError) as refused:
        store.send_request(fail_with(ValueError("401 for key hush-hush")), Context())
    error = refused.value
    for text in (repr(error), str(error), repr(error.__cause__), repr(store), str(store)):
        assert "hush" not in text
    assert "hush" not in store.model_dump_json()
    assert "***" in error.what
    assert b"hush" not in pickle.dumps((store, error))


def test_a_credential_may_stand_in_a_file_beside_the_job(tmp_path):
    (tmp_path / "key").write_text("from-a-file\n")
    assert (
        Store(url="http://s", api_key=Secret(file="key")).resolve_paths(tmp_path).read_secret()
        == "from-a-file"
    )
    with pytest.raises(SourceError, match="absent"):
        Store(url="http://s", api_key=Secret(file="absent")).resolve_paths(tmp_path).read_secret()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"url": "http://s", "uri": "x"},
        {"url": "http://user:pw@s"},
        {"url": "http://s?api_key=pw"},
        {"uri": "s3://key:pw@bucket/x"},
        {"url": "http://s", "api_key": {}},
    ],
)
def test_an_address_is_one_and_holds_no_credential(options):
    with pytest.raises(ValidationError) as refused:
        Store.model_validate(options)
    assert refused.value.error_count() == 1
    assert "pw" not in str(refused.value)


def test_credentials_and_limits_are_no_part_of_the_fingerprint(tmp_path):
    from cfray.job.file import read_job

    def fingerprint(**options):
        (tmp_path / "job.yaml").write_text(
            "name: a\ntarget: {uri: out}\nsource: {kind: qdrant, url: 'http://s', "
            + ", ".join(f"{key}: {value}" for key, value in options.items())
            + "}\n"
        )
        return read_job(tmp_path / "job.yaml").fingerprint

    without_options = fingerprint()
    assert without_options == fingerprint(
        api_key="{env: OTHER}", timeout=5, requests_per_second=3, insecure="true", ca_file="x.pem"
    )
    assert without_options != fingerprint(collections="[one]")


def test_a_missing_client_names_the_extra():
    with pytest.raises(ConfigError, match="no_such_client is not installed") as error:
        import_sdk("no_such_client.part", "endpoint")
    assert "cfray[endpoint]" in error.value.remedy
    assert "source" not in error.value.what


def test_pages_are_fetched_ahead_in_order_and_an_error_comes_in_its_place():
    fetched = threading.Event()

    def pages():
        yield 1
        fetched.set()
        yield 2
        raise ValueError("third")

    stream = fetch_ahead(pages())
    assert next(stream) == 1
    assert fetched.wait(10), "the second page is fetched while the first one is at work"
    assert next(stream) == 2
    with pytest.raises(ValueError, match="third"):
        next(stream)


def test_a_page_fits_itself_to_the_weight_of_the_last_one():
    size = PageSize(100, 1_000, target_bytes=10_000)
    size.adjust(100, 1_000)
    assert size.rows == 400
    size.adjust(400, 4_000)
    assert size.rows == 1_000
    size.adjust(1_000, 1_000_000)
    assert size.rows == 10
    assert [size.halve() for _ in range(5)] == [True, True, True, False, False]
    assert size.rows == 1


def test_a_manifest_gives_each_id_to_one_shard_to_the_letter(tmp_path):
    context = Context(scratch=str(tmp_path / "scratch"))
    ids = ["", "a\nb", "ü\u2028", "\ud800", *(str(n) for n in range(20))]
    shards = list(manifests.write_id_shards("one/two", ids, 7, context, 100))
    assert [shard.rows for shard in shards] == [7, 7, 7, 3]
    assert [
        record_id for shard in shards for record_id in manifests.read_ids(shard, context)
    ] == ids
    assert shards == list(manifests.write_id_shards("one/two", ids, 7, context, 100))
    (tmp_path / "scratch" / str(shards[1].where["manifest"])).unlink()
    with pytest.raises(SourceError, match="is gone"):
        manifests.read_ids(shards[1], context)


class TestAliases:
    ALIASES = {"live": "docs", "old": "docs", "lost": "dropped"}  # noqa: RUF012  # only read

    def choose(self, *names):
        store = Store(url="http://127.0.0.1", collections=list(names))
        return store.choose_collections(["docs", "more"], lambda: self.ALIASES)

    def test_an_alias_gives_its_collection(self):
        assert self.choose("live") == ["docs"]
        assert self.choose("more", "live", "live") == ["docs", "more"]

    def test_aliases_are_asked_for_only_where_a_name_is_no_collection(self):
        store = Store(url="http://127.0.0.1", collections=["more", "docs", "docs"])
        assert store.choose_collections(["docs", "more"], pytest.fail) == ["docs", "more"]

    @pytest.mark.parametrize("names", [("docs", "live"), ("live", "docs"), ("live", "old")])
    def test_two_names_of_a_collection_are_refused(self, names):
        with pytest.raises(SourceError) as error:
            self.choose(*names)
        assert f"the collection docs twice, as {names[0]} and as {names[1]}" in error.value.what

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("livee", "did you mean live?"),
            ("doc", "did you mean docs?"),
            ("lost", "it is an alias of dropped, which is not among its collections"),
        ],
    )
    def test_a_name_that_is_neither_is_answered_with_what_is_near(self, name, hint):
        with pytest.raises(SourceError) as error:
            self.choose(name)
        assert hint in error.value.what
        assert "source.collections" in error.value.remedy
