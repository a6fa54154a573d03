"""Run cfray as an operator does, and end exactly the processes of one run.

A run is one of three things.  ``Runner.start`` gives a process that can be killed, stopped and
interrupted.  ``Runner.run`` waits for a command that nothing disturbs; on the shared Ray it calls
the command line's ``main`` in this process, which saves the seconds that Python, Ray and its
workers take to start.  A runner without a shared Ray gives each process a Ray of its own, as on a
laptop: only there can a test kill the whole tree.

What a target holds is read here with pylance alone, not with cfray.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.testbeds.processes import MARK, PATIENCE, kill_all, members, title, until
from tests.testbeds.shared_ray import (
    PATIENCE_WITH_NODES,
    RAY_DATA_ACTORS,
    SharedRay,
    without_settings,
)

#: The long proofs at full size (``make prove``); CI runs the same tests smaller.
PROVE = os.environ.get("CFRAY_PROVE") == "1"
#: What Ray writes into its logs when one of its processes ends as it should not.
_DEATH = re.compile(
    r"Check failed|SIG[A-Z]+ received|Fatal Python error|terminate called|panicked|memory pressure"
    r"|SYSTEM_ERROR|sending SIG"
)
WORDS = (
    "lance",
    "frame",
    "vector",
    "shard",
    "token",
    "graph",
    "ray",
    "commit",
    "query",
    "ledger",
    "river",
    "stone",
    "orbit",
    "thread",
)


# processes


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    out: str
    err: str
    #: Where the run's files and Ray's logs are until its Runner is closed.
    folder: Path

    def document(self) -> Any:
        """Read the one JSON document of ``--json``."""
        return json.loads(self.out)

    def ended_with(self, *codes: int) -> Ended:
        """Check the exit code."""
        assert self.code in codes, (
            f"exit code {self.code}, not {codes}\n{self.out}\n{self.err}\n{_deaths(self.folder)}"
        )
        return self


@dataclass
class Running:
    """One command at work in a process.

    Attributes:
        ray: the Ray that it joined; None: it started one for itself.
    """

    process: subprocess.Popen[bytes]
    mark: str
    folder: Path
    ray: SharedRay | None

    @property
    def ended(self) -> bool:
        """Tell whether the driver is gone."""
        return self.process.poll() is not None

    def signal(self, number: int) -> None:
        """Send the driver, and nobody else, a signal."""
        self.process.send_signal(number)

    @property
    def stopped(self) -> bool:
        """Tell whether SIGSTOP has stopped every thread of the driver."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        try:
            texts = [(tasks / thread / "stat").read_text() for thread in os.listdir(tasks)]
        except OSError:  # a thread ended between the two looks
            return False
        return all(text.rpartition(")")[2].split()[0] == "T" for text in texts)

    def until_stopped(self) -> None:
        """Wait for SIGSTOP to have stopped the driver."""
        until(lambda: self.ended or self.stopped, "the driver has stopped")
        assert not self.ended, f"it ended before it could be stopped: {self._ended().err}"

    def until_ended(self) -> None:
        """Wait for the driver to be gone."""
        self.process.wait(PATIENCE)

    def workers(self) -> list[int]:
        """Find the Ray workers that are inside a task at this moment."""
        if self.ray:
            return list(self.ray.busy())
        titles = {pid: title(pid) for pid in members(self.mark)}
        return [
            pid
            for pid, name in titles.items()
            if name.startswith("ray::")
            and not name.endswith(("IDLE", "Agent", "Actor"))
            and not name.startswith(RAY_DATA_ACTORS)
        ]

    def kill(self) -> Ended:
        """SIGKILL the driver with all that it started.

        Nothing of the run is left afterwards: a Ray of its own dies with it, and the shared one has
        ended the driver's workers.
        """
        kill_all(self.mark)
        if self.ray:
            self.ray.check_idle()
        return self._ended()

    def wait(self) -> Ended:
        """Let it come to its end; a run that ends by itself leaves no process behind."""
        self.process.wait(PATIENCE)
        until(
            lambda: not members(self.mark),
            f"every process of the run is gone: {[title(pid) for pid in members(self.mark)]}",
            300,
        )
        return self._ended()

    def _ended(self) -> Ended:
        code = self.process.wait(60)
        out, err = ((self.folder / name).read_text(errors="replace") for name in ("out", "err"))
        return Ended(code, out, err, self.ray.folder if self.ray else self.folder)


def _deaths(folder: Path) -> str:
    """Find in Ray's logs why its processes died.

    The logs go with the run's folder, and nothing else tells of a worker's crash.
    """
    logs = [path for path in sorted(folder.glob("ray/session_2*/logs/*")) if path.is_file()]
    lines = (
        (path.name, line) for path in logs for line in path.read_text(errors="replace").splitlines()
    )
    return "\n".join(f"{name[:60]}: {line[:600]}" for name, line in lines if _DEATH.search(line))


class Runner:
    """Starts commands and, at the end of a test, ends what is left of them."""

    def __init__(self, ray: SharedRay | None = None) -> None:
        """Start nothing yet.

        Args:
            ray: the Ray that runs join; None: each starts one for itself.
        """
        self.ray = ray
        self.begun: list[Running] = []

    def start(self, *arguments: object, **settings: str) -> Running:
        """Start ``cfray`` in a process; ``settings`` are environment variables."""
        mark = uuid.uuid4().hex
        folder = Path(
            tempfile.mkdtemp(prefix="cf-")
        )  # short: Ray's sockets live in it, and their paths have a limit of 107 bytes
        environment = {
            **without_settings(os.environ),
            **PATIENCE_WITH_NODES,
            **(self.ray.environment if self.ray else {}),
            MARK: mark,
            "TMPDIR": str(folder),
            "COLUMNS": "200",
            **settings,
        }
        if self.ray:
            self.ray.touched = True
        with (
            (folder / "out").open("wb") as out,
            (folder / "err").open("wb") as err,
        ):  # files: a pipe would stay open in Ray's processes
            process = subprocess.Popen(
                [sys.executable, "-m", "cfray.cli", *map(str, arguments)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        running = Running(process, mark, folder, self.ray)
        self.begun.append(running)
        return running

    def run(self, *arguments: object, **settings: str) -> Ended:
        """Run a command to its end: in this process on the shared Ray, else in a process."""
        if self.ray is None:
            return self.start(*arguments, **settings).wait()
        self.ray.join()
        ended = called(self.ray.folder, *arguments, **settings)
        if ended.code not in (0, 3) and self.ray.busy():
            self.ray.leave()  # as the command's process would: its actors end with it
        return ended

    def close(self) -> None:
        """End everything."""
        for running in self.begun:
            kill_all(running.mark)
        for running in self.begun:
            running.kill()
            shutil.rmtree(running.folder, ignore_errors=True)


def called(folder: Path, *arguments: object, **settings: str) -> Ended:
    """Call the command line in this process, which has joined a Ray.

    Args:
        folder: of that Ray.
        arguments: of the command.
        settings: environment variables of the driver; workers do not see them.
    """
    from cfray import cli

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    logger = logging.getLogger("cfray")
    level = logger.level
    with (
        pytest.MonkeyPatch.context() as patched,
        Path(os.devnull).open() as nothing,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        for name, value in {"COLUMNS": "200", **settings}.items():
            patched.setenv(name, value)
        patched.setattr("sys.argv", ["cfray", *map(str, arguments)])
        patched.setattr("sys.stdin", nothing)
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = ended.code
    logger.setLevel(level)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())
    return Ended(code or 0, *texts, folder)


# exports and jobs


@dataclass(frozen=True)
class Job:
    """A job file and its target."""

    path: Path
    target: str
    body: dict[str, Any] = field(compare=False)

    @property
    def state(self) -> Path:
        """Give the folder beside the target."""
        return Path(f"{self.target}.cfray")

    def report(self) -> dict[str, Any]:
        """Read the report of the last run."""
        return json.loads((self.state / "report.json").read_text())

    def counted(self) -> dict[str, Any]:
        """Give what the last run counted, for the figures shown at the end of the tests.

        Zeros are left out; the seconds of each stage are in.
        """
        report = self.report()
        seconds = {
            f"{name} s": round(figures["seconds"], 1)
            for name, figures in report["stages"].items()
            if figures["seconds"] >= 0.1
        }
        return {
            name: value
            for name, value in {
                **report["counts"],
                **report["pool"],
                **report["gate"],
                **seconds,
            }.items()
            if value and not isinstance(value, list)
        }

    def changed(self, **changes: Any) -> Job:
        """Write the same job with some sections replaced into a file of its own."""
        return write_job(
            self.path.parent,
            {**self.body, **changes},
            self.path.with_name(f"{uuid.uuid4().hex[:8]}.yaml").name,
        )


def write_job(folder: Path, body: dict[str, Any], name: str = "job.yaml") -> Job:
    """Write a job file."""
    path = folder / name
    path.write_text(yaml.safe_dump(body, sort_keys=False))
    return Job(path, str(folder / body["target"]["uri"]), body)


def columns(first: int, rows: int, dimension: int, rng: np.random.Generator) -> dict[str, Any]:
    """Make rows ``first .. first + rows`` of an export.

    They have ids, texts, unit vectors ``(rows, dimension)`` float32 and a few typed columns.
    """
    numbers = range(first, first + rows)
    vectors = rng.standard_normal((rows, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [
        " ".join(WORDS[word] for word in picks) for picks in rng.integers(0, len(WORDS), (64, 90))
    ]
    return {
        "id": [f"doc-{number:07d}" for number in numbers],
        "title": [f"Title {number}" for number in numbers],
        "body": [f"{number} {texts[number % 64]}" for number in numbers],
        "embedding": vectors,
        "score": rng.random(rows),
        "year": rng.integers(1990, 2026, rows),
        "parent": [
            f"doc-{number - number % 10:07d}" if number % 10 else None for number in numbers
        ],
    }


def table(columns: dict[str, Any]) -> pa.Table:
    """Make an Arrow table of ``columns``; a matrix becomes a column of vectors."""
    return pa.table(
        {
            name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
            if np.ndim(values) == 2
            else values
            for name, values in columns.items()
        }
    )


MAPPING = {
    "id": "id",
    "text_content": "body",
    "title": "title",
    "vector": "embedding",
    "relationships": [{"type": "parent", "to": "parent"}],
}


def export(
    folder: Path, rows: int, dimension: int, shards: int, *, flawed: bool = False
) -> dict[str, Any]:
    """Write a Parquet export of so many shards, one a file, and give the body of its job.

    ``flawed``: every shard also has a row without an id, one with NaN in its vector and, from the
    second shard on, one with the id of a row of the first; each row has two further vectors.
    """
    rng = np.random.default_rng(7)
    (folder / "export").mkdir()
    shard_rows = rows // shards
    for shard in range(shards):
        values = columns(shard * shard_rows, shard_rows, dimension, rng)
        if flawed:
            # in no order of names: the hash of a row depends on the order of its columns
            values["wide"], values["narrow"] = values["embedding"] * 2, values["embedding"][:, :3]
            values["id"][3] = None
            values["embedding"][5, 1] = np.nan
            if shard:
                values["id"][7] = f"doc-{100 + shard:07d}"
        pq.write_table(table(values), folder / "export" / f"part-{shard:04d}.parquet")
    source = {
        "kind": "parquet",
        "uri": "./export",
        "shard_bytes": 1,
    }  # a file is never put together with another one
    return {
        "name": "articles",
        "source": source,
        "mapping": MAPPING,
        "target": {"uri": "first.lance"},
    }


def copied(finished: Job, folder: Path) -> Job:
    """Copy an export with its target, state and job file; its plan names the first export's files."""
    shutil.copytree(finished.path.parent, folder, dirs_exist_ok=True)
    target = folder / Path(finished.target).name
    return Job(folder / finished.path.name, str(target), finished.body)


# what a target holds


def digests(target: str, version: int | None = None) -> list[bytes]:
    """Hash every document of a target, all columns of it, vectors as their bytes.

    The hashes are sorted, so that equal multisets are equal lists.
    """
    hashes: list[bytes] = []
    for batch in _documents(target, version):
        vectors = [
            (name, _matrix(batch.column(name)))
            for name in batch.schema.names
            if pa.types.is_fixed_size_list(batch.schema.field(name).type)
        ]
        other_columns = batch.drop_columns([name for name, _ in vectors]).to_pylist()
        for row, values in enumerate(other_columns):
            digest = hashlib.blake2b(repr(sorted(values.items())).encode(), digest_size=16)
            for name, matrix in vectors:
                digest.update(name.encode() + matrix[row].tobytes())
            hashes.append(digest.digest())
    return sorted(hashes)


def _documents(target: str, version: int | None = None) -> Iterator[pa.RecordBatch]:
    dataset = lance.dataset(target, version=version)
    yield from dataset.scanner(
        filter="record_type = 'document'", batch_size=8192, blob_handling="all_binary"
    ).to_batches()


def _matrix(column: pa.Array) -> np.ndarray:
    width = column.type.list_size
    return (
        column.values.slice(column.offset * width, len(column) * width)
        .to_numpy(zero_copy_only=False)
        .reshape(-1, width)
    )


def vectors(target: str) -> np.ndarray:
    """Read the vector of every document, ``(n, d)``."""
    table = lance.dataset(target).to_table(columns=["vector"], filter="record_type = 'document'")
    return _matrix(table.combine_chunks()["vector"].chunk(0)) if len(table) else np.zeros((0, 1))


def headers(target: str) -> list[tuple[Any, ...]]:
    """Read the header rows; a centroid is a sum in the order of commits, so it is rounded."""
    dataset = lance.dataset(target)
    names = ["uuid", "title", "text_content", "record_type", "custom_metadata", "vector"]
    rows = dataset.to_table(columns=names, filter="record_type != 'document'").to_pylist()
    return sorted(
        (
            *(str(row[name]) for name in names[:-1]),
            tuple(round(value, 5) + 0.0 for value in row["vector"]),
        )
        for row in rows
    )


def uuids(target: str) -> list[str]:
    """Read every uuid, headers included."""
    return lance.dataset(target).to_table(columns=["uuid"])["uuid"].to_pylist()


def document_ids(target: str) -> list[str]:
    """Read the original id of every document, sorted."""
    ids = []
    for batch in _documents(target):
        ids += [
            next(entry["value"] for entry in row if entry["key"] == "original_id")
            for row in batch.column("custom_metadata").to_pylist()
        ]
    return sorted(ids)


def ledger(target: str) -> dict[str, Any]:
    """Read the ledger of the latest version: shard -> (first row id, rows, nonce).

    It is empty where the target does not exist yet.
    """
    try:
        metadata = lance.dataset(target).schema.metadata
    except (ValueError, OSError):
        return {}
    entries = json.loads(metadata[b"cfray.ledger"])["entries"]
    return {name: (first, rows, nonce) for name, (_, first, rows, nonce) in entries.items()}


def receipts(job: Job) -> dict[str, list[str]]:
    """List the staged receipts: shard -> nonces."""
    nonces: dict[str, list[str]] = {}
    for path in (job.state / "staged").glob("[!.]*.json"):
        name, nonce, _ = path.name.rsplit(".", 2)
        nonces.setdefault(name, []).append(nonce)
    return nonces


def piece_receipts(job: Job) -> dict[str, list[str]]:
    """List the receipts of pieces whose vectors wait for the swap: piece -> nonces."""
    nonces: dict[str, list[str]] = {}
    for path in sorted((job.state / "scratch").glob("embed-*/receipts/[!.]*.json")):
        name, nonce, _ = path.name.rsplit(".", 2)
        nonces.setdefault(name, []).append(nonce)
    return nonces


def shards_begun(job: Job) -> dict[str, set[str]]:
    """List which shards each run began to read: epoch -> shard numbers (workers count starts)."""
    shards: dict[str, set[str]] = {}
    for path in (job.state / "scratch").glob("starts-*/*"):
        shards.setdefault(path.parent.name, set()).add(path.name)
    return shards


def data_files(target: str) -> set[str]:
    """List the files in the target's data folder."""
    return {
        path.relative_to(target).as_posix()
        for path in (Path(target) / "data").rglob("*")
        if path.is_file()
    }


def referenced_files(target: str) -> set[str]:
    """List the data files that any version of the target names."""
    dataset = lance.dataset(target)
    versions = [lance.dataset(target, version=item["version"]) for item in dataset.versions()]
    return {
        f"data/{file.path}"
        for version in versions
        for fragment in version.get_fragments()
        for file in fragment.metadata.files
    }


def quarantined(runner: Runner, job: Job) -> list[dict[str, Any]]:
    """List the rows in quarantine, as the command shows them."""
    return runner.run("quarantine", "list", job.path, "--json").ended_with(0).document()


def outline(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Give what makes two quarantines equal."""
    return sorted(
        json.dumps(
            [row[name] for name in ("stage", "reason", "position", "id", "content")], sort_keys=True
        )
        for row in rows
    )
