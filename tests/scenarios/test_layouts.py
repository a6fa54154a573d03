"""What ``cfray export --format STORE`` writes is what the store's own client imports.

An awkward corpus is migrated from JSON Lines, exported for a store, and imported with the official
client into the real server, or into the double where there is none; the client reads it back, and
every record is compared with the one of the corpus.  What must be there is computed here, without
cfray.
"""

import json
import signal
from urllib.parse import quote

import lance
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.contract import oracle
from tests.scenarios import runs, stores

KINDS = ("pinecone", "qdrant", "milvus", "weaviate", "chroma")
#: Stores that take records without a vector.
TAKE_NONE = ("qdrant", "weaviate")
#: Stores into whose servers here a record goes with more than one vector.
TAKE_SEVERAL = ("qdrant", "weaviate")
SHELVES = ("Läden & Co.", "plain")
ROWS, WIDTH = 40, 4
WITH_VECTOR = "x_vector_origin IS NOT NULL"


def corpus():
    vectors = np.random.default_rng(7).standard_normal((ROWS, WIDTH + 2)).astype(np.float32)
    vectors[:, 1] = -0.0
    return [row_of(n, vectors[n].tolist()) for n in range(ROWS)]


def row_of(n, vector):
    ids = (f"it's {n} ünï ☕", f"550e8400-e29b-41d4-a716-4466554400{n:02d}", n, 2**63 + n, f"p{n}")
    row = {
        "id": ids[n % len(ids)],
        "vector": vector[:WIDTH],
        "second": vector[WIDTH:],
        "body": f"Text {n}: naïve ☕ \U0001d4b3, \"quotes\" and 'more'\n\ttab\u2028\x85\r"
        if n != 7
        else "",
        "shelf": SHELVES[n % 2],
        "n": (2**53 + 1 + n, -(2**63), 2**63 - 1, n)[n % 4],
        "ratio": (0.1, 1e-300, n / 7, 3.0)[n % 4],
        "flag": n % 2 == 0,
        "tags": ["a", 'b"c', f"t{n}"] if n % 3 else [],
        "nested": {"by": "Ann ☕", "at": [n, None, {"x": 1.5}]},
        "mixed": (1, 2.5, "x", None, [True], {"y": 2**53 + 1})[n % 6],
        "created": "2024-02-29T12:30:15+01:00",
        "Ödd näme!": "null",
        "huge": 2**64 + n if n % 4 == 3 else n,
    }
    for key in (("vector",), ("body",), (), ("tags", "flag"), (), (), ())[n % 7]:
        del row[key]
    return row


def text(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


MISSING = object()


def integers_in(value):
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from integers_in(item)
    elif type(value) is int:
        yield value


class Expected:
    """What a store must hold of a row."""

    def __init__(self, kind, *, several=False):
        self.kind, self.several = kind, several

    def uuid(self, record_id):
        tag = "s" if isinstance(record_id, str) else "i"
        return oracle.record_uuid("layouts", "", tag, record_id)

    def own_id(self, record_id):
        """Give the id as the store takes it; None where it does not."""
        is_text = isinstance(record_id, str)
        is_uuid = is_text and record_id.startswith("550e8400")
        if self.kind == "qdrant":
            return record_id if is_uuid or not is_text else None
        if self.kind == "weaviate":
            return record_id if is_uuid else None
        if self.kind == "pinecone":
            return record_id if is_text and record_id.isascii() else None
        return record_id if is_text else None

    def value(self, key, value):
        if self.kind == "weaviate":
            return self.property(key, value)
        if self.kind in ("qdrant", "milvus"):
            greatest = 2**64 if self.kind == "qdrant" else 2**63
            return value if all(number < greatest for number in integers_in(value)) else text(value)
        if value is None:
            return MISSING
        return self.metadata_value(value)

    def metadata_value(self, value):
        is_list = self.kind == "pinecone" and isinstance(value, list)
        if isinstance(value, bool | str | float) or (is_list and set(map(type, value)) <= {str}):
            return value
        if not isinstance(value, int):
            return text(value)
        exact = 2**53 if self.kind == "pinecone" else 2**63 - 1
        if not -exact - (self.kind == "chroma") <= value <= exact:
            return text(value)
        return float(value) if self.kind == "pinecone" else value

    def property(self, key, value):
        if value is None or value == []:
            return MISSING
        return text(value) if key in ("n", "nested", "mixed", "huge") else value

    def name(self, key):
        return "_dd_n_me_" if self.kind == "weaviate" and key.startswith("Ö") else key

    def record(self, row):
        """Give id, vectors, document and fields."""
        left_out = {"id", "vector", *(["second"] if self.several else [])}
        left_out |= {"body"} if self.kind == "chroma" else set()
        fields = {
            self.name(key): self.value(key, value)
            for key, value in row.items()
            if key not in left_out
        }
        own = self.own_id(row["id"])
        if own is None:
            fields["original_id"] = (
                str(row["id"]) if self.kind == "weaviate" else self.value("original_id", row["id"])
            )
        vectors = {"vector": row.get("vector")}
        if self.several:
            vectors["second"] = row["second"]
        return (
            self.uuid(row["id"]) if own is None else own,
            {name: bits(vector, self.kind) for name, vector in vectors.items() if vector},
            row.get("body") if self.kind == "chroma" else None,
            {key: typed(value) for key, value in fields.items() if value is not MISSING},
        )


def bits(vector, kind):
    """Give the bits of a vector; Chroma does not keep the sign of zero."""
    numbers = np.asarray(vector, np.float32)
    return (numbers + np.float32(0) if kind == "chroma" else numbers).tobytes().hex()


def typed(value):
    """Tell 1 from 1.0 and from true."""
    if isinstance(value, list):
        return [typed(item) for item in value]
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return type(value).__name__, value


# the importers: what the pages of the stores show


def lines_of(path):
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def into_qdrant(bed, name, folder, files, manifest):
    from qdrant_client import models as m

    with bed.client() as client:
        sizes = {"vector": WIDTH, "second": 2}
        config = {
            key: m.VectorParams(size=size, distance=m.Distance.EUCLID)
            for key, size in sizes.items()
        }
        client.create_collection(name, vectors_config=config)
        for file in files:
            lines = lines_of(folder / file)
            client.upsert(name, [m.PointStruct(**line) for line in lines], wait=True)
        points, _ = client.scroll(name, limit=1000, with_payload=True, with_vectors=True)
    return [(point.id, point.vector or {}, None, point.payload) for point in points]


def into_pinecone(bed, name, folder, files, manifest):
    index = bed.create_index(f"{bed.run}-layouts".lower(), dimension=WIDTH, metric="euclidean")
    with bed.index(index) as client:
        for file in files:
            rows = pq.read_table(folder / file).to_pylist()
            vectors = [{**row, "metadata": json.loads(row["metadata"])} for row in rows]
            client.upsert(vectors=vectors, namespace=name)
        ids = [item.id for page in client.list(namespace=name) for item in page.vectors]
        found = client.fetch(ids=ids, namespace=name).vectors
    return [
        (record.id, {"vector": record.values}, None, record.metadata) for record in found.values()
    ]


def into_milvus(bed, name, folder, files, manifest):
    from pymilvus import DataType

    client = bed.client
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=65_535)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=WIDTH)
    indexes = client.prepare_index_params("vector", index_type="FLAT", metric_type="L2")
    client.create_collection(name, schema=schema, index_params=indexes, consistency_level="Strong")
    for file in files:
        client.insert(name, json.loads((folder / file).read_text("utf-8"))["rows"])
    rows = client.query(name, filter="", limit=1000, output_fields=["*"])
    return [
        (row["id"], {"vector": row["vector"]}, None, without(row, "id", "vector")) for row in rows
    ]


def without(row, *keys):
    return {key: value for key, value in row.items() if key not in keys}


def into_weaviate(bed, name, folder, files, manifest):
    from weaviate.classes.config import Configure, DataType, Property

    name = lines_of(folder / files[0])[0]["class"]
    collection = bed.client.collections.create(
        name,
        properties=[
            Property(name=field["name"], data_type=DataType(field["type"]))
            for field in manifest["fields"]
            if field["type"]
        ],
        vector_config=[
            Configure.Vectors.self_provided(name=vector) for vector in ("vector", "second")
        ],
    )
    with bed.client.batch.fixed_size(20) as batch:
        for file in files:
            for line in lines_of(folder / file):
                vector = line.get("vector") or line.get("vectors")
                batch.add_object(line["class"], line["properties"], uuid=line["id"], vector=vector)
    assert not bed.client.batch.failed_objects
    objects = list(collection.iterator(include_vector=True))
    bed.drop(name)
    return [
        (
            str(item.uuid),
            item.vector,
            None,
            {
                key: value.isoformat() if hasattr(value, "isoformat") else value
                for key, value in item.properties.items()
                if value not in (None, [])
            },
        )
        for item in objects
    ]


def into_chroma(bed, name, folder, files, manifest):
    collection = bed.client.create_collection(name, embedding_function=None)
    for file in files:
        lines = lines_of(folder / file)
        columns = ("id", "embedding", "document", "metadata")
        ids, embeddings, documents, metadatas = (
            [line.get(column) for line in lines] for column in columns
        )
        collection.add(ids, embeddings, metadatas, documents)
    found = collection.get(include=["embeddings", "metadatas", "documents"])
    return [
        (record_id, {"vector": embedding}, document, metadata or {})
        for record_id, embedding, document, metadata in zip(
            found["ids"], found["embeddings"], found["documents"], found["metadatas"], strict=True
        )
    ]


IMPORTERS = {
    "qdrant": into_qdrant,
    "pinecone": into_pinecone,
    "milvus": into_milvus,
    "weaviate": into_weaviate,
    "chroma": into_chroma,
}


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=pytest.mark.server(kind)) for kind in KINDS]
)
def bed(request, shared_bed):
    return shared_bed(stores.bed_of(request.param))


@pytest.fixture(scope="module")
def moved(bed, module_cfray, tmp_path_factory):
    """Migrate the corpus."""
    folder = tmp_path_factory.mktemp("layouts")
    lines = "".join(json.dumps(row) + "\n" for row in corpus())
    (folder / "corpus.jsonl").write_text(lines, "utf-8")
    mapping = {"id": "id", "text_content": "body", "vector": "vector", "collection": "shelf"}
    if bed.kind in TAKE_SEVERAL:
        mapping["vectors"] = {"second": "second"}
    body = {
        "name": "layouts",
        "source": {"kind": "jsonl", "uri": "corpus.jsonl"},
        "mapping": mapping,
        "target": {"uri": "out.lance"},
    }
    job = runs.write_job(folder, body)
    module_cfray.run("migrate", job.path).ended_with(0)
    return job


@pytest.fixture(scope="module")
def exported(bed, moved, module_cfray, tmp_path_factory):
    """Export it for the store; where that takes no record without a vector, leave these out."""
    folder = tmp_path_factory.mktemp("exported") / "files"
    where = () if bed.kind in TAKE_NONE else ("--where", WITH_VECTOR)
    command = ("export", moved.path, "--to", folder, "--format", bed.kind)
    report = module_cfray.run(*command, *where, "--json").ended_with(0).document()
    assert module_cfray.run(*command, *where).ended_with(0).out.startswith("nothing to do")
    return folder, report


def test_the_stores_own_client_imports_what_was_exported(bed, exported):
    folder, report = exported
    manifest = json.loads((folder / "cfray-export.json").read_text())
    expected = Expected(bed.kind, several=bed.kind in TAKE_SEVERAL)
    rows = [row for row in corpus() if "vector" in row or bed.kind in TAKE_NONE]
    assert report["rows"] == manifest["rows"] == len(rows)
    for shelf in SHELVES:
        files = [item["file"]["path"] for item in manifest["files"] if item["collection"] == shelf]
        assert all(name.startswith(f"{quote(shelf, safe=' ')}/part-") for name in files)
        name = shelf if bed.kind in ("qdrant", "pinecone") else bed.fresh()
        found = {
            str(record_id): (
                record_id,
                {key: bits(vector, bed.kind) for key, vector in vectors.items() if len(vector)},
                document,
                {key: typed(value) for key, value in fields.items()},
            )
            for record_id, vectors, document, fields in IMPORTERS[bed.kind](
                bed, name, folder, files, manifest
            )
        }
        wanted = {
            str(record[0]): record
            for record in (expected.record(row) for row in rows if row["shelf"] == shelf)
        }
        assert found.keys() == wanted.keys()
        for record_id, record in wanted.items():
            assert found[record_id] == record


LOST = {
    "qdrant": {"id", "huge"},
    "milvus": {"id", "huge"},
    "pinecone": {"id", "huge", "n", "nested", "mixed", "second"},
    "chroma": {"id", "huge", "n", "nested", "mixed", "second", "tags"},
    "weaviate": {"id", "huge", "n", "nested", "mixed", "Ödd näme!", "collection"},
}


def test_what_a_layout_does_not_say_is_named(bed, exported):
    _, report = exported
    lost = LOST[bed.kind] - ({"n"} if bed.kind == "chroma" else set())
    assert set(report["lost"]) == lost


def test_records_without_a_vector_are_refused_where_the_store_takes_none(
    bed, moved, cfray, tmp_path
):
    missing = lance.dataset(moved.target).count_rows(
        "record_type = 'document' AND x_vector_origin IS NULL"
    )
    assert missing == len([row for row in corpus() if "vector" not in row])
    command = ("export", moved.path, "--to", tmp_path / "files", "--format", bed.kind)
    ended = cfray.run(*command)
    if bed.kind in ("pinecone", "chroma"):
        assert ended.code == 2
        assert f"{missing} of {ROWS} records have no vector" in ended.err
        assert f'--where "{WITH_VECTOR}"' in ended.err
        assert not (tmp_path / "files").exists()
        cfray.run(*command, "--where", WITH_VECTOR).ended_with(0)
    else:
        ended.ended_with(0)


def from_qdrant(bed, name):
    with bed.client() as client:
        points, _ = client.scroll(name, limit=1000, with_payload=True, with_vectors=True)
    return {str(point.id): point.model_dump(mode="json") for point in points}


def from_pinecone(bed, name):
    with bed.index(name) as client:
        namespace = name.partition("/")[2]
        ids = [item.id for page in client.list(namespace=namespace) for item in page.vectors]
        found = client.fetch(ids=ids, namespace=namespace).vectors
    return {
        record_id: (record.values, record.sparse_values, record.metadata)
        for record_id, record in found.items()
    }


def copy_qdrant(bed, name, folder, manifest):
    from qdrant_client import models as m

    from tests.sources.qdrant_bed import declare_vectors

    again = bed.fresh()
    with bed.client() as client:
        vectors, sparse = declare_vectors(8)
        client.create_collection(again, vectors_config=vectors, sparse_vectors_config=sparse)
        for item in manifest["files"]:
            lines = lines_of(folder / item["file"]["path"])
            client.upsert(again, [m.PointStruct(**line) for line in lines], wait=True)
    return from_qdrant(bed, name), from_qdrant(bed, again)


def copy_pinecone(bed, name, folder, manifest):
    again = f"{name}-again"
    for item in manifest["files"]:
        assert item["file"]["path"].startswith(f"{name}/part-")
        rows = pq.read_table(folder / item["file"]["path"]).to_pylist()
        vectors = [
            {key: value for key, value in row.items() if value is not None}
            | {"metadata": json.loads(row["metadata"])}
            for row in rows
        ]
        with bed.index(again) as client:
            client.upsert(vectors=vectors, namespace=again.partition("/")[2])
    return from_pinecone(bed, name), from_pinecone(bed, again)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.server(kind)) for kind in ("qdrant", "pinecone")]
)
def test_a_stores_own_records_come_back_into_it_with_every_kind_of_vector(
    kind, shared_bed, cfray, tmp_path
):
    bed = shared_bed(stores.bed_of(kind))
    name = bed.seed(bed.awkward(ROWS, 8))
    job = stores.job_of(bed, tmp_path, name)
    stores.migrate(cfray, bed, job, 0)
    folder = tmp_path / "files"
    cfray.run("export", job.path, "--to", folder, "--format", kind).ended_with(0)
    manifest = json.loads((folder / "cfray-export.json").read_text())
    copy = copy_qdrant if kind == "qdrant" else copy_pinecone
    before, after = copy(bed, name, folder, manifest)
    assert after.keys() == before.keys()
    for record_id, record in before.items():
        assert after[record_id] == record


READERS = {
    "pinecone": lambda folder: {"uri": str(folder)},
    "milvus": lambda folder: {
        "uri": str(folder / "plain"),
        "primary": "id",
        "fields": {"vector": "FLOAT_VECTOR", "second": "JSON"},
    },
}


@pytest.mark.parametrize(
    "bed",
    [pytest.param(kind, marks=pytest.mark.server(kind)) for kind in READERS],
    indirect=True,
)
def test_cfray_reads_the_files_as_those_of_the_store(bed, exported, cfray, tmp_path):
    """What is read are the same vectors, by the same ids."""
    folder, _ = exported
    body = {
        "name": "again",
        "source": {"kind": bed.kind, **READERS[bed.kind](folder)},
        "mapping": {"id": "id", "vector": "vector"},
        "target": {"uri": "again.lance"},
    }
    job = runs.write_job(tmp_path, body)
    cfray.run("migrate", job.path).ended_with(0)
    frames = lance.dataset(job.target).to_table(filter="record_type = 'document'").to_pylist()
    shelves = ("plain",) if bed.kind == "milvus" else SHELVES
    expected = Expected(bed.kind)
    wanted = {
        str(record[0]): record[1]["vector"]
        for record in (
            expected.record(row) for row in corpus() if "vector" in row and row["shelf"] in shelves
        )
    }
    found = {
        entry["value"]: bits(frame["vector"], bed.kind)
        for frame in frames
        for entry in frame["custom_metadata"]
        if entry["key"] == "original_id"
    }
    assert found == wanted


def test_only_the_fields_that_are_asked_for_go_beside_id_and_vector(bed, moved, cfray, tmp_path):
    command = ("export", moved.path, "--format", bed.kind, "--where", WITH_VECTOR, "--to")
    unknown = cfray.run(*command, tmp_path / "unknown", "--columns", "n,nobody")
    assert unknown.code == 2
    assert "there is no field nobody" in unknown.err
    folder = tmp_path / "files"
    cfray.run(*command, folder, "--columns", "flag").ended_with(0)
    manifest = json.loads((folder / "cfray-export.json").read_text())
    text_of_files = ""
    for item in manifest["files"]:
        path = folder / item["file"]["path"]
        if bed.kind == "pinecone":
            text_of_files += text(pq.read_table(path, columns=["metadata"]).to_pylist())
        else:
            text_of_files += path.read_text("utf-8")
    assert "flag" in text_of_files
    assert "ratio" not in text_of_files
    assert "ratio" not in {field["name"] for field in manifest["fields"]}


@pytest.mark.parametrize(
    "bed", [pytest.param("qdrant", marks=pytest.mark.server("qdrant"))], indirect=True
)
def test_an_interrupted_export_goes_on_and_knows_what_was_lost(moved, exported, cfray, tmp_path):
    _, report = exported
    command = ("export", moved.path, "--to", tmp_path / "files", "--format", "qdrant")
    killed = cfray.start(*command, CFRAY_FAIL_AT="part exported:1")
    killed.until_ended()
    assert killed.kill().code == -signal.SIGKILL
    again = cfray.run(*command, "--json").ended_with(0).document()
    assert (again["rows"], again["lost"]) == (report["rows"], report["lost"])
