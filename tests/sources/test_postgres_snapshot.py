"""PostgreSQL: what is read is one snapshot, whoever writes meanwhile, or it is refused by name."""

import random
import threading
from contextlib import closing, contextmanager

import pytest

from cfray.errors import SourceError, SourceUnavailable
from cfray.sources.base import Context
from cfray.sources.session import SourceSession
from tests.sources.corpus import CONTEXT, SHARD_BYTES, rows
from tests.sources.postgres_bed import PostgresBed
from tests.testbeds.postgres_proxy import Cut

pytestmark = pytest.mark.server("postgres")


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(PostgresBed)


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr("cfray.runtime.retry.FIRST_PAUSE", 0.001)
    monkeypatch.setattr("cfray.runtime.retry.LONGEST_PAUSE", 0.01)


def create(bed, count, *, key=True):
    """Create a table of numbered rows, and return its name."""
    name = bed.fresh()
    bed.execute(
        f'CREATE TABLE "{name}" (k int{" PRIMARY KEY" if key else ""}, version int, body text)'
    )
    bed.execute(
        f"INSERT INTO \"{name}\" SELECT i, 0, repeat('x', 200) FROM generate_series(0, {count - 1}) i"
    )
    return name


def table_rows(bed, name):
    return sorted(bed.execute(f'SELECT k, version FROM "{name}"').fetchall())


def read_pairs(source, shards, context):
    """Read shards; give key and version of each row."""
    return sorted((row["id"], row["version"]) for row in rows(source, shards, context))


@contextmanager
def writing(bed, name, count):
    """Insert, update and delete rows at full speed, from two connections, for the block."""
    stopped, started = threading.Event(), threading.Semaphore(0)

    def write(seed):
        generator, new = random.Random(seed), count + seed * 1_000_000
        with closing(bed.connect()) as connection:
            while not stopped.is_set():
                chosen = generator.randrange(count)
                change = "version = version + 1, body = body || 'y'"
                connection.execute(f'UPDATE "{name}" SET {change} WHERE k = {chosen}')
                gone = generator.randrange(count)
                connection.execute(f'DELETE FROM "{name}" WHERE k = {gone}')
                connection.execute(f"INSERT INTO \"{name}\" VALUES ({new}, 0, repeat('z', 200))")
                new += 1
                started.release()

    writers = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(20):
            assert started.acquire(timeout=60), "the writers stopped"
        yield
        for _ in range(20):
            assert started.acquire(timeout=60), "the writers stopped"
    finally:
        stopped.set()
        for writer in writers:
            writer.join()


@pytest.mark.parametrize("partition", ["key", "blocks"])
@pytest.mark.parametrize("run", range(10))
def test_what_is_read_is_the_snapshot_while_others_write(bed, partition, run):
    count = 400
    name = create(bed, count)
    source = bed.source(name, shard_bytes=15_000, partition=partition)
    with writing(bed, name, count), source.session() as session:
        assert session.consistency == "snapshot"
        context = Context(session=session.state, batch_bytes=4_000)
        with closing(bed.connect()) as oracle:
            oracle.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            oracle.execute(f"SET TRANSACTION SNAPSHOT '{session.state['snapshot']}'")
            expected = sorted(oracle.execute(f'SELECT k, version FROM "{name}"').fetchall())
        shards = source.shards(context)
        assert len(shards) > 5
        assert read_pairs(source, shards, context) == expected
        assert source.count(context) == len(expected)
    assert table_rows(bed, name) != expected, "nobody wrote"


def test_without_the_snapshot_blocks_would_lose_or_double_rows(bed):
    """Show that the check of a worker's snapshot is needed: a live read of blocks is refused."""
    name = create(bed, 300)
    source = bed.source(name, shard_bytes=9_000, partition="blocks")
    with source.session() as session:
        shards = source.shards(Context(session=session.state))
        bed.execute(f'UPDATE "{name}" SET version = 1 WHERE k % 2 = 0')
        with pytest.raises(SourceError, match="was written to since the plan"):
            rows(source, shards, CONTEXT)


def test_a_worker_that_sees_something_else_is_stopped(bed):
    name = create(bed, 10)
    source = bed.source(name)
    with source.session() as session:
        state = {**session.state, "view": "3:3:"}
        with pytest.raises(SourceError, match="not as of the session's snapshot"):
            source.shards(Context(session=state))


def test_a_session_whose_transaction_was_ended_is_lost_and_said_so(bed):
    name = create(bed, 100)
    source = bed.source(name, shard_bytes=9_000)
    opened = SourceSession(source)
    session = opened.open()
    context = Context(session=session.state)
    shards = source.shards(context)
    assert source.keep_alive(session) is None
    bed.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE backend_xmin IS NOT NULL AND state = 'idle in transaction' "
        "AND pid IN (SELECT pid FROM pg_locks WHERE relation = %s::regclass)",
        f'"{name}"',
    )
    with pytest.raises(SourceError, match=r"snapshot .* is lost") as error:
        rows(source, shards, context)
    assert not error.value.transient
    assert "run the same command again" in error.value.remedy
    with pytest.raises(SourceError, match="holds the snapshot has ended") as error:
        source.keep_alive(session)
    assert not isinstance(error.value, SourceUnavailable)
    opened.close()
    with source.session() as another:
        assert len(rows(source, shards, Context(session=another.state))) == 100


def test_keys_hold_the_same_rows_under_another_snapshot(bed):
    """Read some shards under one session and the others under the next, as a resumed run does."""
    count = 400
    name = create(bed, count)
    source = bed.source(name, shard_bytes=9_000)
    read_rows = []
    with source.session() as session:
        context = Context(session=session.state)
        shards = source.shards(context)
        read_rows += rows(source, shards[::2], context)
    # every row moves, some vanish, some are new
    bed.execute(f'UPDATE "{name}" SET version = 1, body = body || body')
    bed.execute(f'DELETE FROM "{name}" WHERE k % 10 = 0')
    bed.execute(f"INSERT INTO \"{name}\" SELECT -i, 2, '' FROM generate_series(1, 50) i")
    with source.session() as session:
        read_rows += rows(source, shards[1::2], Context(session=session.state))
    keys = [row["id"] for row in read_rows]
    assert len(keys) == len(set(keys))
    assert set(keys) >= {k for k in range(count) if k % 10}


def test_blocks_are_read_under_another_snapshot_only_if_nothing_moved(bed):
    name, other = create(bed, 300, key=False), create(bed, 1)
    source = bed.source(name, shard_bytes=9_000)
    with source.session() as session:
        shards = source.shards(Context(session=session.state))
    assert "blocks" in shards[0].where
    # transactions elsewhere, deletions and VACUUM move nothing
    bed.execute(f'UPDATE "{other}" SET version = 1')
    bed.execute(f'VACUUM "{name}"')
    with source.session() as session:
        assert len(rows(source, shards, Context(session=session.state))) == 300
    # a row that moves out of a range that is still to be read would be lost
    bed.execute(f"UPDATE \"{name}\" SET body = repeat('y', 300) WHERE k = 299")
    with source.session() as session:
        with pytest.raises(SourceError, match="was written to since the plan") as error:
            rows(source, shards[:1], Context(session=session.state))
        assert "--restart" in error.value.remedy
        assert "partition: key" in error.value.remedy


@pytest.mark.parametrize("statement", ["VACUUM FULL", "TRUNCATE"])
def test_blocks_of_a_table_that_was_written_anew_are_refused(bed, statement):
    name = create(bed, 300, key=False)
    source = bed.source(name, shard_bytes=9_000)
    with source.session() as session:
        shards = source.shards(Context(session=session.state))
    bed.execute(f'{statement} "{name}"')
    with source.session() as session, pytest.raises(SourceError, match="written anew"):
        rows(source, shards, Context(session=session.state))


@pytest.mark.parametrize(
    "statement", ["TRUNCATE {}", "DROP TABLE {}", "ALTER TABLE {} ADD x int", "VACUUM FULL {}"]
)
def test_a_session_keeps_its_tables_from_being_truncated_or_changed(bed, statement):
    """A snapshot does not see a TRUNCATE as it was: the table would read as empty."""
    from psycopg.errors import LockNotAvailable

    name = create(bed, 50)
    source = bed.source(name)
    with closing(bed.connect()) as other:
        other.execute("SET lock_timeout = '50ms'")
        with source.session() as session:
            with pytest.raises(LockNotAvailable):
                other.execute(statement.format(f'"{name}"'))
            context = Context(session=session.state)
            assert len(rows(source, context=context)) == 50


def test_a_session_does_not_wait_for_a_lock_without_end(bed):
    name = create(bed, 5)
    with closing(bed.connect()) as other:
        other.execute(f'BEGIN; LOCK TABLE "{name}" IN ACCESS EXCLUSIVE MODE')
        source = bed.source(name, timeout=2)
        with pytest.raises(SourceUnavailable, match="lock"), source.session():
            pass


@pytest.mark.parametrize("after", [3_000, 20_000, 60_000])
def test_a_copy_that_is_cut_goes_on_where_it_was_under_the_same_snapshot(bed, after):
    name = create(bed, 400)
    proxy, source = bed.proxied(name)
    source = source.model_copy(update={"shard_bytes": 10**7})
    with closing(proxy), source.session() as session:
        context = Context(session=session.state, batch_bytes=4_000)
        shards = source.shards(context)
        assert len(shards) == 1
        proxy.fail(Cut(after), times=1, matching="COPY (SELECT")
        bed.execute(f'UPDATE "{name}" SET version = 5')
        assert read_pairs(source, shards, context) == [(k, 0) for k in range(400)]
        assert not proxy.waiting


def test_a_copy_that_is_cut_without_a_snapshot_is_left_to_the_caller(bed):
    name = create(bed, 400)
    proxy, source = bed.proxied(name)
    source = source.model_copy(update={"shard_bytes": 10**7})
    with closing(proxy):
        shards = source.shards(CONTEXT)
        proxy.fail(Cut(60_000), times=1, matching="COPY (SELECT")
        with pytest.raises(SourceUnavailable, match="ended after"):
            rows(source, shards)


def test_a_plan_under_a_session_is_the_same_plan_again(bed):
    name = create(bed, 300, key=False)
    source = bed.source(name, shard_bytes=SHARD_BYTES)
    with source.session() as session:
        context = Context(session=session.state)
        assert source.shards(context) == source.shards(context)
