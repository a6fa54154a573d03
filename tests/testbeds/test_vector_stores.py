"""Each vector store is ours, keeps rows for its vendor's own client and is open to nobody else."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.sources.milvus_bed import KEY, MilvusBed
from tests.sources.weaviate_bed import WeaviateBed
from tests.testbeds import chroma, milvus_lite, weaviate
from tests.testbeds.lineup import taking_part
from tests.testbeds.server import is_open, listening, members, require_loopback

VECTORS = [[float(number), 0.5, -1.0, 2.0] for number in range(5)]


def through_weaviate(server, name="Docs"):
    from weaviate.classes.config import Configure, DataType, Property
    from weaviate.classes.data import DataObject

    with weaviate.connected(server) as client:
        properties = [Property(name="number", data_type=DataType.INT)]
        docs = client.collections.create(
            name, vector_config=Configure.Vectors.self_provided(), properties=properties
        )
        inserted = docs.data.insert_many(
            [
                DataObject(properties={"number": number}, vector=vector)
                for number, vector in enumerate(VECTORS)
            ]
        )
        assert not inserted.has_errors
        return {
            row.properties["number"]: row.vector["default"]
            for row in docs.iterator(include_vector=True)
        }


def through_chroma(server):
    docs = chroma.connected(server).create_collection(
        "docs", configuration={"hnsw": {"space": "l2"}}, embedding_function=None
    )
    docs.add(ids=[str(number) for number in range(5)], embeddings=VECTORS)
    rows = docs.get(include=["embeddings"])
    return {
        int(name): vector.tolist()
        for name, vector in zip(rows["ids"], rows["embeddings"], strict=True)
    }


def through_milvus(server):
    from pymilvus import DataType, MilvusClient

    with closing(MilvusClient(server.endpoint, token=os.environ.get(KEY, ""))) as client:
        schema = (
            MilvusClient.create_schema()
            .add_field("id", DataType.INT64, is_primary=True)
            .add_field("vector", DataType.FLOAT_VECTOR, dim=4)
        )
        indexes = MilvusClient.prepare_index_params("vector", index_type="FLAT", metric_type="L2")
        client.create_collection(
            "docs", schema=schema, index_params=indexes, consistency_level="Strong"
        )
        client.insert(
            "docs", [{"id": number, "vector": vector} for number, vector in enumerate(VECTORS)]
        )
        rows = client.query("docs", filter="id >= 0", output_fields=["id", "vector"])
        return {row["id"]: row["vector"] for row in rows}


@pytest.fixture
def shared_server(request, shared_bed):
    """Give the server that the tests of a store share."""
    server = shared_bed(request.param).server
    if server is None:
        pytest.skip("a service of the user's own is not ours to judge")
    return server


def networks(server):
    """Find the network namespaces of the server's processes, and the interfaces there."""
    interfaces_by_network = {}
    for pid in members(server.pid):
        table = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
        interfaces_by_network[os.readlink(f"/proc/{pid}/ns/net")] = {
            line.partition(":")[0].strip() for line in table
        }
    return interfaces_by_network


def check_is_ours_and_open_to_nobody_else(server, through_its_client):
    assert {("127.0.0.1", port) for port in server.ports} <= listening(server.pid)
    assert through_its_client(server) == dict(enumerate(VECTORS))
    require_loopback(server)


@pytest.mark.parametrize(
    ("name", "start", "through_its_client"),
    [
        pytest.param(name, start, through, marks=pytest.mark.server(name), id=name)
        for name, start, through in (
            ("chroma", chroma.start, through_chroma),
            ("milvus-lite", milvus_lite.start, through_milvus),
        )
    ],
)
def test_a_vector_store_is_ours_keeps_rows_and_stops_whole(
    tmp_path, name, start, through_its_client
):
    with taking_part(name, start(tmp_path / name)) as server:
        check_is_ours_and_open_to_nobody_else(server, through_its_client)
    assert members(server.pid) == []
    assert not any(map(is_open, server.ports))


@pytest.mark.parametrize(
    ("shared_server", "through_its_client"),
    [
        pytest.param(bed, through, marks=pytest.mark.server(bed.kind), id=bed.kind)
        for bed, through in ((MilvusBed, through_milvus), (WeaviateBed, through_weaviate))
    ],
    indirect=["shared_server"],
)
def test_a_jailed_store_is_ours_and_keeps_rows(shared_server, through_its_client):
    """It serves all tests of its store; ``server.running`` checks at the end that it stops whole."""
    check_is_ours_and_open_to_nobody_else(shared_server, through_its_client)
    # the sockets that it opens to every address are in a network of one interface
    assert os.readlink("/proc/self/ns/net") not in networks(shared_server)
    assert list(networks(shared_server).values()) == [{"lo"}]


@pytest.mark.server("weaviate")
def test_weaviate_lets_in_its_key_and_no_other(shared_bed):
    from weaviate.exceptions import UnexpectedStatusCodeError

    server = shared_bed(WeaviateBed, api_key="sesame").server
    assert through_weaviate(server) == dict(enumerate(VECTORS))
    for env in ({}, {"WEAVIATE_API_KEY": "another"}):
        with (
            pytest.raises(UnexpectedStatusCodeError, match="401"),
            weaviate.connected(replace(server, env=env)) as client,
        ):
            client.collections.list_all()


@pytest.mark.server("weaviate")
@pytest.mark.parametrize("shared_server", [WeaviateBed], indirect=True, ids=["weaviate"])
def test_weaviate_exports_to_its_folder(shared_server):
    import pyarrow.parquet as pq
    from weaviate.export.export import ExportFileFormat

    name = "Exported"
    through_weaviate(shared_server, name)
    with weaviate.connected(shared_server) as client:
        client.export.create(
            export_id="rows",
            backend="filesystem",
            file_format=ExportFileFormat.PARQUET,
            include_collections=[name],
            wait_for_completion=True,
        )
    folder = shared_server.log.parent / weaviate.FILES / "rows"
    files = list(folder.rglob("*.parquet"))
    assert sum(pq.read_metadata(file).num_rows for file in files) == len(VECTORS)
