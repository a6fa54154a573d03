"""Chroma: a real server, the ways in which it loses rows, and its persistent directory."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest

from cfray.errors import SourceError
from cfray.formats.points import to_float32
from cfray.records.record import Reject
from cfray.runtime.credentials import Secret
from cfray.sources.base import Context
from cfray.sources.chroma.copy import DATABASE_FILE
from cfray.sources.chroma.describe import to_collection
from cfray.sources.chroma.errors import LOST_VECTOR, TOO_MANY_VARIABLES, ErrorAnswer
from cfray.sources.chroma.export import forget_copies, processes_that_hold, reusable_processes
from cfray.sources.chroma.source import Chroma
from cfray.sources.chroma.types import CollectionAddress, build_records
from tests.sources import chroma_bed
from tests.sources.chroma_bed import ChromaBed, TokenProxy
from tests.sources.contract import SourceContract
from tests.sources.corpus import (
    CONTEXT,
    CORPUS,
    SHARD_BYTES,
    items,
    make_row,
    plain_rows,
    row_counts,
    rows,
)
from tests.sources.store_contract import StoreContract
from tests.testbeds import lineup
from tests.testbeds.proxy import Status
from tests.testbeds.server import until

pytestmark = pytest.mark.server("chroma")
KEY = "CFRAY_TEST_CHROMA_KEY"
FLAT = "Chroma's metadata is flat: strings, numbers, booleans, and lists of one such type"
NO_NULL = "Chroma has no null: a document or a key exists or not"
#: The float64 of its text, 7.038531e-26, lies halfway between two float32.
BETWEEN = np.uint32(0x15AE43FD).view(np.float32)


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(ChromaBed)


@pytest.fixture
def locked_bed(bed, monkeypatch):
    monkeypatch.setenv(KEY, "sesame")
    with TokenProxy(bed.url, "sesame") as token_proxy:
        yield ChromaBed(token_proxy.endpoint, Secret(env=KEY))


@pytest.fixture
def context(tmp_path):
    return Context(scratch=str(tmp_path / "scratch"))


def vendor_collection(bed, name):
    return bed.client.get_collection(name, embedding_function=None)


class TestChroma(StoreContract):
    client = "httpx"
    cannot_nest = FLAT
    cannot_tell_missing = NO_NULL


MANY_ROWS = [make_row(n) for n in range(300)]


class TestWhatIsDeletedOrAddedMeanwhile:
    def test_paging_by_offset_loses_rows_that_nobody_deleted(self, bed):
        """Trap: the vendor's client reads page by page, so a deletion shifts the later pages."""
        name = bed.seed(MANY_ROWS)
        first_ids = vendor_collection(bed, name).get(limit=100, include=[])["ids"]
        bed.delete(name, first_ids[:50])
        later_ids = vendor_collection(bed, name).get(limit=300, offset=100, include=[])["ids"]
        assert len({row["id"] for row in MANY_ROWS} - set(first_ids) - set(later_ids)) == 50

    def test_a_list_of_ids_loses_none_and_names_what_is_gone(self, bed):
        name = bed.seed(MANY_ROWS)
        source = bed.source(name, shard_bytes=10_000)
        shards = source.shards(CONTEXT)
        assert len(shards) > 3
        deleted_ids = [row["id"] for row in MANY_ROWS[::7]]
        read_items = []
        for shard_number, shard in enumerate(shards):
            if shard_number == 1:
                bed.delete(name, deleted_ids)
            read_items += list(source.read(shard, CONTEXT))
        rejects = [item for item in read_items if isinstance(item, Reject)]
        read_ids = [
            row["id"]
            for item in read_items
            if not isinstance(item, Reject)
            for row in plain_rows(item)
        ]
        assert sorted(read_ids + [reject.content.decode() for reject in rejects]) == sorted(
            row["id"] for row in MANY_ROWS
        )
        assert {row["id"] for row in MANY_ROWS} - set(deleted_ids) <= set(read_ids)
        assert rejects
        assert all(
            "deleted meanwhile or lost" in reject.reason and name in reject.position
            for reject in rejects
        )

    def test_the_ids_of_a_collection_are_one_request(self, bed):
        """One request is one SQL statement, so a deletion cannot shift a second page."""
        proxy, source = bed.proxied(bed.seed(MANY_ROWS))
        with closing(proxy):
            source.shards(CONTEXT)
            posted_paths = [path for method, path in proxy.seen if method == "POST"]
        # the ids, and a sample to estimate the bytes of a record
        assert len(posted_paths) == 2

    def test_ids_come_in_the_order_of_the_list_whatever_order_chroma_answers_in(self, bed, context):
        name = bed.seed(MANY_ROWS)
        listed_ids = [row["id"] for row in MANY_ROWS[20:10:-1]]
        assert vendor_collection(bed, name).get(ids=listed_ids, include=[])["ids"] != listed_ids
        source = bed.source(name)
        (shard,) = source.shards(context)
        manifest = Path(context.scratch, shard.where["manifest"])
        manifest.write_text("".join(f"{json.dumps(record_id)}\n" for record_id in listed_ids))
        assert [row["id"] for row in rows(source, [shard], context)] == listed_ids

    def test_a_record_added_later_is_not_read(self, bed):
        name = bed.seed(CORPUS[:20])
        source = bed.source(name)
        shards = source.shards(CONTEXT)
        vendor_collection(bed, name).add(ids=["late"], embeddings=[[1, 2]])
        assert "late" not in {row["id"] for row in rows(source, shards)}
        assert source.count(CONTEXT) == 21

    def test_a_collection_dropped_after_the_plan_is_a_terminal_error(self, bed):
        name = bed.seed(CORPUS[:20])
        source = bed.source(name)
        shards = source.shards(CONTEXT)
        bed.drop(name)
        with pytest.raises(SourceError) as error:
            rows(source, shards)
        assert not error.value.transient
        assert name in error.value.what
        assert "source.collections" in error.value.remedy


class TestPages:
    def test_more_records_than_sqlite_has_variables(self, bed, context):
        name = bed.seed([{"id": f"r{n}", "vector": [n, 1.0], "n": n} for n in range(33_000)])
        with pytest.raises(Exception, match=TOO_MANY_VARIABLES):
            vendor_collection(bed, name).get(include=["metadatas"])
        source = bed.source(name)
        (shard,) = source.shards(context)
        ids = [
            record_id
            for batch in source.read(shard, context)
            for record_id in batch["id"].to_pylist()
        ]
        assert ids == [f"r{n}" for n in range(33_000)]

    @pytest.mark.parametrize(
        "refusal",
        [
            Status(413),
            Status(500, {}, b'{"error":"InternalError","message":"too many SQL variables"}'),
        ],
        ids=["413", "variables"],
    )
    def test_a_page_that_is_too_large_is_halved(self, bed, refusal):
        proxy, source = bed.proxied(bed.seed(CORPUS))
        with closing(proxy):
            source = source.model_copy(update={"shard_bytes": 10**7})
            (shard,) = source.shards(CONTEXT)
            proxy.fail(refusal, times=3, matching=bed.page_request())
            requests_before = len(proxy.seen)
            assert row_counts(rows(source, [shard])) == row_counts(map(bed.expected, CORPUS))
            assert len(proxy.seen) > requests_before + 4

    def test_a_page_that_stays_too_large_is_a_terminal_error(self, bed):
        proxy, source = bed.proxied(bed.seed(CORPUS[:20]))
        with closing(proxy):
            shards = source.shards(CONTEXT)
            proxy.fail(Status(413), times=10_000, matching=bed.page_request())
            with pytest.raises(SourceError) as error:
                rows(source, shards)
        assert not error.value.transient

    def test_a_retry_after_may_be_a_date(self, bed):
        proxy, source = bed.proxied(bed.seed(CORPUS[:1]))
        in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
        with closing(proxy), source.open_store() as store:
            proxy.fail(Status(503, {"Retry-After": in_an_hour}), matching="/databases")
            with pytest.raises(ErrorAnswer) as error:
                store.list_databases("default_tenant")
        assert 3_590 < error.value.retry_after <= 3_600
        assert source.classify_error(error.value).retry_after == error.value.retry_after

    def test_an_answer_that_is_not_chromas_is_a_terminal_error(self, bed):
        proxy, source = bed.proxied(bed.seed(CORPUS[:20]))
        with closing(proxy):
            shards = source.shards(CONTEXT)
            proxy.fail(
                Status(200, {}, b"<html>please log in</html>"), times=1, matching=bed.page_request()
            )
            with pytest.raises(SourceError, match="please log in"):
                rows(source, shards)

    @pytest.mark.parametrize("ids", [["a", "a"], ["a", "c"]], ids=["twice", "not asked for"])
    def test_an_answer_with_other_records_than_asked_for_is_a_terminal_error(self, ids):
        answer = json.dumps(
            {
                "ids": ids,
                "embeddings": [[1.0], [2.0]],
                "metadatas": None,
                "documents": None,
                "uris": None,
            }
        )
        with pytest.raises(SourceError):
            build_records(answer.encode(), ["a", "b"], 1)


class TestValues:
    def test_awkward_rows_come_back(self, bed, context):
        seeded_rows = bed.awkward(600, 24)
        source = bed.source(bed.seed(seeded_rows), shard_bytes=100_000)
        read_rows = rows(source, context=context)
        assert len(read_rows) == 600
        assert row_counts(read_rows) == row_counts(map(bed.expected, seeded_rows))

    def test_vectors_are_bit_for_bit_where_the_vendors_client_rounds(self, bed):
        name = bed.fresh()
        collection = bed.client.create_collection(
            name, configuration={"hnsw": {"space": "l2"}}, embedding_function=None
        )
        seeded_vector = np.array(
            [BETWEEN, -BETWEEN, 0.1, 1e-45, 1.17549435e-38, 3.4028235e38, -0.0, 16777217.0],
            np.float32,
        )
        collection.add(ids=["x"], embeddings=seeded_vector[None, :])
        vendors_vector = collection.get(include=["embeddings"])["embeddings"][0].astype(np.float32)
        assert vendors_vector.tobytes() != seeded_vector.tobytes()
        ((_, batch),) = items(bed.source(name))
        assert batch["vector"].flatten().to_numpy().tobytes() == seeded_vector.tobytes()

    def test_every_text_of_a_float32_is_read_as_that_float32(self):
        bits = np.random.default_rng(3).integers(0, 0x7F800000, 20_000, np.uint32) | (
            np.arange(20_000, dtype=np.uint32) % 2 << 31
        )
        numbers = np.append(bits.view(np.float32), BETWEEN)
        texts = np.array([float(str(number)) for number in numbers])
        assert to_float32(texts).tobytes() == numbers.tobytes()

    def test_a_cosine_space_gives_vectors_back_nearly(self, bed):
        name = bed.fresh()
        seeded_vectors = np.random.default_rng(4).standard_normal((50, 16)).astype(np.float32) * 5
        seeded_rows = [
            {"id": f"{n}", "vector": row_vector.tolist()}
            for n, row_vector in enumerate(seeded_vectors)
        ]
        chroma_bed.fill(bed.client, name, seeded_rows, {"space": "cosine"})
        source = bed.source(name)
        shards = source.shards(CONTEXT)
        read_vectors = np.array([row["vector"] for row in rows(source, shards)])
        assert (
            0 < np.abs(read_vectors - seeded_vectors).max() <= 1e-6 * np.abs(seeded_vectors).max()
        )
        description = source.describe(CONTEXT, shards)
        assert any("cosine" in note and name in note for note in description.notes)

    def test_metadata_named_like_a_part_of_the_record_keeps_its_value(self, bed):
        name = bed.fresh()
        collection = bed.client.create_collection(name, embedding_function=None)
        metadata = {"id": 1, "text": "t", "vector": "v", "uri": "own", "metadata.uri": "mine"}
        collection.add(ids=["a"], embeddings=[[1, 2]], metadatas=[metadata], uris=["s3://b/a"])
        (row,) = rows(bed.source(name))
        assert (row["id"], row["text"], row["uri"], row["metadata.metadata.uri"]) == (
            "a",
            None,
            ("string", "s3://b/a"),
            ("string", "mine"),
        )
        assert (row["metadata.id"], row["metadata.text"], row["metadata.vector"]) == (
            ("int64", "1"),
            ("string", "t"),
            ("string", "v"),
        )
        assert row["metadata.uri"] == ("string", "own")

    def test_lists_keep_their_type(self, bed):
        name = bed.fresh()
        values = {
            "words": ["a", "é"],
            "whole": [1, 2**60 + 1],
            "halves": [0.5, 1.0],
            "flags": [True, False],
        }
        bed.client.create_collection(name, embedding_function=None).add(
            ids=["a"], embeddings=[[1, 2]], metadatas=[values]
        )
        (row,) = rows(bed.source(name))
        assert {key: row[key] for key in values} == {
            "words": ("list<string>", '["a","é"]'),
            "whole": ("list", f"[1,{2**60 + 1}]"),
            "halves": ("list<double>", "[0.5,1.0]"),
            "flags": ("list<bool>", "[true,false]"),
        }


class TestCollections:
    @pytest.mark.parametrize(
        ("space", "metric"), [("l2", "l2"), ("cosine", "cosine"), ("ip", "dot")]
    )
    @pytest.mark.parametrize("legacy", [False, True])
    def test_the_metric_and_the_index_are_described(self, bed, space, metric, legacy):
        name = bed.fresh()
        collection_options = (
            {"metadata": {"hnsw:space": space, "owner": "x"}}
            if legacy
            else {"configuration": {"hnsw": {"space": space, "max_neighbors": 7}}}
        )
        bed.client.create_collection(name, embedding_function=None, **collection_options).add(
            ids=["a"], embeddings=[[1, 2, 3]]
        )
        source = bed.source(name)
        (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
        assert (collection.metric, collection.dimension, collection.rows) == (metric, 3, 1)
        assert collection.facts["hnsw.space"] == space
        assert collection.facts["metadata.owner" if legacy else "hnsw.max_neighbors"] == (
            "x" if legacy else "7"
        )

    def test_the_embedding_function_is_described_without_its_secrets(self):
        function = {
            "type": "known",
            "name": "openai",
            "config": {
                "model_name": "m",
                "api_key": "sk-1",
                "headers": {"a": "b"},
                "dimensions": 3,
            },
        }
        model = {
            "id": "1",
            "name": "c",
            "dimension": 3,
            "metadata": None,
            "configuration_json": {"spann": {"space": "ip"}, "embedding_function": function},
        }
        collection = to_collection(CollectionAddress.parse("c"), model, 2)
        assert collection.metric == "dot"
        assert collection.facts["embedding_function"] == "openai"
        assert collection.facts["embedding_function.model_name"] == "m"
        assert "sk-1" not in json.dumps(collection.facts)

    @pytest.fixture
    def tenant_and_name(self, bed):
        """Create a tenant with two databases.

        Each database, and the default database, has a collection of the same name.
        """
        import chromadb

        tenant, name = bed.fresh(), bed.fresh()
        server = {
            "chroma_server_host": "127.0.0.1",
            "chroma_server_http_port": int(bed.url.rsplit(":", 1)[1]),
        }
        settings = chromadb.config.Settings(
            anonymized_telemetry=False, chroma_api_impl="chromadb.api.fastapi.FastAPI", **server
        )
        admin = chromadb.AdminClient(settings)
        admin.create_tenant(tenant)
        for database_number, database in enumerate(("one", "two")):
            admin.create_database(database, tenant)
            chroma_bed.fill(
                bed.connect(tenant=tenant, database=database),
                name,
                CORPUS[database_number * 10 : database_number * 10 + 10],
            )
        bed.seed(CORPUS[20:25], name)
        return tenant, name

    def test_every_database_of_a_tenant_is_read(self, bed, tenant_and_name):
        tenant, name = tenant_and_name
        source = bed.source(tenant=tenant, database="*")
        shards = source.shards(CONTEXT)
        assert {shard.collection for shard in shards} == {
            f"{tenant}/one/{name}",
            f"{tenant}/two/{name}",
        }
        assert row_counts(rows(source, shards)) == row_counts(map(bed.expected, CORPUS[:20]))
        assert source.count(CONTEXT) == 20

    def test_a_bare_name_is_looked_up_in_the_database(self, bed, tenant_and_name):
        tenant, name = tenant_and_name
        for names in ((), (name,), (f"{tenant}/two/{name}",)):
            source = bed.source(*names, tenant=tenant, database="two")
            assert row_counts(rows(source)) == row_counts(map(bed.expected, CORPUS[10:20]))
        assert source.search(f"{tenant}/two/{name}", [13.5, -1.5], 1) == ["s:d0013"]

    def test_full_names_reach_other_databases(self, bed, tenant_and_name):
        tenant, name = tenant_and_name
        source = bed.source(name, f"{tenant}/one/{name}")
        shards = source.shards(CONTEXT)
        assert {shard.collection for shard in shards} == {name, f"{tenant}/one/{name}"}
        assert row_counts(rows(source, shards)) == row_counts(
            map(bed.expected, CORPUS[:10] + CORPUS[20:25])
        )

    def test_a_name_of_two_parts_is_refused(self, bed):
        with pytest.raises(SourceError, match="tenant/database/collection"):
            bed.source("database/docs").shards(CONTEXT)

    def test_more_collections_than_one_listing_gives(self, bed, monkeypatch):
        monkeypatch.setattr("cfray.sources.chroma.client._LIST_LIMIT", 2)
        names = [bed.seed(CORPUS[:1]) for _ in range(5)]
        collections = {shard.collection for shard in bed.source().shards(CONTEXT)}
        assert set(names) <= collections

    def test_chroma_cloud_is_refused(self, bed):
        with pytest.raises(SourceError, match="Chroma Cloud"):
            bed.source("c", url="https://api.trychroma.com").shards(CONTEXT)

    def test_an_address_of_another_protocol_names_the_key(self, bed):
        with pytest.raises(SourceError) as error:
            bed.source("c", url="ftp://nowhere").shards(CONTEXT)
        assert "source.url" in error.value.remedy

    def test_a_server_that_is_not_chroma_names_the_key(self, bed):
        with pytest.raises(SourceError) as error:
            bed.source("c", url=f"{bed.url}/elsewhere").shards(CONTEXT)
        assert "source.url" in error.value.remedy

    @pytest.mark.parametrize(
        ("header", "value"), [("x-chroma-token", "sesame"), ("Authorization", "Bearer sesame")]
    )
    def test_the_credential_travels_in_the_header_that_is_named(
        self, bed, monkeypatch, header, value
    ):
        monkeypatch.setenv(KEY, "sesame")
        name = bed.seed(CORPUS[:3])
        with TokenProxy(bed.url, value, header) as token_proxy:
            options = {"url": token_proxy.endpoint, "api_key": Secret(env=KEY)}
            assert len(rows(bed.source(name, api_key_header=header, **options))) == 3
            with pytest.raises(SourceError) as error:
                bed.source(name, api_key_header="x-other", **options).shards(CONTEXT)
        assert "api_key_header" in error.value.remedy


def open_directory(folder):
    """Open a persistent directory with the vendor's client."""
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(folder, Settings(anonymized_telemetry=False))


def write_directory(folder, *collections, **index):
    """Fill a persistent directory with collections of rows, and close it."""
    with open_directory(folder) as client:
        for collection_number, collection_rows in enumerate(collections):
            chroma_bed.fill(client, f"docs{collection_number}", collection_rows, index)
    return wait_until_closed(folder)


def wait_until_closed(folder):
    """Wait until no process holds the directory: the client closes its connections late."""
    database = folder / DATABASE_FILE
    until(lambda: not list(processes_that_hold(database)), seconds=30, what=f"{database} is closed")
    return folder


def file_states(folder):
    """Return the bytes and times of all files in a folder."""
    paths = [folder, *sorted(folder.rglob("*"))]
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in paths
    }


@pytest.fixture(autouse=True, scope="module")
def _forget_copies_at_the_end():
    yield
    forget_copies()


FILL_TWO_DATABASES = """
import sys

import chromadb
from chromadb.config import Settings

from tests.sources.chroma_bed import fill
from tests.sources.corpus import CORPUS

folder = sys.argv[1]
settings = Settings(anonymized_telemetry=False, is_persistent=True, persist_directory=folder)
chromadb.AdminClient(settings).create_database("other")
fill(chromadb.PersistentClient(folder, settings), "docs", CORPUS[:4])
fill(chromadb.PersistentClient(folder, settings, database="other"), "docs", CORPUS[4:9])
"""


class TestDirectory(SourceContract):
    cannot_nest = FLAT
    cannot_tell_missing = NO_NULL
    expected = staticmethod(lambda row: ChromaBed.expected(None, row))

    @pytest.fixture
    def folder(self, tmp_path):
        return tmp_path / "chroma"

    @pytest.fixture
    def seed(self, folder):
        return lambda seeded_rows: Chroma(
            uri=str(write_directory(folder, seeded_rows)), shard_bytes=SHARD_BYTES
        )

    def test_it_is_a_snapshot_and_the_original_stays_as_it_is(self, folder):
        write_directory(folder, CORPUS, CORPUS[:10], sync_threshold=20, batch_size=10)
        states_before = file_states(folder)
        source = Chroma(uri=str(folder), shard_bytes=SHARD_BYTES)
        shards = source.shards(CONTEXT)
        description = source.describe(CONTEXT, shards)
        assert description.consistency == "snapshot"
        assert [
            (collection.name, collection.rows, collection.metric, collection.dimension)
            for collection in description.collections
        ] == [("docs0", 72, "l2", 2), ("docs1", 10, "l2", 2)]
        assert row_counts(rows(source, shards)) == row_counts(
            map(self.expected, CORPUS + CORPUS[:10])
        )
        assert source.count(CONTEXT) == 82
        assert source.search("docs0", [33.5, -1.5], 1) == ["s:d0033"]
        assert file_states(folder) == states_before

    def test_a_missing_collection_is_named(self, seed):
        source = seed(CORPUS[:3]).model_copy(update={"collections": ["nowhere"]})
        with pytest.raises(SourceError, match="nowhere"):
            source.shards(CONTEXT)

    def test_every_database_in_the_directory_is_read(self, folder):
        # in another process, because an AdminClient cannot be closed
        subprocess.run([sys.executable, "-c", FILL_TWO_DATABASES, str(folder)], check=True)
        source = Chroma(uri=str(folder), database="*")
        shards = source.shards(CONTEXT)
        assert {shard.collection for shard in shards} == {"docs", "default_tenant/other/docs"}
        assert row_counts(rows(source, shards)) == row_counts(map(self.expected, CORPUS[:9]))

    def test_a_directory_in_use_is_refused(self, folder):
        write_directory(folder, CORPUS[:3])
        with open_directory(folder), pytest.raises(SourceError) as error:
            Chroma(uri=str(folder)).shards(CONTEXT)
        assert f"in use by process {os.getpid()}" in error.value.what
        assert "source.url" in error.value.remedy
        assert len(rows(Chroma(uri=str(wait_until_closed(folder))))) == 3

    def test_a_directory_that_a_server_holds_is_refused(self, tmp_path):
        from tests.testbeds import chroma

        with lineup.taking_part("chroma", chroma.start(tmp_path / "server")) as server:
            ChromaBed(server.endpoint).seed(CORPUS[:3])
            with pytest.raises(SourceError, match="in use"):
                Chroma(uri=str(tmp_path / "server" / "data")).shards(CONTEXT)

    def test_a_directory_that_changed_after_the_plan_is_a_terminal_error(self, folder):
        source = Chroma(uri=str(write_directory(folder, CORPUS[:3])))
        shards = source.shards(CONTEXT)
        # a worker that has no copy yet starts like this
        forget_copies()
        os.utime(folder / "chroma.sqlite3", ns=(1, 1))
        with pytest.raises(SourceError, match="changed since") as error:
            rows(source, shards)
        assert not error.value.transient

    def test_records_whose_vector_chroma_lost_are_read_without_it(self, folder):
        """The engine fails the whole page (chroma#2905).

        Here the index is deleted, and only the records that are still in its queue have a vector.
        """
        write_directory(folder, CORPUS[:30], sync_threshold=10, batch_size=5)
        source = Chroma(uri=str(folder))
        rows_before = rows(source)
        (index,) = [path for path in folder.iterdir() if path.is_dir()]
        shutil.rmtree(index)
        with (
            open_directory(shutil.copytree(folder, folder.with_name("vendors"))) as client,
            pytest.raises(Exception, match=LOST_VECTOR),
        ):
            client.get_collection("docs0", embedding_function=None).get(include=["embeddings"])
        shards = source.shards(CONTEXT)
        read_rows = rows(source, shards)
        assert [{**row, "vector": None} for row in read_rows] == [
            {**row, "vector": None} for row in rows_before
        ]
        assert any(row["vector"] is None for row in read_rows)
        assert any("lost the vector" in note for note in source.describe(CONTEXT, shards).notes)

    def test_an_index_that_crashes_the_engine_does_not_take_the_worker_along(
        self, folder, monkeypatch, tmp_path
    ):
        monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
        monkeypatch.setattr("tempfile.tempdir", None)
        (tmp_path / "tmp").mkdir()
        write_directory(folder, CORPUS[:20], sync_threshold=10, batch_size=5)
        # these records wait in the queue, and enter the index when it is opened
        with open_directory(folder) as client:
            client.get_collection("docs0", embedding_function=None).add(
                ids=["a", "b", "c"], embeddings=[[1, 2], [3, 4], [5, 6]]
            )
        (data,) = folder.glob("*/data_level0.bin")
        data.write_bytes(b"\xff" * 1000)
        source = Chroma(uri=str(folder))
        with pytest.raises(SourceError, match="ended with code -") as error:
            rows(source)
        assert not error.value.transient
        forget_copies()
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_a_file_that_is_no_database_is_a_terminal_error(self, folder):
        write_directory(folder, CORPUS[:3])
        (folder / "chroma.sqlite3").write_bytes(b"\xff" * 5_000)
        with pytest.raises(SourceError) as error:
            Chroma(uri=str(folder)).shards(CONTEXT)
        assert not error.value.transient
        assert error.value.remedy

    def test_a_reader_that_was_killed_is_started_again(self, folder):
        source = Chroma(uri=str(write_directory(folder, CORPUS)), shard_bytes=SHARD_BYTES)
        first_shard, *other_shards = source.shards(CONTEXT)
        read_rows = rows(source, [first_shard])
        (child,) = reusable_processes
        child.process.kill()
        child.process.wait()
        assert row_counts(read_rows + rows(source, other_shards)) == row_counts(
            map(self.expected, CORPUS)
        )

    @pytest.mark.parametrize("reader_too", [False, True])
    def test_a_worker_that_is_killed_leaves_no_copy_behind(self, folder, tmp_path, reader_too):
        write_directory(folder, CORPUS[:3])
        (tmp_path / "tmp").mkdir()
        script = "\n".join(
            [
                "from cfray.sources.chroma.source import Chroma",
                f"store = Chroma(uri={str(folder)!r}).open_store()",
                "print(store.copy_process.process.pid, flush=True)",
                "input()",
            ]
        )
        worker = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        )
        with worker:
            reader = int(worker.stdout.readline())
            assert list((tmp_path / "tmp").glob("*/chroma.sqlite3"))
            # Ray ends its workers together with their children
            if reader_too:
                os.kill(reader, signal.SIGKILL)
            reader_handle = os.pidfd_open(reader)
            worker.kill()
            # the read ends when the janitor, the last process that holds the pipe, has ended
            assert worker.stderr.read() == ""
        assert select.select([reader_handle], [], [], 60)[0], "the reader outlived its worker"
        os.close(reader_handle)
        assert list((tmp_path / "tmp").iterdir()) == []

    def test_an_object_store_uri_is_copied_like_a_path(self, folder):
        source = Chroma(uri=write_directory(folder, CORPUS[:5]).as_uri())
        assert row_counts(rows(source)) == row_counts(map(self.expected, CORPUS[:5]))

    def test_a_shard_of_another_state_is_not_read_from_the_copy_that_is_kept(self, folder):
        source = Chroma(uri=str(write_directory(folder, CORPUS[:5])))
        (shard,) = source.shards(CONTEXT)
        with pytest.raises(SourceError, match="changed since"):
            rows(source, [replace(shard, where={**shard.where, "pin": "another"})])
        assert len(rows(source, [shard])) == 5
