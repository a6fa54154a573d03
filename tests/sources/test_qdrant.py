"""Qdrant: the contract, the traps of its scroll, and snapshots of its shards.

The contract is tested over gRPC with slices and over REST with id ranges.  The snapshots are
archives of shards that the vendor's engine wrote; snapshots that a server wrote were never seen.
"""

import pickle
import shutil
import sys
import tarfile
import uuid
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cfray.errors import SourceError, SourceUnavailable
from cfray.sources.base import Context
from cfray.sources.paging import PageSize
from cfray.sources.qdrant import schema
from cfray.sources.qdrant.client import open_client, server_knows_slices
from cfray.sources.qdrant.decode import decode_floats, decode_message
from cfray.sources.qdrant.scroll import PageTransport, ScrollQuery
from cfray.sources.qdrant.source import Qdrant
from cfray.sources.qdrant.types import Page, check_order
from tests.sources.corpus import (
    CONTEXT,
    CORPUS,
    SHARD_BYTES,
    make_row,
    plain_rows,
    row_counts,
    rows,
)
from tests.sources.qdrant_bed import QdrantBed, declare_vectors, payload_of, point_id, vectors_of
from tests.sources.store_contract import StoreContract
from tests.testbeds.lineup import taking_part
from tests.testbeds.proxy import Slow, Status

pytestmark = [
    pytest.mark.server("qdrant"),
    # the client that seeds gives this warning
    pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection"),
]


@pytest.fixture(scope="module")
def current_bed(shared_bed):
    return shared_bed(QdrantBed)


@pytest.fixture(scope="module")
def older_bed(tmp_path_factory):
    """Yield the bed of a server without slices, which is read over REST."""
    with taking_part(
        "qdrant",
        QdrantBed.serving(tmp_path_factory.mktemp("older"), version="1.18.2", over_grpc=False),
    ) as bed:
        yield bed


@pytest.fixture(scope="module")
def locked_bed(tmp_path_factory):
    with taking_part(
        "qdrant", QdrantBed.serving(tmp_path_factory.mktemp("locked"), api_key="sesame")
    ) as bed:
        yield bed


class TestOverGrpcInSlices(StoreContract):
    client = "qdrant_client"

    @pytest.fixture
    def bed(self, current_bed):
        return current_bed


class TestOverRestInRanges(StoreContract):
    client = "qdrant_client"

    @pytest.fixture
    def bed(self, older_bed):
        return older_bed


@pytest.fixture(params=["gRPC, slices", "REST, slices", "gRPC, ranges", "REST, ranges"])
def bed_and_options(request, current_bed, older_bed):
    """Return a bed, and the options of a source that reads it over this transport."""
    transport, cut = request.param.split(", ")
    return (current_bed if cut == "slices" else older_bed), {
        "prefer_grpc": transport == "gRPC",
        "shard_bytes": 5 * SHARD_BYTES,
    }


def test_every_kind_of_vector_and_value_comes_back_whichever_way(bed_and_options):
    bed, options = bed_and_options
    seeded_rows = bed.awkward(90, 12)
    read_rows = rows(bed.source(bed.seed(seeded_rows), **options))
    assert row_counts(read_rows) == row_counts(map(bed.expected, seeded_rows))
    assert {row["id"][0] for row in read_rows} == {"int64", "uint64", "uuid"}


def test_column_types_are_the_declared_ones_even_on_a_page_without_any_vector(bed_and_options):
    bed, options = bed_and_options
    name = bed.seed([{"id": "a", "vectors": {}, "vector": None}])
    (batch,) = [
        batch
        for shard in bed.source(name, **options).shards(CONTEXT)
        for batch in bed.source(name, **options).read(shard, CONTEXT)
    ]
    kinds = {field.name: str(field.type) for field in batch.schema.field("vectors").type}
    assert kinds == {
        "main": "fixed_size_list<item: float>[2]",
        "bytes": "fixed_size_list<item: uint8>[5]",
        "half": "fixed_size_list<item: halffloat>[6]",
        "several": "list<item: fixed_size_list<item: float>[4]>",
        "sparse": "struct<indices: list<item: uint32>, values: list<item: float>>",
    }


def test_ranges_of_integers_alone_lose_the_uuids(bed_and_options):
    """Trap: a reader that cuts the integers into ranges sees no UUID, and no error."""
    bed, options = bed_and_options
    name = bed.seed(CORPUS)
    bounds = [0, 2**62, 2**63, 2**63 + 2**62, 2**64]
    naive_ids = []
    with bed.client() as client:
        for start, end in pairwise(bounds):
            page, _ = client.scroll(name, offset=start, limit=1_000, with_payload=False)
            naive_ids += [
                point.id for point in page if isinstance(point.id, int) and point.id < end
            ]
    assert (
        len(naive_ids)
        == len(set(naive_ids))
        == sum(isinstance(point_id(row), int) for row in CORPUS)
        < len(CORPUS)
    )
    read_rows = rows(bed.source(name, **options))
    assert row_counts(read_rows) == row_counts(map(bed.expected, CORPUS))


def test_an_older_server_refuses_slices_and_ranges_are_used_instead(older_bed, current_bed):
    from qdrant_client import models as m
    from qdrant_client.http.exceptions import UnexpectedResponse

    name = older_bed.seed(CORPUS)
    with older_bed.client() as client, pytest.raises(UnexpectedResponse):
        client.scroll(
            name, scroll_filter=m.Filter(must=[m.SliceCondition(slice=m.Slice(total=2, index=0))])
        )
    labels = {
        shard.id.split("#")[1][:5]
        for shard in older_bed.source(name, shard_bytes=SHARD_BYTES).shards(CONTEXT)
    }
    assert labels == {"from-"}
    slices = current_bed.source(current_bed.seed(CORPUS), shard_bytes=20_000).shards(CONTEXT)
    assert [shard.id.split("#")[1] for shard in slices] == [
        f"slice-{n:03d}-of-{len(slices):03d}" for n in range(len(slices))
    ]


@pytest.mark.parametrize(
    ("version", "knows_slices"),
    [
        ("1.18.9", False),
        ("1.19.0", True),
        ("1.20.1-dev", True),
        ("2.0.0", True),
        ("0.11.1", False),
        ("dev", False),
    ],
)
def test_slices_are_known_since_1_19(version, knows_slices):
    assert server_knows_slices(version) is knows_slices


@pytest.mark.parametrize(
    "known_when_planned", [True, False], ids=["known when planned", "set meanwhile"]
)
def test_a_limit_of_strict_mode_makes_pages_smaller(bed_and_options, known_when_planned):
    """Trap: a page above the limit is refused, so a reader with a fixed page size reads nothing."""
    from qdrant_client import models as m
    from qdrant_client.http.exceptions import UnexpectedResponse

    bed, options = bed_and_options
    name = bed.fresh()
    with bed.client() as client:
        strict_mode = m.StrictModeConfig(enabled=True, max_query_limit=7)
        client.create_collection(
            name,
            vectors_config=m.VectorParams(size=2, distance=m.Distance.DOT),
            strict_mode_config=strict_mode,
        )
        client.upsert(
            name,
            [
                m.PointStruct(id=point_id(row), vector=row["vector"], payload=payload_of(row))
                for row in CORPUS
            ],
        )
        with pytest.raises(UnexpectedResponse, match="limit"):
            client.scroll(name, limit=100)
    source = bed.source(name, **{**options, "shard_bytes": 10**6})
    shards = source.shards(CONTEXT)
    shards = (
        shards
        if known_when_planned
        else [replace(shard, where={**shard.where, "limit": None}) for shard in shards]
    )
    assert row_counts(rows(source, shards)) == row_counts(map(bed.expected, CORPUS))


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2.0**63, 2.0**64, -(2**63), 2**63 - 1])
def test_integers_beyond_int64_are_exact_over_grpc_too(current_bed, number):
    """Trap: gRPC has no unsigned integers, so the server sends large integers as doubles."""
    source = current_bed.source(current_bed.seed([make_row(1, n=number)]), prefer_grpc=True)
    (row,) = rows(source)
    kind = "double" if isinstance(number, float) else "int64" if number < 2**63 else "uint64"
    assert row["n"] == (kind, repr(number))


def test_cosine_vectors_come_as_the_store_holds_them_and_the_plan_says_so(bed_and_options):
    from qdrant_client import models as m

    bed, options = bed_and_options
    name = bed.fresh()
    with bed.client() as client:
        client.create_collection(
            name, vectors_config={"c": m.VectorParams(size=3, distance=m.Distance.COSINE)}
        )
        client.upsert(
            name, [m.PointStruct(id=n, vector={"c": [n + 1.0, 2.0, 5.0]}) for n in range(20)]
        )
        stored_vectors = {
            point.id: np.float32(point.vector["c"]).tolist()
            for point in client.scroll(name, limit=100, with_vectors=True)[0]
        }
    source = bed.source(name, **options)
    assert {int(row["id"][1]): row["vectors"]["c"] for row in rows(source)} == stored_vectors
    description = source.describe(CONTEXT, source.shards(CONTEXT))
    assert description.collections[0].vectors == {"c": (3, "cosine")}
    assert any("magnitude is gone" in note for note in description.notes)


def test_a_collection_is_described_with_its_configuration(current_bed):
    from qdrant_client import models as m

    name = current_bed.fresh()
    with current_bed.client() as client:
        vectors, sparse = declare_vectors(12)
        scalar = m.ScalarQuantization(scalar=m.ScalarQuantizationConfig(type=m.ScalarType.INT8))
        hnsw = m.HnswConfigDiff(m=24)
        client.create_collection(
            name,
            vectors_config=vectors,
            sparse_vectors_config=sparse,
            hnsw_config=hnsw,
            quantization_config=scalar,
        )
        client.create_payload_index(name, "title", m.PayloadSchemaType.KEYWORD)
        client.upsert(name, [m.PointStruct(id=1, vector={}, payload={"title": "a"})])
    source = current_bed.source(name)
    description = source.describe(CONTEXT, source.shards(CONTEXT))
    (collection,) = description.collections
    assert (collection.dimension, collection.metric) == (None, None)
    assert collection.vectors == {"bytes": (5, "dot"), "half": (6, None), "main": (12, "l2")}
    assert '"m":24' in collection.facts["hnsw_config"]
    assert '"int8"' in collection.facts["quantization_config"]
    assert '"keyword"' in collection.facts["payload_schema"]
    assert '"Manhattan"' in collection.facts["vectors"]
    assert '"sparse"' in collection.facts["sparse_vectors"]
    assert any("half" in note and "no counterpart" in note for note in description.notes)


def test_a_scroll_over_all_shard_keys_loses_an_id_that_is_under_two_of_them(bed_and_options):
    """Trap: an id under two shard keys is two points, and a scroll without a key gives one."""
    from qdrant_client import models as m

    bed, options = bed_and_options
    name = bed.fresh()
    with bed.client() as client:
        custom = m.ShardingMethod.CUSTOM
        client.create_collection(
            name,
            vectors_config=m.VectorParams(size=2, distance=m.Distance.DOT),
            sharding_method=custom,
        )
        for key in ("eu/1", 7, "7"):
            client.create_shard_key(name, key)
            points = [
                m.PointStruct(id=n, vector=[1.0, n], payload={"of": str(key), "shard_key": "own"})
                for n in range(12)
            ]
            client.upsert(name, points, shard_key_selector=key)
        assert len(client.scroll(name, limit=1_000)[0]) == 12
    source = bed.source(name, **options)
    shards = source.shards(CONTEXT)
    read_rows = rows(source, shards)
    assert len(read_rows) == source.count(CONTEXT) == 36
    assert {(row["shard_key"], row["of"][1]) for row in read_rows} == {
        (("string", "eu/1"), "eu/1"),
        (("int64", "7"), "7"),
        (("string", "7"), "7"),
    }
    assert {row["payload.shard_key"] for row in read_rows} == {("string", "own")}
    assert len({shard.id for shard in shards}) == len(shards)
    assert any("two shard keys" in note for note in source.describe(CONTEXT, shards).notes)


def test_what_is_deleted_and_added_meanwhile_costs_no_other_row(bed_and_options):
    bed, options = bed_and_options
    name = bed.seed(CORPUS)
    source = bed.source(name, **{**options, "shard_bytes": 10**6})
    (shard,) = source.shards(CONTEXT)
    batches = source.read(shard, replace(CONTEXT, batch_bytes=1))
    first_rows = plain_rows(next(batches))
    deleted_ids = [row["id"] for row in CORPUS if bed.expected(row)["id"] == first_rows[0]["id"]]
    bed.delete(name, deleted_ids)
    read_rows = first_rows + [row for batch in batches for row in plain_rows(batch)]
    assert row_counts(read_rows) == row_counts(map(bed.expected, CORPUS))


def test_a_page_that_takes_too_long_is_half_as_large_the_next_time_and_stays_so(current_bed):
    proxy, source = current_bed.proxied(current_bed.seed(CORPUS))
    size = PageSize(64, 10_000, 10**6)
    (name,) = source.collections
    with closing(proxy), open_client(source) as client:
        proxy.fail(Slow(), matching=current_bed.page_request())
        transport = PageTransport(source.address, 1.0, True, Context().throttle)
        vectors = schema.parse_vectors({"vectors": {"size": 2, "distance": "Dot"}})
        fetch = partial(ScrollQuery(name, vectors).fetch_page, client, None, size, transport)
        assert len(source.send_request(fetch, CONTEXT).ids) == 32
        size.adjust(32, 32)
        assert size.rows == 32


def test_a_closed_grpc_port_is_named_with_its_way_out(current_bed, monkeypatch):
    monkeypatch.setattr("cfray.runtime.retry.FIRST_PAUSE", 0.001)
    monkeypatch.setattr("cfray.runtime.retry.LONGEST_PAUSE", 0.001)
    monkeypatch.setattr("cfray.runtime.retry.JITTER", 0.0)
    source = current_bed.source(current_bed.seed(CORPUS[:3]), grpc_port=1)
    with pytest.raises(SourceUnavailable) as error:
        rows(source)
    assert "prefer_grpc: false" in error.value.remedy
    assert len(rows(source.model_copy(update={"prefer_grpc": False}))) == 3


def test_a_vector_that_the_plan_did_not_know_is_an_error(bed_and_options):
    bed, options = bed_and_options
    source = bed.source(bed.seed(bed.awkward(9, 2)), **options)
    shards = source.shards(CONTEXT)
    config = shards[0].where["config"]
    config_without_half = {
        **config,
        "vectors": {
            name: vector_config
            for name, vector_config in config["vectors"].items()
            if name != "half"
        },
    }
    with pytest.raises(SourceError, match="'half'"):
        rows(
            source,
            [
                replace(shard, where={**shard.where, "config": config_without_half})
                for shard in shards
            ],
        )


def test_pages_that_repeat_or_go_back_are_an_error():
    first_uuid, later_uuid = (
        "0" * 8 + "-0000-4000-8000-" + "0" * 12,
        "f" * 8 + "-0000-4000-8000-" + "0" * 12,
    )
    page = Page([1, 2**64 - 1, first_uuid], next_id=later_uuid)
    assert check_order(page, 0, "x") == first_uuid
    for last_id in (1, 5, first_uuid):
        with pytest.raises(SourceError, match="out of order"):
            check_order(page, last_id, "x")
    with pytest.raises(SourceError, match="out of order"):
        check_order(Page([2, 1]), None, "x")
    with pytest.raises(SourceError, match="out of order"):
        check_order(Page([1, 2], next_id=2), None, "x")


@pytest.mark.parametrize("width", [0, 1, 31, 32, 4_095, 4_096, 65_536])
def test_packed_floats_are_read_to_the_bit(width):
    """cfray reads the bytes of a message; this test notices a protobuf with another layout."""
    from qdrant_client import grpc

    special_numbers = np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)
    numbers = np.resize(
        np.concatenate([special_numbers, np.linspace(-3, 3, 97, dtype=np.float32)]), width
    )
    message = grpc.DenseVector(data=numbers.tolist())
    assert decode_floats(message).tobytes() == numbers.tobytes()
    # field 15 of a future protocol
    newer = grpc.DenseVector.FromString(message.SerializeToString() + b"\x7a\x02hi")
    assert decode_floats(newer).tobytes() == numbers.tobytes()


def test_vectors_of_servers_before_the_present_fields_are_read():
    from qdrant_client import grpc

    point = grpc.RetrievedPoint(id=grpc.PointId(num=1))
    named = point.vectors.vectors.vectors
    named["dense"].data.extend([1.0, 2.0])
    named["several"].data.extend([1.0, 2.0, 3.0, 4.0])
    named["several"].vectors_count = 2
    named["sparse"].data.extend([0.5])
    named["sparse"].indices.data.extend([9])
    _, _, vectors = decode_message(point)
    assert vectors["dense"].tolist() == [1.0, 2.0]
    assert [vector.tolist() for vector in vectors["several"]] == [[1.0, 2.0], [3.0, 4.0]]
    assert (vectors["sparse"][0], list(vectors["sparse"][1])) == ([9], [0.5])


def test_search_wants_one_vector_of_that_width(current_bed):
    # the vector "half" has this dimension, too
    seeded_rows = current_bed.awkward(20, 6)
    source = current_bed.source(current_bed.seed(seeded_rows))
    with pytest.raises(SourceError, match="2 vectors of 6"):
        source.search(source.collections[0], [0.0] * 6, 3)
    wide_rows = current_bed.awkward(20, 12)
    source = current_bed.source(current_bed.seed(wide_rows))
    nearest_id = point_id(wide_rows[7])
    assert source.search(source.collections[0], wide_rows[7]["vector"], 1) == [
        f"{'u' if isinstance(nearest_id, str) else 'i'}:{nearest_id}"
    ]


@pytest.mark.parametrize("consistency", ["all", "majority", "quorum", 2])
def test_consistency_goes_with_every_page_and_count(bed_and_options, older_bed, consistency):
    """The double has one replica: the test sees the requests, and that both protocols take them."""
    bed, options = bed_and_options
    source = bed.source(bed.seed(CORPUS[:5]), consistency=consistency, **options)
    assert len(rows(source)) == source.count(CONTEXT) == 5
    proxy, proxied_source = older_bed.proxied(older_bed.seed(CORPUS[:5]))
    with closing(proxy):
        rows(proxied_source.model_copy(update={"consistency": consistency}))
        paths = [
            path for _, path in proxy.seen if path.split("?")[0].endswith(("/scroll", "/count"))
        ]
    assert len(paths) > 2
    assert all(f"consistency={consistency}" in path for path in paths)


@pytest.mark.parametrize(
    ("fault", "transient", "remedy_word"),
    [
        (Status(401, {}, b"Invalid API key or JWT"), False, "source.api_key"),
        (
            Status(403, {}, b'{"status": {"error": "Forbidden: Global access is required"}}'),
            False,
            "source.api_key",
        ),
        (Status(404, {}, b"nginx"), False, "source.url"),
        (Status(302, {"Location": "/login"}), False, "source.url"),
        (Status(429, {"Retry-After": "0"}), True, "requests_per_second"),
        (Status(429, {"Retry-After": "soon"}), True, "requests_per_second"),
        (Status(502, {}, b"bad gateway"), True, "answers"),
        (Status(200, {}, b"<html>"), True, "answers"),
        (Status(200, {}, b'{"result": {"other": 1}}'), False, "source.url"),
    ],
    ids=str,
)
def test_answers_are_told_apart(older_bed, monkeypatch, fault, transient, remedy_word):
    monkeypatch.setattr("cfray.runtime.retry.FIRST_PAUSE", 0.001)
    monkeypatch.setattr("cfray.runtime.retry.JITTER", 0.0)
    monkeypatch.setattr("cfray.runtime.retry.LONGEST_PAUSE", 0.001)
    proxy, source = older_bed.proxied(older_bed.seed(CORPUS[:3]))
    with closing(proxy):
        proxy.fail(fault, times=99, matching="/collections")
        with pytest.raises(SourceError) as error:
            source.shards(CONTEXT)
    assert error.value.transient is transient
    assert remedy_word in error.value.remedy
    assert source.address in error.value.what
    assert pickle.loads(pickle.dumps(error.value)).args == error.value.args


def test_replicas_hidden_points_and_failures_are_noted():
    config = {
        "vectors": {"size": 2, "distance": "Dot", "datatype": "turbo4"},
        "replication_factor": 3,
        "status": "red",
        "update_queue": {"deferred_points": 9},
    }
    notes = " ".join(schema.collection_notes("c", config, replicas_must_agree=False))
    assert all(word in notes for word in ("rounded", "3 replicas", "9 points", "red"))
    assert "replicas" not in " ".join(
        schema.collection_notes("c", config, replicas_must_agree=True)
    )


def test_a_url_of_another_protocol_is_an_error():
    with pytest.raises(SourceError, match="ftp"):
        Qdrant(url="ftp://127.0.0.1:6333").shards(CONTEXT)


# Snapshots of shards


def write_shard(folder, seeded_rows, *, awkward=False):
    """Let the vendor's engine write a shard, and return its folder."""
    edge = pytest.importorskip("qdrant_edge")
    from qdrant_client import models as m

    from tests.testbeds.qdrant_terms import to_config, to_engine

    width = next((len(row["vector"]) for row in seeded_rows if row.get("vector")), 2)
    vectors, sparse = (
        declare_vectors(width)
        if awkward
        else (m.VectorParams(size=width, distance=m.Distance.EUCLID), None)
    )
    shard = edge.EdgeShard.create(
        str(folder), to_config(m.CreateCollection(vectors=vectors, sparse_vectors=sparse))
    )
    points = [
        edge.Point(point_id(row), to_engine(vectors_of(row)), payload_of(row))
        for row in seeded_rows
    ]
    if points:
        shard.update(edge.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.close()
    return folder


def pack(folder, archive):
    archive.parent.mkdir(exist_ok=True, parents=True)
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, arcname=".")
    return archive


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Return a folder with the archives of two shards, named as a server names them."""
    base_folder = tmp_path_factory.mktemp("snapshots")
    for shard_number, seeded_rows in enumerate((CORPUS[:40], CORPUS[40:])):
        folder = write_shard(base_folder / f"s{shard_number}", seeded_rows)
        pack(
            folder,
            base_folder / "archives" / f"docs-shard-{shard_number}-2026-07-01-10-00-00.snapshot",
        )
        shutil.rmtree(folder)
    return base_folder / "archives"


def open_snapshot(uri, **options):
    return Qdrant(uri=str(uri), **{"shard_bytes": SHARD_BYTES, **options})


def file_states(folder):
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def test_archives_of_shards_give_the_points_that_a_live_read_gives(archives, current_bed):
    source = open_snapshot(archives)
    shards = source.shards(CONTEXT)
    assert shards == source.shards(CONTEXT)
    assert len({shard.id for shard in shards}) == len(shards) == 16
    assert {shard.collection for shard in shards} == {"docs"}
    read_rows = rows(source, shards)
    assert row_counts(read_rows) == row_counts(map(current_bed.expected, CORPUS))
    assert [shard.rows for shard in shards] == [len(rows(source, [shard])) for shard in shards]
    live = current_bed.source(current_bed.seed(CORPUS))
    assert row_counts(read_rows) == row_counts(rows(live))
    description = source.describe(CONTEXT, shards)
    assert (description.rows, description.exact, description.consistency) == (
        len(CORPUS),
        True,
        "pinned files",
    )
    assert (description.collections[0].dimension, description.collections[0].metric) == (2, "l2")
    assert any("cannot be proven complete" in note for note in description.notes)


@pytest.mark.parametrize(
    "has_engine_config",
    [True, False],
    ids=["the engine's configuration", "a segment's configuration"],
)
def test_an_unpacked_shard_is_read_from_a_copy_and_stays_as_it_was(
    tmp_path, current_bed, has_engine_config
):
    """Loading a shard writes to it (and a second process cannot): the original is never loaded."""
    import qdrant_edge

    seeded_rows = current_bed.awkward(60, 12)
    folder = write_shard(tmp_path / "docs", seeded_rows, awkward=True)
    if not has_engine_config:
        (folder / "edge_config.json").unlink()
    states_before = file_states(folder)
    source = open_snapshot(folder, collections=["named"])
    shards = source.shards(CONTEXT)
    assert {shard.collection for shard in shards} == {"named"}
    assert row_counts(rows(source, shards)) == row_counts(map(current_bed.expected, seeded_rows))
    assert file_states(folder) == states_before
    qdrant_edge.EdgeShard.load(str(folder)).close()
    assert has_engine_config or file_states(folder) != states_before


def test_no_copy_is_left_behind(archives, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = open_snapshot(archives)
    shards = source.shards(CONTEXT)
    batches = source.read(shards[0], CONTEXT)
    next(batches)
    assert list(tmp_path.iterdir())
    batches.close()
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_changed_is_refused(archives, tmp_path):
    shutil.copytree(archives, tmp_path / "a")
    source = open_snapshot(tmp_path / "a")
    shards = source.shards(CONTEXT)
    (archive, _) = sorted((tmp_path / "a").iterdir())
    archive.touch()
    with pytest.raises(SourceError, match="changed since the plan"):
        rows(source, shards)


@pytest.mark.parametrize(
    "damage",
    ["empty", "cut", "noise", "a whole collection's", "without a segment's version", "a panic"],
)
def test_what_is_no_whole_shard_is_refused_and_named(tmp_path, damage):
    folder = write_shard(tmp_path / "s", CORPUS[:5])
    (segment,) = (folder / "segments").iterdir()
    if damage == "without a segment's version":
        # the engine leaves such a segment out without an error
        (segment / "version.info").unlink()
    if damage == "a panic":
        (segment / "vector_storage/vectors/status.dat").write_bytes(b"")
    archive = pack(folder, tmp_path / "bad.snapshot")
    if damage == "a whole collection's":
        with tarfile.open(archive, "w") as tar:
            tar.add(folder / "edge_config.json", arcname="config.json")
            tar.add(folder, arcname="0")
    data = archive.read_bytes()
    archive.write_bytes(
        {"empty": b"", "cut": data[: len(data) // 2], "noise": b"no such format" * 999}.get(
            damage, data
        )
    )
    with pytest.raises(SourceError) as error:
        rows(open_snapshot(archive))
    assert not error.value.transient
    assert "bad.snapshot" in error.value.what
    assert "snapshots" in error.value.remedy


def test_two_archives_of_one_shard_are_refused(archives, tmp_path):
    shutil.copytree(archives, tmp_path / "a")
    first_archive = min((tmp_path / "a").iterdir())
    shutil.copy(first_archive, first_archive.with_name("docs-shard-0-2026-07-02-10-00-00.snapshot"))
    with pytest.raises(SourceError, match="same shard"):
        open_snapshot(tmp_path / "a").shards(CONTEXT)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SourceError, match="nowhere") as error:
        open_snapshot(tmp_path / "nowhere").shards(CONTEXT)
    assert "source.uri" in error.value.remedy


def test_an_empty_shard_gives_no_row(tmp_path):
    assert (
        rows(open_snapshot(pack(write_shard(tmp_path / "s", []), tmp_path / "none.snapshot"))) == []
    )


def test_a_missing_engine_names_its_package(archives, monkeypatch):
    monkeypatch.setitem(sys.modules, "qdrant_edge", None)
    with pytest.raises(SourceError) as error:
        open_snapshot(archives).shards(CONTEXT)
    assert "qdrant-edge-py" in error.value.remedy


def test_uuids_in_any_spelling_are_one_id(current_bed):
    """The store returns the canonical text of a UUID, whichever spelling was written."""
    from qdrant_client import models as m

    name, point_uuid = current_bed.fresh(), uuid.UUID(int=2**127 + 5)
    with current_bed.client() as client:
        client.create_collection(
            name, vectors_config=m.VectorParams(size=2, distance=m.Distance.DOT)
        )
        client.upsert(name, [m.PointStruct(id=point_uuid.hex.upper(), vector=[1.0, 2.0])])
    (row,) = rows(current_bed.source(name))
    assert row["id"] == ("uuid", f'"{point_uuid}"')
