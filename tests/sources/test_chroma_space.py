"""Chroma: the metric is the one that a collection is searched with, whatever it declares.

The directories were written by the versions of Chroma that kept the space in the metadata.
"""

import numpy as np
import pytest

from cfray.errors import SourceError
from cfray.sources.chroma import metric
from cfray.sources.chroma.describe import to_collection
from cfray.sources.chroma.export import forget_copies
from cfray.sources.chroma.source import Chroma
from cfray.sources.chroma.types import CollectionAddress
from tests.sources.chroma_bed import ChromaBed
from tests.sources.corpus import CONTEXT
from tests.testbeds import chroma, lineup, older_chroma

pytestmark = pytest.mark.server("chroma")
VECTORS = (np.random.default_rng(1).standard_normal((30, 4)) * 3).astype(np.float32)
ADDS = [{"ids": [f"r{n}" for n in range(30)], "embeddings": VECTORS.tolist()}]
#: Name -> the metadata it was created with, those that replaced them, and the metric.
SPACES = {
    "no-metadata": (None, None, "l2"),
    "metadata-l2": ({"hnsw:space": "l2"}, None, "l2"),
    "metadata-cosine": ({"hnsw:space": "cosine", "hnsw:M": 8}, None, "cosine"),
    "metadata-ip": ({"hnsw:space": "ip"}, None, "dot"),
    # the metadata of the index, which no request gives, still say cosine
    "metadata-replaced": ({"hnsw:space": "cosine"}, {"owner": "x"}, "cosine"),
}
EMPTY = "empty-cosine"


def seeded_collections():
    return [
        {
            "name": name,
            "metadata": metadata,
            "adds": ADDS,
            **({"later_metadata": later} if later else {}),
        }
        for name, (metadata, later, _) in SPACES.items()
    ] + [{"name": EMPTY, "metadata": {"hnsw:space": "cosine"}, "adds": []}]


@pytest.fixture(scope="module", params=older_chroma.VERSIONS)
def older_directory(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("older")
    with lineup.taking_part("older chroma", older_chroma.installing(request.param)):
        older_chroma.write(request.param, folder / "data", seeded_collections())
    yield folder
    forget_copies()


def described(source):
    description = source.describe(CONTEXT, source.shards(CONTEXT))
    return {collection.name: collection for collection in description.collections}, description


def check_metrics(collections):
    assert {name: collections[name].metric for name in SPACES} == {
        name: space for name, (_, _, space) in SPACES.items()
    }
    assert {collections[name].facts["space_is_from"] for name in SPACES} == {"its searches"}
    # what no vector is in has neither a width nor a metric
    assert (collections[EMPTY].dimension, collections[EMPTY].metric) == (None, None)
    assert collections[EMPTY].rows == 0


def test_a_directory_of_an_older_version_has_the_metric_of_its_index(older_directory):
    collections, _ = described(Chroma(uri=str(older_directory / "data")))
    check_metrics(collections)


def test_a_server_on_such_a_directory_has_the_metric_of_its_index(older_directory):
    names = [*SPACES, EMPTY]
    with lineup.taking_part("chroma", chroma.start(older_directory, names)) as server:
        collections, _ = described(Chroma(url=server.endpoint))
    check_metrics(collections)


@pytest.fixture(scope="module")
def bed(shared_bed):
    return shared_bed(ChromaBed)


@pytest.mark.parametrize(
    ("options", "expected_metric"),
    [
        ({"metadata": {"hnsw:space": "cosine"}}, "cosine"),
        ({"configuration": {"hnsw": {"space": "l2"}}, "metadata": {"hnsw:space": "ip"}}, "dot"),
        (
            {
                "configuration": {"hnsw": {"space": "l2", "max_neighbors": 7}},
                "metadata": {"hnsw:space": "cosine"},
            },
            "l2",
        ),
        ({"configuration": {"hnsw": {"space": "ip"}}, "metadata": {"hnsw:space": "l2"}}, "dot"),
        ({"configuration": {"spann": {"space": "cosine"}}}, "cosine"),
        ({}, "l2"),
    ],
    ids=["metadata", "default and metadata", "set and metadata", "ip and l2", "spann", "nothing"],
)
def test_what_is_declared_twice_is_measured(bed, options, expected_metric):
    name = bed.fresh()
    bed.client.create_collection(name, embedding_function=None, **options).add(**ADDS[0])
    collections, description = described(bed.source(name))
    assert collections[name].metric == expected_metric
    assert collections[name].facts["space_is_from"] == "its searches"
    declares_another = options.get("metadata", {}).get("hnsw:space") not in (
        None,
        collections[name].facts["space"],
    )
    assert declares_another == any("declares another" in note for note in description.notes)


def test_metadata_that_were_changed_later_do_not_change_the_metric(bed):
    """The vendor's client refuses this change, and the server takes it."""
    import httpx

    name = bed.fresh()
    collection = bed.client.create_collection(
        name, embedding_function=None, metadata={"hnsw:space": "cosine"}
    )
    collection.add(**ADDS[0])
    path = "/api/v2/tenants/default_tenant/databases/default_database/collections/"
    body = {"new_metadata": {"hnsw:space": "ip"}}
    httpx.put(f"{bed.url}{path}{collection.id}", json=body).raise_for_status()
    collections, description = described(bed.source(name))
    assert collections[name].metric == "cosine"
    assert any("its searches measure cosine" in note and "ip" in note for note in description.notes)


def test_the_metric_of_unit_vectors_and_of_a_single_record_is_measured(bed):
    for space, expected_metric in metric.METRICS.items():
        for vectors in ([[0.6, 0.8]], [[0.6, 0.8], [1.0, 0.0], [0.0, 1.0]]):
            name = bed.fresh()
            bed.client.create_collection(
                name, embedding_function=None, configuration={"hnsw": {"space": space}}
            ).add(ids=[f"{n}" for n in range(len(vectors))], embeddings=vectors)
            collections, _ = described(bed.source(name))
            assert collections[name].metric == expected_metric
            assert collections[name].facts["space_is_from"] == "its searches"


def test_an_emptied_collection_has_neither_width_nor_metric(bed):
    name = bed.fresh()
    collection = bed.client.create_collection(name, embedding_function=None)
    collection.add(**ADDS[0])
    collection.delete(ids=ADDS[0]["ids"])
    collections, _ = described(bed.source(name))
    assert (collections[name].rows, collections[name].dimension, collections[name].metric) == (
        0,
        None,
        None,
    )


def test_zero_vectors_show_no_metric_and_the_declared_one_is_taken(bed):
    name = bed.fresh()
    bed.client.create_collection(
        name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
    ).add(ids=["a", "b"], embeddings=[[0.0, 0.0], [0.0, 0.0]])
    collections, _ = described(bed.source(name))
    assert collections[name].metric == "cosine"
    assert collections[name].facts["space_is_from"] == "its configuration"


def test_a_search_that_fails_is_said_and_the_declared_metric_is_taken(bed, monkeypatch):
    def refuse(*_):
        raise SourceError("no index", "none")

    monkeypatch.setattr("cfray.sources.chroma.client.ChromaStore.search_distances", refuse)
    name = bed.fresh()
    bed.client.create_collection(
        name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
    ).add(**ADDS[0])
    collections, description = described(bed.source(name))
    assert collections[name].metric == "cosine"
    assert any(
        "a search, which would show the metric, failed" in note for note in description.notes
    )


DEFAULTS = {"space": "l2", "ef_construction": 100, "ef_search": 100, "max_neighbors": 16}


@pytest.mark.parametrize(
    ("configuration", "metadata", "space", "origin"),
    [
        (None, None, "l2", "Chroma's default"),
        ({}, None, "l2", "Chroma's default"),
        ({"hnsw": None, "spann": None}, None, "l2", "Chroma's default"),
        (None, {"hnsw:space": "cosine"}, "cosine", "its metadata"),
        ({}, {"hnsw:space": "ip"}, "ip", "its metadata"),
        ({"hnsw": {}}, {"hnsw:space": "ip"}, "ip", "its metadata"),
        ({"hnsw": DEFAULTS}, {"hnsw:space": "cosine"}, "cosine", "its metadata"),
        ({"hnsw": DEFAULTS}, {"hnsw:space": "unheard-of"}, "l2", "its configuration"),
        ({"hnsw": DEFAULTS}, {"hnsw:space": ["ip"]}, "l2", "its configuration"),
        ({"hnsw": {**DEFAULTS, "ef_search": 9}}, {"hnsw:space": "ip"}, "l2", "its configuration"),
        ({"hnsw": None, "spann": {"space": "cosine"}}, {}, "cosine", "its configuration"),
        ({"spann": {"space": "l2"}}, {"hnsw:space": "ip"}, "l2", "its configuration"),
    ],
)
def test_where_nothing_can_be_measured_the_declarations_count(
    configuration, metadata, space, origin
):
    model = {"id": "1", "name": "c", "dimension": 3, "metadata": metadata}
    if configuration is not None:
        model["configuration_json"] = configuration
    collection = to_collection(CollectionAddress.parse("c"), model, 2)
    assert (collection.facts["space"], collection.facts["space_is_from"]) == (space, origin)
    assert collection.metric == metric.METRICS[space]


@pytest.mark.parametrize("scale", [1e-3, 0.5, 1.0, 3.0, 1e4])
@pytest.mark.parametrize("space", list(metric.METRICS))
def test_each_formula_is_told_from_the_others_at_any_length(scale, space):
    vectors = VECTORS.astype(np.float64) * scale
    query = metric.choose_query(vectors.tolist())
    distances = [metric._FORMULAS[space](np.asarray(query), vector) for vector in vectors]
    nearest = np.argsort(distances)[:5]
    hits = vectors[nearest].tolist()
    assert metric.measured_space(query, hits, [distances[n] for n in nearest]).name == space


def test_distances_of_no_formula_show_nothing():
    query = metric.choose_query([[1.0, 2.0]])
    assert metric.measured_space(query, [[1.0, 2.0]], [7.0]) is None
    assert metric.measured_space(query, [[0.0, 0.0]], [1.0]) is None
    assert metric.measured_space(query, [None], [None]) is None
    assert metric.choose_query([None, [0.0, 0.0], [float("nan"), 1.0]]) is None
