"""MongoDB: the contract and the traps of a live read, against doubles.

SecantusDB and FerretDB were asked, never a mongod.
"""

import json
import struct
from base64 import b64decode, b64encode
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from cfray.errors import SourceError
from cfray.records.record import Reject, variant_types
from cfray.records.vectors import read_vectors
from cfray.sources.base import Context
from cfray.sources.mongodb import ids
from cfray.sources.mongodb.client import open_connection
from cfray.sources.mongodb.number_arrays import read_number_arrays
from cfray.sources.mongodb.pages import Range, read_pages
from cfray.sources.mongodb.source import MongoDB
from cfray.sources.paging import PageSize
from tests.sources.corpus import (
    CONTEXT,
    CORPUS,
    SHARD_BYTES,
    make_row,
    plain_rows,
    row_counts,
    rows,
)
from tests.sources.mongodb_bed import DATABASE, MongoBed
from tests.sources.store_contract import StoreContract
from tests.testbeds import mongodb
from tests.testbeds.lineup import taking_part
from tests.testbeds.mongo_proxy import Refused
from tests.testbeds.proxy import Dropped, Truncated

bson = pytest.importorskip("bson")
from bson.binary import Binary, BinaryVectorDtype  # noqa: E402  # where there is a bson

from tests.sources.mongodb_types import EVERY_TYPE, raw_document  # noqa: E402

pytestmark = pytest.mark.server("mongodb")

#: Of about 60 of the bed's awkward documents.
LARGER_PAGES = replace(CONTEXT, batch_bytes=200_000)


@pytest.fixture(scope="module")
def current_bed(shared_bed):
    return shared_bed(MongoBed)


@pytest.fixture(scope="module")
def locked_bed(tmp_path_factory):
    with taking_part(
        "mongodb", MongoBed.serving(tmp_path_factory.mktemp("locked"), user=True)
    ) as bed:
        yield bed


class TestMongoDB(StoreContract):
    client = "pymongo"
    cannot_search = "the double has no vector search, which is a service of Atlas"

    @pytest.fixture
    def bed(self, current_bed):
        return current_bed

    def faults(self, proxy):
        return [
            Dropped(),
            Truncated(),
            Refused(43, "CursorNotFound"),
            Refused(189, "PrimarySteppedDown"),
            Refused(11600, "InterruptedAtShutdown"),
            Refused(50, "MaxTimeMSExpired"),
        ]


@pytest.fixture
def opened(current_bed):
    """Return pymongo's database, which the test fills."""
    with current_bed.client() as client:
        yield client[DATABASE]


@pytest.fixture
def collection(current_bed, opened):
    return opened[current_bed.fresh()]


def source_of(bed, collection, **options):
    return bed.source(f"{DATABASE}.{collection.name}", **options)


def test_ids_of_nine_types_are_exact_where_a_range_query_loses_them(current_bed, opened):
    """Trap: $gte and $lt compare within one type only, and say nothing of the others."""
    seeded = current_bed.awkward(270, 8)
    name = current_bed.seed(seeded)
    source = current_bed.source(name, shard_bytes=30_000)
    shards = source.shards(CONTEXT)
    assert len(shards) > 5
    read = rows(source, shards, LARGER_PAGES)
    assert row_counts(read) == row_counts(map(current_bed.expected, seeded))
    kinds = {row["id"][0] for row in read}
    assert kinds == {"string", "int64", "objectId", "uuid", "binary", "extendedJson"}
    naive = 0
    for shard in shards:
        bounds = {"$gte": shard.where["from"], "$lt": shard.where["to"]}
        query = {
            operator: bson.decode(b64decode(bound))["_id"]
            for operator, bound in bounds.items()
            if bound
        }
        naive += opened[name.partition(".")[2]].count_documents({"_id": query} if query else {})
    assert naive < len(seeded)


def test_ids_are_ordered_as_mongodbs_manual_says():
    """SecantusDB orders embedded documents by their bytes, so the manual's order is spelled out."""
    ordered = [
        bson.MinKey(),
        None,
        float("nan"),
        float("-inf"),
        -5,
        bson.Decimal128("-4.9"),
        0,
        bson.Decimal128("0.1"),
        0.5,
        bson.Int64(2**53),
        2**53 + 1,
        float("inf"),
        "",
        "Z",
        "a",
        "ab",
        "é",
        {},
        {"n": 255},
        {"n": 256},
        {"n": 256, "a": 1},
        {"a": "x"},
        {"n": "x"},
        b"",
        b"b",
        Binary(b"a", 5),
        b"aa",
        bson.ObjectId("0" * 24),
        bson.ObjectId("f" * 24),
        False,
        True,
        bson.DatetimeMS(-1),
        bson.DatetimeMS(1),
        bson.Timestamp(1, 2),
        bson.Timestamp(2, 1),
        bson.MaxKey(),
    ]
    orders = []
    for value in ordered:
        document = bson.encode({"_id": value})
        orders.append(ids.bound_order(b64encode(document).decode()))
    assert sorted(orders) == orders
    assert len(set(orders)) == len(orders)


@pytest.mark.parametrize("pair", [(5, bson.Int64(5)), (5, 5.0), (5, bson.Decimal128("5.0"))])
def test_equal_numbers_of_two_types_are_one_id_in_the_order(pair):
    first, second = (b64encode(bson.encode({"_id": value})).decode() for value in pair)
    assert ids.bound_order(first) == ids.bound_order(second)


def test_shards_claim_the_rows_between_their_bounds(current_bed):
    source = current_bed.source(current_bed.seed(current_bed.awkward(100, 8)), shard_bytes=20_000)
    shards = source.shards(CONTEXT)
    assert sum(shard.rows for shard in shards) == 100
    assert [shard.where["to"] for shard in shards[:-1]] == [
        shard.where["from"] for shard in shards[1:]
    ]
    assert shards[0].where["from"] is shards[-1].where["to"] is None


def test_every_type_of_bson_comes_back(current_bed, collection):
    document = {"_id": 1} | {name: value for name, (value, _) in EVERY_TYPE.items()}
    collection.insert_one(document)
    (row,) = rows(source_of(current_bed, collection))
    assert row == {"id": ("int64", "1")} | {name: shown for name, (_, shown) in EVERY_TYPE.items()}


def test_types_that_drivers_no_longer_write_are_read(tmp_path):
    """Undefined, symbol and DBPointer are in old data only; no driver encodes them."""
    elements = (
        b"\x06gone\0" + b"\x0esign\0\x02\0\0\0a\0" + b"\x0cpointer\0\x02\0\0\0p\0" + b"\x07" * 12
    )
    (row,) = rows(dumped(tmp_path, [raw_document(1, elements)]))
    assert (row["gone"], row["sign"]) == (("undefined", "null"), ("symbol", '"a"'))
    assert row["pointer"] == ("dbPointer", '{"$id":{"$oid":"' + "07" * 12 + '"},"$ref":"p"}')


def dumped(folder, documents):
    path = folder / "dump" / "shop" / "things.bson"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(documents))
    return MongoDB(uri=str(folder / "dump"), shard_bytes=SHARD_BYTES)


@pytest.mark.parametrize(
    ("vector", "kind"),
    [
        ([0.1, -0.0, 1e-45, 3.4028234663852886e38], "list<float>"),
        ([0.1, -0.0, 1e-300, 1.5], "list<double>"),
        ([1, -128, 127, 0], "list<int8>"),
        ([1, 2, 3, 4], "list<int32>"),
        ([1, 2.5, 3, 4], "list"),
    ],
)
def test_vectors_are_read_to_the_bit(current_bed, collection, vector, kind):
    stored = vector
    if kind == "list<float>":
        stored = Binary.from_vector(vector, BinaryVectorDtype.FLOAT32)
    if kind == "list<int8>":
        stored = Binary.from_vector(vector, BinaryVectorDtype.INT8)
    collection.insert_many([{"_id": n, "vector": stored} for n in range(3)])
    source = source_of(current_bed, collection)
    (batch,) = (batch for shard in source.shards(CONTEXT) for batch in source.read(shard, CONTEXT))
    assert set(variant_types(batch.column("vector")).to_pylist()) == {kind}
    read = read_vectors(batch.column("vector"), 4)
    assert not read.faults
    assert read.values.tobytes() == np.array([vector] * 3, np.float32).tobytes()


def test_a_vector_of_bits_keeps_its_padding(current_bed, collection):
    bits = Binary.from_vector([1, 128], BinaryVectorDtype.PACKED_BIT, padding=3)
    collection.insert_one({"_id": 1, "vector": bits})
    (row,) = rows(source_of(current_bed, collection))
    assert row["vector"] == ("binary(9)", f'"{b64encode(bits).decode()}"')


@pytest.mark.parametrize("count", [1, 9, 10, 11, 99, 100, 101, 1000, 1536])
def test_arrays_of_numbers_of_any_length_are_read_as_the_client_reads_them(count):
    generator = np.random.default_rng(count)
    for numbers in (
        generator.standard_normal(count).tolist(),
        generator.integers(-100, 100, count).tolist(),
        [bson.Int64(n) for n in generator.integers(-(2**60), 2**60, count)],
    ):
        array = bson.encode({"": numbers})[6:-1]
        (_, read), *_ = read_number_arrays(array, [(0, len(array))]).values()
        assert read.tolist() == numbers
        broken = array.replace(b"\x010\0", b"\x017\0").replace(b"\x100\0", b"\x107\0")
        assert broken.replace(b"\x120\0", b"\x127\0") != array
        assert read_number_arrays(broken.replace(b"\x120\0", b"\x127\0"), [(0, len(array))]) == {}


def test_the_plan_says_where_dbrefs_point(current_bed, collection):
    collection.insert_many(
        [
            {"_id": 1, "by": bson.DBRef("people", bson.ObjectId()), "in": bson.DBRef("a", 1)},
            {"_id": 2, "by": bson.DBRef("people", bson.ObjectId()), "in": bson.DBRef("b", 2)},
            {"_id": 3, "at": bson.DBRef("places", "x", "atlas")},
        ]
    )
    source = source_of(current_bed, collection)
    notes = "\n".join(source.describe(CONTEXT, source.shards(CONTEXT)).notes)
    assert f"by.$id.$oid, collection: {DATABASE}.people}}" in notes
    assert "at.$id, collection: atlas.places}" in notes
    assert f"in.$id is a DBRef to several collections ({DATABASE}.a, {DATABASE}.b)" in notes


def test_a_field_named_id_does_not_hide_the_documents_id(current_bed, collection):
    collection.insert_one({"_id": "a", "id": 7, "document.id": 8})
    (row,) = rows(source_of(current_bed, collection))
    assert row == {
        "id": ("string", "a"),
        "document.id": ("int32", "7"),
        "document.document.id": ("int32", "8"),
    }


def test_a_page_goes_on_behind_a_document_that_was_deleted_meanwhile(current_bed, collection):
    """Trap: the option min is inclusive, so a fixed skip of one document would lose one."""
    collection.insert_many([{"_id": n} for n in range(10)])
    documents = Range(DATABASE, collection.name)
    source = source_of(current_bed, collection)
    read = []
    with open_connection(source, CONTEXT) as connection:
        for page in read_pages(connection, documents, PageSize(3, 3, 10**6)):
            read += [bson.decode(page.data[start:end])["_id"] for start, end in page.spans]
            collection.delete_one({"_id": read[-1]})
    assert read == list(range(10))


def test_documents_that_are_there_all_the_time_come_once_while_others_come_and_go(
    current_bed, collection
):
    collection.insert_many([{"_id": n, "kept": n % 2 == 0} for n in range(60)])
    source = source_of(current_bed, collection, shard_bytes=300)
    shards = source.shards(CONTEXT)
    assert len(shards) > 2
    read = []
    with open_connection(source, CONTEXT) as connection:
        for shard in shards:
            bounds = Range(DATABASE, collection.name, shard.where["from"], shard.where["to"])
            for page in read_pages(connection, bounds, PageSize(4, 4, 10**6)):
                found = [bson.decode(page.data[start:end]) for start, end in page.spans]
                read += [document["_id"] for document in found if document.get("kept")]
                last = found[-1]["_id"]
                if "kept" not in found[-1]:
                    continue
                collection.delete_many({"kept": False, "_id": {"$gte": last - 1, "$lte": last + 1}})
                # one document before the page and one behind it
                collection.insert_many([{"_id": last - 59.5}, {"_id": last + 0.5}])
    assert read == list(range(0, 60, 2))


def test_no_cursor_is_open_between_pages(current_bed):
    """Trap: a cursor that waits for the target's disk is lost after ten minutes."""
    proxy, source = current_bed.proxied(current_bed.seed(current_bed.awkward(600, 8)))
    with closing(proxy):
        source = source.model_copy(update={"shard_bytes": 10**7})
        assert len(rows(source, context=LARGER_PAGES)) == 600
        commands = {path.split()[0] for _, path in proxy.seen}
        pages = [path for _, path in proxy.seen if path.startswith(current_bed.page_request())]
    assert not commands & {"getMore", "killCursors"}
    assert len(pages) > 3


def test_a_large_document_makes_pages_smaller_and_loses_none(current_bed, collection):
    """Trap: an answer holds 16 MB at most, so a page may be shorter than it was asked for."""
    sizes = [10] * 20 + [6_000_000] * 3 + [10] * 20
    collection.insert_many([{"_id": n, "text": "x" * size} for n, size in enumerate(sizes)])
    source = source_of(current_bed, collection, shard_bytes="1GiB")
    read = rows(source, context=Context(batch_bytes=32 * 2**20))
    assert [len(row["text"][1]) for row in read] == sizes


def test_a_document_above_the_limit_is_set_aside(current_bed, collection):
    collection.insert_many([{"_id": n, "text": "x" * (10 if n != 2 else 5_000)} for n in range(4)])
    source = source_of(current_bed, collection)
    context = Context(batch_bytes=4_000, max_record=1_000)
    items = [item for shard in source.shards(context) for item in source.read(shard, context)]
    assert [type(item).__name__ for item in items] == ["RecordBatch", "Reject", "RecordBatch"]
    assert "max_document" in items[1].reason
    assert items[1].position.endswith("_id int64 2")
    assert sum(len(item) for item in items if not isinstance(item, Reject)) == 3


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        (b"\x02text\0\x03\0\0\0\xff\xfe\0", "UTF-8"),
        (b"\x10n\0\x01\0\0\0\x10n\0\x02\0\0\0", "two fields"),
        (b"\x03in\0\x13\0\0\0\x10n\0\x01\0\0\0\x10n\0\x02\0\0\0\0", "two elements"),
        (b"\x10\xff\0\x01\0\0\0", "name of a field"),
    ],
)
def test_a_document_that_cannot_be_kept_whole_is_set_aside_and_the_others_go_on(
    tmp_path, elements, reason
):
    documents = [raw_document(1, b""), raw_document(2, elements), raw_document(3, b"")]
    source = dumped(tmp_path, documents)
    items = [item for shard in source.shards(CONTEXT) for item in source.read(shard, CONTEXT)]
    (reject,) = (item for item in items if isinstance(item, Reject))
    assert reason in reject.reason
    assert reject.content == documents[1]
    read = [row["id"] for item in items if item is not reject for row in plain_rows(item)]
    assert read == [("int64", "1"), ("int64", "3")]


def test_a_name_like_extended_jsons_own_keeps_the_document_as_bytes(tmp_path):
    inner = b"\x02$oid\0\x02\0\0\0x\0"
    inner = struct.pack("<i", len(inner) + 5) + inner + b"\0"
    (row,) = rows(dumped(tmp_path, [raw_document(1, b"\x03in\0" + inner)]))
    assert row["in"] == ("bson", f'"{b64encode(inner).decode()}"')


def test_the_addresss_read_preference_is_obeyed(current_bed, monkeypatch):
    """Trap: a command goes to the primary, whatever the address says, unless it is told.

    What the client sends to a single server hides it, so its call is looked at.
    """
    from pymongo.database import Database

    source = current_bed.source(current_bed.seed(CORPUS[:3]))
    source = source.model_copy(update={"url": f"{source.url}&readPreference=secondary"})
    modes, send = set(), Database.command

    def command(*arguments, **options):
        modes.add(options["read_preference"].mongos_mode)
        return send(*arguments, **options)

    monkeypatch.setattr(Database, "command", command)
    assert len(rows(source)) == 3
    assert modes == {"secondary"}


class TestConsistency:
    def test_a_live_read_says_so(self, current_bed):
        source = current_bed.source(current_bed.seed(CORPUS[:3]))
        with source.session() as session:
            assert (session.consistency, session.state) == (None, None)
        assert source.describe(CONTEXT, source.shards(CONTEXT)).consistency == "per-shard live"

    def test_all_reads_of_a_snapshot_ask_for_its_time(self, current_bed):
        """The double names a time and does not isolate: that documents stay was never seen."""
        proxy, source = current_bed.proxied(current_bed.seed(CORPUS))
        proxy.names_the_time = True
        source = source.model_copy(update={"consistency": "snapshot", "shard_bytes": 5_000})
        with closing(proxy), source.session() as session:
            assert session.consistency == "snapshot"
            assert session.id.startswith("cluster-time-")
            context = replace(CONTEXT, session=json.loads(json.dumps(session.state)))
            shards = source.shards(context)
            read = rows(source, shards, context)
            concerns = [sent["readConcern"] for sent in proxy.commands if "readConcern" in sent]
        assert row_counts(read) == row_counts(map(current_bed.expected, CORPUS))
        # the first one asks the server for a time
        assert concerns.pop(0) == {"level": "snapshot"}
        assert len(concerns) > len(shards) > 2
        times = {
            (concern["atClusterTime"].time, concern["atClusterTime"].inc) for concern in concerns
        }
        assert times == {(session.state["seconds"], session.state["counter"])}

    def test_a_snapshot_that_the_server_no_longer_has_ends_the_run(self, current_bed):
        proxy, source = current_bed.proxied(current_bed.seed(CORPUS))
        proxy.names_the_time = True
        source = source.model_copy(update={"consistency": "snapshot"})
        with closing(proxy), source.session() as session:
            context = replace(CONTEXT, session=session.state)
            shards = source.shards(context)
            proxy.fail(Refused(239, "SnapshotTooOld"), times=2, matching=current_bed.page_request())
            with pytest.raises(SourceError, match="snapshot of this run is lost") as lost:
                rows(source, shards, context)
            assert proxy.waiting == 1, "a lost snapshot is asked for again"
        assert not lost.value.transient
        assert "run the same command again" in lost.value.remedy

    def test_a_server_that_reads_another_time_is_refused(self, current_bed, opened):
        """Trap: SecantusDB takes the time that it is asked for and reads the latest."""
        name = current_bed.seed(CORPUS[:3])
        source = current_bed.source(name, consistency="snapshot")
        with source.session() as session:
            opened[name.partition(".")[2]].insert_one({"_id": "late"})
            with pytest.raises(SourceError, match="names no time"):
                rows(source, context=replace(CONTEXT, session=session.state))

    def test_a_server_that_gives_no_snapshot_is_refused(self, ferretdb_bed):
        """Trap: FerretDB takes the read concern and reads live."""
        source = ferretdb_bed.source(ferretdb_bed.seed(SMALL_ROWS), consistency="snapshot")
        with pytest.raises(SourceError, match="names no time") as refused, source.session():
            pass
        assert "consistency: live" in refused.value.remedy


#: Rows that FerretDB can hold: it has no int64 beyond 2**53 and no odd documents as ids.
SMALL_ROWS = [make_row(n, meta={"n": n}) for n in range(40)]


@pytest.fixture(scope="module")
def ferretdb_bed(tmp_path_factory):
    with taking_part(
        "ferretdb", mongodb.start_ferretdb(tmp_path_factory.mktemp("ferretdb"))
    ) as server:
        yield MongoBed(mongodb.address(server))


class TestServerThatIgnoresBounds:
    """Trap: FerretDB ignores min and max without an error; each shard would read everything."""

    def test_it_really_does(self, ferretdb_bed):
        name = ferretdb_bed.seed(SMALL_ROWS)
        with ferretdb_bed.client() as client:
            found = client[DATABASE][name.partition(".")[2]]
            cursor = found.find().hint([("_id", 1)]).min([("_id", "d0010")]).max([("_id", "d0012")])
            assert len(list(cursor)) == len(SMALL_ROWS)

    def test_a_second_page_is_refused(self, ferretdb_bed):
        name = ferretdb_bed.seed(SMALL_ROWS[:3])
        with pytest.raises(SourceError, match="outside of the bounds"):
            rows(ferretdb_bed.source(name))

    def test_a_plan_of_several_shards_is_refused(self, ferretdb_bed):
        source = ferretdb_bed.source(ferretdb_bed.seed(SMALL_ROWS), shard_bytes=SHARD_BYTES)
        with pytest.raises(SourceError, match="outside of the bounds") as refused:
            source.shards(CONTEXT)
        assert "mongodump" in refused.value.remedy

    def test_a_shard_that_was_planned_elsewhere_is_refused(self, ferretdb_bed, current_bed):
        shards = current_bed.source(current_bed.seed(SMALL_ROWS), shard_bytes=SHARD_BYTES).shards(
            CONTEXT
        )
        name = ferretdb_bed.seed(SMALL_ROWS)
        for shard in shards[1], shards[-1]:
            with pytest.raises(SourceError, match="outside of the bounds"):
                rows(ferretdb_bed.source(name), [replace(shard, collection=name)])


#: A database of its own, for two tests read all that is in it.
KINDS_DATABASE = f"{DATABASE}_kinds"


class TestCollectionsOfOtherKinds:
    @pytest.fixture
    def opened(self, current_bed):
        with current_bed.client() as client:
            yield client[KINDS_DATABASE]

    def test_a_view_is_refused_by_name_and_left_out_of_all(self, current_bed, opened, collection):
        collection.insert_one({"_id": 1})
        view = f"{collection.name}v"
        opened.create_collection(view, viewOn=collection.name, pipeline=[])
        with pytest.raises(SourceError, match=f"{view} cannot be read: it is a view of") as refused:
            current_bed.source(f"{KINDS_DATABASE}.{view}").shards(CONTEXT)
        assert refused.value.remedy
        source = whole_database(current_bed)
        shards = source.shards(CONTEXT)
        assert f"{KINDS_DATABASE}.{view}" not in {shard.collection for shard in shards}
        notes = source.describe(CONTEXT, shards).notes
        assert any(f"{view} is not read: it is a view" in note for note in notes)

    def test_a_time_series_is_refused_by_name_and_counts_as_unread(self, current_bed, opened):
        name = current_bed.fresh()
        opened.create_collection(name, timeseries={"timeField": "at"})
        with pytest.raises(SourceError, match="time series"):
            current_bed.source(f"{KINDS_DATABASE}.{name}").shards(CONTEXT)
        source = whole_database(current_bed)
        unread = source.describe(CONTEXT, source.shards(CONTEXT)).unread
        assert any(f"{name} is not read: it is a time series" in sentence for sentence in unread)
        opened.drop_collection(name)

    def test_a_capped_collection_is_read_and_named(self, current_bed, opened):
        name = current_bed.fresh()
        opened.create_collection(name, capped=True, size=10**6)
        opened[name].insert_many([{"_id": n} for n in range(3)])
        source = current_bed.source(f"{KINDS_DATABASE}.{name}")
        assert len(rows(source)) == 3
        assert any("capped" in note for note in source.describe(CONTEXT, []).notes)

    def test_a_collation_is_refused(self, current_bed, opened):
        """Trap: such an index orders texts by language, and bounds mean something else."""
        name = current_bed.fresh()
        opened.create_collection(name, collation={"locale": "de", "strength": 1})
        with pytest.raises(SourceError, match="has the collation de") as refused:
            current_bed.source(f"{KINDS_DATABASE}.{name}").shards(CONTEXT)
        assert "mongodump" in refused.value.remedy
        opened.drop_collection(name)

    def test_names_with_dots_and_spaces_are_read(self, current_bed, opened):
        name = f"{current_bed.fresh()}.a b.ü"
        opened[name].insert_many([{"_id": n} for n in range(3)])
        assert (
            len(rows(current_bed.source(f"{KINDS_DATABASE}.{name}", shard_bytes=SHARD_BYTES))) == 3
        )


def whole_database(bed):
    return MongoDB(url=bed.url.replace("/?", f"/{KINDS_DATABASE}?"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": "mongodb://me:secret@h/"}, "credential"),
        ({"url": "mongodb://h", "username": "me"}, "together"),
        ({"url": "mongodb://h", "api_key": {"env": "X"}}, "together"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message) as refused:
        MongoDB(**fields)
    assert "me:secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://h:1", "mongodb://h:x", "mongodb://"])
def test_an_address_of_another_kind_is_a_terminal_error(url):
    with pytest.raises(SourceError) as refused:
        MongoDB(url=url).shards(CONTEXT)
    assert not refused.value.transient
    assert "source.url" in refused.value.remedy
