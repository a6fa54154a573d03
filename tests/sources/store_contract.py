"""The contract of all stores behind a network, on top of the contract of sources.

Its tests are about collections, faults of the network, credentials, counts and search.
"""

import json
import sys
from contextlib import closing

import pytest

from cfray.errors import ConfigError, SourceError, SourceUnavailable
from cfray.sources import remote
from tests.sources.contract import SourceContract
from tests.sources.corpus import CONTEXT, CORPUS, SHARD_BYTES, make_row, row_counts, rows
from tests.testbeds.proxy import Dropped, Grpc, GrpcProxy, Slow, Status, Truncated


class StoreContract(SourceContract):
    """The contract; a subclass provides ``bed``, and reasons for what its store cannot do.

    ``bed`` is a fixture that returns a ``StoreBed``.
    """

    cannot_refuse_a_key = ""
    cannot_search = ""
    cannot_be_empty = ""

    @pytest.fixture
    def seed(self, bed):
        def seed_collection(seeded_rows):
            return bed.source(bed.seed(seeded_rows), shard_bytes=SHARD_BYTES)

        return seed_collection

    @pytest.fixture(autouse=True)
    def _expects_what_the_bed_says(self, bed):
        self.expected = bed.expected

    @pytest.fixture(autouse=True)
    def _quick_retries(self, monkeypatch):
        """Shorten pauses to milliseconds: the tests ask whether a request is repeated, not when."""
        monkeypatch.setattr("cfray.runtime.retry.FIRST_PAUSE", 0.001)
        monkeypatch.setattr("cfray.runtime.retry.LONGEST_PAUSE", 0.01)
        monkeypatch.setattr("cfray.runtime.retry.JITTER", 0.0)

    def nowhere(self, tmp_path):
        return {"collections": ["nowhere"]}, "source.collections"

    def test_several_collections_are_read_and_told_apart(self, bed):
        seeded = {bed.seed(CORPUS[:10]): CORPUS[:10], bed.seed(CORPUS[5:30]): CORPUS[5:30]}
        source = bed.source(*seeded, shard_bytes=SHARD_BYTES)
        shards = source.shards(CONTEXT)
        assert {shard.collection for shard in shards} == set(seeded)
        for name, seeded_rows in seeded.items():
            read_rows = rows(source, [shard for shard in shards if shard.collection == name])
            assert row_counts(read_rows) == row_counts(map(self.expected, seeded_rows))

    def test_collections_say_their_size_width_and_metric(self, bed):
        name = bed.seed(CORPUS)
        source = bed.source(name)
        description = source.describe(CONTEXT, source.shards(CONTEXT))
        (collection,) = description.collections
        assert (collection.name, collection.rows) == (name, len(CORPUS))
        named_widths = (width for width, _ in collection.vectors.values())
        assert {collection.dimension, *named_widths} - {None} == {2}
        assert description.consistency != "snapshot" or source.uri
        assert json.dumps(collection.facts)

    def test_it_counts_what_a_read_gives(self, bed):
        source = bed.source(bed.seed(CORPUS))
        assert source.count(CONTEXT) == len(CORPUS)

    def test_search_gives_ids_as_a_read_does(self, bed):
        if self.cannot_search:
            pytest.skip(self.cannot_search)
        name = bed.seed([make_row(n, vector=[float(n), 1.0]) for n in range(20)])
        ids = bed.source(name).search(name, [19.0, 1.0], 3)
        assert len(ids) == 3
        assert len(set(ids)) == 3
        assert all(":" in tagged_id for tagged_id in ids)

    def faults(self, proxy):
        if isinstance(proxy, GrpcProxy):
            return [Grpc("UNAVAILABLE"), Grpc("RESOURCE_EXHAUSTED"), Grpc("INTERNAL"), Dropped()]
        return [Dropped(), Status(429, {"Retry-After": "0"}), Status(500), Status(503), Truncated()]

    def test_a_page_that_fails_on_the_way_is_asked_for_again(self, bed):
        proxy, source = bed.proxied(bed.seed(CORPUS))
        with closing(proxy):
            shards = source.shards(CONTEXT)
            for fault in self.faults(proxy):
                proxy.fail(fault, times=2, matching=bed.page_request())
                assert row_counts(rows(source, shards)) == row_counts(map(self.expected, CORPUS)), (
                    fault
                )
                assert not proxy.waiting, f"{fault} was never met"

    def test_a_store_that_stays_away_is_a_transient_error_that_names_it(self, bed):
        proxy, source = bed.proxied(bed.seed(CORPUS))
        with closing(proxy):
            shards = source.shards(CONTEXT)
            proxy.fail(Dropped(), times=10_000, matching="")
            with pytest.raises(SourceUnavailable) as error:
                rows(source, shards)
        assert source.address in error.value.what
        assert error.value.remedy

    def test_a_page_that_does_not_come_is_given_up_and_asked_for_again(self, bed):
        proxy, source = bed.proxied(bed.seed(CORPUS))
        with closing(proxy):
            shards = source.shards(CONTEXT)
            proxy.fail(Slow(), times=1, matching=bed.page_request())
            impatient = source.model_copy(update={"timeout": 2.0})
            assert row_counts(rows(impatient, shards)) == row_counts(map(self.expected, CORPUS))

    def test_a_wrong_key_is_a_terminal_error_that_does_not_show_it(self, locked_bed, monkeypatch):
        if self.cannot_refuse_a_key:
            pytest.skip(self.cannot_refuse_a_key)
        name = locked_bed.seed(CORPUS[:3])
        monkeypatch.setenv("CFRAY_TEST_WRONG_KEY", "not-the-key-but-secret-all-the-same")
        source = locked_bed.source(name, api_key=remote.Secret(env="CFRAY_TEST_WRONG_KEY"))
        with pytest.raises(SourceError) as error:
            source.shards(CONTEXT)
        assert not error.value.transient
        assert "secret-all-the-same" not in f"{error.value}{error.value.args}{source!r}"
        assert "api_key" in error.value.remedy
        assert len(rows(locked_bed.source(name))) == 3

    def test_a_key_that_is_not_set_is_named(self, bed, monkeypatch):
        monkeypatch.delenv("CFRAY_TEST_UNSET_KEY", raising=False)
        source = bed.source("any", api_key=remote.Secret(env="CFRAY_TEST_UNSET_KEY"))
        with pytest.raises(SourceError, match="CFRAY_TEST_UNSET_KEY"):
            source.shards(CONTEXT)

    def test_a_missing_client_names_the_extra(self, bed, monkeypatch):
        name = bed.seed(CORPUS[:1])
        source = bed.source(name)
        for module in [module for module in sys.modules if module.split(".")[0] == self.client]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setattr(sys, "meta_path", [_Blocked(self.client), *sys.meta_path])
        with pytest.raises(ConfigError) as error:
            source.shards(CONTEXT)
        assert f"cfray[{bed.kind}]" in error.value.remedy


class _Blocked:
    def __init__(self, module):
        self.module = module

    def find_spec(self, name, *_):
        if name.split(".")[0] == self.module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
