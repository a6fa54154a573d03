"""Every job carries what a resume must agree on, whether a file or Python code describes it."""

import json
import pickle
from pathlib import Path

import pytest
import yaml

from cfray.embedders.spec import Embedding
from cfray.job.agreement import FINGERPRINTED, agreement, changed_keys, fingerprint
from cfray.job.file import read_job
from cfray.job.mapping import Mapping
from cfray.job.spec import JobSpec

SPEC_FOLDER = Path(__file__).parents[2] / "jobs/specs"
#: Fingerprint of each job file in jobs/specs, as commit 4d1bdfd of 2026-11-28 computed it.
FINGERPRINTS = json.loads(Path(__file__).with_name("fingerprints.json").read_text())


def job_keys(folder):
    """Give the keys of a job file whose locations are absolute."""
    return {
        "name": "articles",
        "source": {"kind": "parquet", "uri": str(folder / "export")},
        "mapping": {"id": "doc_id"},
        "target": {"uri": str(folder / "out.lance")},
    }


def job_from_file(folder, **changes):
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({**job_keys(folder), **changes}), "utf-8")
    return read_job(path)


def job_from_python(folder, **changes):
    return JobSpec.model_validate({**job_keys(folder), **changes})


CHANGES = [
    {"name": "books"},
    {"source": {"kind": "parquet", "uri": "/elsewhere"}},
    {"source": {"kind": "qdrant", "url": "http://h"}},
    {"mapping": {"id": "other"}},
    {"embedding": {"missing_vector": "null"}},
    {"embedding": {"policy": "regenerate", "model": "/models/m"}},
]


@pytest.mark.parametrize("spec", FINGERPRINTS)
def test_the_fingerprint_of_a_job_file_never_changes(spec):
    assert read_job(SPEC_FOLDER / spec).fingerprint == FINGERPRINTS[spec]


def test_every_runnable_job_file_has_its_fingerprint_recorded():
    assert sorted(FINGERPRINTS) == sorted(path.name for path in SPEC_FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("change", [{}, *CHANGES], ids=str)
def test_a_job_made_in_python_agrees_with_the_same_job_file(tmp_path, change):
    file_job, python_job = job_from_file(tmp_path, **change), job_from_python(tmp_path, **change)
    assert python_job.agreed == file_job.agreed
    assert python_job.fingerprint == file_job.fingerprint
    assert python_job == file_job


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_two_jobs_made_in_python_have_two_fingerprints(tmp_path, change):
    assert job_from_python(tmp_path, **change).fingerprint != job_from_python(tmp_path).fingerprint


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_copy_with_another_value_is_another_job(tmp_path, change):
    job, other_job = job_from_file(tmp_path), job_from_file(tmp_path, **change)
    key = next(iter(change))
    copied_job = job.model_copy(update={key: getattr(other_job, key)})
    assert copied_job.fingerprint == other_job.fingerprint
    assert job.fingerprint == job_from_file(tmp_path).fingerprint


def test_a_copy_with_another_target_is_the_same_job(tmp_path):
    job, other_job = (
        job_from_file(tmp_path),
        job_from_file(tmp_path, target={"uri": "/elsewhere.lance"}),
    )
    assert job.model_copy(update={"target": other_job.target}).fingerprint == job.fingerprint


def test_other_ways_to_make_the_same_vectors_leave_the_fingerprint(tmp_path):
    job = job_from_file(tmp_path, embedding={"policy": "remap", "model": "/models/m"})
    other_job = job.with_embedding(Embedding(policy="regenerate", model="/models/m"))
    assert other_job.embedding.policy == "regenerate"
    assert (other_job.agreed, other_job.fingerprint) == (job.agreed, job.fingerprint)


def test_the_agreement_travels_to_workers(tmp_path):
    job = job_from_file(tmp_path)
    assert pickle.loads(pickle.dumps(job)).agreed == job.agreed


def test_the_agreement_names_what_is_fingerprinted_and_no_credential(tmp_path):
    source = {"kind": "qdrant", "url": "http://h", "api_key": {"env": "NAME"}, "timeout": 9}
    job = job_from_python(tmp_path, source=source)
    assert tuple(job.agreed) == FINGERPRINTED
    assert not {"api_key", "timeout"} & set(job.agreed["source"])
    assert job.agreed == agreement(job.name, job.source, job.mapping, job.embedding)
    assert json.loads(json.dumps(job.agreed)) == job.agreed


def test_the_fingerprint_does_not_depend_on_the_order_of_keys(tmp_path):
    agreed = job_from_python(tmp_path).agreed
    assert fingerprint(dict(reversed(agreed.items()))) == fingerprint(agreed)


def test_what_changed_is_named_with_both_values(tmp_path):
    old_job = job_from_python(tmp_path)
    new_job = old_job.model_copy(update={"name": "books", "mapping": Mapping(id="uid")})
    assert changed_keys(old_job.agreed, new_job.agreed) == [
        'mapping.id: was "doc_id", is "uid"',
        'name: was "articles", is "books"',
    ]
    assert changed_keys(old_job.agreed, old_job.agreed) == []


@pytest.mark.parametrize(
    ("key", "default", "other"),
    [("partitioning", "auto", "none"), ("types", {}, {"year": "int64"})],
)
def test_a_key_of_a_later_version_counts_only_where_it_has_another_value(
    tmp_path, key, default, other
):
    source = {"kind": "parquet", "uri": "/export"}
    job = job_from_python(tmp_path, source=source)
    assert key not in job.agreed["source"]
    same_job = job_from_python(tmp_path, source={**source, key: default})
    assert same_job.fingerprint == job.fingerprint
    other_job = job_from_python(tmp_path, source={**source, key: other})
    assert other_job.agreed["source"][key] == other
    assert other_job.fingerprint != job.fingerprint


def test_the_types_of_a_csv_file_were_always_agreed_on(tmp_path):
    job = job_from_python(tmp_path, source={"kind": "csv", "uri": "/export"})
    assert job.agreed["source"] == {
        "kind": "csv",
        "uri": "/export",
        "shard_bytes": 256 * 2**20,
        "delimiter": ",",
        "encoding": "utf-8",
        "types": {},
        "newlines_in_values": True,
    }
