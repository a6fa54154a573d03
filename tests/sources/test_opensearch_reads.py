"""OpenSearch: what a reader of it can do wrong, on the real servers 3.6.0 and 2.19.6."""

import pytest

from cfray.errors import SourceError
from tests.sources.corpus import CONTEXT, CORPUS, SHARD_BYTES, make_row, row_counts, rows
from tests.sources.lucene_cases import Counting, LuceneCases, in_session
from tests.sources.opensearch_bed import OpenSearchBed
from tests.testbeds import opensearch

pytestmark = pytest.mark.server("opensearch")


@pytest.fixture(scope="module")
def older_bed(shared_bed):
    return shared_bed(OpenSearchBed, version=opensearch.OLDER)


class TestOpenSearchReads(LuceneCases):
    @pytest.fixture
    def bed(self, shared_bed):
        return shared_bed(OpenSearchBed)

    def test_a_429_for_too_many_slices_is_not_asked_again(self, bed):
        from dataclasses import replace

        name = bed.seed(CORPUS)
        source = bed.source(name, slices=1025)
        with in_session(source) as (_, context):
            shards = source.shards(context)
            counting = Counting()
            with pytest.raises(SourceError, match="number of slices") as refused:
                rows(source, shards[:1], replace(context, throttle=counting))
        assert not refused.value.transient
        assert "source.slices" in refused.value.remedy
        # what answers, the index, and one page
        assert counting.requests == 3
        automatic = bed.source(name, shard_bytes=1)
        assert len(automatic.shards(CONTEXT)) == 1024

    def test_join_fields_are_references_and_routing_is_kept(self, bed):
        name = bed.fresh()
        relations = {"question": "answer"}
        with bed.client() as client:
            bed.create_with_mapping(
                client, name, {"properties": {"at": {"type": "join", "relations": relations}}}
            )
            children = [
                {
                    "_op_type": "index",
                    "_index": name,
                    "_id": f"a{n}",
                    "routing": "q",
                    "_source": {"at": {"name": "answer", "parent": "q"}},
                }
                for n in range(3)
            ]
            parent = {
                "_op_type": "index",
                "_index": name,
                "_id": "q",
                "_source": {"at": "question"},
            }
            bed.bulk(client, iter([parent, *children]))
        source = bed.source(name)
        (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
        assert collection.references == {"at.parent": name}
        read_rows = {row["id"]: row for row in rows(source)}
        assert read_rows["q"] == {"id": "q", "at": ("string", "question")}
        assert read_rows["a1"] == {
            "id": "a1",
            "at": ("struct", '{"name":"answer","parent":"q"}'),
            "_routing": ("string", "q"),
        }

    def test_a_data_stream_is_read_as_its_indices(self, bed):
        stream = f"stream-{bed.fresh()}"
        with bed.client() as client:
            client.indices.put_index_template(
                name=stream,
                body={
                    "index_patterns": [stream],
                    "data_stream": {},
                    "priority": 100,
                    "template": {"settings": {"number_of_replicas": 0}},
                },
            )
            for n in range(2):
                document = {"@timestamp": "2024-01-01T00:00:00Z", "n": n}
                client.index(index=stream, body=document, params={"refresh": "true"})
                client.indices.rollover(alias=stream)
        source = bed.source(stream)
        shards = source.shards(CONTEXT)
        # the third index is empty, and has no shard
        assert len({shard.collection for shard in shards}) == 2
        assert all(stream in shard.collection for shard in shards)
        assert sorted(row["n"][1] for row in rows(source, shards)) == ["0", "1"]
        assert source.count(CONTEXT) == 2
        with bed.client() as client:
            client.transport.perform_request("DELETE", f"/_data_stream/{stream}")

    def test_cosine_vectors_of_faiss_name_their_loss(self, bed):
        name = bed.fresh()
        with bed.client() as client:
            properties = {"v": {"type": "knn_vector", "dimension": 2, "space_type": "cosinesimil"}}
            bed.create(client, name, properties)
            actions = [{"_op_type": "index", "_index": name, "_id": "a", "_source": {"v": [3, 4]}}]
            bed.bulk(client, iter(actions))
        source = bed.source(name)
        ((vector,),) = [[row["vector"] for row in rows(source)]]
        assert vector == pytest.approx([0.6, 0.8])
        notes = source.describe(CONTEXT, source.shards(CONTEXT)).notes
        assert any("magnitude is gone" in note for note in notes)


class TestOpenSearch2:
    """The older line: it cannot sort by ``_shard_doc``."""

    def test_all_lines_give_the_same_rows(self, older_bed):
        seeded_rows = older_bed.awkward(60, 4)
        source = older_bed.source(older_bed.seed(seeded_rows), shard_bytes=4 * SHARD_BYTES)
        with in_session(source) as (session, context):
            assert session.consistency == "snapshot"
            shards = source.shards(context)
            assert len(shards) > 2
            read_rows = rows(source, shards, context)
        assert row_counts(read_rows) == row_counts(map(older_bed.expected, seeded_rows))

    @pytest.mark.parametrize("lucene_shards", [1, 3, 5])
    def test_slices_are_exact_and_keep_their_members(self, older_bed, lucene_shards):
        seeded_rows = [make_row(n) for n in range(200)]
        name = older_bed.seed(seeded_rows, lucene_shards=lucene_shards)
        members = []
        for slices in (1, 2, 3, 5):
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
