"""Elasticsearch: the contract, on the real server 9.5.3."""

import pytest

from tests.sources.elasticsearch_bed import ElasticsearchBed
from tests.sources.store_contract import StoreContract

pytestmark = pytest.mark.server("elasticsearch")


@pytest.fixture(scope="module")
def newest_bed(shared_bed):
    return shared_bed(ElasticsearchBed)


class TestElasticsearch(StoreContract):
    client = "elasticsearch"
    cannot_count = "another point in time may have other documents in a slice"
    cannot_refuse_a_key = "the distribution for tests has no security"

    @pytest.fixture
    def bed(self, newest_bed):
        return newest_bed

    @pytest.fixture
    def locked_bed(self, newest_bed):
        return newest_bed
