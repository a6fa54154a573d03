"""Elasticsearch: what a reader of it can do wrong, on the real servers 9.5.3 and 8.19.21."""

import base64
from dataclasses import replace

import numpy as np
import pytest

from tests.sources.corpus import CONTEXT, CORPUS, SHARD_BYTES, make_row, row_counts, rows
from tests.sources.elasticsearch_bed import ElasticsearchBed
from tests.sources.lucene_cases import LuceneCases, in_session
from tests.testbeds import elasticsearch

pytestmark = pytest.mark.server("elasticsearch")


@pytest.fixture(scope="module")
def older_bed(shared_bed):
    return shared_bed(ElasticsearchBed, version=elasticsearch.OLDER)


class TestElasticsearchReads(LuceneCases):
    @pytest.fixture
    def bed(self, shared_bed):
        return shared_bed(ElasticsearchBed)

    def test_vectors_come_although_the_server_hides_them(self, bed):
        """Trap: from 9.2 on a plain search, get or scroll gives documents without vectors."""
        name = bed.seed(CORPUS)
        with bed.client() as client:
            plain = client.search(index=name, size=1)["hits"]["hits"][0]["_source"]
        assert "vector" not in plain
        assert all(row["vector"] is not None for row in rows(bed.source(name)))

    def test_vectors_as_base64_are_exact_and_others_name_their_loss(self, bed):
        name = bed.fresh()
        vectors = np.random.default_rng(3).standard_normal((20, 8)).astype(np.float32)
        float_vector = {"type": "dense_vector", "dims": 8}
        properties = {
            "base64": {**float_vector, "similarity": "cosine"},
            "rounded": {**float_vector, "element_type": "bfloat16", "similarity": "l2_norm"},
            "plain": {**float_vector, "index": False},
        }
        with bed.client() as client:
            settings = {"index.mapping.exclude_source_vectors": False}
            bed.create(client, name, properties, **settings)
            bed.bulk(
                client,
                (
                    {
                        "_op_type": "index",
                        "_index": name,
                        "_id": str(n),
                        "_source": {
                            "base64": base64.b64encode(vector.astype(">f4").tobytes()).decode(),
                            "plain": vector.tolist(),
                        },
                    }
                    for n, vector in enumerate(vectors)
                ),
            )
        source = bed.source(name)
        read_vectors = {int(row["id"]): row["vectors"] for row in rows(source)}
        for n, vector in enumerate(vectors):
            assert np.float32(read_vectors[n]["base64"]).tobytes() == vector.tobytes()
            assert np.float32(read_vectors[n]["plain"]).tobytes() == vector.tobytes()
            assert read_vectors[n]["rounded"] is None
        assert not any("1e-7" in note for note in source.describe(CONTEXT, []).notes)
        hidden = bed.fresh()
        with bed.client() as client:
            bed.create(client, hidden, properties)
        notes = " ".join(bed.source(hidden).describe(CONTEXT, []).notes)
        assert "relative error of 1e-7 (base64)" in notes
        assert "bfloat16 vectors rounded: rounded" in notes

    def test_synthetic_documents_are_read_and_said_to_be(self, bed):
        name = bed.fresh()
        with bed.client() as client:
            client.indices.create(
                index=name,
                settings={"index.mapping.source.mode": "synthetic"},
                mappings={"properties": {"n": {"type": "long"}}},
            )
            bed.bulk(
                client,
                iter([{"_op_type": "index", "_index": name, "_id": "a", "_source": {"n": 7}}]),
            )
        source = bed.source(name)
        assert rows(source) == [{"id": "a", "n": ("int64", "7")}]
        assert any("synthetic" in note for note in source.describe(CONTEXT, []).notes)


class TestElasticsearch8:
    """The older line: it hashes no ids at a point in time, and leaves no vectors out."""

    def test_all_lines_give_the_same_rows(self, older_bed):
        seeded_rows = older_bed.awkward(60, 4)
        source = older_bed.source(older_bed.seed(seeded_rows), shard_bytes=SHARD_BYTES)
        with in_session(source) as (session, context):
            assert session.consistency == "snapshot"
            shards = source.shards(context)
            assert len(shards) == 2, "as many as Lucene shards"
            read_rows = rows(source, shards, context)
            notes = source.describe(context, shards).notes
        assert row_counts(read_rows) == row_counts(map(older_bed.expected, seeded_rows))
        assert any("no more slices than it has Lucene shards" in note for note in notes)

    @pytest.mark.parametrize("lucene_shards", [1, 3, 5])
    def test_slices_are_exact_and_keep_their_members(self, older_bed, lucene_shards):
        seeded_rows = [make_row(n) for n in range(200)]
        name = older_bed.seed(seeded_rows, lucene_shards=lucene_shards)
        members = []
        for slices in [number for number in (1, 2, 3, 5) if number <= lucene_shards]:
            source = older_bed.source(name, slices=slices)
            with in_session(source) as (_, context):
                shards = source.shards(context)
                read_rows = rows(source, shards, context)
                members.append(
                    [{row["id"] for row in rows(source, [shard], context)} for shard in shards]
                )
            assert row_counts(read_rows) == row_counts(map(older_bed.expected, seeded_rows)), slices
        with older_bed.client() as client:
            older_bed.bulk(client, (older_bed.action(name, row) for row in seeded_rows[::2]))
            client.indices.forcemerge(index=name, max_num_segments=1)
        with in_session(source) as (_, context):
            assert members[-1] == [
                {row["id"] for row in rows(source, [shard], context)} for shard in shards
            ]

    def test_scrolls_cut_finer_than_lucene_shards(self, older_bed):
        name = older_bed.seed(CORPUS)
        source = older_bed.source(name, shard_bytes=SHARD_BYTES, read_by="scroll")
        shards = source.shards(CONTEXT)
        assert len(shards) > 2
        read_rows = rows(source, shards, replace(CONTEXT))
        assert row_counts(read_rows) == row_counts(map(older_bed.expected, CORPUS))
