"""Very many small files under ``regenerate``: full pieces, and as much disk as the plan foretold.

Small files are put together into shards.  Where the job forbids that, each is a shard and a
fragment of its own, and the fragments are merged before the vectors are made.
"""

from __future__ import annotations

from pathlib import Path

import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.scenarios import runs
from tests.scenarios.corpora import MAPPING, shortened
from tests.scenarios.runs import PROVE
from tests.testbeds.embedding_server import EmbeddingServer

#: Files, and rows of each.
FILES, ROWS = (10_000, 20) if PROVE else (128, 20)
DIMENSION, BATCH = 128, 32
#: Rows of a full piece: sixteen requests.
#: Of a small target a sixteenth is a piece.
PIECE_ROWS = 16 * BATCH if PROVE else FILES * ROWS // 16


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    (folder / "export").mkdir()
    rows = shortened(FILES * ROWS, words=40)
    for number in range(FILES):
        part = rows[number * ROWS : (number + 1) * ROWS]
        table = pa.table({name: list(cells) for name, cells in zip(("id", "title", "body"), zip(*part, strict=True), strict=True)})  # fmt: skip
        pq.write_table(table, folder / "export" / f"{number:05d}.parquet")
    return folder


def bytes_on_disk(*folders: Path) -> int:
    """Add up the sizes of all files, as ``du --apparent-size`` does."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("shard_bytes", [None, 1], ids=["grouped", "a-shard-a-file"])
def test_pieces_are_full_and_disk_is_as_planned(module_cfray, export, shard_bytes, record_property):
    name = f"shards-of-{shard_bytes}"
    source = {"kind": "parquet", "uri": "./export"}
    with EmbeddingServer(DIMENSION) as server:
        job = runs.write_job(
            export,
            {
                "name": "many",
                "source": {**source, **({"shard_bytes": shard_bytes} if shard_bytes else {})},
                "mapping": MAPPING,
                "embedding": {
                    "policy": "regenerate",
                    "endpoint": {"url": server.url, "model": "m", "batch": BATCH},
                },
                "target": {"uri": f"{name}.lance"},
                # what an index takes is not foretold
                "index": {"vector": {"type": "none"}, "text": [], "scalar": []},
            },
            f"{name}.yaml",
        )
        planned = module_cfray.run("plan", job.path, "--json").ended_with(0).document()
        module_cfray.run("migrate", job.path, "--quiet").ended_with(0)
    counts = job.report()["counts"]
    fragments = lance.dataset(job.target).get_fragments()
    least = -(-FILES * ROWS // PIECE_ROWS)
    # of each fragment only the last piece may be smaller
    assert least <= counts["pieces"] < least + len(fragments)
    assert planned["lines"]["pieces"] == pytest.approx(counts["pieces"], abs=len(fragments))
    assert planned["lines"]["shards"] == counts["shards"] == (FILES if shard_bytes else 1)
    taken = bytes_on_disk(Path(job.target), job.state)
    record_property("pieces", f"{counts['pieces']}, planned {planned['lines']['pieces']}")
    record_property("bytes on disk", f"{taken:,}, planned {planned['disk']:,}")
    data = bytes_on_disk(Path(job.target) / "data")
    planned_data = planned["disk"] - planned["disk_parts"]["books"]
    record_property("data files", f"{data:,}, planned {planned_data:,}")
    assert planned_data == pytest.approx(data, rel=0.1)
    assert planned["disk"] == pytest.approx(taken, rel=0.1)
