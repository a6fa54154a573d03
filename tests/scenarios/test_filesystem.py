"""A tree of documents through ``cfray migrate``, with the job file of its page, whatever is killed.

What must be there is computed from the tree with plain Python; the target is read with pylance.
At full size the tree is what the machine itself has of files of all types.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

import lance
import pytest
import yaml

from tests.contract import oracle
from tests.scenarios import runs
from tests.scenarios.runs import PROVE, Job
from tests.sources.filesystem_bed import write_docx, write_pdf
from tests.testbeds.processes import until

SPEC = Path(__file__).parents[2] / "jobs/specs/filesystem.yaml"
#: Where a system keeps files of many types.
SHARE = Path("/usr/share")
#: Folders that hold no data of anybody: ``docs/stores/filesystem.md``.
SYSTEM_FOLDERS = {b"__pycache__", b".git", b"lost+found"}
PAGE = "<html><head><title>A page</title></head><body><h1>Head</h1><p>of tea</p></body></html>"
PICTURE = b"\x89PNG\r\n\x1a\n\x00\x00"
#: An extractor that waits for the test where a document says so.
HELD = """
import os
class ExtractionConfig:
    def __init__(self, **options):
        pass
class Result:
    metadata = {}
def extract_bytes_sync(data, mime, config):
    result = Result()
    result.content = data.decode("latin-1")
    if b"held" in data and os.path.exists(os.environ["CFRAY_TEST_HELD"]):
        open(os.environ["CFRAY_TEST_HELD"]).read()
    return result
"""


def write(root: Path, files: dict[str, bytes | str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Write a tree as people have them: nested, of many types, with links and odd names."""
    root = tmp_path_factory.mktemp("tree") / "t"
    write(
        root,
        {
            "README.md": "# The whole\n",
            "guides/README.md": "---\ntitle: Guides\n---\nWhat the guides are.\n",
            "guides/tea/how.md": "---\nauthor: Ada\ntags: [tea, six]\ndate: 2024-03-01\n---\n# How\nTea.\n",
            "guides/tea/index.html": PAGE,
            "guides/deep/er/still/note.txt": "deep",
            "guides/latin.txt": "Grüße".encode("latin-1"),
            "pictures/dot.png": PICTURE,
            "a, b; c/it's.txt": "commas and a quote",
            "empty.txt": "",
        },
    )
    for number in range(300):
        write(root, {f"many/{number % 7}/{number:03}.md": f"# Note {number}\n{number} of tea\n"})
    (root / "papers").mkdir()
    write_pdf(root / "papers/one.pdf", "A paper of one page")
    write_docx(root / "papers/two.docx", "A letter of two words")
    (root / "guides/circle").symlink_to("..")
    (root / "guides/gone").symlink_to("nowhere")
    (root / "many/copy.md").symlink_to("0/000.md")
    with open(os.fsencode(root) + b"/many/\xe9t\xe9.txt", "wb") as file:
        file.write(b"odd")
    return root


def job_of(folder: Path, root: Path, **source: object) -> Job:
    """Give the job file of the page for another tree, in shards of some dozen files."""
    body = yaml.safe_load(SPEC.read_text())
    body["source"] = {"kind": "filesystem", "uri": str(root), "shard_bytes": 300_000, **source}
    return runs.write_job(folder, body | {"target": {"uri": "out.lance"}})


def frames_of(job: Job) -> dict[str, dict]:
    """Read the documents by their path."""
    dataset = lance.dataset(job.target)
    frames = {}
    for batch in dataset.scanner(
        filter="record_type = 'document'", blob_handling="all_binary"
    ).to_batches():
        for row in batch.to_pylist():
            row["metadata"] = {item["key"]: item["value"] for item in row.pop("custom_metadata")}
            assert row["source_file"] not in frames
            frames[row["source_file"]] = row
    return frames


def headers_of(job: Job) -> dict[str, dict]:
    table = lance.dataset(job.target).to_table(filter="record_type = 'collection_header'")
    return {row["title"]: row for row in table.drop_columns(["raw_data"]).to_pylist()}


def differences(job: Job, root: Path, rejected: set[str] = frozenset()) -> list[str]:
    """Compare every file below a folder with its frame; a link out of it is the file it leads to."""
    frames, wrong = frames_of(job), []
    inside = os.path.realpath(os.fsencode(root)) + b"/"
    for folder, folders, names in os.walk(os.fsencode(root)):
        folders[:] = [inner for inner in folders if inner not in SYSTEM_FOLDERS]
        for name in names:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, os.fsencode(root))
            shown = relative.decode("utf-8", "backslashreplace")
            target = os.path.realpath(path)
            if os.path.islink(path) and (target.startswith(inside) or not os.path.isfile(target)):
                continue
            if shown in rejected:
                continue
            with open(path, "rb") as file:
                data = file.read()
            frame = frames.pop(shown, None)
            if frame is None:
                wrong.append(f"{shown} has no frame")
            else:
                wrong += [f"{shown}: {what}" for what in _differs(job, frame, relative, data)]
    return wrong + [f"{path} was never a file" for path in frames]


def _differs(job: Job, frame: dict, path: bytes, data: bytes) -> list[str]:
    try:
        tag, value = "s", path.decode()
    except UnicodeDecodeError:
        tag, value = "b", path
    expected = oracle.record_uuid(job.body["name"], "", tag, value)
    wrong = [] if frame["uuid"] == expected else ["another uuid"]
    metadata = frame["metadata"]
    if metadata["sha256"] != hashlib.sha256(data).hexdigest() or metadata["size"] != str(len(data)):
        wrong.append("another content")
    folder = os.path.dirname(path).decode("utf-8", "backslashreplace")
    if frame["collection"] != (folder or job.body["name"]):
        wrong.append(f"in the collection {frame['collection']}")
    if metadata.get("encoding") == "utf-8" and metadata["mime"] == "text/plain":
        text = gzip.decompress(data) if path.endswith(b".gz") else data
        wrong += [] if frame["text_content"] == text.decode("utf-8-sig") else ["another text"]
    if frame["text_content"] is None and frame["raw_data"] != data:
        wrong.append("neither its text nor its bytes")
    return wrong


@pytest.fixture(scope="module")
def moved(module_cfray, tree, tmp_path_factory):
    job = job_of(tmp_path_factory.mktemp("moved"), tree)
    module_cfray.run("migrate", job.path).ended_with(0)
    return job


def test_every_file_is_a_frame_with_its_bytes_and_its_folder(moved, tree):
    assert differences(moved, tree) == []
    frames = frames_of(moved)
    how = frames["guides/tea/how.md"]
    assert (how["title"], how["author"], how["tags"]) == ("How", "Ada", ["tea", "six"])
    assert how["created_at"] == "2024-03-01"
    assert how["text_content"] == "# How\nTea.\n"
    assert "A paper of one page" in frames["papers/one.pdf"]["text_content"]
    assert "A letter of two words" in frames["papers/two.docx"]["text_content"]
    assert frames["guides/tea/index.html"]["title"] == "A page"
    assert frames["guides/latin.txt"]["text_content"] == "Grüße"
    assert frames["pictures/dot.png"]["raw_data_type"] == "image/png"
    report = moved.report()
    assert report["consistency"] == "pinned files"
    assert report["counts"]["shards"] > 3


def test_folders_are_headers_in_each_other_and_their_readme_is_their_text(moved):
    headers = headers_of(moved)
    assert {"guides", "guides/deep", "guides/deep/er", "guides/deep/er/still"} <= headers.keys()
    inner, outer = headers["guides/tea"], headers["guides"]
    assert {"type": "parent", "id": outer["uuid"]} in [
        {key: item[key] for key in ("type", "id")} for item in inner["relationships"]
    ]
    assert inner["uuid"] in {item["id"] for item in outer["relationships"]}
    assert outer["text_content"] == "What the guides are.\n"
    assert inner["text_content"].startswith("Head"), "its index.html, as a reader sees it"
    assert headers["pictures"]["text_content"].startswith("Collection pictures, migrated from")


def test_plan_names_what_is_not_read(cfray, moved):
    plan = cfray.run("plan", moved.path, "--json").ended_with(0).document()
    said = " ".join(json.dumps(plan).split())
    for name in ("guides/circle", "guides/gone", "many/copy.md"):
        assert name in said


@pytest.mark.parametrize(
    "boundary", ["lease:1", "stage:2", "commit:1", "headers:1"] if PROVE else ["commit:1"]
)
def test_a_killed_run_is_brought_to_the_same_end(cfray, moved, tree, tmp_path, boundary):
    job = job_of(tmp_path, tree)
    running = cfray.start("migrate", job.path, CFRAY_FAIL_AT=boundary)
    running.until_ended()
    assert running.kill().code == -signal.SIGKILL
    cfray.run("migrate", job.path).ended_with(0)
    assert runs.digests(job.target) == runs.digests(moved.target)
    assert differences(job, tree) == []


def test_a_killed_worker_and_a_file_that_changed_since_the_plan(local_cfray, tree, tmp_path):
    """The worker is inside a document for certain when it is killed."""
    root = tmp_path / "t"
    shutil.copytree(tree / "many/0", root / "many", symlinks=True)
    write(root, {"held.pdf": b"%PDF-1.4 held", "late.txt": "as it was planned"})
    write(tmp_path / "planted", {"kreuzberg/__init__.py": HELD})
    os.mkfifo(fifo := tmp_path / "fifo")
    job = job_of(tmp_path, root).changed(limits={"max_quarantined": 1})
    running = local_cfray.start(
        "migrate",
        job.path,
        CFRAY_FAIL_AT="plan:1:SIGSTOP",
        CFRAY_TEST_HELD=str(fifo),
        PYTHONPATH=f"{tmp_path / 'planted'}:{os.environ.get('PYTHONPATH', '')}",
    )
    running.until_stopped()  # with its plan saved
    write(root, {"late.txt": "another text since"})
    running.signal(signal.SIGCONT)
    gate = until(lambda: _opened(fifo), "a document is in the extractor")
    fifo.unlink()  # the next attempt does not wait
    for worker in until(running.workers, "a worker is in a shard"):
        os.kill(worker, signal.SIGKILL)
    os.close(gate)
    ended = running.wait().ended_with(7)
    assert "its source has gone on since it was planned: late.txt has changed" in ended.out
    assert differences(job, root, {"late.txt"}) == []
    assert list(job.report()["quarantine_reasons"].values()) == [1]
    assert "changed since the plan" in next(iter(job.report()["quarantine_reasons"]))


def _opened(fifo: Path) -> int | None:
    """Open the way to a document that waits; None while nobody waits."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


@pytest.mark.prove
def test_the_files_of_the_machine(cfray, tmp_path, record_property):
    job = job_of(tmp_path, SHARE, shard_bytes=16 * 2**20, without_text="raw", max_raw="1GiB")
    job = job.changed(limits={"max_document": "1GiB"})
    cfray.run("migrate", job.path).ended_with(0)
    record_property("moved", job.counted())
    assert job.report()["counts"]["read"] > 5_000
    assert differences(job, SHARE) == []
