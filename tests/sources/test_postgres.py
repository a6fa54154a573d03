"""PostgreSQL, the real server: every row of a snapshot is read once, with all that it holds."""

import pytest

from tests.sources.postgres_bed import PostgresBed
from tests.sources.store_contract import StoreContract
from tests.testbeds.postgres_proxy import Dropped, Refusal, Truncated

pytestmark = pytest.mark.server("postgres")


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(PostgresBed)


@pytest.fixture
def locked_bed(bed):
    """Return the same server, which lets nobody in without a password."""
    return bed


class TestPostgres(StoreContract):
    client = "psycopg"
    cannot_tell_missing = "a table has a value or null in each column"
    cannot_count = "rows are counted for a table, not for a range"

    def faults(self, proxy):
        return [
            Dropped(),
            Truncated(),
            Refusal("57P01", "FATAL"),
            Refusal("53200"),
            Refusal("40001"),
        ]
