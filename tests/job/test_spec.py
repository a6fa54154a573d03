"""A wrong job file is refused in one message that names the line, the key and the remedy.

It is refused before any file is created.
"""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from cfray import cli
from cfray.errors import ConfigError
from cfray.job.file import read_job
from tests.exports import cfray

GOOD_JOB = """\
name: articles
source: {kind: parquet, uri: ./export, shard_bytes: 1MiB}
mapping:
  id: doc_id
  text_content: body
  vector: embedding
target: {uri: ./out/articles.lance}
"""
#: What is wrong -> (text of the good job file, its replacement, words of the message).
WRONG_JOBS = {
    "an unknown key": (
        "target:",
        "mappings: {}\ntarget:",
        ["line 7", "mappings", "did you mean mapping?"],
    ),
    "an unknown key of the mapping": (
        "text_content:",
        "text_contents:",
        ["line 5", "mapping.text_contents", "did you mean text_content?"],
    ),
    "an unknown key of the source": (
        "shard_bytes:",
        "shard_byte:",
        ["line 2", "source.shard_byte", "did you mean shard_bytes?"],
    ),
    "a key of another kind of source": (
        "shard_bytes: 1MiB",
        "delimiter: ;",
        ["line 2", "source.delimiter", "known here: kind, partitioning, shard_bytes, types, uri"],
    ),
    "an unknown key of a rule": (
        "body",
        "{consts: x}",
        ["line 5", "mapping.text_content", "did you mean const?"],
    ),
    "an unknown key of a relationship": (
        "target:",
        "  relationships: [{type: parent, tos: x}]\ntarget:",
        ["line 7", "did you mean to?"],
    ),
    "an unknown relationship": (
        "target:",
        "  relationships: [{type: mother, to: body}]\ntarget:",
        ["line 7", "relationships.0.type", "'parent'"],
    ),
    "an unknown form of a vector": (
        "embedding",
        "{path: body, as: flots}",
        ["line 6, mapping.vector.as: Input should be 'auto'", "'flots'"],
    ),
    "an unknown form in a list of vectors": (
        "embedding",
        "[body, {path: body, as: flots}]",
        ["line 6, mapping.vector.1.as: Input should be 'auto'"],
    ),
    "an unknown key of a vector's rule": (
        "embedding",
        "{path: body, form: floats}",
        ["mapping.vector.form: unknown key"],
    ),
    "an empty rule": ("doc_id", "[]", ["line 4", "mapping.id"]),
    "a missing column": ("doc_id", "docid", ["mapping.id", "docid", "did you mean doc_id?"]),
    "a missing nested field": (
        "target:",
        "  author: meta.bye\ntarget:",
        ["mapping.author", "meta.bye", "did you mean meta.by?"],
    ),
    "a vector that is none": (
        "embedding",
        "body",
        ["no vector of the sample can be read at body: vector is not a list of numbers"],
    ),
    "a dimension that the vectors do not have": (
        "target:",
        "embedding: {dimension: 3}\ntarget:",
        ["embedding.dimension is 3", "(embedding) have 2 numbers"],
    ),
    "a place where nothing is": ("./export", "./exports", ["exports", "source.uri"]),
    "a filesystem that is none": (
        "./export",
        "foo://bucket/export",
        ["foo://bucket/export", "s3://"],
    ),
    "a target that is no dataset": ("./out/articles.lance", "./export", ["export", "target.uri"]),
    "a wrong type": ("1MiB", "a lot", ["line 2", "source.shard_bytes", "'a lot' is not a size"]),
    "a size of nothing": (
        "1MiB",
        "0",
        ["line 2", "source.shard_bytes", "greater than or equal to 1"],
    ),
    "a word for a truth": ("target:", "strict: perhaps\ntarget:", ["line 7", "strict", "perhaps"]),
    "a number for a name": ("articles\n", "42\n", ["line 1", "name", "42"]),
    "an unknown kind": (
        "parquet",
        "parket",
        ["line 2", "source", "did you mean parquet?", "jsonl"],
    ),
    "no kind": ("kind: parquet, ", "", ["line 2", "source.kind is missing", "jsonl"]),
    "no name": ("name: articles\n", "", ["name: is missing"]),
    "an unknown key of the embedding": (
        "target:",
        "embedding: {polici: keep}\ntarget:",
        ["line 7", "embedding.polici", "did you mean policy?"],
    ),
    "an unknown key of a chunk": (
        "target:",
        "embedding: {policy: regenerate, model: m, chunk: {token: 9}}\ntarget:",
        ["line 7", "did you mean tokens?"],
    ),
    "a model with nothing to do": (
        "target:",
        "embedding: {model: m}\ntarget:",
        ["line 7", "embedding", "needs policy: regenerate or remap"],
    ),
    "a policy without a model": (
        "target:",
        "embedding: {policy: remap}\ntarget:",
        ["line 7", "embedding", "either model"],
    ),
    "a model that is nowhere": (
        "target:",
        "embedding: {policy: regenerate, model: ./m}\ntarget:",
        ["neither a folder nor an installed package"],
    ),
    "a package without a model": (
        "target:",
        "embedding: {policy: regenerate, model: pytest}\ntarget:",
        ["pytest carries no sentence-transformers model"],
    ),
    "too few pairs": (
        "target:",
        "embedding: {policy: remap, model: m, remap: {pairs: 10}}\ntarget:",
        ["line 7", "embedding.remap.pairs", "5000"],
    ),
    "chunks that overlap too much": (
        "target:",
        "embedding: {policy: regenerate, model: m, chunk: {tokens: 9, overlap: 8}}\ntarget:",
        ["at most half"],
    ),
    "a key in an address": (
        "target:",
        (
            "embedding: {policy: regenerate, "
            "endpoint: {url: 'https://u:hush@host/v1', model: m}}\ntarget:"
        ),
        ["holds a credential"],
    ),
    "a key in the target's address": (
        "./out/articles.lance",
        "s3://KEY:hush@bucket/out.lance",
        ["target.uri", "the address holds a credential"],
    ),
    "an endpoint without a model": (
        "target:",
        "embedding: {policy: regenerate, endpoint: {url: 'http://h'}}\ntarget:",
        ["needs model"],
    ),
    "not YAML": ("1MiB}", "1MiB", ["is not YAML", "line 3"]),
    "a key twice": ("  vector:", "  id: body\n  vector:", ["'id' stands here twice", "line 6"]),
    "a key that is a list": (
        "  vector:",
        "  ? [a]\n  : b\n  vector:",
        ["a key must be a word", "line 6"],
    ),
    "a list": (GOOD_JOB, "- a\n- b\n", ["holds no job"]),
    "nothing": (GOOD_JOB, "", ["holds no job"]),
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "export").mkdir()
    vectors = pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    table = pa.table(
        {
            "doc_id": ["a", "b"],
            "body": ["x", "y"],
            "embedding": vectors,
            "meta": [{"by": "ann"}, {"by": "bo"}],
        }
    )
    pq.write_table(table, tmp_path / "export/part.parquet")
    return tmp_path


def list_tree(folder):
    """List every file and folder with its size and the time of its last change."""
    return {(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.fixture
def check_refusal(folder, capfd, monkeypatch):
    """Give a check that a command exits 2 with one message and changes nothing.

    The command line runs in this process, which saves a second of each check.
    """

    def check(job, words, command="migrate"):
        tree_before = list_tree(folder)
        monkeypatch.setattr("sys.argv", ["cfray", command, str(job)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        output = capfd.readouterr()
        assert (exit_info.value.code, output.out) == (2, "")
        check_message(output.err, words)
        assert "hush" not in output.err
        assert list_tree(folder) == tree_before

    return check


def check_message(text, words):
    """Check that a text is a message and its remedy, without a traceback."""
    message, *remedies = text.split("\n  remedy: ")
    assert message.startswith("cfray: ")
    assert len(remedies) == 1
    assert "Traceback" not in text
    assert [word for word in words if word not in text] == []


def write_wrong_job(folder, fault):
    """Write a wrong job file; give its path and the words that the message must hold."""
    old, new, words = WRONG_JOBS[fault]
    job = folder / "job.yaml"
    assert old in GOOD_JOB
    job.write_text(GOOD_JOB.replace(old, new, 1), "utf-8")
    return job, words


@pytest.mark.parametrize("fault", WRONG_JOBS)
def test_a_wrong_job_file_is_refused_in_one_message_and_nothing_is_created(
    folder, check_refusal, fault
):
    check_refusal(*write_wrong_job(folder, fault))


@pytest.mark.parametrize(
    "fault", ["an unknown key", "a missing column", "a place where nothing is", "a wrong type"]
)
def test_the_command_itself_exits_with_2_and_creates_nothing(folder, fault):
    job, words = write_wrong_job(folder, fault)
    tree_before = list_tree(folder)
    process = cfray("migrate", job, cwd=folder)
    assert (process.returncode, process.stdout) == (2, "")
    check_message(process.stderr, words)
    assert list_tree(folder) == tree_before


def test_a_missing_job_file_is_refused(folder, check_refusal):
    check_refusal(folder / "jobs.yaml", ["jobs.yaml", "cfray inspect"])


def test_a_job_file_that_is_no_text_is_refused(folder, check_refusal):
    job = folder / "job.yaml"
    job.write_bytes(b"\xff\xfe\x00")
    check_refusal(job, ["job.yaml", "cannot read the job file"])


def test_the_address_of_a_target_is_no_job_file(folder, check_refusal):
    (folder / "out.lance").mkdir()
    for address in (folder / "out.lance", "az://vault/out.lance"):
        check_refusal(address, ["this command takes a job file"], "verify")


def test_an_export_without_a_record_is_refused(folder, check_refusal):
    empty = pq.read_table(folder / "export/part.parquet").slice(0, 0)
    pq.write_table(empty, folder / "export/part.parquet")
    (folder / "job.yaml").write_text(GOOD_JOB, "utf-8")
    check_refusal(folder / "job.yaml", ["no record"])


@pytest.mark.parametrize("command", ["plan", "status", "verify", "optimize", "report"])
def test_every_command_refuses_a_wrong_job_file(folder, check_refusal, command):
    (folder / "job.yaml").write_text(GOOD_JOB.replace("doc_id", "{}"), "utf-8")
    check_refusal(folder / "job.yaml", ["line 4", "mapping.id"], command)


def test_with_json_the_refusal_is_one_document(folder):
    (folder / "job.yaml").write_text(GOOD_JOB.replace("doc_id", "docid"), "utf-8")
    process = cfray("migrate", folder / "job.yaml", "--json")
    document = json.loads(process.stdout)
    assert (process.returncode, document["exit_code"]) == (2, 2)
    assert "docid" in document["verdict"]
    assert document["remedy"]


def test_another_mapping_on_an_existing_target_is_refused_and_names_the_key(folder, check_refusal):
    job = folder / "job.yaml"
    job.write_text(GOOD_JOB, "utf-8")
    process = cfray("migrate", job, "--quiet")
    assert process.returncode == 0, process.stderr
    for old, new, words in [
        (
            "text_content: body",
            "text_content: doc_id",
            ["mapping.text_content", '"body"', '"doc_id"', "target.uri"],
        ),
        (
            "vector: embedding",
            "vector: embedding\n  author: meta.by",
            ["mapping.author", "null", '"meta.by"'],
        ),
        ("name: articles", "name: books", ["name", '"articles"', '"books"']),
    ]:
        job.write_text(GOOD_JOB.replace(old, new), "utf-8")
        check_refusal(job, words)
    check_refusal(job, ["name"], "verify")
    job.write_text(GOOD_JOB + "limits: {workers: 1}\nindex: {scalar: [uuid]}\n", "utf-8")
    assert cfray("plan", job).returncode == 0, "limits and indexes may change freely"


class TestFingerprint:
    """The fingerprint covers what a resume must agree on, and nothing else."""

    def fingerprint(self, folder, **changes):
        job = yaml.safe_load(GOOD_JOB)
        for key, value in changes.items():
            job[key] = {**job[key], **value} if isinstance(value, dict) and key in job else value
        path = folder / "job.yaml"
        path.write_text(yaml.safe_dump(job), "utf-8")
        return read_job(path).fingerprint

    @pytest.mark.parametrize(
        "change",
        [
            {"target": {"uri": "elsewhere.lance"}},
            {"index": {"vector": {"type": "IVF_FLAT", "metric": "l2"}, "scalar": []}},
            {
                "limits": {
                    "max_quarantined": "5%",
                    "workers": 3,
                    "memory": "1GiB",
                    "max_document": "1MiB",
                }
            },
            {"strict": True},
            {"source": {"shard_bytes": 2**20}},
            {"mapping": {"keep_uuid": False, "on_duplicate": "quarantine"}},
            {"embedding": {"missing_vector": "zero"}},
            {"embedding": {"expect": {"model": "./m"}}},
        ],
        ids=str,
    )
    def test_may_change_freely_or_says_the_same(self, folder, change):
        assert self.fingerprint(folder, **change) == self.fingerprint(folder)

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "books"},
            {"source": {"uri": "./other"}},
            {"source": {"kind": "arrow"}},
            {"source": {"shard_bytes": "2MiB"}},
            {"mapping": {"id": "body"}},
            {"mapping": {"title": "body"}},
            {"mapping": {"text_content": ["body", "doc_id"]}},
            {"mapping": {"keep_uuid": True}},
            {"mapping": {"member_of": False}},
            {"mapping": {"relationships": [{"type": "parent", "to": "body"}]}},
            {"embedding": {"missing_vector": "null"}},
            {"embedding": {"policy": "regenerate", "model": "./m"}},
            {"embedding": {"reduce": {"method": "truncate", "dimension": 1}}},
        ],
        ids=str,
    )
    def test_must_not_change(self, folder, change):
        assert self.fingerprint(folder, **change) != self.fingerprint(folder)

    def test_is_the_same_wherever_the_folder_lies_and_whatever_the_order(
        self, folder, tmp_path_factory
    ):
        moved = tmp_path_factory.mktemp("moved")
        (moved / "job.yaml").write_text(
            yaml.safe_dump(dict(reversed(yaml.safe_load(GOOD_JOB).items())), sort_keys=False),
            "utf-8",
        )
        assert read_job(moved / "job.yaml").fingerprint == self.fingerprint(folder)

    @pytest.mark.parametrize(
        ("embedding", "additions"),
        [
            ({"policy": "regenerate", "model": "./m"}, {"cache": "./c", "actors": 3}),
            (
                {"policy": "remap", "model": "./m", "remap": {"pairs": 6000}},
                {"remap": {"pairs": 6000, "min_quality": 0.5}},
            ),
            (
                {"policy": "regenerate", "endpoint": {"url": "http://h", "model": "m"}},
                {
                    "endpoint": {
                        "url": "http://h",
                        "model": "m",
                        "api_key": {"env": "K"},
                        "batch": 9,
                    }
                },
            ),
        ],
        ids=str,
    )
    def test_what_changes_no_vector_may_change(self, folder, embedding, additions):
        assert self.fingerprint(folder, embedding=embedding) == self.fingerprint(
            folder, embedding={**embedding, **additions}
        )

    def test_locations_are_relative_to_the_job_file(self, folder):
        (folder / "job.yaml").write_text(GOOD_JOB, "utf-8")
        job = read_job(folder / "job.yaml")
        assert (job.source.uri, job.target.uri) == (
            str(folder / "export"),
            str(folder / "out/articles.lance"),
        )

    def test_one_error_counts_every_fault_of_a_file(self, folder):
        (folder / "job.yaml").write_text(
            GOOD_JOB.replace("doc_id", "[]").replace("1MiB", "x") + "stict: true\n", "utf-8"
        )
        with pytest.raises(ConfigError) as refused:
            read_job(folder / "job.yaml")
        assert [
            word
            for word in ("line 2", "line 4", "line 8", "did you mean strict?")
            if word not in refused.value.what
        ] == []
