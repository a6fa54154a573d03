"""Files of mongodump and mongoexport, laid out here as those tools lay them out.

The documents are written by the vendor's library (``bson``, ``json_util``); the tools
themselves, which no package brings, never ran.
"""

import gzip
import json
import os

import pytest

from cfray.conversion.fields import Fields
from cfray.conversion.identity import read_ids
from cfray.conversion.reference_ids import read_references
from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.mongodb.extended_json import Encoder
from cfray.sources.mongodb.source import MongoDB
from tests.sources.contract import SourceContract
from tests.sources.corpus import CONTEXT, CORPUS, SHARD_BYTES, make_row, row_counts, rows
from tests.sources.mongodb_bed import MongoBed, document_of

bson = pytest.importorskip("bson")
from bson import json_util  # noqa: E402  # where there is a bson
from bson.codec_options import CodecOptions  # noqa: E402

from tests.sources.mongodb_types import EVERY_TYPE, raw_document  # noqa: E402

BED = MongoBed("mongodb://nowhere")
STANDARD = CodecOptions(uuid_representation=4)
CANONICAL = json_util.JSONOptions(json_mode=json_util.JSONMode.CANONICAL, uuid_representation=4)
RELAXED = json_util.JSONOptions(json_mode=json_util.JSONMode.RELAXED, uuid_representation=4)


def bson_bytes(some_rows):
    return b"".join(bson.encode(document_of(row), codec_options=STANDARD) for row in some_rows)


def json_lines(some_rows, options=CANONICAL):
    return "".join(f"{line}\n" for line in json_texts(some_rows, options)).encode()


def json_texts(some_rows, options=CANONICAL):
    return [json_util.dumps(document_of(row), json_options=options) for row in some_rows]


def write_dump(folder, content, name="things.bson"):
    path = folder / "dump" / "shop" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def dump_source(folder, **options):
    return MongoDB(uri=str(folder / "dump"), **{"shard_bytes": SHARD_BYTES, **options})


def json_source(path, content, **options):
    path.write_bytes(content)
    return MongoDB(uri=str(path), **{"shard_bytes": SHARD_BYTES, **options})


class TestDump(SourceContract):
    expected = staticmethod(BED.expected)

    @pytest.fixture
    def seed(self, tmp_path):
        def write(some_rows):
            write_dump(tmp_path, bson_bytes(some_rows))
            return dump_source(tmp_path)

        return write


class TestCanonicalJson(SourceContract):
    expected = staticmethod(BED.expected)
    cannot_count = "lines are not counted when they are planned"

    @pytest.fixture
    def seed(self, tmp_path):
        def write(some_rows):
            return json_source(tmp_path / "shop.things.json", json_lines(some_rows))

        return write


#: What reads the same documents, by the name of its file.
FORMS = {
    "things.bson": bson_bytes,
    "things.bson.gz": lambda some_rows: gzip.compress(bson_bytes(some_rows)),
    "shop.things.json": json_lines,
    "shop.things.json.gz": lambda some_rows: gzip.compress(json_lines(some_rows)),
    "shop.things.jsonl": lambda some_rows: f"[{','.join(json_texts(some_rows))}]".encode(),
    "shop.things.ndjson": lambda some_rows: (
        "[\n" + ",\n".join(json_texts(some_rows)) + "\n]\n"
    ).encode(),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_documents_as_they_are(tmp_path, name):
    seeded = BED.awkward(200, 24)
    path = write_dump(tmp_path, FORMS[name](seeded), name)
    source = MongoDB(uri=str(path), shard_bytes=60_000)
    shards = source.shards(CONTEXT)
    assert {shard.collection for shard in shards} == {"shop.things"}
    assert (len(shards) == 1) is (name.endswith(".gz") or FORMS[name](seeded)[:1] == b"[")
    assert row_counts(rows(source, shards)) == row_counts(map(BED.expected, seeded))
    description = source.describe(CONTEXT, shards)
    assert description.consistency == "pinned files"
    assert description.collections[0].dimension == 24
    assert any(
        "to: writer.$id.$oid, collection: shop.people}" in note for note in description.notes
    )
    assert description.unread == ()


def test_every_type_is_the_same_bytes_after_canonical_json():
    document = {name: value for name, (value, _) in EVERY_TYPE.items()}
    text = json_util.dumps(document, json_options=CANONICAL)
    encoded = Encoder(takes_bare_numbers=False).encode_document(json.loads(text))
    assert encoded == bson.encode(document)


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ('{"a":{"$binary":"AQ==","$type":"05"}}', {"a": bson.Binary(b"\1", 5)}),
        ('{"a":{"$regex":"x","$options":"i"}}', {"a": bson.Regex("x", "i")}),
        ('{"a":{"$date":1000}}', {"a": bson.DatetimeMS(1000)}),
        ('{"a":{"$date":"1970-01-01T01:00:01+01:00"}}', {"a": bson.DatetimeMS(1000)}),
        ('{"a":{"$date":{"$numberLong":"-1"}}}', {"a": bson.DatetimeMS(-1)}),
        ('{"a":{"$uuid":"00000000-0000-0000-0000-000000000001"}}',
         {"a": bson.Binary(bytes(15) + b"\1", 4)}),
        ('{"a":{"$ref":"x","$id":{"$numberInt":"1"}}}', {"a": bson.DBRef("x", 1)}),
        ('{"a":{"$other":"x"}}', {"a": {"$other": "x"}}),
    ],
)  # fmt: skip
def test_older_and_rarer_forms_are_read(text, same_as):
    encoded = Encoder(takes_bare_numbers=False).encode_document(json.loads(text))
    assert encoded == bson.encode(same_as)


@pytest.mark.parametrize(
    "value",
    [
        '{"$oid":"zz"}',
        '{"$numberInt":"3000000000"}',
        '{"$numberLong":"9223372036854775808"}',
        '{"$date":"yesterday"}',
        '{"$date":"2020-01-01T00:00:00"}',
        '{"$binary":{"base64":"!","subType":"00"}}',
        '{"$timestamp":{"t":1}}',
    ],
)
def test_a_value_that_cannot_be_read_sets_its_document_aside(tmp_path, value):
    lines = json_lines(CORPUS[:2]) + f'{{"_id":"bad","v":{value}}}\n'.encode()
    source = json_source(tmp_path / "shop.things.json", lines + json_lines(CORPUS[2:4]))
    items = [item for shard in source.shards(CONTEXT) for item in source.read(shard, CONTEXT)]
    (reject,) = (item for item in items if isinstance(item, Reject))
    assert "extended JSON" in reject.reason
    assert b'"bad"' in reject.content
    assert sum(len(item) for item in items if item is not reject) == 4


@pytest.mark.parametrize("line", [b'{"_id":"a","b":\n', b"[1]\n", b'{"a":1,"a":2}\n', b'{"n":1}\n'])
def test_a_line_that_is_no_document_is_set_aside(tmp_path, line):
    content = json_lines(CORPUS[:2]) + line + json_lines(CORPUS[2:4])
    source = json_source(tmp_path / "shop.things.json", content, relaxed_json=True)
    items = [item for shard in source.shards(CONTEXT) for item in source.read(shard, CONTEXT)]
    assert sum(isinstance(item, Reject) for item in items) == 1
    assert sum(len(item) for item in items if not isinstance(item, Reject)) == 4


def batches(source):
    return [item for shard in source.shards(CONTEXT) for item in source.read(shard, CONTEXT)]


def test_every_id_has_the_tag_that_the_contract_gives_its_type(tmp_path):
    seeded = BED.awkward(90, 4)
    write_dump(tmp_path, bson_bytes(seeded))
    tagged = []
    for batch in batches(dump_source(tmp_path)):
        ids = read_ids(Fields(batch, {("id",)}), "id")
        assert not ids.faults
        tagged += ids.tagged.to_pylist()
    assert {text.partition(":")[0] for text in tagged} == set("siobuj")
    assert tagged[:9] == [
        "s:it's 0",
        "i:1",
        f"i:{2**40 + 2}",
        "o:000000070000000000000003",
        "u:80000000-0000-0000-0000-000000000004",
        "b:00000005",
        'j:{"$date":{"$numberLong":"1577836806000"}}',
        'j:{"n":"000000007","tenant":"t"}',
        'j:{"$numberDouble":"8.5"}',
    ]


@pytest.mark.parametrize("path", ["owner", "writer.$id.$oid", "readers", "nested.by.$oid"])
def test_references_of_each_form_become_the_ids_that_they_point_to(tmp_path, path):
    target = bson.ObjectId("5" * 24)
    row = {
        "id": 1,
        "owner": target,
        "writer": bson.DBRef("people", target),
        "readers": [target],
        "nested": {"by": target},
    }
    write_dump(tmp_path, bson_bytes([row]))
    (batch,) = batches(dump_source(tmp_path))
    _, references = read_references(Fields(batch, {tuple(path.split("."))}), path, "o")
    assert references.to_pylist() == [f"o:{target}"]


class TestDamage:
    @pytest.mark.parametrize("end", [1, 3, 4, 0.3, 0.9, -1])
    def test_a_dump_that_is_cut_is_refused_when_it_is_planned(self, tmp_path, end):
        content = bson_bytes(CORPUS)
        cut = content[: int(len(content) * end) if isinstance(end, float) else end]
        path = write_dump(tmp_path, cut)
        with pytest.raises(SourceError, match="damaged") as refused:
            dump_source(tmp_path).shards(CONTEXT)
        assert path.name in refused.value.what
        assert not refused.value.transient

    def test_a_compressed_dump_that_is_cut_is_refused_when_it_is_read(self, tmp_path):
        content = gzip.compress(bson_bytes(CORPUS))
        write_dump(tmp_path, content[:-20], "things.bson.gz")
        with pytest.raises(SourceError, match=r"things\.bson\.gz"):
            rows(dump_source(tmp_path))

    def test_a_compressed_dump_of_half_a_document_is_refused(self, tmp_path):
        content = gzip.compress(bson_bytes(CORPUS)[:-20])
        write_dump(tmp_path, content, "things.bson.gz")
        with pytest.raises(SourceError, match="damaged"):
            rows(dump_source(tmp_path))

    def test_a_document_of_unknown_types_is_a_reject_and_the_others_are_read(self, tmp_path):
        damaged = raw_document(7, b"\x20strange\0")
        write_dump(tmp_path, damaged + bson_bytes(CORPUS))
        source = dump_source(tmp_path)
        shards = source.shards(CONTEXT)
        source.describe(CONTEXT, shards)
        found = [item for shard in shards for item in source.read(shard, CONTEXT)]
        (reject,) = [item for item in found if isinstance(item, Reject)]
        assert "type 32 does not exist" in reject.reason

    @pytest.mark.parametrize("junk", [b"\0" * 50, b"junk" * 20])
    def test_bytes_behind_the_last_document_are_refused(self, tmp_path, junk):
        write_dump(tmp_path, bson_bytes(CORPUS) + junk)
        with pytest.raises(SourceError, match="damaged"):
            dump_source(tmp_path).shards(CONTEXT)

    def test_a_file_that_changed_after_the_plan_is_refused(self, tmp_path):
        path = write_dump(tmp_path, bson_bytes(CORPUS))
        source = dump_source(tmp_path)
        shards = source.shards(CONTEXT)
        os.utime(path, ns=(1, 1))
        with pytest.raises(SourceError, match="changed since the plan"):
            rows(source, shards)

    def test_an_array_that_is_cut_is_refused(self, tmp_path):
        content = f"[{','.join(json_texts(CORPUS))}".encode()
        source = json_source(tmp_path / "shop.things.json", content)
        with pytest.raises(SourceError, match=r"cut or damaged|before its array"):
            rows(source)

    def test_documents_over_several_lines_are_refused(self, tmp_path):
        content = json.dumps({"_id": "a", "b": {"c": "d"}}, indent=2).encode()
        with pytest.raises(SourceError, match="one document a line") as refused:
            json_source(tmp_path / "shop.things.json", content).shards(CONTEXT)
        assert "--pretty" in refused.value.remedy

    def test_documents_larger_than_a_block_are_read(self, tmp_path):
        large = [make_row(n, text="x" * 5_000_000) for n in range(3)]
        write_dump(tmp_path, bson_bytes([*CORPUS[:3], *large, *CORPUS[3:6]]))
        read = rows(dump_source(tmp_path), context=Context(batch_bytes=10**8))
        assert row_counts(read) == row_counts(map(BED.expected, [*CORPUS[:6], *large]))


class TestRelaxedJson:
    """Trap: relaxed JSON has lost the types of numbers, and mongoexport writes it by default."""

    def test_it_is_refused_without_a_word_of_the_job(self, tmp_path):
        content = json_lines(CORPUS, RELAXED)
        with pytest.raises(SourceError, match="relaxed JSON") as refused:
            json_source(tmp_path / "shop.things.json", content).shards(CONTEXT)
        assert "--jsonFormat=canonical" in refused.value.remedy

    def test_it_is_refused_where_it_shows_late(self, tmp_path):
        late = b'{"_id":"late","n":5}\n'
        content = json_lines([make_row(n) for n in range(150)]) + late
        source = json_source(tmp_path / "shop.things.json", content)
        shards = source.shards(CONTEXT)
        with pytest.raises(SourceError, match="relaxed JSON"):
            rows(source, shards)

    def test_the_job_may_accept_it_and_the_plan_says_what_is_lost(self, tmp_path):
        content = json_lines(CORPUS, RELAXED)
        source = json_source(tmp_path / "shop.things.json", content, relaxed_json=True)
        shards = source.shards(CONTEXT)
        assert row_counts(rows(source, shards)) == row_counts(map(BED.expected, CORPUS))
        (warning,) = source.describe(CONTEXT, shards).unread
        assert "int32" in warning
        assert "2**53" in warning

    def test_what_it_lost_is_lost(self, tmp_path):
        """An int64 of a small number comes back as an int32: nothing in the file says otherwise."""
        row = {"id": "a", "n": bson.Int64(5)}
        content = json_lines([row], RELAXED)
        source = json_source(tmp_path / "shop.things.json", content, relaxed_json=True)
        assert rows(source)[0]["n"] == ("int32", "5")
        canonical = json_source(tmp_path / "shop.others.json", json_lines([row]))
        assert rows(canonical)[0]["n"] == ("int64", "5")


class TestLayout:
    def test_an_archive_is_refused(self, tmp_path):
        for name, content in {
            "all.archive": b"\x6d\xe2\x99\x81rest",
            "all.bson": b"\x6d\xe2\x99\x81rest",
            "all.archive.gz": gzip.compress(b"\x6d\xe2\x99\x81rest"),
        }.items():
            path = write_dump(tmp_path, content, name)
            with pytest.raises(SourceError, match="is an archive of mongodump") as refused:
                MongoDB(uri=str(path)).shards(CONTEXT)
            assert "--archive" in refused.value.remedy

    def test_a_whole_dump_is_read_by_collection_without_the_deployments_own(self, tmp_path):
        write_dump(tmp_path, bson_bytes(CORPUS[:3]))
        write_dump(tmp_path, bson_bytes(CORPUS[3:5]), "a%2Fb.bson")
        write_dump(tmp_path, bson_bytes(CORPUS[5:6]), "system.views.bson")
        write_dump(tmp_path, bson_bytes(CORPUS[5:6]), "system.buckets.ticks.bson")
        own = tmp_path / "dump" / "admin" / "system.users.bson"
        own.parent.mkdir()
        own.write_bytes(bson_bytes(CORPUS[:1]))
        (tmp_path / "dump" / "oplog.bson").write_bytes(bson_bytes(CORPUS[:1]))
        (tmp_path / "dump" / "prelude.json").write_text('{"ServerVersion":"8.0"}')
        for name, options in {
            "things": {},
            "ticks": {"timeseries": {"timeField": "at"}},
            "seen": {"viewOn": "things", "pipeline": []},
        }.items():
            metadata = {"options": options, "indexes": [{"name": "_id_"}], "uuid": "12"}
            write_dump(tmp_path, json.dumps(metadata).encode(), f"{name}.metadata.json")
        source = dump_source(tmp_path, shard_bytes=10**6)
        shards = source.shards(CONTEXT)
        assert {shard.collection: shard.rows for shard in shards} == {
            "shop.things": 3,
            "shop.a/b": 2,
        }
        description = source.describe(CONTEXT, shards)
        assert (description.rows, description.exact) == (5, True)
        facts = {each.name: each.facts for each in description.collections}
        assert facts["shop.things"] == {
            "options": "{}",
            "indexes": '[{"name": "_id_"}]',
            "uuid": '"12"',
        }
        assert any("oplog.bson" in sentence for sentence in description.unread)
        assert any("shop.ticks is not read" in sentence for sentence in description.unread)
        assert any("shop.seen is not read" in note for note in description.notes)

    def test_a_collection_is_chosen_by_its_name(self, tmp_path):
        write_dump(tmp_path, bson_bytes(CORPUS[:3]))
        write_dump(tmp_path, bson_bytes(CORPUS[3:5]), "others.bson")
        assert len(rows(dump_source(tmp_path, collections=["shop.others"]))) == 2
        with pytest.raises(SourceError, match=r"no file of the collection shop\.none"):
            dump_source(tmp_path, collections=["shop.none"]).shards(CONTEXT)

    def test_two_files_of_one_collection_are_refused(self, tmp_path):
        write_dump(tmp_path, bson_bytes(CORPUS[:3]))
        write_dump(tmp_path, gzip.compress(bson_bytes(CORPUS[:3])), "things.bson.gz")
        with pytest.raises(SourceError, match=r"both of the collection shop\.things"):
            dump_source(tmp_path).shards(CONTEXT)

    def test_a_json_file_must_say_its_database(self, tmp_path):
        path = tmp_path / "things.json"
        with pytest.raises(SourceError, match="does not say which database") as refused:
            json_source(path, json_lines(CORPUS[:3])).shards(CONTEXT)
        assert "source.collections" in refused.value.remedy
        named = json_source(path, json_lines(CORPUS[:3]), collections=["shop.things"])
        assert {shard.collection for shard in named.shards(CONTEXT)} == {"shop.things"}

    def test_a_document_without_an_id_is_set_aside(self, tmp_path):
        anonymous = bson.encode({"n": 1})
        write_dump(tmp_path, raw_document(1, b"") + anonymous + raw_document(2, b""))
        source = dump_source(tmp_path)
        items = [item for shard in source.shards(CONTEXT) for item in source.read(shard, CONTEXT)]
        assert ["no _id" in item.reason for item in items if isinstance(item, Reject)] == [True]
        assert sum(len(item) for item in items if not isinstance(item, Reject)) == 2
