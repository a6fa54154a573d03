"""Sync after sync, with kills between: a target follows its store, and only new texts are embedded.

The store is changed by its vendor's client, and a model of its records says what the target must
hold.  The full number of syncs is ``make prove``'s.
"""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol

import lance
import numpy as np
import pytest

from tests.scenarios import runs, stores
from tests.scenarios.corpora import served
from tests.scenarios.runs import PROVE, Job
from tests.sources.store_bed import StoreBed
from tests.testbeds.embedding_server import EmbeddingServer
from tests.testbeds.processes import until

WIDTH = 16
SYNCS, RECORDS = (100, 2_000) if PROVE else (10, 300)
#: Where a sync is killed; ``compared`` at any of its shards.
POINTS = ("compared", "found", "piece", "written", "synced", "compact", "index")


@dataclass
class Record:
    """A record as the store holds it."""

    text: str
    rank: int


class Store(Protocol):
    """Changes a store by its vendor's client."""

    name: str

    def put(self, records: dict[str, Record]) -> None: ...

    def delete(self, ids: list[str]) -> None: ...


@dataclass
class PostgresStore:
    bed: Any
    name: str

    def __post_init__(self) -> None:
        columns = "id text PRIMARY KEY, body text, rank int"
        self.bed.execute(f'CREATE TABLE "{self.name}" ({columns})')

    def put(self, records: dict[str, Record]) -> None:
        with self.bed.connection.cursor() as cursor:
            cursor.executemany(
                f'INSERT INTO "{self.name}" VALUES (%s, %s, %s) '
                "ON CONFLICT (id) DO UPDATE SET body = excluded.body, rank = excluded.rank",
                [(name, record.text, record.rank) for name, record in records.items()],
            )

    def delete(self, ids: list[str]) -> None:
        self.bed.delete(self.name, ids)


@dataclass
class ChromaStore:
    bed: Any
    name: str

    def __post_init__(self) -> None:
        self.collection = self.bed.client.create_collection(self.name, embedding_function=None)

    def put(self, records: dict[str, Record]) -> None:
        self.collection.upsert(
            ids=list(records),
            embeddings=np.ones((len(records), 2), np.float32),
            documents=[record.text for record in records.values()],
            metadatas=[{"rank": record.rank} for record in records.values()],
        )

    def delete(self, ids: list[str]) -> None:
        self.collection.delete(ids=ids)


@dataclass
class Walk:
    """A store that changes at random, and what it holds."""

    store: Store
    seed: int
    records: dict[str, Record] = field(default_factory=dict)
    written: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.change({f"r{number:05d}": self._new(number) for number in range(RECORDS)}, [])

    def _new(self, rank: int) -> Record:
        self.written += 1
        return Record(f"text {self.written} of a {self.random.choice(runs.WORDS)}", rank)

    def change(self, put: dict[str, Record], gone: list[str]) -> None:
        if put:
            self.store.put(put)
        if gone:
            self.store.delete(gone)
        self.records |= put
        for name in gone:
            del self.records[name]

    def step(self) -> set[str]:
        """Insert, change and delete a few records; give the texts that are new."""
        some = max(1, RECORDS // 50)
        names = self.random.sample(sorted(self.records), 4 * some)
        new_text = {name: self._new(self.records[name].rank) for name in names[:some]}
        new_rank = {
            name: Record(self.records[name].text, self.random.randrange(1_000))
            for name in names[some : 2 * some]
        }
        inserted = {f"r{self.random.randrange(10**5, 10**6)}": self._new(0) for _ in range(some)}
        self.change(new_text | new_rank | inserted, names[2 * some : 3 * some])
        return {record.text for record in (*new_text.values(), *inserted.values())}


def held(job: Job) -> dict[str, Record]:
    """Give what the target holds, by the records' ids."""
    rows = lance.dataset(job.target).to_table(filter="record_type = 'document'").to_pylist()
    found = {}
    for row in rows:
        metadata = {entry["key"]: entry["value"] for entry in row["custom_metadata"]}
        found[metadata["original_id"]] = Record(row["text_content"], int(metadata["rank"]))
    assert len(found) == len(rows)
    return found


@pytest.fixture(
    params=[
        pytest.param(("postgres", PostgresStore), marks=pytest.mark.server("postgres")),
        pytest.param(("chroma", ChromaStore), marks=pytest.mark.server("chroma")),
    ],
    ids=["postgres", "chroma"],
)
def store(request, shared_bed):
    kind, make = request.param
    bed: StoreBed = shared_bed(stores.bed_of(kind))
    made = make(bed, bed.fresh().lower())
    yield made
    bed.drop(made.name)


@pytest.fixture
def server():
    with EmbeddingServer(WIDTH) as server:
        yield server


def test_sync_after_sync_the_target_is_what_the_store_is(
    store, cfray, tmp_path, server, record_property
):
    walk = Walk(store, seed=20_261_130)
    text = "body" if isinstance(store, PostgresStore) else "text"
    body = {
        "name": "followed",
        "source": stores.section(store.bed.source(store.name, shard_bytes=4_000)),
        "mapping": {"id": "id", "text_content": text},
        "embedding": served(server),
        "target": {"uri": "out.lance"},
    }
    job = runs.write_job(tmp_path, body)
    settings = stores.settings(store.bed.source("x"))
    cfray.run("migrate", job.path, "--quiet", **settings).ended_with(0)
    assert held(job) == walk.records
    chance, kills = random.Random(7), Counter()
    for number in range(SYNCS):
        new = walk.step()
        server.requests.clear()
        is_killed = number % (2 if PROVE else 4) == 1
        if is_killed:
            point = chance.choice(POINTS)
            at = {"CFRAY_FAIL_AT": f"{point}:{chance.randint(1, 3) if point == 'compared' else 1}"}
            ended = cfray.start("sync", job.path, "--quiet", **settings, **at).wait()
            assert ended.code in (-signal.SIGKILL, 0), ended.err
            kills[point] += ended.code == -signal.SIGKILL
        cfray.run("sync", job.path, "--quiet", **settings).ended_with(0)
        assert held(job) == walk.records, f"after sync {number}"
        sent = Counter(text for texts in server.sent("/v1/embeddings") for text in texts)
        probes = {text for text in sent if not text.startswith("text ")}
        assert sent.keys() - probes == new, f"sync {number} embedded other texts than the new ones"
        if not is_killed:
            assert all(sent[text] == 1 for text in new)
    record_property("kills", json.dumps(kills))
    assert kills
    ended = cfray.run("verify", job.path, "--against", "source", "--json", **settings)
    assert ended.ended_with(0).document()["counts"]["read"] == len(walk.records)
    fragments = len(lance.dataset(job.target).get_fragments())
    again = job.changed(target={"uri": "fresh.lance"})
    cfray.run("migrate", again.path, "--quiet", **settings).ended_with(0)
    fresh = len(lance.dataset(again.target).get_fragments())
    record_property("fragments", f"{fragments}, fresh {fresh}")
    assert fragments <= max(1.5 * fresh, fresh + 1)


@pytest.fixture(
    params=[
        pytest.param(kind, marks=pytest.mark.server(kind))
        for kind in ("postgres", "elasticsearch", "opensearch")
    ]
)
def bed(request, shared_bed):
    return shared_bed(stores.bed_of(request.param))


def change_in_place(bed: Any, name: str, row: dict[str, Any]) -> None:
    if bed.kind == "postgres":
        bed.execute(f'UPDATE "{name}" SET text = %s WHERE id = %s', row["text"], row["id"])
        return
    with bed.client() as client:
        bed.bulk(client, iter([bed.action(name, row)]))


def test_a_collection_that_nobody_writes_to_is_not_read_again(bed, cfray, shared_ray, tmp_path):
    rows = [
        {"id": f"r{number}", "text": f"text {number}", "vector": [1.0, float(number)]}
        for number in range(60)
    ]
    names = [bed.seed(rows), bed.seed(rows[:40])]
    job = runs.write_job(
        tmp_path,
        {
            "name": "followed",
            "source": stores.section(bed.source(*names)),
            "mapping": {"id": "id", "text_content": "text", "vector": "vector"},
            "target": {"uri": "out.lance"},
        },
    )
    settings = stores.settings(bed.source("x"))
    cfray.run("migrate", job.path, "--quiet", **settings).ended_with(0)

    def sync(*options: str) -> dict[str, int]:
        ended = cfray.run("sync", job.path, "--json", "--quiet", *options, **settings)
        return ended.ended_with(0).document()["counts"]

    shards = sync()["shards_read"]
    assert shards == 2 if bed.kind == "postgres" else shards >= 2
    assert sync()["shards_unread"] == shards
    change_in_place(bed, names[1], {**rows[7], "text": "changed in place"})
    counts = sync()
    assert counts["shards_unread"] == shards // 2
    assert counts["records_changed"] == 1
    texts = lance.dataset(job.target).to_table(["text_content"]).column(0).to_pylist()
    assert texts.count("changed in place") == 1
    assert counts["read"] == 100
    assert sync("--read-all")["shards_unread"] == 0
    assert sync()["shards_unread"] == shards
    # this program goes on; what its commands had on the cluster does not
    until(lambda: not shared_ray.busy(), "no actor of a command is left")
