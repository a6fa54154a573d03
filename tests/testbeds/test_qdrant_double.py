"""The Qdrant double returns through the official client what was upserted, on both wires.

The tests also show that it refuses as the server does, and leaves no process behind.
"""

from __future__ import annotations

import json
import math
import uuid
from urllib.request import urlopen

import numpy as np
import pytest

from tests.testbeds import lineup, qdrant
from tests.testbeds.server import is_open, members

qdrant_client = pytest.importorskip("qdrant_client")
m = qdrant_client.models
pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")

PAYLOADS = [
    {
        "int": 2**60 + 1,
        "least": -(2**63),
        "big": 2**63 - 1,
        "float": 0.1,
        "huge": 1e300,
        "one": 1.0,
        "null": None,
        "yes": True,
    },
    {"nested": {"list": [1, None, 2.5, [], {}, {"": "empty key"}], "ümlaut": "\u0000\u2028🎈"}},
    {},
]
"""Payloads that a careless copy changes; both wires carry them exactly."""

IDS = [
    0,
    1,
    2**63,
    2**64 - 1,
    str(uuid.UUID(int=0)),
    str(uuid.UUID(int=5)),
    str(uuid.UUID(int=2**128 - 1)),
    *range(100, 160),
]
EVERY_VECTOR = {
    "cosine": m.VectorParams(size=2, distance=m.Distance.COSINE),
    "euclid": m.VectorParams(size=3, distance=m.Distance.EUCLID),
    "half": m.VectorParams(size=2, distance=m.Distance.DOT, datatype=m.Datatype.FLOAT16),
    "multi": m.VectorParams(
        size=2,
        distance=m.Distance.DOT,
        multivector_config=m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM),
    ),
}
VECTORS = [
    {
        "cosine": [3, 4],
        "euclid": [0.1, -1e-30, 3e38],
        "half": [0.1, 7],
        "multi": [[1, 2], [3, 4], [5, 6]],
    },
    {"sparse": m.SparseVector(indices=[4_000_000_000, 7], values=[0.5, 1.0])},
    {},
]


def sort_key(point_id):
    return (0, point_id) if isinstance(point_id, int) else (1, uuid.UUID(point_id).int)


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    with lineup.taking_part("qdrant", qdrant.start(tmp_path_factory.mktemp("qdrant"))) as server:
        yield server


@pytest.fixture(params=["REST", "gRPC"])
def client(request, double):
    with_grpc = request.param == "gRPC"
    client = qdrant_client.QdrantClient(
        url=double.endpoint, grpc_port=double.ports[1], prefer_grpc=with_grpc, timeout=20
    )
    yield client
    for collection in client.get_collections().collections:
        client.delete_collection(collection.name)
    client.close()


@pytest.fixture
def corpus(client):
    client.create_collection(
        "corpus",
        vectors_config=EVERY_VECTOR,
        sparse_vectors_config={"sparse": m.SparseVectorParams()},
    )
    points = [
        m.PointStruct(id=point_id, vector=VECTORS[row % 3], payload=PAYLOADS[row % 3])
        for row, point_id in enumerate(IDS)
    ]
    client.upsert("corpus", points)
    return client


def scroll_all(client, **parameters):
    points, offset = [], None
    while True:
        page, offset = client.scroll(
            "corpus", limit=7, offset=offset, with_vectors=True, **parameters
        )
        points += page
        if offset is None:
            return points


def test_awkward_points_come_back_in_the_order_of_their_ids(corpus):
    points = {point.id: point for point in scroll_all(corpus)}
    assert list(points) == sorted(IDS, key=sort_key)
    assert [points[point_id].payload for point_id in IDS[:3]] == PAYLOADS
    types = {key: type(value) for key, value in points[0].payload.items()}
    assert (types["int"], types["one"]) == (int, float)
    dense, sparse, no_vector = (points[point_id].vector for point_id in IDS[:3])
    assert no_vector == {}
    assert sparse == {"sparse": m.SparseVector(indices=[7, 4_000_000_000], values=[1.0, 0.5])}
    assert dense["multi"] == [[1, 2], [3, 4], [5, 6]]
    assert np.array_equal(np.float32(dense["cosine"]), np.float32([0.6, 0.8]))
    assert np.array_equal(np.float32(dense["euclid"]), np.float32([0.1, -1e-30, 3e38]))
    assert np.array_equal(np.float16(dense["half"]), np.float16([0.1, 7]))


def test_an_unnamed_vector_is_a_list(client):
    client.create_collection(
        "plain", vectors_config=m.VectorParams(size=2, distance=m.Distance.DOT)
    )
    client.upsert(
        "plain", m.Batch(ids=[1, 2], vectors=[[1, 2], [3, 4]], payloads=[{"a": 1}, {"a": 2}])
    )
    points = client.retrieve("plain", [2, 1, 77], with_vectors=True)
    assert {point.id: (point.vector, point.payload) for point in points} == {
        1: ([1, 2], {"a": 1}),
        2: ([3, 4], {"a": 2}),
    }


def test_slices_are_disjoint_whole_and_the_published_hash(corpus):
    from qdrant_client.local.siphash import siphash24

    assert (
        siphash24(
            bytes(range(15)), *(int.from_bytes(bytes(range(n, n + 8)), "little") for n in (0, 8))
        )
        == 0xA129CA6149BE45E5
    )
    slices = [
        scroll_all(
            corpus, scroll_filter=m.Filter(must=[m.SliceCondition(slice=m.Slice(total=4, index=n))])
        )
        for n in range(4)
    ]
    assert sorted(
        (point.id for slice_points in slices for point in slice_points), key=sort_key
    ) == sorted(IDS, key=sort_key)
    for index, slice_points in enumerate(slices):
        for point in slice_points:
            name = (
                point.id.to_bytes(8, "little")
                if isinstance(point.id, int)
                else uuid.UUID(point.id).bytes
            )
            assert siphash24(name) % 4 == index


def test_a_page_may_begin_at_an_id_that_is_not_there(corpus):
    page, next_id = corpus.scroll("corpus", limit=2, offset=50, with_payload=["one"])
    assert ([point.id for point in page], next_id) == ([100, 101], 102)
    assert {tuple(point.payload) for point in page} <= {("one",), ()}
    assert page[0].vector is None


def test_filters_counts_samples_and_neighbours(corpus):
    no_point = m.Filter(
        must=[
            m.FieldCondition(key="one", match=m.MatchValue(value=1)),
            m.HasIdCondition(has_id=[0, 1]),
        ]
    )
    assert corpus.count("corpus", exact=True).count == len(IDS)
    assert corpus.count(
        "corpus",
        count_filter=m.Filter(must=[m.FieldCondition(key="float", range=m.Range(gt=0.05))]),
    ).count == len(IDS[::3])
    assert corpus.scroll("corpus", scroll_filter=no_point)[0] == []
    sample = corpus.query_points(
        "corpus", query=m.SampleQuery(sample=m.Sample.RANDOM), limit=20, with_payload=False
    ).points
    assert len({point.id for point in sample} & set(IDS)) == 20
    nearest = corpus.query_points("corpus", query=[6, 8], using="cosine", limit=2).points
    assert [
        (point.id in IDS[::3], math.isclose(point.score, 1, rel_tol=1e-6)) for point in nearest
    ] == [(True, True)] * 2
    sparse = corpus.query_points(
        "corpus", query=m.SparseVector(indices=[7], values=[2.0]), using="sparse", limit=1
    ).points
    assert (sparse[0].id in IDS[1::3], sparse[0].score) == (True, 2.0)


def test_points_and_collections_are_deleted(corpus):
    corpus.delete("corpus", [0, 1])
    assert corpus.count("corpus").count == len(IDS) - 2
    corpus.delete("corpus", m.Filter(must=[m.HasIdCondition(has_id=[100, 101, 102])]))
    assert corpus.count("corpus").count == len(IDS) - 5
    assert corpus.collection_exists("corpus")
    corpus.delete_collection("corpus")
    assert not corpus.collection_exists("corpus")
    with pytest.raises(Exception, match="Not found: Collection"):
        corpus.get_collection("corpus")


def test_a_collection_tells_how_it_was_made(client):
    client.create_collection(
        "corpus",
        vectors_config=EVERY_VECTOR,
        sparse_vectors_config={"sparse": m.SparseVectorParams(modifier=m.Modifier.IDF)},
        hnsw_config=m.HnswConfigDiff(m=32),
        metadata={"made": "here"},
    )
    client.create_payload_index("corpus", "city", m.PayloadSchemaType.KEYWORD)
    info = client.get_collection("corpus")
    assert info.config.params.vectors["multi"] == EVERY_VECTOR["multi"]
    assert info.config.params.vectors["half"].datatype == m.Datatype.FLOAT16
    assert info.config.params.sparse_vectors["sparse"].modifier == m.Modifier.IDF
    assert (info.config.hnsw_config.m, info.config.hnsw_config.ef_construct, info.points_count) == (
        32,
        100,
        0,
    )
    assert info.config.metadata == {"made": "here"}
    assert info.payload_schema["city"].data_type == m.PayloadSchemaType.KEYWORD
    with pytest.raises(Exception, match="already exists"):
        client.create_collection("corpus", vectors_config={})


def test_shard_keys_hold_their_own_points(client):
    client.create_collection(
        "corpus",
        vectors_config=m.VectorParams(size=1, distance=m.Distance.DOT),
        sharding_method=m.ShardingMethod.CUSTOM,
    )
    for number, key in enumerate(["north", 7]):
        client.create_shard_key("corpus", key)
        points = [m.PointStruct(id=n, vector=[n], payload={}) for n in range(number, 20, 2)]
        client.upsert("corpus", points, shard_key_selector=key)
    assert [shard_key.key for shard_key in client.list_shard_keys("corpus").shard_keys] == [
        "north",
        7,
    ]
    assert [point.id for point in scroll_all(client)] == list(range(20))
    assert [(point.id, point.shard_key) for point in scroll_all(client, shard_key_selector=7)] == [
        (n, 7) for n in range(1, 20, 2)
    ]
    assert client.count("corpus", shard_key_selector="north").count == 10
    with pytest.raises(Exception, match="Shard key not specified"):
        client.upsert("corpus", [m.PointStruct(id=1, vector=[1], payload={})])
    with pytest.raises(Exception, match="south"):
        client.scroll("corpus", shard_key_selector="south")


def test_strict_mode_limits_a_page(client):
    strict = m.StrictModeConfig(enabled=True, max_query_limit=5)
    client.create_collection(
        "corpus",
        vectors_config={"a": m.VectorParams(size=1, distance=m.Distance.DOT)},
        strict_mode_config=strict,
    )
    with pytest.raises(Exception, match="Limit exceeded 6 > 5"):
        client.scroll("corpus", limit=6)
    assert client.scroll("corpus", limit=5) == ([], None)


def test_an_older_qdrant_knows_no_slices(tmp_path):
    with lineup.taking_part("qdrant", qdrant.start(tmp_path, version="1.18.2")) as server:
        assert json.load(urlopen(server.endpoint))["version"] == "1.18.2"
        sliced = m.Filter(must=[m.SliceCondition(slice=m.Slice(total=4, index=1))])
        for with_grpc, reason in ((False, "400"), (True, "INVALID_ARGUMENT")):
            client = qdrant_client.QdrantClient(
                url=server.endpoint,
                grpc_port=server.ports[1],
                prefer_grpc=with_grpc,
                check_compatibility=False,
            )
            if not with_grpc:
                client.create_collection(
                    "corpus", vectors_config={"a": m.VectorParams(size=1, distance=m.Distance.DOT)}
                )
            assert client.scroll("corpus") == ([], None)
            with pytest.raises(Exception, match=reason):
                client.scroll("corpus", scroll_filter=sliced)
            client.close()


def test_qdrant_wants_its_key_and_leaves_nothing(tmp_path):
    with lineup.taking_part("qdrant", qdrant.start(tmp_path, api_key="right")) as server:
        for with_grpc, reason in ((False, "401"), (True, "UNAUTHENTICATED")):
            for key in ("wrong", None):
                client = qdrant_client.QdrantClient(
                    url=server.endpoint,
                    grpc_port=server.ports[1],
                    prefer_grpc=with_grpc,
                    api_key=key,
                    check_compatibility=False,
                )
                with pytest.raises(Exception, match=reason):
                    client.get_collections()
            client = qdrant_client.QdrantClient(
                url=server.endpoint,
                grpc_port=server.ports[1],
                prefer_grpc=with_grpc,
                api_key="right",
                check_compatibility=False,
            )
            assert client.get_collections().collections == []
        assert json.load(urlopen(f"{server.endpoint}/__double__"))["pid"] == server.pid
    assert members(server.pid) == []
    assert not any(map(is_open, server.ports))
