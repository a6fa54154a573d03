"""Files as polars, DuckDB, pandas and Arrow itself write them, read with the values they hold."""

import datetime as dt
import decimal
import json
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather, ipc
from pyarrow.parquet import encryption

from cfray.conversion.convert import Conversion
from cfray.errors import ConfigError, SourceError
from cfray.job.spec import JobSpec
from cfray.planning.plan import preview
from cfray.records.record import Reject
from cfray.sources.base import Context
from tests.restoring import plain_values, read_frames, restored_fields

CONTEXT = Context(batch_bytes=1 << 20)


def job_of(path, mapping=None, **options):
    suffix = path.suffix or ".parquet"
    return JobSpec.model_validate(
        {
            "name": "writers",
            "source": {"kind": "parquet" if suffix == ".parquet" else "arrow", "uri": str(path)},
            "mapping": mapping or {},
            "target": {"uri": "none"},
            **options,
        }
    )


def read(job):
    """Read and convert a source: its plan, the records as fields by path, the faults."""
    plan, forecast = preview(job)
    conversion = Conversion(job, plan.shape)
    records, faults = [], []
    for shard in job.source.shards(CONTEXT):
        for batch in job.source.read(shard, CONTEXT):
            assert not isinstance(batch, Reject)
            converted = conversion.convert(batch, "")
            faults += [fault.reason for fault in converted.faults]
            records += [
                restored_fields(texts, types, plan.shape.types, [])
                for texts, types in read_frames(converted.frames)
            ]
    return forecast, records, faults


class TestPolars:
    @pytest.fixture
    def frame(self):
        pl = pytest.importorskip("polars")
        count = 24
        return pl.DataFrame(
            {
                "id": [f"p{n}" for n in range(count)],
                "title": [f"Title {n}" for n in range(count)],
                "text": [f"A text of some length, number {n}" for n in range(count)],
                "vector": pl.Series(
                    [[float(n), 1.0, 2.0] for n in range(count)], dtype=pl.Array(pl.Float32, 3)
                ),
                "tags": [["a", f"t{n}"] for n in range(count)],
                "created_at": [f"2024-03-{n % 28 + 1:02d}T10:00:00Z" for n in range(count)],
                "status": pl.Series(["draft", "done"] * (count // 2), dtype=pl.Categorical),
                "lang": pl.Series(["de", "en"] * (count // 2), dtype=pl.Enum(["de", "en"])),
                "price": pl.Series([decimal.Decimal("1.50")] * count, dtype=pl.Decimal(10, 2)),
                "took": [dt.timedelta(seconds=n) for n in range(count)],
                "at": [dt.time(10, 11, 12, n) for n in range(count)],
                "day": [dt.date(1, 1, 1), dt.date(9999, 12, 31)] * (count // 2),
                "nothing": pl.Series([None] * count, dtype=pl.Null),
                "blob": [b"\x00\xff" + bytes([n]) for n in range(count)],
                "inner": [{"a": n, "b": [f"x{n}", None]} for n in range(count)],
            }
        )

    @pytest.fixture(params=["ipc", "ipc_lz4", "ipc_zstd", "stream", "old_ipc", "parquet"])
    def write(self, request, tmp_path):
        def write(frame):
            path = tmp_path / ("a.parquet" if request.param == "parquet" else "a.arrow")
            if request.param == "parquet":
                frame.write_parquet(path)
            elif request.param == "stream":
                frame.write_ipc_stream(path)
            else:
                options = {
                    "ipc_lz4": {"compression": "lz4"},
                    "ipc_zstd": {"compression": "zstd"},
                    "old_ipc": {"compat_level": request.getfixturevalue("oldest_level")},
                }
                frame.write_ipc(path, **options.get(request.param, {}))
            return path

        return write

    @pytest.fixture
    def oldest_level(self):
        return pytest.importorskip("polars").CompatLevel.oldest()

    def test_every_column_comes_with_its_values(self, frame, write):
        forecast, records, faults = read(
            job_of(write(frame), {"tags": "tags", "created_at": "created_at"})
        )
        assert not faults
        rows = frame.to_dicts()
        assert len(records) == len(rows)
        for record, row in zip(records, rows, strict=True):
            assert record["status",] == row["status"]
            assert record["lang",] == row["lang"]
            assert record["blob",] == row["blob"]
            assert record["price",] == row["price"]
            assert record["created_at",] == row["created_at"]
            assert record["day",] == (row["day"] - dt.date(1970, 1, 1)).days
            assert dict(record["inner",]) == row["inner"]
            assert ("nothing",) not in record
        assert [sentence for sentence in forecast.lossy if "order" not in sentence] == []

    def test_a_row_without_an_id_goes_to_quarantine_and_the_others_through(self, frame, write):
        pl = pytest.importorskip("polars")
        is_third = pl.col("id") == "p3"
        path = write(frame.with_columns(id=pl.when(is_third).then(None).otherwise(pl.col("id"))))
        _, records, faults = read(job_of(path))
        assert len(records) == 23
        assert faults == ["no id: id is missing or null"]


class TestDuckDB:
    def test_the_types_of_copy_to(self, tmp_path):
        duckdb = pytest.importorskip("duckdb")
        path = tmp_path / "duck.parquet"
        database = duckdb.connect()
        database.sql("CREATE TYPE mood AS ENUM ('draft', 'published')")
        database.sql(f"""COPY (SELECT
            ('00000000-0000-4000-8000-' || lpad(i::VARCHAR, 12, '0'))::UUID AS id,
            [i, 1, 2]::FLOAT[3] AS vector, ('{{"a": ' || i || '}}')::JSON AS meta,
            (CASE WHEN i % 2 = 0 THEN 'draft' ELSE 'published' END)::mood AS status,
            MAP {{'k' || i: i, 'z': 2}} AS attributes, {{'a': i, 'b': 'x'}} AS nested,
            [('00000000-0000-4000-8000-00000000000' || i)::UUID] AS others,
            TIMESTAMPTZ '2024-03-01 10:00:00+02' AS at, 18446744073709551615::UBIGINT AS big,
            DATE '5000-02-03' AS day, INTERVAL (i) DAY AS span, 'ab'::BLOB AS bytes
            FROM range(9) t(i)) TO '{path}' (FORMAT parquet)""")
        job = job_of(path, strict=True)
        forecast, records, faults = read(job)
        assert not faults
        assert not forecast.lossy
        assert [record["meta",] for record in records] == [f'{{"a": {n}}}' for n in range(9)]
        assert records[4]["status",] == "draft"
        assert records[4]["attributes",] == [("k4", 4), ("z", 2)]
        assert dict(records[4]["nested",]) == {"a": 4, "b": "x"}
        assert records[4]["others",] == [str(uuid.UUID(int=0x4000_8000_000000000004))]
        assert records[4]["big",] == 2**64 - 1
        for shard in job.source.shards(CONTEXT):
            described = job.source.describe(CONTEXT, [shard]).schema
            assert all(batch.schema == described for batch in job.source.read(shard, CONTEXT))


class TestPandas:
    def test_categories_nullable_columns_and_the_index(self, tmp_path):
        pd = pytest.importorskip("pandas")
        frame = pd.DataFrame(
            {
                "id": [f"c{n}" for n in range(6)],
                "text": pd.Categorical(["long text", None, "other"] * 2),
                "size": pd.Categorical(["S", "L", "S"] * 2, ["S", "L"], ordered=True),
                "count": pd.array([1, None, 2**60] * 2, "Int64"),
                "flag": pd.array([True, None, False] * 2, "boolean"),
                "at": pd.to_datetime(
                    ["2024-02-03T04:05:06.123456789", None, "1700-01-01"] * 2, format="ISO8601"
                ),
                "nested": [{"a": [n]} for n in range(6)],
            },
            index=pd.Index(range(10, 16)),
        )
        frame.to_parquet(tmp_path / "a.parquet", index=True)
        forecast, records, faults = read(job_of(tmp_path / "a.parquet"))
        assert not faults
        assert [record.get(("size",)) for record in records] == ["S", "L", "S"] * 2
        assert [record.get(("count",)) for record in records] == [1, None, 2**60] * 2
        assert [record.get(("flag",)) for record in records] == [True, None, False] * 2
        assert [record["__index_level_0__",] for record in records] == list(range(10, 16))
        assert [dict(record["nested",])["a"] for record in records] == [[n] for n in range(6)]
        assert ["size" in sentence for sentence in forecast.lossy] == [True]

    def test_parts_with_more_categories_do_not_mark_their_rows(self, tmp_path):
        kinds = [pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.string())]
        for number, kind in enumerate([*kinds, pa.string()]):
            column = pa.array(["x", "y"]).cast(kind)
            table = pa.table({"id": pa.array([2 * number, 2 * number + 1]), "c": column})
            pq.write_table(table, tmp_path / f"{number}.parquet")
        job = job_of(tmp_path)
        plan, _ = preview(job)
        conversion = Conversion(job, plan.shape)
        for shard in job.source.shards(CONTEXT):
            for batch in job.source.read(shard, CONTEXT):
                for texts, row_types in read_frames(conversion.convert(batch, "").frames):
                    assert texts["c"] in ("x", "y")
                    assert not row_types


@pytest.mark.parametrize("compression", ["lz4", "zstd", None])
def test_compressed_ipc(tmp_path, compression):
    table = pa.table({"id": range(100), "word": ["x" * n for n in range(100)]})
    options = ipc.IpcWriteOptions(compression=compression)
    for name, new in (("a.arrow", ipc.new_file), ("b.arrows", ipc.new_stream)):
        with new(tmp_path / name, table.schema, options=options) as writer:
            writer.write_table(table, 30)
        _, records, _ = read(job_of(tmp_path / name))
        assert [record["word",] for record in records if ("word",) in record][-1] == "x" * 99
        assert len(records) == 100


@pytest.mark.parametrize("deltas", [True, False])
def test_dictionaries_that_grow_or_change_from_batch_to_batch(tmp_path, deltas):
    options = ipc.IpcWriteOptions(emit_dictionary_deltas=deltas, unify_dictionaries=False)
    words = [["a", "b"], ["a", "b", "c"], ["a", "b", "c", "d"]]
    if not deltas:
        words.append(["z"])
    batches = [
        pa.record_batch(
            [
                pa.array([f"r{n}"]),
                pa.DictionaryArray.from_arrays(pa.array([len(shared) - 1]), pa.array(shared)),
            ],
            ["id", "word"],
        )
        for n, shared in enumerate(words)
    ]
    files = [("b.arrows", ipc.new_stream)] + ([("a.arrow", ipc.new_file)] if deltas else [])
    for name, new in files:
        with new(tmp_path / name, batches[0].schema, options=options) as writer:
            for batch in batches:
                writer.write_batch(batch)
        _, records, _ = read(job_of(tmp_path / name))
        assert [record["word",] for record in records] == [shared[-1] for shared in words]


@pytest.mark.filterwarnings("ignore:Feather V1")
def test_feather_of_version_1_is_refused_with_the_way_out(tmp_path):
    pd = pytest.importorskip("pandas")
    path = tmp_path / "old.feather"
    feather.write_feather(pd.DataFrame({"id": [1]}), path, version=1)
    with pytest.raises(SourceError, match=r"old\.feather.*version 1") as refused:
        preview(job_of(path))
    assert "write_feather" in refused.value.remedy


class Keys(encryption.KmsClient):
    def __init__(self, _):
        super().__init__()

    def wrap_key(self, key, master):
        assert master
        return key.hex()

    def unwrap_key(self, wrapped, master):
        assert master
        return bytes.fromhex(wrapped)


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_encrypted_parquet_is_refused(tmp_path, plaintext_footer):
    path = tmp_path / "secret.parquet"
    properties = encryption.CryptoFactory(Keys).file_encryption_properties(
        encryption.KmsConnectionConfig(),
        encryption.EncryptionConfiguration(
            footer_key="f", column_keys={"c": ["id"]}, plaintext_footer=plaintext_footer
        ),
    )
    table = pa.table({"id": [1], "b": [2]})
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    with pytest.raises(SourceError, match=r"secret\.parquet is encrypted") as refused:
        preview(job_of(path))
    assert "without encryption" in refused.value.remedy


PARQUET_OPTIONS = [
    {"data_page_version": "2.0"},
    {"write_page_index": True},
    {"bloom_filter_options": {"id": {"ndv": 100, "fpp": 0.1}}},
    {"version": "1.0"},
    {"flavor": "spark"},
    {"use_dictionary": False, "compression": "brotli"},
    {"store_schema": False, "row_group_size": 7},
    {"column_encoding": "DELTA_BYTE_ARRAY", "use_dictionary": False},
    {"use_content_defined_chunking": True},
]


@pytest.mark.parametrize("options", PARQUET_OPTIONS, ids=str)
def test_parquet_of_every_layout(tmp_path, options):
    table = pa.table({"id": [f"r{n}" for n in range(50)], "word": ["y" * n for n in range(50)]})
    try:
        pq.write_table(table, tmp_path / "a.parquet", **options)
    except TypeError:
        pytest.skip("this pyarrow does not write it")
    _, records, _ = read(job_of(tmp_path / "a.parquet"))
    assert [record.get(("word",)) for record in records] == table["word"].to_pylist()


def test_files_without_rows_or_without_columns_beside_one_with_rows(tmp_path):
    table = pa.table({"id": ["a", "b"], "n": [1, 2]})
    pq.write_table(table, tmp_path / "b.parquet")
    pq.ParquetWriter(tmp_path / "a.parquet", table.schema).close()
    pq.write_table(table.slice(0, 0), tmp_path / "c.parquet")
    pq.write_table(pa.table({}), tmp_path / "d.parquet")
    _, records, _ = read(job_of(tmp_path))
    assert [record["n",] for record in records] == [1, 2]


class TestSharedNames:
    @pytest.fixture(params=["parquet", "arrow"])
    def path(self, request, tmp_path):
        columns = {"id": ["a", "b"], "score": [1, 2]}
        arrays = [*map(pa.array, columns.values()), pa.array([100, 200]), pa.array(["x", "y"])]
        table = pa.table(arrays, names=["id", "score", "score", "score#1"])
        path = tmp_path / f"joined.{request.param}"
        if request.param == "parquet":
            pq.write_table(table, path)
        else:
            feather.write_feather(table, str(path))
        return path

    def test_both_columns_are_kept_under_names_of_their_own(self, path):
        forecast, records, _ = read(job_of(path))
        assert [record["score#2",] for record in records] == [1, 2]
        assert [record["score#3",] for record in records] == [100, 200]
        assert [record["score#1",] for record in records] == ["x", "y"]
        assert any("called score" in note and "score#2, score#3" in note for note in forecast.notes)

    def test_a_rule_must_say_which_it_means(self, path):
        with pytest.raises(ConfigError, match=r"no field score; did you mean score#\d"):
            preview(job_of(path, {"title": "score"}))
        _, records, faults = read(job_of(path, {"id": "id", "title": "score#2"}))
        assert not faults
        assert len(records) == 2

    def test_in_structs_and_maps(self, tmp_path):
        inner = pa.StructArray.from_arrays([pa.array([1, 2]), pa.array([3, 4])], ["a", "a"])
        pairs = pa.array([[("k", 1), ("k", 2)], None], pa.map_(pa.string(), pa.int64()))
        path = tmp_path / "a.arrow"
        table = pa.table({"id": ["x", "y"], "inner": inner, "pairs": pairs})
        feather.write_feather(table, str(path))
        forecast, records, _ = read(job_of(path))
        assert [dict(record["inner",]) for record in records] == [
            {"a#1": 1, "a#2": 3},
            {"a#1": 2, "a#2": 4},
        ]
        assert [record.get(("pairs",)) for record in records] == plain_values(pairs)
        assert any("called inner.a" in note for note in forecast.notes)


def test_an_extension_type_that_pyarrow_does_not_know_is_named(tmp_path):
    metadata = {"ARROW:extension:name": "geoarrow.point", "ARROW:extension:metadata": "{}"}
    field = pa.field("where", pa.binary(), metadata=metadata)
    table = pa.table([pa.array(["a"]), pa.array([b"xy"])], pa.schema([("id", pa.string()), field]))
    for name, write in (
        ("a.parquet", lambda path: pq.write_table(table, path)),
        ("a.arrow", lambda path: feather.write_feather(table, str(path))),
    ):
        write(tmp_path / name)
        forecast, records, _ = read(job_of(tmp_path / name))
        assert any("geoarrow.point" in sentence for sentence in forecast.lossy)
        assert records[0]["where",] == b"xy"


def test_texts_that_are_not_utf8_are_set_aside_whatever_their_type(tmp_path):
    texts = [b"good", b"b\xffd" * 6, None, b"fine"]
    plain = pa.array(texts, pa.binary()).view(pa.string())
    columns = {
        "plain": plain,
        "view": pa.array(texts, pa.binary_view()).view(pa.string_view()),
        "dictionary": pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3]), plain),
        "list": pa.ListArray.from_arrays(pa.array(range(5), pa.int32()), plain),
        "struct": pa.StructArray.from_arrays([plain], ["inner"]),
        "union": pa.UnionArray.from_sparse(pa.array([0] * 4, pa.int8()), [plain]),
    }
    for name, column in columns.items():
        path = tmp_path / f"{name}.arrow"
        batch = pa.record_batch([pa.array([f"r{n}" for n in range(4)]), column], ["id", name])
        with ipc.new_file(path, batch.schema) as writer:
            writer.write_batch(batch)
        source = job_of(path).source
        items = [item for shard in source.shards(CONTEXT) for item in source.read(shard, CONTEXT)]
        (reject,) = [item for item in items if isinstance(item, Reject)]
        content = json.loads(reject.content)
        assert content["id"] == "r1"
        assert "Yv9kYv9kYv9kYv9kYv9kYv9k" in json.dumps(content[name])
        assert reject.reason == f"column {name} is not UTF-8"
        assert [len(item) for item in items if not isinstance(item, Reject)] == [1, 2]


@pytest.mark.parametrize(
    "nest", [lambda column: column, lambda column: pa.array([[0]], pa.list_(column.type))]
)
def test_a_time_zone_that_this_machine_does_not_know_is_refused_by_its_column(tmp_path, nest):
    column = nest(pa.array([0], pa.timestamp("s", "Mars/Olympus")))
    feather.write_feather(pa.table({"id": ["a"], "at": column}), str(tmp_path / "a.arrow"))
    with pytest.raises(ConfigError, match=r"column at: .*Mars/Olympus") as refused:
        preview(job_of(tmp_path / "a.arrow"))
    assert "tzdata" in refused.value.remedy


def test_a_loss_in_a_later_file_is_named_too(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "where": [b"x"]}), tmp_path / "a.parquet")
    field = pa.field("where", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.point"})
    table = pa.table([pa.array(["b"]), pa.array([b"y"])], pa.schema([("id", pa.string()), field]))
    pq.write_table(table, tmp_path / "b.parquet")
    forecast, records, _ = read(job_of(tmp_path))
    assert any("geoarrow.point" in sentence for sentence in forecast.lossy)
    assert [record["where",] for record in records] == [b"x", b"y"]
    with pytest.raises(ConfigError, match="strict"):
        preview(job_of(tmp_path, strict=True))
