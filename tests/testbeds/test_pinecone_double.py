"""The Pinecone double answers the official SDK as the service does, and leaves no process behind.

The tests call the double only through the SDK, so they hold for the wire that the SDK speaks and
prove nothing about the service.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.testbeds import lineup, pinecone
from tests.testbeds.proxy import HttpProxy, Status
from tests.testbeds.server import is_open, members

sdk = pytest.importorskip("pinecone")
errors = pytest.importorskip("pinecone.errors")

SERVERLESS = {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"}
POD = {
    "deployment_type": "pod",
    "environment": "us-east1-gcp",
    "pod_type": "p1.x1",
    "replicas": 1,
    "shards": 1,
}
HYBRID = {
    "fields": {
        "_values": {"type": "dense_vector", "dimension": 3, "metric": "dotproduct"},
        "_sparse_values": {"type": "sparse_vector"},
    }
}
ARTICLES = {
    "fields": {
        "embedding": {"type": "dense_vector", "dimension": 2, "metric": "cosine"},
        "keywords": {"type": "sparse_vector"},
        "title": {"type": "string", "full_text_search": {"language": "en"}},
        "secret": {"type": "string", "full_text_search": {}, "store_text": False},
    }
}
VECTORS = [
    {
        "id": "Z",
        "values": [0.1, -1e-30, 3e38],
        "metadata": {"int": 7, "big": 2**60, "text": "ümlaut 🎈", "yes": True, "list": ["a", ""]},
    },
    {
        "id": "a b/c?&",
        "values": [1, 2, 3],
        "sparse_values": {"indices": [4_000_000_000, 7], "values": [0.5, 0.25]},
    },
    {"id": "sparse only", "sparse_values": {"indices": [1], "values": [0.1]}},
    *({"id": f"{number}", "values": [number, 0, 0]} for number in range(1, 250)),
]


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    with lineup.taking_part(
        "pinecone", pinecone.start(tmp_path_factory.mktemp("pinecone"))
    ) as server:
        yield server


@pytest.fixture
def client(double):
    client = sdk.Pinecone(api_key="any", host=double.endpoint)
    yield client
    pinecone.throttle(double, 0)
    for index in client.list_indexes():
        client.delete_index(index.name)


@pytest.fixture
def index(client):
    client.indexes.create(name="hybrid", schema=HYBRID, deployment=SERVERLESS)
    index = client.index(name="hybrid")
    for first in range(0, len(VECTORS), 100):
        index.upsert(vectors=VECTORS[first : first + 100])
    index.upsert(vectors=VECTORS[:1], namespace="north")
    return index


def all_ids(index, **parameters):
    return [record_id for page in pages(index, **parameters) for record_id in page]


def pages(index, **parameters):
    id_pages, token = [], None
    while True:
        page = index.list_paginated(pagination_token=token, **parameters)
        id_pages.append([vector.id for vector in page.vectors])
        token = page.pagination.next if page.pagination else None
        if token is None:
            return id_pages


def test_ids_come_in_bitwise_order_a_page_at_a_time(index):
    id_pages = pages(index, limit=100)
    assert [len(page) for page in id_pages] == [100, 100, 52]
    assert all_ids(index) == sorted(vector["id"] for vector in VECTORS)
    assert all_ids(index, prefix="24", limit=3) == ["24", *(f"24{n}" for n in range(10))]
    assert pages(index, namespace="nowhere") == [[]]


def test_vectors_come_back_as_the_service_keeps_them(index):
    vectors = index.fetch(ids=["Z", "a b/c?&", "sparse only", "missing"]).vectors
    assert vectors.keys() == {"Z", "a b/c?&", "sparse only"}
    assert np.array_equal(np.float32(vectors["Z"].values), np.float32([0.1, -1e-30, 3e38]))
    assert vectors["Z"].metadata == VECTORS[0]["metadata"]
    assert {type(vectors["Z"].metadata[name]) for name in ("int", "big")} == {float}
    assert vectors["Z"].sparse_values is None
    dense_and_sparse = vectors["a b/c?&"]
    assert (
        list(dense_and_sparse.values),
        dense_and_sparse.sparse_values.indices,
        dense_and_sparse.sparse_values.values,
    ) == (
        [1, 2, 3],
        [4_000_000_000, 7],
        [0.5, 0.25],
    )
    assert dense_and_sparse.metadata is None
    assert list(vectors["sparse only"].values) == []


def test_namespaces_are_listed_and_counted(index):
    assert [
        (namespace.name, namespace.record_count)
        for page in index.list_namespaces()
        for namespace in page
    ] == [
        ("__default__", len(VECTORS)),
        ("north", 1),
    ]
    assert index.describe_namespace(name="north").record_count == 1
    stats = index.describe_index_stats()
    assert {name: summary.vector_count for name, summary in stats.namespaces.items()} == {
        "__default__": len(VECTORS),
        "north": 1,
    }
    assert (stats.dimension, stats.metric, stats.total_vector_count) == (
        3,
        "dotproduct",
        len(VECTORS) + 1,
    )
    with pytest.raises(errors.NotFoundError):
        index.describe_namespace(name="south")
    index.delete_namespace(name="north")
    assert [namespace.name for page in index.list_namespaces() for namespace in page] == [
        "__default__"
    ]


def test_queries_deletes_and_metadata(index):
    assert [
        (match.id, match.score) for match in index.query(vector=[1, 0, 0], top_k=2).matches
    ] == [
        ("249", 249.0),
        ("248", 248.0),
    ]
    assert (
        index.query(vector=[0, 0, 1], top_k=1, include_metadata=True).matches[0].metadata["int"]
        == 7
    )
    assert index.fetch_by_metadata(filter={"int": {"$gte": 7}}).vectors.keys() == {"Z"}
    index.delete(ids=["249", "Z"])
    assert index.fetch(ids=["249", "Z"]).vectors == {}
    assert len(all_ids(index)) == len(VECTORS) - 2
    index.delete(delete_all=True)
    assert pages(index) == [[]]


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        ({"id": "x", "values": [1, 2]}, "dimension 2 does not match the dimension of the index 3"),
        ({"id": "x", "values": [0, 0, 0]}, "non-zero"),
        ({"id": "x", "values": [1, 2, 3], "metadata": {"nested": [1, 2]}}, "list of strings"),
        ({"id": "x", "values": [1, 2, 3], "metadata": {"long": "x" * 41_000}}, "exceeds the limit"),
    ],
)
def test_what_the_service_does_not_take_is_refused(index, vector, reason):
    with pytest.raises(errors.PineconeError, match=reason):
        index.upsert(vectors=[vector])


def test_an_index_tells_its_shape(client):
    client.create_index(
        "plain",
        dimension=4,
        metric="cosine",
        spec=sdk.ServerlessSpec(cloud="gcp", region="europe-west4"),
        tags={"team": "a"},
    )
    description = client.describe_index("plain")
    assert (
        description.dimension,
        description.metric,
        description.vector_type,
        description.tags,
    ) == (
        4,
        "cosine",
        "dense",
        {"team": "a"},
    )
    assert (description.deployment.cloud, description.status.ready) == ("gcp", True)
    assert [index.name for index in client.list_indexes()] == ["plain"]
    with pytest.raises(errors.NotFoundError):
        client.describe_index("other")
    with pytest.raises(errors.ConflictError):
        client.create_index(
            "plain",
            dimension=4,
            metric="cosine",
            spec=sdk.ServerlessSpec(cloud="gcp", region="europe-west4"),
        )


def test_indexes_share_a_server_and_nothing_else(client, index):
    client.create_index(
        "plain",
        dimension=1,
        metric="euclidean",
        spec=sdk.ServerlessSpec(cloud="aws", region="us-east-1"),
    )
    other_index = client.index(name="plain")
    other_index.upsert(vectors=[{"id": "plain only", "values": [1]}])
    assert pages(other_index) == [["plain only"]]
    assert index.fetch(ids=["plain only"]).vectors == {}


def test_an_index_of_documents_has_an_api_of_its_own(client):
    client.indexes.create(name="articles", schema=ARTICLES, deployment=SERVERLESS)
    documents = client.index(name="articles").documents
    articles = [
        {
            "_id": f"{n}",
            "embedding": [1, n],
            "keywords": {"indices": [n], "values": [1.5]},
            "title": f"ü{n}",
            "secret": "x",
            "year": n,
            "tags": ["a"],
        }
        for n in range(150)
    ]
    assert documents.upsert(namespace="published", documents=articles).upserted_count == 150
    listing = documents.list(namespace="published", limit=100)
    assert [len(page.items) for page in listing.pages()] == [100, 50]
    assert [document.id for document in documents.list(namespace="published")] == sorted(
        f"{n}" for n in range(150)
    )
    stored = documents.fetch(namespace="published", ids=["7", "missing"]).documents
    assert {name: value for name, value in stored["7"].to_dict().items() if name != "_id"} == {
        "embedding": [1, 7],
        "keywords": {"indices": [7], "values": [1.5]},
        "title": "ü7",
        "year": 7.0,
        "tags": ["a"],
    }
    assert isinstance(stored["7"].year, float)
    assert documents.fetch(
        namespace="published", filter={"year": {"$lt": 2}}, include_fields=["title"]
    ).documents["1"].to_dict() == {
        "_id": "1",
        "title": "ü1",
    }
    assert [
        namespace.name
        for page in client.index(name="articles").list_namespaces()
        for namespace in page
    ] == ["published"]
    with pytest.raises(errors.ApiError, match="documents"):
        client.index(name="articles").list_paginated(namespace="published")
    schema = client.describe_index("articles").schema
    assert (
        schema.fields["embedding"].dimension,
        schema.fields["title"].full_text_search.language,
    ) == (2, "en")


def test_a_pod_index_cannot_be_listed(client):
    client.indexes.create(
        name="pod", schema={"fields": {"_values": HYBRID["fields"]["_values"]}}, deployment=POD
    )
    index = client.index(name="pod")
    index.upsert(vectors=[{"id": "a", "values": [1, 2, 3]}])
    assert client.describe_index("pod").deployment.pod_type == "p1.x1"
    for list_page in (index.list_paginated, index.list_namespaces_paginated):
        with pytest.raises(errors.ResponseParsingError):
            list_page()
    assert index.fetch(ids=["a"]).vectors.keys() == {"a"}


def test_every_third_request_is_too_many(double, index):
    pinecone.throttle(double, 3, retry_after=0.01)
    # The SDK repeats a refused request without our help.
    assert len(all_ids(index, limit=20)) == len(VECTORS)
    pinecone.throttle(double, 1, retry_after=0.01)
    with pytest.raises(errors.RateLimitError) as refused:
        index.list_paginated()
    assert refused.value.retry_after == 0.01


def test_a_forgotten_id_is_listed_and_never_fetched(double, index):
    pinecone.forget(double, "hybrid", "7")
    pinecone.forget(double, "hybrid", "Z", namespace="north")
    assert "7" in all_ids(index)
    assert index.fetch(ids=["7", "8", "Z"]).vectors.keys() == {"8", "Z"}
    assert index.fetch(ids=["Z"], namespace="north").vectors == {}


def test_a_proxy_in_front_stays_in_front(double, index):
    with HttpProxy(double.endpoint) as proxy:
        proxied = sdk.Pinecone(api_key="any", host=proxy.endpoint).index(name="hybrid")
        proxy.fail(Status(503), matching="GET /data/hybrid/vectors/list")
        assert all_ids(proxied) == all_ids(index)
        assert [path.partition("?")[0] for _, path in proxy.seen] == [
            "/indexes/hybrid",
            *["/data/hybrid/vectors/list"] * 4,
        ]


def test_pinecone_wants_its_key_and_leaves_nothing(tmp_path):
    with lineup.taking_part("pinecone", pinecone.start(tmp_path, api_key="right")) as server:
        with pytest.raises(errors.UnauthorizedError):
            sdk.Pinecone(api_key="wrong", host=server.endpoint).list_indexes()
        client = sdk.Pinecone(
            api_key=server.env["PINECONE_API_KEY"], host=server.env["PINECONE_CONTROLLER_HOST"]
        )
        assert list(client.list_indexes()) == []
        assert list(server.ports) == [int(server.endpoint.rpartition(":")[2])]
    assert members(server.pid) == []
    assert not any(map(is_open, server.ports))
