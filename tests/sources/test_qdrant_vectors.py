"""Qdrant: every vector of every point comes back, whichever vectors a point has or lacks.

The collections have an unnamed vector beside named ones, as one has that got its names later.
The double stands for the server, and the vendor's engine writes the snapshots.
"""

import itertools
import json
import tarfile
from contextlib import closing

import numpy as np
import pytest

from cfray.conversion.convert import Conversion
from cfray.errors import SourceError
from cfray.job.spec import JobSpec
from cfray.planning.shape import work_out_shape
from cfray.sources.qdrant import schema
from cfray.sources.qdrant.archive import _read_config
from cfray.sources.qdrant.source import Qdrant
from cfray.sources.qdrant.types import build_page
from tests.sources.corpus import CONTEXT, CORPUS, row_counts, rows
from tests.sources.qdrant_bed import QdrantBed, as_variant
from tests.testbeds.lineup import taking_part
from tests.testbeds.proxy import Status

pytestmark = [
    pytest.mark.server("qdrant"),
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection"),
]
#: The float64 of its text, 7.038531e-26, lies halfway between two float32.
BETWEEN = float(np.uint32(0x15AE43FD).view(np.float32))
#: A vector of each form.
VECTORS = {
    "": [0.1, -1.5, BETWEEN],
    "title": [0.25, 3.5],
    "parts": [[1.0, 2.0], [BETWEEN, 4.0]],
    "terms": {"indices": [3, 2**32 - 1], "values": [0.5, -BETWEEN]},
}
SUBSETS = [subset for size in range(5) for subset in itertools.combinations(VECTORS, size)]


@pytest.fixture(scope="module")
def current_bed(shared_bed):
    return shared_bed(QdrantBed)


@pytest.fixture(scope="module")
def older_bed(tmp_path_factory):
    with taking_part(
        "qdrant",
        QdrantBed.serving(tmp_path_factory.mktemp("older"), version="1.18.2", over_grpc=False),
    ) as bed:
        yield bed


@pytest.fixture(params=["gRPC, slices", "REST, slices", "gRPC, ranges", "REST, ranges"])
def bed_and_options(request, current_bed, older_bed):
    transport, cut = request.param.split(", ")
    return (current_bed if cut == "slices" else older_bed), {
        "prefer_grpc": transport == "gRPC",
        "shard_bytes": 5_000,
    }


def float32(value):
    """Return a vector with its numbers as float32."""
    if isinstance(value, dict):
        return {"indices": value["indices"], "values": float32(value["values"])}
    if isinstance(value[0], list):
        return [float32(inner) for inner in value]
    return np.float32(value).astype(float).tolist()


def wire_vectors(names):
    """Return the vectors of a point as the vendor's client takes them."""
    from qdrant_client import models as m

    vectors = {
        name: m.SparseVector(**VECTORS[name])
        if isinstance(VECTORS[name], dict)
        else np.float32(VECTORS[name]).tolist()
        for name in names
    }
    return vectors[""] if list(vectors) == [""] else vectors


def params():
    from qdrant_client import models as m

    multivector_config = m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM)
    return {
        "": m.VectorParams(size=3, distance=m.Distance.EUCLID),
        "title": m.VectorParams(size=2, distance=m.Distance.MANHATTAN),
        "parts": m.VectorParams(
            size=2, distance=m.Distance.DOT, multivector_config=multivector_config
        ),
    }


def grown_collection(bed):
    """Create a collection with an unnamed vector, and give it the others after its first points.

    Each point has one of the subsets of vectors.
    """
    from qdrant_client import models as m

    name, declared = bed.fresh(), params()
    numbered = list(enumerate(SUBSETS))
    early = [(number, subset) for number, subset in numbered if subset in ((), ("",))]
    with bed.client() as client:
        client.create_collection(name, vectors_config=declared[""])
        client.upsert(name, [point(number, subset) for number, subset in early])
        client.create_vector_name(
            name,
            "title",
            m.DenseVectorNameConfig(
                dense=m.DenseVectorConfig(size=2, distance=m.Distance.MANHATTAN)
            ),
        )
        client.create_vector_name(
            name,
            "parts",
            m.DenseVectorNameConfig(
                dense=m.DenseVectorConfig(
                    size=2,
                    distance=m.Distance.DOT,
                    multivector_config=declared["parts"].multivector_config,
                )
            ),
        )
        client.create_vector_name(
            name, "terms", m.SparseVectorNameConfig(sparse=m.SparseVectorConfig())
        )
        client.upsert(
            name, [point(number, subset) for number, subset in numbered if subset not in early]
        )
    return name


def point(number, subset):
    from qdrant_client import models as m

    return m.PointStruct(id=number, vector=wire_vectors(subset), payload={"of": ",".join(subset)})


def expected_row(number, subset):
    has = {name: float32(VECTORS[name]) if name in subset else None for name in VECTORS}
    return {
        "id": ("int64", str(number)),
        "of": ("string", ",".join(subset)),
        "vector": has[""],
        "vectors": {name: has[name] for name in ("parts", "terms", "title")},
    }


def test_every_subset_of_vectors_comes_back(bed_and_options):
    bed, options = bed_and_options
    source = bed.source(grown_collection(bed), **options)
    read_rows = {row["id"]: row for row in rows(source)}
    for number, subset in enumerate(SUBSETS):
        row = read_rows[("int64", str(number))]
        row["vectors"] = {name: row["vectors"][name] for name in ("parts", "terms", "title")}
        assert row == expected_row(number, subset)
    assert len(read_rows) == len(SUBSETS)


def test_every_vector_lands_in_a_column_of_the_target(current_bed):
    source = current_bed.source(grown_collection(current_bed))
    job = JobSpec.model_validate(
        {
            "name": "grown",
            "source": source.model_dump(exclude_none=True),
            "mapping": {"id": "id", "vector": "vector", "text_content": "of"},
            "embedding": {"missing_vector": "null"},
            "target": {"uri": "t"},
        }
    )
    shards = source.shards(CONTEXT)
    batches = [batch for shard in shards for batch in source.read(shard, CONTEXT)]
    shape = work_out_shape(job, source.describe(CONTEXT, shards), batches)
    conversion = Conversion(job, shape)
    frames = [
        frame
        for batch in batches
        for frame in conversion.convert(batch, shards[0].collection).frames.to_pylist()
    ]
    assert len(frames) == len(SUBSETS)
    for frame in frames:
        subset = frame["text_content"].split(",") if frame["text_content"] is not None else []
        has = {name: float32(VECTORS[name]) if name in subset else None for name in VECTORS}
        if frame["text_content"] == "":
            # the text of no vector and of the unnamed one alone
            has[""] = frame["vector"]
        assert {
            "": frame["vector"],
            **{name: frame[f"x_vector_{name}"] for name in VECTORS if name},
        } == has
    assert sum(frame["vector"] is not None for frame in frames) == len(SUBSETS) / 2


def test_a_grown_collection_has_a_metric_for_each_of_its_dense_vectors(current_bed):
    source = current_bed.source(grown_collection(current_bed))
    description = source.describe(CONTEXT, source.shards(CONTEXT))
    (collection,) = description.collections
    assert (collection.dimension, collection.metric) == (3, "l2")
    assert collection.vectors == {"title": (2, None)}
    assert any("title has no counterpart" in note for note in description.notes)


@pytest.mark.parametrize(
    "declared", [("terms",), ("title",), ("parts",), ("title", "terms"), ("", "terms")]
)
def test_points_without_a_vector_in_collections_of_any_declaration(bed_and_options, declared):
    from qdrant_client import models as m

    bed, options = bed_and_options
    name = bed.fresh()
    dense = {key: value for key, value in params().items() if key in declared}
    with bed.client() as client:
        client.create_collection(
            name,
            vectors_config=dense.get("", dense),
            sparse_vectors_config={"terms": m.SparseVectorParams()}
            if "terms" in declared
            else None,
        )
        client.upsert(name, [point(0, ()), point(1, declared)])
    source = bed.source(name, **options)
    with_none, with_all = rows(source)
    assert with_none.get("vector") is None
    assert not any((with_none.get("vectors") or {}).values())
    assert with_all.get("vector") == (float32(VECTORS[""]) if "" in declared else None)
    assert (with_all.get("vectors") or {}) == {
        key: float32(VECTORS[key]) for key in declared if key
    }
    (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    assert (collection.dimension, collection.metric) == (
        (3, "l2") if "" in declared else (None, None)
    )
    assert collection.vectors == ({"title": (2, None)} if "title" in declared else {})


def test_a_collection_without_any_vector_has_neither_width_nor_metric():
    """The engine behind the double refuses such a collection, and a server takes it."""
    for config in ({}, {"vectors": {}}, {"vectors": None, "sparse_vectors": None}):
        collection = schema.to_collection("docs", config, 3)
        assert (collection.dimension, collection.metric, collection.vectors) == (None, None, {})


# Snapshots.


def write_grown_shard(folder):
    """Let the vendor's engine write a shard that got its named vectors later."""
    edge = pytest.importorskip("qdrant_edge")
    from qdrant_client import models as m

    from tests.testbeds.qdrant_terms import to_config, to_engine, to_vector_operation

    declared = params()
    shard = edge.EdgeShard.create(
        str(folder), to_config(m.CreateCollection(vectors=declared.pop("")))
    )
    for name, dense in declared.items():
        shard.update(to_vector_operation(name, dense=dense))
    shard.update(to_vector_operation("terms", sparse=m.SparseVectorParams()))
    shard.update(
        edge.UpdateOperation.upsert_points(
            [
                edge.Point(number, to_engine(wire_vectors(subset)), {"of": ",".join(subset)})
                for number, subset in enumerate(SUBSETS)
            ]
        )
    )
    shard.flush()
    shard.close()
    return folder


@pytest.mark.parametrize("has_engine_config", [True, False])
def test_every_subset_of_vectors_comes_out_of_a_snapshot(tmp_path, has_engine_config):
    folder = write_grown_shard(tmp_path / "shard")
    if not has_engine_config:
        (folder / "edge_config.json").unlink()
    archive = tmp_path / "docs-shard-0-2026-07-01-10-00-00.snapshot"
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, arcname=".")
    source = Qdrant(uri=str(archive))
    read_rows = rows(source)
    for row in read_rows:
        row["vectors"] = {name: row["vectors"][name] for name in ("parts", "terms", "title")}
    assert row_counts(read_rows) == row_counts(
        expected_row(number, subset) for number, subset in enumerate(SUBSETS)
    )
    (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
    assert (collection.dimension, collection.metric) == (3, "l2")
    assert collection.vectors == {"title": (2, None)}


def test_a_vector_that_only_a_later_segment_declares_is_read(tmp_path):
    """A segment keeps the configuration that it was written with."""
    dense = {"size": 2, "distance": "Dot"}
    for segment, config in {
        "a": {"vector_data": {"": dense}},
        "b": {"vector_data": {"": dense, "title": dense}, "sparse_vector_data": {"terms": {}}},
        "c": {"vector_data": None, "sparse_vector_data": {"words": {}}},
    }.items():
        folder = tmp_path / "segments" / segment
        folder.mkdir(parents=True)
        folder.joinpath("segment.json").write_text(json.dumps({"config": config}))
    assert set(schema.parse_vectors(_read_config(tmp_path))) == {"", "title", "terms", "words"}


# Payloads.

ODD_PAYLOAD = {
    "id": 1,
    "vector": "v",
    "vectors": "w",
    "text": "t",
    "document": "d",
    "payload": 2,
    "payload.id": 3,
    "payload.vectors": 4,
    "payload.payload.id": 5,
    "payload.other": 6,
    "": "empty key",
    "a.b": 7,
    "a": {"b": 8, "b.c": 9, "": {"": None}},
    "none": None,
    "empty": {},
    "no items": [],
    "big": 2**64 - 1,
    "one": 1,
    "one.0": 1.0,
    "yes": True,
}
ODD_NAMES = {
    "id": "payload.id",
    "vector": "payload.vector",
    "vectors": "payload.vectors",
    "payload.id": "payload.payload.id",
    "payload.vectors": "payload.payload.vectors",
    "payload.payload.id": "payload.payload.payload.id",
}


def test_payload_keys_have_the_same_name_on_every_page(bed_and_options):
    from qdrant_client import models as m

    bed, options = bed_and_options
    name = bed.fresh()
    payloads = [ODD_PAYLOAD, None, {}, *({key: value} for key, value in ODD_PAYLOAD.items())]
    with bed.client() as client:
        client.create_collection(name, vectors_config=params()["title"])
        client.upsert(
            name,
            [
                m.PointStruct(id=number, vector=[1.0, 2.0], payload=payload)
                for number, payload in enumerate(payloads)
            ],
        )
    source = bed.source(name, **{**options, "shard_bytes": 1})
    read_rows = {int(row["id"][1]): row for row in rows(source)}
    assert len(read_rows) == len(payloads)
    for number, payload in enumerate(payloads):
        row = read_rows[number]
        del row["id"], row["vector"]
        assert row == as_variants(payload or {})


def as_variants(payload):
    return {
        ODD_NAMES.get(key, key): ("list", "[]") if value == [] else as_variant(value)
        for key, value in payload.items()
    }


def test_a_payload_key_called_shard_key_is_kept_beside_the_key_of_the_shard():
    payload = {"shard_key": "mine", "payload.shard_key": "too", "payload.payload.shard_key": 3}
    page = build_page([(1, payload, {})], {}, shard_key="eu")
    assert page.payloads == [
        {
            "shard_key": "eu",
            "payload.shard_key": "mine",
            "payload.payload.shard_key": "too",
            "payload.payload.payload.shard_key": 3,
        }
    ]
    assert build_page([(1, payload, {})], {}).payloads == [payload]


# Aliases.


@pytest.fixture
def aliased(current_bed):
    """Yield the names of a collection and of its two aliases."""
    from qdrant_client import models as m

    name = current_bed.seed(CORPUS)
    aliases = [f"{name}-live", f"{name}-old"]
    with current_bed.client() as client:
        client.update_collection_aliases(
            [
                m.CreateAliasOperation(
                    create_alias=m.CreateAlias(collection_name=name, alias_name=alias)
                )
                for alias in aliases
            ]
        )
    return name, *aliases


def test_an_alias_is_read_as_its_collection(current_bed, aliased):
    name, alias, _ = aliased
    source = current_bed.source(alias)
    shards = source.shards(CONTEXT)
    assert shards == current_bed.source(name).shards(CONTEXT)
    assert {shard.collection for shard in shards} == {name}
    assert row_counts(rows(source, shards)) == row_counts(map(current_bed.expected, CORPUS))
    assert source.count(CONTEXT) == len(CORPUS)
    description = source.describe(CONTEXT, shards)
    assert [collection.name for collection in description.collections] == [name]
    assert f"{alias} is an alias of {name}, which is read" in description.notes
    assert not any(
        "alias" in note for note in current_bed.source(name).describe(CONTEXT, shards).notes
    )


def test_a_collection_and_its_alias_are_not_read_twice(current_bed, aliased):
    name, alias, other_alias = aliased
    for names in ((name, alias), (alias, name), (alias, other_alias)):
        with pytest.raises(SourceError) as error:
            current_bed.source(*names).shards(CONTEXT)
        assert all(word in error.value.what for word in (*names, name, "twice"))
    assert len(rows(current_bed.source(alias, alias))) == len(CORPUS)


def test_a_name_that_is_neither_is_answered_with_the_nearest_of_both(current_bed, aliased):
    _, alias, _ = aliased
    with pytest.raises(SourceError, match=f"did you mean {alias}") as error:
        current_bed.source(f"{alias}e").shards(CONTEXT)
    assert "source.collections" in error.value.remedy


def test_aliases_that_may_not_be_listed_are_named(older_bed, aliased):
    proxy, source = older_bed.proxied(older_bed.seed(CORPUS[:3]))
    with closing(proxy):
        proxy.fail(Status(403, {}, b"Forbidden"), times=99, matching="GET /aliases")
        with pytest.raises(SourceError, match="alias") as error:
            source.model_copy(update={"collections": ["elsewhere"]}).shards(CONTEXT)
        assert len(source.shards(CONTEXT)) == 1
    assert "source.api_key" in error.value.remedy
