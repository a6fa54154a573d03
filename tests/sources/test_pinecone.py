"""Pinecone: the contract, the traps of its interface, and files for its import.

The server is a double, or a project of the user's.
"""

import json
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.request import Request, urlopen

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cfray.errors import SourceError, SourceUnavailable
from cfray.records.record import Reject
from cfray.runtime.throttle import UnlimitedThrottle
from cfray.sources.base import Context
from cfray.sources.pinecone.client import open_control_plane, open_index
from cfray.sources.pinecone.source import Pinecone
from tests.sources.contract import SourceContract
from tests.sources.corpus import (
    CONTEXT,
    CORPUS,
    SHARD_BYTES,
    as_json,
    make_row,
    plain_rows,
    row_counts,
    rows,
)
from tests.sources.pinecone_bed import PineconeBed, store_id
from tests.sources.store_contract import StoreContract
from tests.testbeds import pinecone
from tests.testbeds.lineup import taking_part
from tests.testbeds.proxy import Status

pytestmark = pytest.mark.server("pinecone")
POD = {
    "deployment_type": "pod",
    "environment": "us-east1-gcp",
    "pod_type": "p1.x1",
    "replicas": 1,
    "shards": 1,
}


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(PineconeBed)


@pytest.fixture(scope="module")
def locked_bed(tmp_path_factory):
    with taking_part(
        "pinecone", PineconeBed.serving(tmp_path_factory.mktemp("locked"), api_key="sesame")
    ) as bed:
        yield bed


@pytest.fixture(scope="module")
def empty_bed(tmp_path_factory):
    with taking_part("pinecone", PineconeBed.serving(tmp_path_factory.mktemp("empty"))) as bed:
        if bed.server is None:
            pytest.skip("an empty project is needed")
        yield bed


@pytest.fixture(scope="module")
def documents(bed):
    fields = {
        "main": {"type": "dense_vector", "dimension": 2, "metric": "euclidean"},
        "terms": {"type": "sparse_vector"},
        "body": {"type": "string", "full_text_search": {}},
    }
    index = bed.create_index(f"{bed.run}-documents".lower(), schema={"fields": fields})
    records = [
        {
            "_id": f"d/{n:03d}",
            "main": [n + 0.1, 1.0],
            "body": f"text {n}",
            "year": 2000 + n,
            "vector": "a text",
        }
        for n in range(230)
    ]
    records[3]["terms"] = {"indices": [4_000_000_000], "values": [0.5]}
    with bed.index(index) as index_client:
        index_client.documents.upsert(namespace="published", documents=records)
        index_client.documents.upsert(namespace="__default__", documents=records[:2])
    return index


@pytest.fixture(scope="module")
def pod(bed):
    index = bed.create_index(
        f"{bed.run}-pod".lower(),
        schema={
            "fields": {"_values": {"type": "dense_vector", "dimension": 2, "metric": "cosine"}}
        },
        deployment=POD,
    )
    with bed.index(index) as index_client:
        index_client.upsert(
            vectors=[(f"p {n}", [1.0, float(n)]) for n in range(30)], namespace="old"
        )
    return f"{index}/old"


@pytest.fixture
def double(bed):
    """Return the double, for faults that a test cannot cause in a service."""
    if bed.server is None:
        pytest.skip("a test cannot cause faults in a service")
    return bed.server


class TestPinecone(StoreContract):
    client = "pinecone"
    cannot_nest = "metadata values are strings, numbers, booleans and lists of strings"
    cannot_tell_null = "Pinecone strips nulls from metadata when it is written"
    cannot_tell_missing = "Pinecone strips nulls from metadata when it is written"


def read_rows_and_rejects(source, shards=None, context=CONTEXT):
    """Read shards; return their rows and their rejects."""
    read_rows, rejects = [], []
    for shard in source.shards(context) if shards is None else shards:
        for item in source.read(shard, context):
            rejects.append(item) if isinstance(item, Reject) else read_rows.extend(plain_rows(item))
    return read_rows, rejects


def expected(bed, seeded_rows):
    return row_counts(map(bed.expected, seeded_rows))


class TestWhatAFetchLeavesOut:
    """A fetch gives the records that exist; nothing in its answer names the missing ids."""

    def test_an_id_that_was_deleted_after_the_plan_is_rejected_by_name(self, bed):
        name = bed.seed(CORPUS[:30])
        source = bed.source(name, shard_bytes=3_000)
        shards = source.shards(CONTEXT)
        bed.delete(name, ["d0007"])
        # the naive way: no error, and a row is missing
        with bed.index(name) as index:
            assert (
                len(
                    index.fetch(
                        ids=[row["id"] for row in CORPUS[:30]], namespace=name.partition("/")[2]
                    ).vectors
                )
                == 29
            )
        read_rows, (reject,) = read_rows_and_rejects(source, shards)
        assert row_counts(read_rows) == expected(
            bed, [row for row in CORPUS[:30] if row["id"] != "d0007"]
        )
        assert (reject.content, reject.position) == (b"d0007", f"{name}:d0007")
        assert "deleted meanwhile or lost" in reject.reason

    def test_an_id_that_is_listed_and_never_given_is_rejected_in_its_place(self, bed, double):
        name = bed.seed(CORPUS[:30])
        pinecone.forget(double, name.split("/")[0], "d0007", namespace=name.partition("/")[2])
        source = bed.source(name)
        items = list(source.read(source.shards(CONTEXT)[0], CONTEXT))
        ids_before_reject = [
            row["id"]
            for item in items[
                : next(position for position, item in enumerate(items) if isinstance(item, Reject))
            ]
            for row in plain_rows(item)
        ]
        assert ids_before_reject[-1] == "d0006"
        assert source.shards(CONTEXT)[0].rows == 30

    def test_what_is_missing_once_is_asked_for_once_more(self, bed, double):
        proxy, source = bed.proxied(bed.seed(CORPUS[:30]))
        with closing(proxy):
            shards = source.shards(CONTEXT)
            proxy.fail(
                Status(
                    200, {"Content-Type": "application/json"}, b'{"vectors": {}, "namespace": ""}'
                ),
                matching="/vectors/fetch",
            )
            assert row_counts(rows(source, shards)) == expected(bed, CORPUS[:30])

    def test_a_record_that_the_client_cannot_read_takes_no_other_with_it(self, bed, double):
        name = bed.seed(CORPUS[:30])
        index, _, namespace = name.partition("/")
        # the record has neither values nor sparse values
        body = json.dumps(
            {"vectors": [{"id": "d0007", "metadata": {"n": 7}}], "namespace": namespace}
        ).encode()
        with urlopen(
            Request(
                f"{bed.url}/data/{index}/vectors/upsert", body, {"Content-Type": "application/json"}
            )
        ):
            pass
        with bed.index(name) as index_client, pytest.raises(Exception, match="values"):
            index_client.fetch(ids=["d0006", "d0007"], namespace=namespace)
        source = bed.source(name, shard_bytes=10**6)
        read_rows, (reject,) = read_rows_and_rejects(source)
        assert row_counts(read_rows) == expected(
            bed, [row for row in CORPUS[:30] if row["id"] != "d0007"]
        )
        assert reject.content == b"d0007"


class TestTransport:
    def test_addresses_stay_short_whatever_the_ids(self, bed, double):
        seeded_rows = [make_row(n, id=f"{n:04d}" + "/" * 508) for n in range(120)]
        name = bed.seed(seeded_rows)
        with bed.index(name) as index, pytest.raises(Exception, match="414"):
            index.fetch(
                ids=[row["id"] for row in seeded_rows[:30]], namespace=name.partition("/")[2]
            )
        proxy, source = bed.proxied(name)
        with closing(proxy):
            assert row_counts(rows(source.model_copy(update={"shard_bytes": 10**7}))) == expected(
                bed, seeded_rows
            )
            assert max(len(path) for _, path in proxy.seen) < 8 * 1024
            assert not any("fetch" in path and "ids=" not in path for _, path in proxy.seen), (
                "an empty list of ids was asked for"
            )

    @pytest.mark.parametrize("code", [413, 414])
    def test_what_is_too_large_on_the_way_is_asked_for_in_halves(self, bed, double, code):
        proxy, source = bed.proxied(bed.seed(CORPUS[:30]))
        with closing(proxy):
            shards = source.model_copy(update={"shard_bytes": 10**7}).shards(CONTEXT)
            proxy.fail(Status(code), times=3, matching="/vectors/fetch")
            assert row_counts(rows(source, shards)) == expected(bed, CORPUS[:30])
            assert not proxy.waiting

    def test_a_listing_that_fails_in_the_middle_loses_nothing(self, bed, double):
        seeded_rows = [make_row(n) for n in range(250)]
        name = bed.seed(seeded_rows)
        proxy, source = bed.proxied(name)
        with closing(proxy):
            with source_index(source, name) as (index, namespace):
                pages = index.list(namespace=namespace)
                first_page_ids = len(next(pages).vectors)
                # the client does not retry a status of 400 by itself
                proxy.fail(Status(400), matching="/vectors/list")
                with pytest.raises(Exception, match="400"):
                    next(pages)
                assert (first_page_ids, list(pages)) == (100, []), (
                    "the naive way: a reader that goes on after the error seems to be at the end"
                )
            proxy.fail(Status(503), times=2, matching="paginationToken")
            assert sum(shard.rows for shard in source.shards(CONTEXT)) == 250

    def test_a_list_out_of_order_is_refused(self, bed, double):
        proxy, source = bed.proxied(bed.seed(CORPUS[:30]))
        with closing(proxy):
            answer = {"vectors": [{"id": "b"}, {"id": "a"}], "namespace": ""}
            proxy.fail(
                Status(200, {"Content-Type": "application/json"}, json.dumps(answer).encode()),
                matching="/vectors/list",
            )
            with pytest.raises(SourceError, match="not in order") as error:
                source.shards(CONTEXT)
        assert not error.value.transient

    def test_an_index_that_the_client_leaves_out_is_no_index_less(self, bed, double):
        name = bed.seed(CORPUS[:3])
        with urlopen(f"{bed.url}/indexes") as response:
            listing = json.load(response)
        unknown_index = {
            **listing["indexes"][0],
            "name": "of-tomorrow",
            "schema": {"fields": {"v": {"type": "a_kind_of_tomorrow"}}},
        }
        answer = Status(
            200,
            {"Content-Type": "application/json"},
            json.dumps({"indexes": [*listing["indexes"], unknown_index]}).encode(),
        )
        proxy, source = bed.proxied(name)
        with closing(proxy):
            proxy.fail(answer, times=3, matching="GET /indexes")
            # the naive way: a warning in a log
            with open_control_plane(source) as client:
                assert "of-tomorrow" not in {index.name for index in client.indexes.list()}
            with pytest.raises(SourceError, match="of-tomorrow"):
                source.model_copy(update={"collections": None}).shards(CONTEXT)
            assert source.find_namespaces(CONTEXT)[0].collection.name == name


@contextmanager
def source_index(source, name):
    """Open the index of a collection with the vendor's client; yield it and the namespace."""
    with open_control_plane(source) as client, client.index(name=name.split("/")[0]) as index:
        yield index, name.partition("/")[2]


class RecordingThrottle(UnlimitedThrottle):
    """A budget that records the requests and the pauses."""

    def __init__(self):
        self.requests_taken, self.pauses = 0.0, []

    def take(self, requests=1):
        self.requests_taken += requests

    def hold_off(self, seconds):
        self.pauses.append(seconds)


class TestBudget:
    def test_a_retry_after_holds_everybody_off_and_is_never_slept_through_by_the_client(
        self, bed, double, tmp_path
    ):
        proxy, source = bed.proxied(bed.seed(CORPUS))
        throttle = RecordingThrottle()
        context = Context(scratch=str(tmp_path), throttle=throttle)
        with closing(proxy):
            shards = source.shards(context)
            proxy.seen.clear()
            taken_before = throttle.requests_taken
            proxy.fail(Status(429, {"Retry-After": "0.01"}), times=3, matching="/vectors/fetch")
            assert row_counts(rows(source, shards, context)) == expected(bed, CORPUS)
            assert throttle.pauses == [0.01] * 3
            assert throttle.requests_taken - taken_before == len(proxy.seen), (
                "a request was sent without taking from the budget"
            )

    def test_a_retry_after_may_be_a_date(self):
        errors = pytest.importorskip("pinecone.errors.exceptions")
        in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
        refusal = errors.ApiError("too many requests", 429, headers={"retry-after": in_an_hour})
        assert 3_590 < Pinecone().classify_error(refusal).retry_after <= 3_600

    def test_the_clients_own_retries_are_off(self, bed, double):
        """A private attribute of the client turns them off; this test notices when it moves."""
        name = bed.seed(CORPUS[:1])
        proxy, source = bed.proxied(name)
        with closing(proxy):
            (planned_namespace,) = source.find_namespaces(CONTEXT)
            proxy.seen.clear()
            proxy.fail(Status(503), times=2, matching="")
            with (
                open_index(source, planned_namespace.namespace.host) as index,
                pytest.raises(Exception, match="503"),
            ):
                index.describe_index_stats()
            with open_control_plane(source) as client, pytest.raises(Exception, match="503"):
                client.indexes.describe("any")
            assert len(proxy.seen) == 2

    def test_every_third_request_throttled_is_no_row_less(self, bed, double, monkeypatch):
        monkeypatch.setattr("cfray.runtime.retry.FIRST_PAUSE", 0.001)
        seeded_rows = [make_row(n) for n in range(300)]
        source = bed.source(bed.seed(seeded_rows), shard_bytes=10_000)
        pinecone.throttle(double, 3)
        try:
            assert row_counts(rows(source)) == expected(bed, seeded_rows)
        finally:
            pinecone.throttle(double, 0)

    def test_the_budget_is_the_vendors_unless_the_job_names_one(self):
        assert Pinecone().requests_per_second == 100
        assert Pinecone(requests_per_second=7).requests_per_second == 7


class TestNamespaces:
    def test_all_indexes_and_namespaces_are_read_where_none_is_named(self, empty_bed):
        names = ["one", "one/a", "one/b/c", "two/x", "void"]
        for start, name in enumerate(names[:-1]):
            empty_bed.seed(CORPUS[start : start + 2], name)
        empty_bed.create_index("void", dimension=2, metric="cosine")
        source = empty_bed.source()
        assert [described.collection.name for described in source.find_namespaces(CONTEXT)] == names
        shards = source.shards(CONTEXT)
        for start, name in enumerate(names[:-1]):
            read_rows = rows(source, [shard for shard in shards if shard.collection == name])
            assert row_counts(read_rows) == expected(empty_bed, CORPUS[start : start + 2])
        assert not [shard for shard in shards if shard.collection == "void"]
        assert {
            collection.name: collection.rows
            for collection in source.describe(CONTEXT, shards).collections
        } == {
            **dict.fromkeys(names[:-1], 2),
            "void": 0,
        }

    def test_more_namespaces_than_a_page_lists(self, empty_bed):
        empty_bed.create_index("many", dimension=2, metric="cosine")
        with empty_bed.index("many") as index_client:
            for namespace_number in range(130):
                index_client.upsert(
                    vectors=[{"id": "a", "values": [1.0, float(namespace_number)]}],
                    namespace=f"n{namespace_number:03d}",
                )
        source = empty_bed.source(
            *(f"many/n{namespace_number:03d}" for namespace_number in range(130))
        )
        assert sorted(row["vector"][1] for row in rows(source)) == list(map(float, range(130)))

    def test_a_near_miss_is_suggested(self, empty_bed):
        empty_bed.create_index("birds", dimension=2, metric="cosine")
        with pytest.raises(SourceError, match="did you mean birds"):
            empty_bed.source("bird").shards(CONTEXT)


class TestKindsOfIndex:
    def test_sparse_values_stand_beside_the_dense_ones(self, bed):
        seeded_rows = bed.awkward(60, 8)
        name = bed.seed(seeded_rows)
        source = bed.source(name, shard_bytes=4_000)
        assert row_counts(rows(source)) == expected(bed, seeded_rows)
        kinds = {
            batch.schema.field("vectors").type
            for shard in source.shards(CONTEXT)
            for batch in source.read(shard, CONTEXT)
        }
        assert kinds == {
            pa.struct(
                [
                    (
                        "sparse",
                        pa.struct(
                            [("indices", pa.list_(pa.uint32())), ("values", pa.list_(pa.float32()))]
                        ),
                    )
                ]
            )
        }
        (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
        assert (collection.metric, collection.dimension) == ("dot", 8)

    def test_an_index_of_sparse_vectors_only_has_no_vector(self, bed):
        index = bed.create_index(
            f"{bed.run}-sparse".lower(), vector_type="sparse", metric="dotproduct"
        )
        with bed.index(index) as index_client:
            index_client.upsert(
                vectors=[
                    {
                        "id": "a",
                        "sparse_values": {"indices": [7, 4_000_000_000], "values": [0.1, 2.0]},
                    }
                ],
                namespace="s",
            )
        source = bed.source(f"{index}/s")
        assert rows(source) == [
            {
                "id": "a",
                "vectors": {
                    "sparse": {
                        "indices": [7, 4_000_000_000],
                        "values": [float(np.float32(0.1)), 2.0],
                    }
                },
            }
        ]
        (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
        assert (collection.metric, collection.dimension, collection.facts["vector_type"]) == (
            None,
            None,
            "sparse",
        )
        with pytest.raises(SourceError, match="no dense vectors"):
            source.search(f"{index}/s", [1.0], 1)

    def test_a_record_without_metadata_is_a_record(self, bed):
        name = bed.seed([make_row(1)])
        with bed.index(name) as index:
            index.upsert(vectors=[("bare", [1.0, 2.0])], namespace=name.partition("/")[2])
        assert {"id": "bare", "vector": [1.0, 2.0]} in rows(bed.source(name))

    @pytest.mark.parametrize(
        ("declared_metric", "metric"),
        [("cosine", "cosine"), ("euclidean", "l2"), ("dotproduct", "dot")],
    )
    def test_metrics_tags_and_deployment_are_described(self, bed, declared_metric, metric):
        index = bed.create_index(
            f"{bed.run}-metric-{declared_metric}".lower(),
            dimension=2,
            metric=declared_metric,
            tags={"team": "birds"},
        )
        source = bed.source(index)
        (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
        assert (collection.metric, collection.facts["metric"]) == (metric, declared_metric)
        assert json.loads(collection.facts["tags"]) == {"team": "birds"}
        assert json.loads(collection.facts["deployment"])["cloud"] == "aws"

    def test_numbers_are_as_the_wire_gives_them(self, bed):
        row = rows(bed.source(bed.seed([make_row(1, n=5, ratio=-0.0)])))[0]
        assert (row["n"], row["ratio"]) == (("double", "5.0"), ("double", "-0.0"))

    def test_search_gives_the_nearest_first(self, bed):
        name = bed.seed([make_row(n, vector=[float(n), 1.0]) for n in range(20)])
        assert bed.source(name).search(name, [0.0, 1.0], 3) == ["s:d0000", "s:d0001", "s:d0002"]


class TestDocuments:
    """Indexes of documents: another interface of the same service."""

    def test_fields_of_documents_come_back(self, bed, documents):
        source = bed.source(f"{documents}/published", shard_bytes=10_000)
        rows_by_id = {row["id"]: row for row in rows(source)}
        assert len(rows_by_id) == 230
        assert rows_by_id["d/003"] == {
            "id": "d/003",
            "vectors": {
                "main": [float(np.float32(3.1)), 1.0],
                "terms": {"indices": [4_000_000_000], "values": [0.5]},
            },
            "body": ("string", "text 3"),
            "year": ("double", "2003.0"),
            "fields.vector": ("string", "a text"),
        }
        (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
        assert (collection.vectors, collection.dimension, collection.rows) == (
            {"main": (2, "l2")},
            None,
            230,
        )

    def test_the_default_namespace_is_a_namespace_like_others(self, bed, documents):
        assert len(rows(bed.source(documents))) == 2

    def test_what_was_deleted_after_the_plan_is_rejected(self, bed, documents):
        source = bed.source(documents)
        shards = source.shards(CONTEXT)
        with bed.index(documents) as index_client:
            index_client.documents.delete(namespace="__default__", ids=["d/001"])
        read_rows, (reject,) = read_rows_and_rejects(source, shards)
        assert ([row["id"] for row in read_rows], reject.content) == (["d/000"], b"d/001")


class TestIdsFromAFile:
    def test_a_pod_index_is_refused_without_its_ids(self, bed, pod):
        with pytest.raises(SourceError, match="pod index") as error:
            bed.source(pod).shards(CONTEXT)
        assert "source.ids" in error.value.remedy

    @pytest.mark.parametrize(("name", "line"), [("ids.txt", "p {n}"), ("ids.jsonl", '"p {n}"')])
    def test_ids_from_a_file_are_read_once_each(self, bed, pod, tmp_path, name, line):
        lines = [line.replace("{n}", str(n)) for n in [*range(30), 5, 31]]
        (tmp_path / name).write_text("\n".join(lines) + "\r\n\n")
        source = bed.source(pod, ids=name).resolve_paths(tmp_path)
        read_rows, (reject,) = read_rows_and_rejects(source)
        assert sorted(row["vector"][1] for row in read_rows) == list(map(float, range(30)))
        assert reject.content == b"p 31"
        assert source.count(CONTEXT) is None
        assert any(
            "31 ids were given" in note
            for note in source.describe(CONTEXT, source.shards(CONTEXT)).notes
        )

    def test_an_id_that_the_client_does_not_ask_for_is_rejected(self, bed, pod, tmp_path):
        (tmp_path / "ids.txt").write_text("p 1\nnaïve\n" + "x" * 513)
        read_rows, rejects = read_rows_and_rejects(bed.source(pod, ids=str(tmp_path / "ids.txt")))
        assert [row["id"] for row in read_rows] == ["p 1"]
        assert {reject.content for reject in rejects} == {"naïve".encode(), b"x" * 513}
        assert all("ASCII" in reject.reason for reject in rejects)

    @pytest.mark.parametrize("content", ['{"id": "a"}', "7", "not json", None])
    def test_a_file_that_holds_no_ids_is_refused(self, bed, pod, tmp_path, content):
        if content:
            (tmp_path / "ids.jsonl").write_text(content)
        with pytest.raises(SourceError, match=r"ids\.jsonl"):
            bed.source(pod, ids=str(tmp_path / "ids.jsonl")).shards(CONTEXT)

    def test_ids_are_of_one_collection(self, bed, pod, tmp_path):
        (tmp_path / "ids.txt").write_text("p 1")
        with pytest.raises(SourceError, match="one collection"):
            bed.source(pod, bed.seed(CORPUS[:2]), ids=str(tmp_path / "ids.txt")).shards(CONTEXT)


class TestPlan:
    def test_it_says_what_reading_costs(self, bed):
        source = bed.source(bed.seed([make_row(n) for n in range(250)]))
        description = source.describe(CONTEXT, source.shards(CONTEXT))
        (note,) = [note for note in description.notes if "read units" in note]
        assert "an estimate: 3 for listing" in note
        assert "25 for reading" in note
        assert (description.rows, description.exact, description.consistency) == (250, True, "none")

    def test_it_says_where_the_list_and_pinecones_count_differ(self, bed):
        name = bed.seed(CORPUS[:30])
        source = bed.source(name)
        shards = source.shards(CONTEXT)
        bed.delete(name, ["d0007"])
        notes = source.describe(CONTEXT, shards).notes
        assert f"{name}: 30 ids were listed, Pinecone's own count says 29" in notes
        assert source.count(CONTEXT) == 29

    def test_shards_are_as_large_as_they_are_asked_to_be(self, bed):
        source = bed.source(
            bed.seed([make_row(n, text="x" * 5_000) for n in range(60)]), shard_bytes=50_000
        )
        assert 5 <= len(source.shards(CONTEXT)) <= 9

    def test_a_list_that_is_gone_is_named(self, bed, tmp_path):
        source = bed.source(bed.seed(CORPUS[:3]))
        (shard,) = source.shards(CONTEXT)
        with pytest.raises(SourceError, match=str(shard.where["manifest"])):
            list(source.read(shard, replace(CONTEXT, scratch=str(tmp_path))))


class TestJobFile:
    def test_the_address_is_the_vendors_unless_named(self):
        assert Pinecone().url == "https://api.pinecone.io"
        assert Pinecone(uri="files").url is None
        with pytest.raises(ValueError, match="either url"):
            Pinecone(url="https://a.b", uri="files")

    def test_an_address_without_a_server_is_a_transient_error(self, bed, monkeypatch):
        monkeypatch.setattr("cfray.runtime.retry.FIRST_PAUSE", 0.001)
        monkeypatch.setattr("cfray.runtime.retry.LONGEST_PAUSE", 0.01)
        with pytest.raises(SourceUnavailable, match=r"http://127\.0\.0\.1:1 did not answer"):
            bed.source("any", url="http://127.0.0.1:1").shards(CONTEXT)

    def test_a_key_that_is_no_header_is_named_and_not_shown(self, bed, monkeypatch):
        monkeypatch.setenv("CFRAY_TEST_BROKEN_KEY", "secret\nof two lines")
        with pytest.raises(SourceError) as error:
            bed.source("any", api_key={"env": "CFRAY_TEST_BROKEN_KEY"}).shards(CONTEXT)
        assert "source.api_key" in error.value.remedy
        assert "two lines" not in str(error.value.args)

    def test_certificates_that_are_not_there_are_named(self, bed, tmp_path):
        with pytest.raises(SourceError) as error:
            bed.source("any", ca_file=str(tmp_path / "no.pem")).shards(CONTEXT)
        assert "source.ca_file" in error.value.remedy

    def test_store_ids_of_the_bed_are_ids(self):
        assert all(len(store_id(row["id"])) <= 512 for row in CORPUS)


#: The columns of an import file, from the vendor's page on imports; only hybrid and sparse indexes
#: have sparse_values.
IMPORT_SCHEMA = pa.schema(
    [("id", pa.string()), ("values", pa.list_(pa.float32())), ("metadata", pa.string())]
)
SPARSE_FIELD = pa.field(
    "sparse_values",
    pa.struct([("indices", pa.list_(pa.uint32())), ("values", pa.list_(pa.float32()))]),
)


def write_import(folder, rows_to_write, schema=IMPORT_SCHEMA, name="0.parquet"):
    """Write a Parquet file into the folder of a namespace."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "id": [row["id"] for row in rows_to_write],
        "values": [row.get("vector") for row in rows_to_write],
        "metadata": [
            json.dumps(
                {key: value for key, value in row.items() if key not in ("id", "vector", "sparse")}
            )
            for row in rows_to_write
        ],
        "sparse_values": [row.get("sparse") for row in rows_to_write],
    }
    pq.write_table(
        pa.table({field.name: columns[field.name] for field in schema}, schema),
        folder / name,
        row_group_size=10,
    )


class TestFilesForItsImport(SourceContract):
    """Files for an import: Pinecone documents their layout, and has no tool that writes them."""

    @pytest.fixture
    def seed(self, tmp_path):
        def write_namespace(seeded_rows):
            write_import(tmp_path / "birds" / "__default__", seeded_rows)
            return Pinecone(uri=str(tmp_path / "birds"), shard_bytes=SHARD_BYTES)

        return write_namespace

    @staticmethod
    def expected(row):
        metadata = {key: value for key, value in row.items() if key not in ("id", "vector")}
        return {
            "id": row["id"],
            "vector": [float(number) for number in np.float32(row["vector"])],
            **as_json(metadata),
        }

    def test_a_folder_is_a_namespace_and_the_folder_of_all_the_index(self, tmp_path):
        # other programs hide a folder whose name begins with an underscore
        for start, namespace in enumerate(("__default__", "a", "_b")):
            write_import(tmp_path / "birds" / namespace, CORPUS[start : start + 2])
        source = Pinecone(uri=str(tmp_path / "birds"))
        shards = source.shards(CONTEXT)
        assert [shard.collection for shard in shards] == ["birds", "birds/_b", "birds/a"]
        assert [[row["id"] for row in rows(source, [shard])] for shard in shards] == [
            ["d0000", "d0001"],
            ["d0002", "d0003"],
            ["d0001", "d0002"],
        ]
        assert len(rows(source.model_copy(update={"collections": ["birds/a"]}))) == 2
        description = source.describe(CONTEXT, shards)
        assert (description.rows, description.exact, description.consistency) == (
            6,
            True,
            "pinned files",
        )
        assert [
            (collection.name, collection.rows, collection.dimension)
            for collection in description.collections
        ] == [
            ("birds", 2, 2),
            ("birds/_b", 2, 2),
            ("birds/a", 2, 2),
        ]

    def test_sparse_values_and_missing_ones(self, tmp_path):
        seeded_rows = [
            make_row(1, sparse={"indices": [7, 4_000_000_000], "values": [0.5, 2.0]}),
            make_row(2, sparse=None),
            make_row(3, vector=None, sparse=None),
        ]
        write_import(tmp_path / "birds" / "a", seeded_rows, IMPORT_SCHEMA.append(SPARSE_FIELD))
        read_rows = rows(Pinecone(uri=str(tmp_path / "birds")))
        assert [row["vectors"]["sparse"] for row in read_rows] == [
            {"indices": [7, 4_000_000_000], "values": [0.5, 2.0]},
            None,
            None,
        ]
        assert [row["vector"] for row in read_rows] == [[1.5, -1.5], [2.5, -1.5], None]

    def test_sparse_vectors_only(self, tmp_path):
        schema = pa.schema([IMPORT_SCHEMA.field("id"), SPARSE_FIELD])
        write_import(
            tmp_path / "birds" / "a",
            [make_row(1, sparse={"indices": [7], "values": [0.5]})],
            schema,
        )
        assert rows(Pinecone(uri=str(tmp_path / "birds"))) == [
            {"id": "d0001", "vectors": {"sparse": {"indices": [7], "values": [0.5]}}}
        ]

    @pytest.mark.parametrize(
        ("kind", "index", "expected_index"),
        [(pa.int32(), -294_967_296, 4_000_000_000), (pa.int64(), 7, 7), (pa.int64(), 2**32, None)],
    )
    def test_indices_of_other_widths(self, tmp_path, kind, index, expected_index):
        schema = pa.schema(
            [
                IMPORT_SCHEMA.field("id"),
                pa.field(
                    "sparse_values",
                    pa.struct([("indices", pa.list_(kind)), ("values", pa.list_(pa.float64()))]),
                ),
            ]
        )
        write_import(
            tmp_path / "birds" / "a",
            [make_row(1, sparse={"indices": [index], "values": [0.5]})],
            schema,
        )
        source = Pinecone(uri=str(tmp_path / "birds"))
        if expected_index is None:
            with pytest.raises(SourceError, match=r"0\.parquet"):
                rows(source)
        else:
            assert rows(source)[0]["vectors"]["sparse"] == {
                "indices": [expected_index],
                "values": [0.5],
            }

    @pytest.mark.parametrize("text", ["[1]", "no json", '{"a": 1, "a": 2}'])
    def test_metadata_that_is_no_object_sets_its_row_aside(self, tmp_path, text):
        (tmp_path / "birds" / "a").mkdir(parents=True)
        table = pa.table(
            {
                "id": ["x", "y", "z"],
                "values": [[1.0], [2.0], [3.0]],
                "metadata": ['{"n": 1}', text, None],
            },
            IMPORT_SCHEMA,
        )
        pq.write_table(table, tmp_path / "birds" / "a" / "0.parquet")
        read_rows, (reject,) = read_rows_and_rejects(Pinecone(uri=str(tmp_path / "birds")))
        assert [(row["id"], row.get("n")) for row in read_rows] == [
            ("x", ("int64", "1")),
            ("z", None),
        ]
        assert reject.content == text.encode()
        assert "id y" in reject.position

    def test_a_vector_of_another_width_is_left_to_be_judged_by_itself(self, tmp_path):
        write_import(tmp_path / "birds" / "a", [make_row(1), make_row(2, vector=[1.0, 2.0, 3.0])])
        assert [row["vector"] for row in rows(Pinecone(uri=str(tmp_path / "birds")))] == [
            [1.5, -1.5],
            [1.0, 2.0, 3.0],
        ]

    def test_columns_that_the_import_ignores_are_named(self, tmp_path):
        write_import(tmp_path / "birds" / "a", CORPUS[:2])
        path = tmp_path / "birds" / "a" / "0.parquet"
        pq.write_table(pq.read_table(path).append_column("more", pa.array([1, 2])), path)
        source = Pinecone(uri=str(tmp_path / "birds"))
        assert any(
            "more" in note for note in source.describe(CONTEXT, source.shards(CONTEXT)).notes
        )

    def test_files_outside_a_namespaces_folder_are_refused(self, tmp_path):
        write_import(tmp_path / "birds", CORPUS[:2])
        with pytest.raises(SourceError, match=r"0\.parquet"):
            Pinecone(uri=str(tmp_path / "birds")).shards(CONTEXT)

    def test_other_files_are_refused(self, tmp_path):
        (tmp_path / "birds" / "a").mkdir(parents=True)
        pq.write_table(pa.table({"x": [1]}), tmp_path / "birds" / "a" / "0.parquet")
        with pytest.raises(SourceError, match="no column id"):
            Pinecone(uri=str(tmp_path / "birds")).shards(CONTEXT)

    def test_a_file_that_changed_after_the_plan_is_refused(self, tmp_path):
        write_import(tmp_path / "birds" / "a", CORPUS[:9])
        source = Pinecone(uri=str(tmp_path / "birds"))
        shards = source.shards(CONTEXT)
        write_import(tmp_path / "birds" / "a", CORPUS[:8])
        with pytest.raises(SourceError, match="changed since the plan"):
            rows(source, shards)
