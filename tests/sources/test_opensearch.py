"""OpenSearch: the contract, on the real server 3.6.0."""

import pytest

from tests.sources.opensearch_bed import OpenSearchBed
from tests.sources.store_contract import StoreContract

pytestmark = pytest.mark.server("opensearch")


@pytest.fixture(scope="module")
def newest_bed(shared_bed):
    return shared_bed(OpenSearchBed)


class TestOpenSearch(StoreContract):
    client = "opensearchpy"
    cannot_count = "another point in time may have other documents in a slice"
    cannot_refuse_a_key = "the distribution for tests has no security"

    @pytest.fixture
    def bed(self, newest_bed):
        return newest_bed

    @pytest.fixture
    def locked_bed(self, newest_bed):
        return newest_bed
