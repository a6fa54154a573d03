"""The traps of both search servers, as tests that each product inherits.

A subclass provides ``bed``, the bed of a real server.
"""

import gzip
import json
import threading
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.runtime.credentials import Secret
from cfray.runtime.throttle import Throttle
from cfray.sources.lucene.indices import list_catalog
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
from tests.sources.lucene_bed import document_id
from tests.testbeds.processes import until
from tests.testbeds.proxy import Status


@contextmanager
def in_session(source):
    """Open the source's session; give the session and the context of a run in it."""
    with source.session() as session:
        yield session, replace(CONTEXT, session=session.state)


class Counting(Throttle):
    """Counts requests, and does something before the nth."""

    def __init__(self, actions=None):
        self.requests = 0
        self.actions = actions or {}

    def take(self):
        self.requests += 1
        if action := self.actions.get(self.requests):
            action()

    def hold_off(self, seconds):
        pass


@contextmanager
def writing(bed, name):
    """Write to an index until the block ends: updates, deletions and new documents."""
    stop, passes = threading.Event(), []

    def write_once():
        number = len(passes)
        with bed.client() as client:
            bed.bulk(
                client,
                iter(
                    [
                        bed.action(name, make_row(n, text=f"changed {number}"))
                        for n in range(number % 7, 200, 7)
                    ]
                    + [bed.action(name, make_row(n, id=f"new {number} {n}")) for n in range(20)]
                ),
            )
        bed.delete(name, [f"new {number} {n}" for n in range(10)])
        if not number:
            bed.delete(name, [f"d{n:04d}" for n in range(200, 230)])
        passes.append(number)

    def write():
        while not stop.is_set():
            write_once()

    # at least one pass happens before anything is read
    write_once()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


class LuceneCases:
    @pytest.fixture(autouse=True)
    def _quick_retries(self, monkeypatch):
        monkeypatch.setattr("cfray.runtime.retry.FIRST_PAUSE", 0.001)
        monkeypatch.setattr("cfray.runtime.retry.LONGEST_PAUSE", 0.01)
        monkeypatch.setattr("cfray.runtime.retry.JITTER", 0.0)

    def test_every_kind_of_vector_and_value_comes_back(self, bed):
        seeded_rows = bed.awkward(90, 12)
        source = bed.source(bed.seed(seeded_rows), shard_bytes=20_000)
        read_rows = rows(source)
        assert row_counts(read_rows) == row_counts(map(bed.expected, seeded_rows))
        kinds = {field.name: str(field.type) for field in items(source)[0][1].schema}
        assert kinds["vector"] == "fixed_size_list<item: float>[12]"
        assert "bits: fixed_size_list<item: uint8>[2]" in kinds["vectors"]
        assert "bytes: fixed_size_list<item: int8>[5]" in kinds["vectors"]

    @pytest.mark.parametrize("lucene_shards", [1, 3, 5])
    def test_slices_are_the_point_in_time_while_a_writer_writes(self, bed, lucene_shards):
        seeded_rows = [make_row(n) for n in range(300)]
        name = bed.seed(seeded_rows, lucene_shards=lucene_shards)
        expected_rows = row_counts(map(bed.expected, seeded_rows))
        with in_session(bed.source(name)) as (session, context):
            assert session.consistency == "snapshot"
            with writing(bed, name):
                for slices in bed.exact_slices(lucene_shards):
                    source = bed.source(name, slices=slices)
                    shards = source.shards(context)
                    assert len(shards) == slices
                    assert row_counts(rows(source, shards, context)) == expected_rows, slices
                assert source.count(context) == len(seeded_rows)
        assert rows(bed.source(name)) != expected_rows

    @pytest.mark.parametrize("lucene_shards", [1, 3])
    def test_a_document_is_in_the_same_slice_under_another_point_in_time(self, bed, lucene_shards):
        seeded_rows = [make_row(n) for n in range(300)]
        name = bed.seed(seeded_rows, lucene_shards=lucene_shards)
        slices = bed.exact_slices(lucene_shards)[-1]
        source = bed.source(name, slices=slices)

        def members():
            with in_session(source) as (_, context):
                return {
                    row["id"]: shard.id
                    for shard in source.shards(context)
                    for row in rows(source, [shard], context)
                }

        before = members()
        with bed.client() as client:
            for start in (0, 1):
                changed = [make_row(n, text="changed") for n in range(start, 300, 2)]
                bed.bulk(client, (bed.action(name, row) for row in changed))
            client.indices.forcemerge(index=name, max_num_segments=1)
        assert len(set(before.values())) == slices
        assert members() == before

    def test_a_breaker_that_trips_in_the_middle_is_survived(self, bed):
        name = bed.seed(CORPUS)

        def limit(value):
            with bed.client() as client:
                bed.put_cluster_setting(client, "network.breaker.inflight_requests.limit", value)

        with in_session(bed.source(name)) as (_, context):
            source = bed.source(name, slices=1)
            (shard,) = source.shards(context)
            plain = Counting()
            rows(source, [shard], replace(context, throttle=plain))
            # the request before the last asks for a page
            tripped = Counting(
                {plain.requests: lambda: limit("100b"), plain.requests + 1: lambda: limit(None)}
            )
            read_rows = rows(source, [shard], replace(context, throttle=tripped))
        assert tripped.requests > plain.requests
        assert row_counts(read_rows) == row_counts(map(bed.expected, CORPUS))

    def test_a_point_in_time_is_kept_alive_until_the_session_is_left(self, bed):
        name = bed.seed(CORPUS)
        source = bed.source(name, keep_alive_seconds=4)
        with in_session(source) as (session, context):
            shards = source.shards(context)
            assert session.expires == 4
            with source.open_server(CONTEXT) as server:

                def open_contexts():
                    nodes = server.send("GET", "/_nodes/stats/indices/search")["nodes"]
                    return sum(
                        node["indices"]["search"]["open_contexts"] for node in nodes.values()
                    )

                contexts = open_contexts()
                server.open_view(name)
                assert open_contexts() > contexts

                def is_gone():
                    source.keep_alive(session)
                    return open_contexts() <= contexts

                until(is_gone, "the point in time that nobody keeps alive is gone", seconds=120)
            assert row_counts(rows(source, shards, context)) == row_counts(
                map(bed.expected, CORPUS)
            )
        with pytest.raises(SourceError, match="let a point in time"):
            source.keep_alive(session)

    def test_a_lost_point_in_time_ends_the_run_and_is_never_replaced(self, bed):
        name = bed.seed(CORPUS)
        source = bed.source(name)
        with in_session(source) as (session, context):
            shards = source.shards(context)
            with source.open_server(CONTEXT) as server:
                server.close_view(session.state["views"][name])
            with pytest.raises(SourceError, match="let a point in time") as lost:
                rows(source, shards, context)
            with pytest.raises(SourceError):
                source.keep_alive(session)
        assert not lost.value.transient
        assert "run the same command again" in lost.value.remedy

    def test_a_session_without_the_planned_index_is_refused(self, bed):
        name, other = bed.seed(CORPUS[:3]), bed.seed(CORPUS[:3])
        shards = bed.source(name).shards(CONTEXT)
        with (
            in_session(bed.source(other)) as (_, context),
            pytest.raises(SourceError, match=f"no point in time of the index {name}"),
        ):
            rows(bed.source(name), shards, context)

    def test_the_newest_id_of_a_point_in_time_is_asked_with(self, bed, monkeypatch):
        """One node never gives a new id, so here its answers get one, and old ids are refused."""
        name = bed.seed(CORPUS)
        source = bed.source(name, slices=1)
        real = {}
        with source.open_server(CONTEXT) as server:
            server_class = type(server)
        call = server_class.call

        def call_with_new_ids(self, method, target, body):
            view = (body or {}).get("pit")
            if view is None:
                return call(self, method, target, body)
            assert view["id"] in real or not real, "an old id was used again"
            real_id = real.pop(view["id"], view["id"])
            answer = call(self, method, target, {**body, "pit": {**view, "id": real_id}})
            alias = f"{len(target)}-{id(answer)}"
            real[alias] = answer["pit_id"]
            return {**answer, "pit_id": alias}

        with in_session(source) as (session, context):
            (shard,) = source.shards(context)
            first = dict(session.state["views"])
            monkeypatch.setattr(server_class, "call", call_with_new_ids)
            source.keep_alive(session)
            assert session.state["views"] != first
            read_rows = rows(source, [shard], replace(CONTEXT, session=session.state))
            monkeypatch.undo()
            session.state["views"].update(first)
        assert row_counts(read_rows) == row_counts(map(bed.expected, CORPUS))

    def test_an_index_that_is_written_to_has_another_mark(self, bed):
        seeded_rows = bed.awkward(12, 4)
        name, untouched = bed.seed(seeded_rows), bed.seed(seeded_rows)
        source = bed.source(name, untouched)
        before = source.marks(CONTEXT)
        assert before == source.marks(CONTEXT)
        assert before == {name: "12 operations", untouched: "12 operations"}
        with bed.client() as client:
            bed.bulk(client, iter([bed.action(name, seeded_rows[3] | {"title": "another"})]))
        with in_session(source) as (_, context):
            assert source.count(context) == 24, "in place: no count shows it"
            assert source.marks(context) == {**before, name: "13 operations"}

    def test_a_slice_of_an_index_that_nobody_writes_to_keeps_its_watermark(self, bed):
        seeded_rows = bed.awkward(12, 4)
        name, untouched = bed.seed(seeded_rows), bed.seed(seeded_rows)
        source = bed.source(name, untouched)

        def watermarks(earlier, **changed):
            marks = source.marks(CONTEXT)
            with in_session(source) as (session, _):
                context = replace(CONTEXT, session={**session.state, **changed})
                shards = source.shards_since(earlier, context)
                return shards, {
                    shard.id: source.watermark(shard, marks[shard.collection], context)
                    for shard in shards
                }

        shards, before = watermarks([])
        assert all(mark.startswith("12 operations, history ") for mark in before.values())
        assert watermarks(shards) == (shards, before)
        with bed.client() as client:
            bed.bulk(client, iter([bed.action(name, seeded_rows[3] | {"title": "another"})]))
        again, after = watermarks(shards)
        assert [shard.where for shard in again] == [shard.where for shard in shards]
        changed = {shard.collection for shard in shards if before[shard.id] != after[shard.id]}
        assert changed == {name}
        # what a search does not show yet is no watermark, nor is what is under way
        assert set(watermarks(shards, unrefreshed=[name, untouched])[1].values()) == {None}
        assert source.watermark(shards[0], "12 operations, 1 under way", CONTEXT) is None
        # another index of this name is another index, with as many operations or not
        bed.drop(untouched)
        bed.seed(seeded_rows, untouched)
        known = {shard.id: shard.where for shard in shards}
        renewed = [shard for shard in watermarks(shards)[0] if shard.collection == untouched]
        assert all(known[shard.id] != shard.where for shard in renewed)

    def test_scrolls_read_the_same_rows_in_slices(self, bed):
        seeded_rows = bed.awkward(90, 4)
        source = bed.source(bed.seed(seeded_rows), read_by="scroll", slices=5)
        with in_session(source) as (session, context):
            assert (session.consistency, session.expires) == (None, None)
            shards = source.shards(context)
            assert len(shards) == 5
            read_rows = rows(source, shards, context)
        assert row_counts(read_rows) == row_counts(map(bed.expected, seeded_rows))

    def test_a_page_of_a_scroll_that_is_lost_makes_the_shard_be_read_again(self, bed):
        proxy, source = bed.proxied(bed.seed(CORPUS))
        with closing(proxy):
            source = source.model_copy(update={"read_by": "scroll", "slices": 1})
            (shard,) = source.shards(CONTEXT)
            proxy.fail(Status(503), times=1, matching="/_search/scroll")
            with pytest.raises(SourceError) as lost:
                rows(source, [shard])
            assert lost.value.transient
            read_rows = rows(source, [shard])
        assert row_counts(read_rows) == row_counts(map(bed.expected, CORPUS))

    def test_a_vector_that_the_server_leaves_out_is_a_reject(self, bed):
        """Trap: ``_source.excludes`` loses vectors of documents that have them, without a word."""
        name = bed.fresh()
        with bed.client() as client:
            bed.create_with_mapping(
                client,
                name,
                {
                    "_source": {"excludes": ["hidden"]},
                    "properties": {"hidden": bed.vector_mapping("float", 2)},
                },
            )
            actions = [
                {"_op_type": "index", "_index": name, "_id": str(n), "_source": {"n": n}}
                for n in range(4)
            ]
            actions[1]["_source"]["hidden"] = [1.0, 2.0]
            actions[2]["_source"]["hidden"] = [3.0, 4.0]
            bed.bulk(client, iter(actions))
        source = bed.source(name)
        read_items = [item for _, item in items(source)]
        rejects = [item for item in read_items if isinstance(item, Reject)]
        assert sorted(reject.position for reject in rejects) == [f"{name}, _id 1", f"{name}, _id 2"]
        assert all("left it out of _source" in reject.reason for reject in rejects)
        read_rows = [
            row for item in read_items if not isinstance(item, Reject) for row in plain_rows(item)
        ]
        assert {row["id"]: row["vector"] for row in read_rows} == {"0": None, "3": None}
        description = source.describe(CONTEXT, source.shards(CONTEXT))
        assert any("leaves out hidden of _source" in sentence for sentence in description.unread)

    def test_an_index_without_documents_of_its_own_is_refused(self, bed):
        name = bed.fresh()
        with bed.client() as client:
            bed.create_with_mapping(client, name, {"_source": {"enabled": False}})
        with pytest.raises(SourceError, match=f"index {name}: its mapping disables _source"):
            bed.source(name).shards(CONTEXT)

    def test_an_alias_is_read_as_its_indices(self, bed):
        first, second, alias = bed.seed(CORPUS[:9]), bed.seed(CORPUS[5:20]), bed.fresh()
        with bed.client() as client:
            for name in (first, second):
                client.indices.put_alias(index=name, name=alias)
        source = bed.source(alias, shard_bytes=SHARD_BYTES)
        shards = source.shards(CONTEXT)
        assert {shard.collection for shard in shards} == {first, second}
        assert len(rows(source, shards)) == 9 + 15
        notes = source.describe(CONTEXT, shards).notes
        assert {f"{first} is read for {alias}", f"{second} is read for {alias}"} <= set(notes)
        with pytest.raises(SourceError, match=f"the index {first} twice"):
            bed.source(alias, first).shards(CONTEXT)
        with pytest.raises(SourceError, match="has no collection"):
            bed.source("nowhere-to-be-found").shards(CONTEXT)

    def test_names_may_have_a_star(self, bed):
        stem = bed.fresh()
        for suffix in ("a", "b"):
            bed.seed(CORPUS[:3], f"{stem}-{suffix}")
        shards = bed.source(f"{stem}-*").shards(CONTEXT)
        assert {shard.collection for shard in shards} == {f"{stem}-a", f"{stem}-b"}

    def test_an_alias_with_a_filter_is_refused(self, bed):
        name, alias = bed.seed(CORPUS[:3]), bed.fresh()
        with bed.client() as client:
            only_one = {"term": {"created": "2024-01-01"}}
            bed.put_filtered_alias(client, name, alias, only_one)
        with pytest.raises(SourceError, match=f"alias {alias} .* has a filter"):
            bed.source(alias).shards(CONTEXT)

    def test_a_closed_index_is_named(self, bed):
        name = bed.seed(CORPUS[:3])
        with bed.client() as client:
            client.indices.close(index=name)
        with pytest.raises(SourceError, match=f"index {name} .* is closed"):
            bed.source(name).shards(CONTEXT)
        with bed.source().open_server(CONTEXT) as server:
            unread = list(list_catalog(server).unread())
        bed.drop(name)
        assert any(name in sentence and "closed" in sentence for sentence in unread)

    def test_an_index_made_anew_since_the_plan_is_refused(self, bed):
        name = bed.seed(CORPUS)
        source = bed.source(name)
        shards = source.shards(CONTEXT)
        bed.drop(name)
        bed.seed(CORPUS, name)
        with pytest.raises(SourceError, match=f"index {name} .* was made anew"):
            rows(source, shards)

    @pytest.mark.parametrize("known_when_planned", [True, False])
    def test_a_limit_of_the_index_makes_pages_smaller(self, bed, known_when_planned):
        name = bed.seed(CORPUS)
        source = bed.source(name, slices=1)
        shards = None if known_when_planned else source.shards(CONTEXT)
        with bed.client() as client:
            bed.put_index_setting(client, name, "max_result_window", 7)
        assert row_counts(rows(source, shards)) == row_counts(map(bed.expected, CORPUS))

    @pytest.mark.parametrize("read_by", ["point_in_time", "scroll"])
    def test_documents_whose_json_cannot_be_kept_are_rejects_and_the_others_are_read(
        self, bed, read_by
    ):
        """Their content is the document alone: every read of it gives the same bytes.

        The index has no vectors: where the server puts these back it writes documents anew.
        """
        odd = {
            "broken": (b'{"text": "half of a pair: \\ud83d"}', "surrogate"),
            "large": (b'{"text": "a", "odd": {"n": 1e400}}', "beyond float64"),
            'tiny "_source": {': (
                b'{"text": "b \\"_source\\": 1", "odd": {"n": 1e-400}}',
                "beyond float64",
            ),
        }
        name = bed.fresh()
        plain = [{"id": f"p{number}", "text": "plain"} for number in range(20)]
        with bed.client() as client:
            bed.create(client, name, {"odd": {"type": "object", "enabled": False}})
            bed.bulk(client, (bed.action(name, row) for row in plain))
        for record_id, (content, _) in odd.items():
            bed.put_raw(name, record_id, content)
        source = bed.source(name, read_by=read_by, slices=1)
        reads = [[item for _, item in items(source)] for _ in range(2)]
        rejects = [
            {item.position: item for item in read_items if isinstance(item, Reject)}
            for read_items in reads
        ]
        assert rejects[0] == rejects[1]
        for record_id, (content, reason) in odd.items():
            reject = rejects[0][f"{name}, _id {record_id}"]
            assert reason in reject.reason
            found = json.loads(reject.content)
            assert found == {"_id": record_id, "_source": content.decode()}
        ids = [
            row["id"]
            for item in reads[0]
            if not isinstance(item, Reject)
            for row in plain_rows(item)
        ]
        assert sorted(ids) == sorted(row["id"] for row in plain)

    @pytest.mark.parametrize("read_by", ["point_in_time", "scroll"])
    def test_documents_that_were_not_refreshed_yet_are_read(self, bed, read_by):
        name = bed.seed(CORPUS[:20])
        with bed.client() as client:
            bed.put_index_setting(client, name, "refresh_interval", "-1")
        bed.put_raw(name, "late", b'{"text": "acknowledged"}', refresh=False)
        source = bed.source(name, read_by=read_by)
        assert source.count(CONTEXT) == 20
        with in_session(source) as (_, context):
            shards = source.shards(context)
            description = source.describe(context, shards)
            assert description.rows == 21
            assert description.unread == ()
            assert len(rows(source, shards, context)) == 21
            assert source.count(context) == 21

    def test_an_index_that_the_credential_may_not_refresh_is_named(self, bed):
        name = bed.seed(CORPUS[:20])
        proxy, source = bed.proxied(name)
        with closing(proxy):
            proxy.fail(Status(403), times=1, matching="/_refresh")
            with in_session(source) as (_, context):
                unread = source.describe(context, source.shards(context)).unread
        assert any(f"{name} could not be refreshed" in sentence for sentence in unread)

    def test_the_mapping_and_the_settings_are_facts_of_the_collection(self, bed):
        name = bed.seed(CORPUS, lucene_shards=3)
        source = bed.source(name)
        (collection,) = source.describe(CONTEXT, source.shards(CONTEXT)).collections
        assert json.loads(collection.facts["mapping"])["properties"]["created"] == {"type": "date"}
        assert json.loads(collection.facts["settings"])["index.number_of_shards"] == "3"
        assert (collection.dimension, collection.metric) == (2, "l2")

    def test_a_server_that_refuses_the_credential_is_named_and_the_secret_is_not(
        self, bed, monkeypatch
    ):
        monkeypatch.setenv("CFRAY_TEST_KEY", "a-secret-key")
        proxy, source = bed.proxied(bed.seed(CORPUS[:3]))
        source = source.model_copy(update={"api_key": Secret(env="CFRAY_TEST_KEY")})
        with closing(proxy):
            for status, word in ((401, "api_key"), (403, "permissions")):
                proxy.fail(Status(status, body=b"no a-secret-key here"), times=1, matching="")
                with pytest.raises(SourceError) as refused:
                    source.shards(CONTEXT)
                assert not refused.value.transient
                assert word in refused.value.remedy
                assert "a-secret-key" not in str(refused.value)

    def test_a_server_of_another_kind_is_named(self, bed):
        proxy, source = bed.proxied(bed.seed(CORPUS[:3]))
        other = "opensearch" if bed.kind == "elasticsearch" else "elasticsearch"
        version = {"number": "3.6.0", "distribution": other}
        headers = {"content-type": "application/json", "x-elastic-product": "Elasticsearch"}
        with closing(proxy):
            body = json.dumps({"version": version}).encode()
            proxy.fail(Status(200, headers, body), times=1, matching="")
            with pytest.raises(SourceError, match=f"is a server of {other}") as refused:
                source.shards(CONTEXT)
        assert f"source.kind: {other}" in refused.value.remedy

    def test_a_url_with_a_credential_is_refused(self, bed):
        with pytest.raises(ValueError, match="holds a credential"):
            bed.source("any", url="https://user:secret@host:9200")

    @pytest.mark.parametrize("suffix", ["", ".gz"])
    def test_files_of_elasticdump_equal_a_live_read(self, bed, tmp_path, suffix):
        seeded_rows = bed.awkward(60, 4)
        name = bed.seed(seeded_rows)
        dump(bed, name, tmp_path, suffix)
        source = bed.source(name, url=None, uri=str(tmp_path), shard_bytes=20_000)
        shards = source.shards(CONTEXT)
        assert (len(shards) > 2) is not bool(suffix)
        assert row_counts(rows(source, shards)) == row_counts(map(bed.expected, seeded_rows))
        assert {shard.collection for shard in shards} == {name}
        assert source.describe(CONTEXT, shards).unread == ()

    def test_files_of_elasticdump_without_the_declared_vectors_are_named(self, bed, tmp_path):
        """Trap: from Elasticsearch 9.2 on, elasticdump's files have no vectors."""
        name = bed.seed(CORPUS)
        dump(bed, name, tmp_path, "")
        path = tmp_path / f"{name}.json"
        hits = [json.loads(line) for line in path.read_text().splitlines()]
        for hit in hits:
            del hit["_source"]["vector"]
        path.write_text("".join(f"{json.dumps(hit)}\n" for hit in hits))
        source = bed.source(url=None, uri=str(tmp_path))
        (sentence,) = source.describe(CONTEXT, source.shards(CONTEXT)).unread
        assert f"{name}: none of the first {len(CORPUS)} documents" in sentence
        assert "exclude_vectors" in sentence

    def test_files_of_elasticdump_without_a_mapping_keep_vectors_as_lists(self, bed, tmp_path):
        name = bed.seed(CORPUS)
        dump(bed, name, tmp_path, "")
        (tmp_path / f"{name}_mapping.json").unlink()
        source = bed.source(url=None, uri=str(tmp_path / f"{name}.json"))
        shards = source.shards(CONTEXT)
        vectors = {row["id"]: row["_source.vector"] for row in rows(source, shards)}
        assert vectors[document_id(CORPUS[1])] == ("list<double>", "[1.5,-1.5]")
        assert any("no mapping" in note for note in source.describe(CONTEXT, shards).notes)

    def test_lines_that_are_no_document_are_rejects(self, bed, tmp_path):
        good = {"_index": "a", "_id": "1", "_source": {"n": 1}}
        bad = [
            {"_index": "b", "_id": "2", "_source": {}},
            {"_index": "a", "_id": "3"},
            {"_index": "a", "_source": {}},
            "cut {",
        ]
        lines = [
            json.dumps(good),
            *map(json.dumps, bad[:3]),
            bad[3],
            json.dumps({**good, "_id": "4"}),
        ]
        (tmp_path / "a.json").write_text("\n".join(lines) + "\n")
        source = bed.source(url=None, uri=str(tmp_path))
        read_items = [item for _, item in items(source)]
        reasons = [item.reason for item in read_items if isinstance(item, Reject)]
        assert [reason.split(",")[0].split(":")[0] for reason in reasons] == [
            "line is of the index b",
            "line has no _source",
            "line is no document of elasticdump",
            "line",
        ]
        read_rows = [
            row for item in read_items if not isinstance(item, Reject) for row in plain_rows(item)
        ]
        assert [row["id"] for row in read_rows] == ["1", "4"]

    def test_files_that_are_none_of_elasticdump_are_refused(self, bed, tmp_path):
        (tmp_path / "a.json").write_text('{"id": 1}\n')
        with pytest.raises(SourceError, match="no document of elasticdump"):
            bed.source(url=None, uri=str(tmp_path)).shards(CONTEXT)


def dump(bed, name, folder, suffix):
    """Write an index as elasticdump does: a hit a line, and the mapping in a file of its own."""
    with bed.client() as client:
        answer = bed.search_all(client, name)
        mapping = client.indices.get_mapping(index=name)
    lines = "".join(f"{json.dumps(hit)}\n" for hit in answer["hits"]["hits"])
    data = gzip.compress(lines.encode()) if suffix else lines.encode()
    (folder / f"{name}.json{suffix}").write_bytes(data)
    (folder / f"{name}_mapping.json").write_text(json.dumps(dict(mapping)))
