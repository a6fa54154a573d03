"""Exports of DynamoDB tables to S3: the contract, both formats, and what is refused.

The files are made by ``dynamodb_export.py`` from the documented layout: no emulator makes them.
"""

import base64
import gzip
import json

import pytest

from cfray.errors import SourceError
from cfray.records.record import Reject
from cfray.sources.base import Context
from cfray.sources.dynamodb.source import DynamoDB
from tests.sources.contract import SourceContract
from tests.sources.corpus import CONTEXT, CORPUS, SHARD_BYTES, row_counts, rows
from tests.sources.dynamodb_bed import DynamoDBBed, declare_vectors, item_of, wire
from tests.sources.dynamodb_export import change_manifest, md5, write_export

pytestmark = pytest.mark.server("dynamodb")
FORMATS = ("DYNAMODB_JSON", "ION")


def source_of(folder, **options):
    return DynamoDB(
        **{
            "uri": str(folder),
            "key": ["id"],
            "vectors": declare_vectors([]),
            "shard_bytes": SHARD_BYTES,
            **options,
        }
    )


@pytest.fixture(params=FORMATS)
def output_format(request):
    return request.param


class TestDynamoDBExport(SourceContract):
    @pytest.fixture
    def seed(self, tmp_path, output_format):
        def write(some_rows):
            written = [item_of(row) for row in some_rows]
            folder = tmp_path / "AWSDynamoDB" / "01693685827463-2d8752fd"
            # random text is not compressed: each file is about the bytes of a shard
            write_export(folder, "docs", written, files=6, output_format=output_format)
            return source_of(folder, shard_bytes=1_000)

        return write

    @staticmethod
    def expected(row):
        return DynamoDBBed.expected(None, row)


@pytest.fixture
def export(tmp_path):
    written = [item_of(row) for row in CORPUS]
    return write_export(tmp_path / "AWSDynamoDB" / "0169", "docs", written)


def data_files(folder):
    """Return the data files in the order of the manifest, without the empty ones."""
    lines = (folder / "manifest-files.json").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return [
        folder / "data" / entry["dataFileS3Key"].rpartition("/")[2]
        for entry in entries
        if entry["itemCount"]
    ]


def refusal(source):
    with pytest.raises(SourceError) as error:
        rows(source)
    assert not error.value.transient
    assert error.value.remedy
    return error.value.what


class TestWhatAnExportSays:
    def test_a_live_table_and_its_export_give_the_same_records(
        self, shared_bed, tmp_path, output_format
    ):
        bed = shared_bed(DynamoDBBed)
        awkward = bed.awkward(60, 16)
        name = bed.seed(awkward)
        written = bed.client().scan(TableName=name, ConsistentRead=True)["Items"]
        folder = write_export(tmp_path / "0169", name, written, output_format=output_format)
        live = bed.source(name)
        exported = source_of(folder, vectors=bed.declared[name])
        assert row_counts(rows(exported)) == row_counts(rows(live))
        assert {shard.collection for shard in exported.shards(CONTEXT)} == {name}

    def test_composite_keys_have_the_ids_of_a_live_read(self, shared_bed, tmp_path, output_format):
        bed = shared_bed(DynamoDBBed)
        name = bed.create(bed.fresh(), {"pk": "B", "sk": "N"})
        bed.put(name, [{"pk": wire(bytes([n])), "sk": wire(n / 4)} for n in range(12)])
        written = bed.client().scan(TableName=name)["Items"]
        folder = write_export(tmp_path / "0169", name, written, output_format=output_format)
        exported = source_of(folder, key=["pk", "sk"], vectors={})
        assert row_counts(rows(exported)) == row_counts(
            rows(
                bed.source(name, vectors={"x": {"optional": True}}).model_copy(
                    update={"vectors": {}}
                )
            )
        )

    def test_it_is_a_snapshot_with_its_time(self, export):
        source = source_of(export)
        description = source.describe(CONTEXT, source.shards(CONTEXT))
        assert description.consistency == "snapshot"
        assert (description.rows, description.exact) == (len(CORPUS), True)
        [collection] = description.collections
        assert collection.name == "docs"
        assert collection.facts["export time"] == "2026-11-04T07:28:34.028Z"
        assert not source.is_remote
        assert source.count(CONTEXT) is None

    @pytest.mark.parametrize("named", ["{}", "{}/manifest-summary.json", "{}/..", "{}/../.."])
    def test_an_export_is_found_by_any_of_its_folders(self, export, named):
        source = source_of(named.format(export))
        source = source.model_copy(update={"uri": str(export.parent.parent / named.format(export))})
        assert len(rows(source)) == len(CORPUS)

    def test_several_tables_are_told_apart_and_can_be_chosen(self, tmp_path):
        for table, some_rows in (("a", CORPUS[:5]), ("b", CORPUS[3:9])):
            write_export(tmp_path / f"of-{table}", table, [item_of(row) for row in some_rows])
        assert {shard.collection for shard in source_of(tmp_path).shards(CONTEXT)} == {"a", "b"}
        assert len(rows(source_of(tmp_path, collections=["b"]))) == 6

    def test_files_that_the_manifest_does_not_name_are_named_and_not_read(self, export):
        stray = export / "data" / "stray.json.gz"
        stray.write_bytes(gzip.compress(b'{"Item":{"id":{"S":"stray"}}}\n'))
        source = source_of(export)
        assert len(rows(source)) == len(CORPUS)
        [sentence] = source.describe(CONTEXT, source.shards(CONTEXT)).unread
        assert "data/stray.json.gz" in sentence


class TestRefused:
    def test_a_file_with_another_checksum(self, export):
        path = data_files(export)[1]
        lines = gzip.decompress(path.read_bytes()).replace(b"text of", b"TEXT OF")
        path.write_bytes(gzip.compress(lines, mtime=0))
        what = refusal(source_of(export))
        assert path.name in what
        assert "checksum" in what

    @pytest.mark.parametrize("end", [0, 3, -20])
    def test_a_file_that_was_cut(self, export, end):
        path = data_files(export)[0]
        path.write_bytes(path.read_bytes()[:end])
        assert path.name in refusal(source_of(export))

    def test_a_file_that_is_missing(self, export):
        path = data_files(export)[0]
        path.unlink()
        what = refusal(source_of(export))
        assert path.name in what
        assert "missing" in what

    def test_a_file_with_another_number_of_items(self, export):
        """The checksum is right, and the counts of both manifests agree."""
        first = data_files(export)[0].name

        def raise_count(text):
            entries = [json.loads(line) for line in text.splitlines()]
            for entry in entries:
                entry["itemCount"] += entry["dataFileS3Key"].endswith(first)
            return "".join(json.dumps(entry) + "\n" for entry in entries)

        change_manifest(export, "manifest-files", raise_count)
        change_manifest(
            export,
            "manifest-summary",
            lambda text: json.dumps({**json.loads(text), "itemCount": len(CORPUS) + 1}),
        )
        what = refusal(source_of(export))
        assert first in what
        assert "the manifest counts" in what

    def test_manifests_that_count_differently(self, export):
        change_manifest(
            export,
            "manifest-summary",
            lambda text: json.dumps({**json.loads(text), "itemCount": len(CORPUS) - 1}),
        )
        assert f"{len(CORPUS) - 1} items" in refusal(source_of(export))

    @pytest.mark.parametrize("name", ["manifest-summary", "manifest-files"])
    def test_a_manifest_that_is_not_what_its_checksum_says(self, export, name):
        path = export / f"{name}.json"
        path.write_text(path.read_text().replace('"itemCount":', '"itemCount" :', 1) + " ")
        assert f"{name}.json does not have the checksum" in refusal(source_of(export))

    def test_a_manifest_that_is_cut(self, export):
        change_manifest(export, "manifest-files", lambda text: text[:-40])
        assert "no JSON" in refusal(source_of(export))

    def test_a_kind_of_export_that_is_not_known(self, tmp_path):
        folder = write_export(tmp_path / "0170", "docs", [], exportType="PARTIAL_EXPORT")
        assert "PARTIAL_EXPORT" in refusal(source_of(folder))

    def test_a_format_that_is_not_known(self, tmp_path):
        folder = write_export(tmp_path / "0170", "docs", [], outputFormat="PARQUET")
        assert "PARQUET" in refusal(source_of(folder))

    def test_two_exports_of_one_table(self, tmp_path):
        for export_id in ("0169", "0170"):
            write_export(tmp_path / export_id, "docs", [item_of(CORPUS[0])])
        assert "several exports of the table docs" in refusal(source_of(tmp_path))

    def test_an_export_without_a_named_key(self, export):
        with pytest.raises(SourceError, match="what the key") as error:
            rows(source_of(export, key=None))
        assert "source.key" in error.value.remedy

    def test_a_file_that_changed_after_the_plan(self, export):
        source = source_of(export)
        shards = source.shards(CONTEXT)
        path = data_files(export)[0]
        path.write_bytes(path.read_bytes() + gzip.compress(b"\n"))
        with pytest.raises(SourceError, match="changed") as error:
            rows(source, shards)
        assert path.name in error.value.what


def hour(number):
    return f"2026-11-04T{number:02d}:00:00.000Z"


def write_changes(folder, lines, since, until, **options):
    """Write an incremental export of the changes between two hours."""
    times = {"exportFromTime": hour(since), "exportToTime": hour(until)}
    return write_export(folder, "docs", lines, is_full=False, **times, **options)


def change(key, new=None, old=None):
    images = {"NewImage": new, "OldImage": old}
    written = {"N": "1730000000000000"}
    return {
        "Metadata": {"WriteTimestampMicros": written},
        "Keys": key,
        **{name: image for name, image in images.items() if image is not None},
    }


def numbered(numbers, version=0):
    return [{"id": wire(f"d{n}"), "version": wire(version)} for n in numbers]


def versions(source):
    return {row["id"][1]: int(row["version"][1]) for row in rows(source)}


class TestIncrementalExports:
    @pytest.fixture
    def exports(self, tmp_path):
        """Write a full export of ten items at 1:00; it is the only one."""
        folder = tmp_path / "AWSDynamoDB"
        write_export(folder / "01", "docs", numbered(range(10)), exportTime=hour(1))
        return folder

    def test_full_and_incremental_exports_are_the_table_as_it_is_at_the_end(
        self, shared_bed, tmp_path, output_format
    ):
        """The table is changed by the vendor's client, and its live read is what must come."""
        bed = shared_bed(DynamoDBBed)
        name = bed.create(bed.fresh(), {"pk": "S", "sk": "N"})
        client = bed.client()
        key_of = "pk", "sk"

        def put(n, version):
            item = {"pk": wire(f"p{n % 3}"), "sk": wire(n / 4), "version": wire(version)}
            old = client.put_item(TableName=name, Item=item, ReturnValues="ALL_OLD")
            return change({k: item[k] for k in key_of}, item, old.get("Attributes"))

        def delete(n):
            key = {"pk": wire(f"p{n % 3}"), "sk": wire(n / 4)}
            old = client.delete_item(TableName=name, Key=key, ReturnValues="ALL_OLD")
            return change(key, None, old["Attributes"])

        for n in range(40):
            put(n, 0)
        folder = tmp_path / "AWSDynamoDB"
        options = {"output_format": output_format}
        full = client.scan(TableName=name, ConsistentRead=True)["Items"]
        write_export(folder / "01", name, full, exportTime=hour(1), **options)
        first = [put(n, 1) for n in range(0, 20, 2)] + [delete(n) for n in range(1, 20, 2)]
        first += [put(n, 1) for n in range(100, 110)]
        second = [put(n, 2) for n in range(1, 8, 2)] + [delete(n) for n in range(0, 8, 2)]
        second += [delete(n) for n in range(100, 105)] + [put(39, 2)]
        for number, (lines, since) in enumerate(((first, 1), (second, 2)), start=2):
            times = {"exportFromTime": hour(since), "exportToTime": hour(since + 1)}
            write_export(folder / f"{number:02d}", name, lines, is_full=False, **times, **options)
        exported = source_of(folder, key=["pk", "sk"], vectors={})
        live = bed.source(name).model_copy(update={"vectors": {}})
        assert row_counts(rows(exported)) == row_counts(rows(live))
        assert exported.shards(CONTEXT) == exported.shards(CONTEXT)
        description = exported.describe(CONTEXT, exported.shards(CONTEXT))
        assert description.consistency == "snapshot"
        assert not description.exact
        assert description.collections[0].facts["changes until"] == hour(3)

    def test_a_deletion_has_keys_alone_or_an_old_image(self, exports):
        lines = [
            change({"id": wire("d1")}),
            change({"id": wire("d2")}, None, {"id": wire("d2"), "version": wire(0)}),
        ]
        write_changes(exports / "02", lines, 1, 2)
        assert versions(source_of(exports)).keys() == {f"d{n}" for n in (0, *range(3, 10))}

    def test_changes_alone_are_refused(self, tmp_path):
        write_changes(tmp_path / "AWSDynamoDB" / "02", [], 1, 2)
        what = refusal(source_of(tmp_path))
        assert "incremental" in what
        assert "not the table docs" in what

    def test_changes_of_another_table_of_that_name_are_refused(self, exports):
        write_changes(exports / "02", [], 1, 2, tableId="99999a99-abcd-123a-ab12-1234abc12345")
        assert "deleted and made again" in refusal(source_of(exports))

    def test_a_gap_between_two_exports_is_refused(self, exports):
        write_changes(exports / "02", [], 1, 2)
        write_changes(exports / "03", [], 3, 4)
        assert "are missing" in refusal(source_of(exports))

    def test_changes_that_the_full_export_has_are_not_read(self, exports):
        old = [change({"id": item["id"]}, item) for item in numbered(range(3), 99)]
        write_changes(exports / "00", old, 0, 1)
        new = [change({"id": item["id"]}, item) for item in numbered(range(3), 1)]
        write_changes(exports / "02", new, 1, 2)
        source = source_of(exports)
        assert versions(source) == {f"d{n}": int(n < 3) for n in range(10)}
        notes = source.describe(CONTEXT, source.shards(CONTEXT)).notes
        assert any("/00 holds changes that a later export has" in note for note in notes)

    def test_changes_that_overlap_are_read_once(self, exports):
        for number, (since, until) in enumerate(((0, 2), (1, 3)), start=2):
            some_items = numbered(range(number), number)
            lines = [change({"id": item["id"]}, item) for item in some_items]
            write_changes(exports / f"{number:02d}", lines, since, until)
        assert versions(source_of(exports)) == {f"d{n}": 3 if n < 3 else 0 for n in range(10)}

    def test_keys_that_the_job_does_not_name_are_refused(self, exports):
        item = numbered([1])[0]
        write_changes(exports / "02", [change({**item}, item)], 1, 2)
        with pytest.raises(SourceError, match="its keys are") as error:
            source_of(exports).shards(CONTEXT)
        assert "source.key" in error.value.remedy

    def test_a_change_that_cannot_be_read_is_refused(self, exports):
        write_changes(exports / "02", [{"Keys": {}}, {"Metadata": {}}], 1, 2, files=2)
        with pytest.raises(SourceError, match="keys"):
            source_of(exports).shards(CONTEXT)

    def test_a_lost_list_of_changes_is_refused(self, exports, tmp_path):
        write_changes(exports / "02", [change({"id": wire("d1")})], 1, 2)
        context = Context(scratch=str(tmp_path / "scratch"))
        source = source_of(exports)
        shards = source.shards(context)
        with pytest.raises(SourceError, match="is gone"):
            rows(source, shards, Context(scratch=str(tmp_path / "elsewhere")))

    def test_a_number_is_one_key_however_it_is_written(self, tmp_path):
        folder = tmp_path / "AWSDynamoDB"
        item = {"id": {"N": "150"}, "version": wire(0)}
        write_export(folder / "01", "docs", [item], exportTime=hour(1))
        lines = [change({"id": {"N": "1.5E+2"}})]
        write_changes(folder / "02", lines, 1, 2, output_format="ION")
        assert rows(source_of(folder)) == []


class TestLines:
    def test_a_line_that_is_no_item_is_a_reject_in_its_place(self, tmp_path):
        folder = write_export(
            tmp_path / "0169", "docs", [item_of(row) for row in CORPUS[:3]], files=2
        )
        path = data_files(folder)[0]
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        lines[1:1] = [b'{"Item":\n', b'{"NewImage":{}}\n']
        content = gzip.compress(b"".join(lines), mtime=0)
        path.write_bytes(content)
        entry = {
            "itemCount": 5,
            "md5Checksum": md5(content),
            "dataFileS3Key": f"x/data/{path.name}",
        }
        change_manifest(folder, "manifest-files", lambda _: json.dumps(entry))
        change_manifest(
            folder,
            "manifest-summary",
            lambda text: json.dumps({**json.loads(text), "itemCount": 5}),
        )
        source = source_of(folder)
        [shard] = source.shards(CONTEXT)
        parts = list(source.read(shard, CONTEXT))
        rejects = [part for part in parts if isinstance(part, Reject)]
        assert [reject.content for reject in rejects] == [b'{"Item":', b'{"NewImage":{}}']
        assert rejects[0].position.endswith("line 2")
        assert sum(len(part) for part in parts if not isinstance(part, Reject)) == 3
        assert not isinstance(parts[0], Reject)

    def test_a_line_that_is_no_ion_is_a_reject(self, tmp_path):
        written = [item_of(row) for row in CORPUS[:2]]
        folder = write_export(tmp_path / "0169", "docs", written, files=2, output_format="ION")
        path = data_files(folder)[0]
        content = gzip.compress(gzip.decompress(path.read_bytes()) + b"$ion_1_0 {Item:{id:\n")
        path.write_bytes(content)
        entry = {"itemCount": 3, "md5Checksum": md5(content), "dataFileS3Key": f"x/{path.name}"}
        change_manifest(folder, "manifest-files", lambda _: json.dumps(entry))
        change_manifest(folder, "manifest-summary", lambda text: text.replace('t": 2', 't": 3'))
        source = source_of(folder)
        [shard] = source.shards(CONTEXT)
        *_, reject = source.read(shard, CONTEXT)
        assert "no Ion" in reject.reason
        assert reject.content == b"$ion_1_0 {Item:{id:"

    def test_gzip_members_and_a_last_line_without_its_break_are_read(self, tmp_path):
        folder = write_export(
            tmp_path / "0169", "docs", [item_of(row) for row in CORPUS[:3]], files=2
        )
        path = data_files(folder)[0]
        data = gzip.decompress(path.read_bytes()).rstrip(b"\n")
        content = gzip.compress(data[:100]) + gzip.compress(data[100:])
        path.write_bytes(content)
        change_manifest(
            folder,
            "manifest-files",
            lambda text: text.replace(
                json.loads(text.splitlines()[0])["md5Checksum"], md5(content)
            ),
        )
        assert len(rows(source_of(folder))) == 3

    def test_every_type_is_the_same_in_both_formats(self, tmp_path):
        item = {
            "id": {"S": "$ion_1_0 'x'"},
            "n": {"N": "12345678901234567890123456789012345678"},
            "d": {"N": "-0.00012345678901234567890123456789"},
            "e": {"N": "100000000000000000000000000000000000000000000000000"},
            "b": {"B": bytes(range(256))},
            "t": {"BOOL": True},
            "z": {"NULL": True},
            "ss": {"SS": ["a", "b\n"]},
            "ns": {"NS": ["1", "2.5"]},
            "bs": {"BS": [b"\x00", b"\x01"]},
            "l": {"L": [{"S": "x"}, {"N": "1"}, {"NULL": True}, {"SS": ["y"]}]},
            "m": {"M": {"a b": {"B": b"\x01"}, "S": {"BOOL": False}}},
        }
        read = []
        for output_format in FORMATS:
            folder = tmp_path / output_format
            write_export(folder, "docs", [item], output_format=output_format)
            read += rows(source_of(folder))
        assert read[0] == read[1]
        assert read[0]["b"] == ("binary", f'"{base64.b64encode(bytes(range(256))).decode()}"')
