"""What a resume must agree on is part of every job, however the job is made."""

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

SPECS = Path(__file__).parents[2] / "jobs/specs"
#: Fingerprint of each job file in jobs/specs, as commit 4d1bdfd of 2026-11-28 computed it.
FINGERPRINTS = json.loads(Path(__file__).with_name("fingerprints.json").read_text())


def values(folder):
    """Give the values of a job whose locations are absolute."""
    return {
        "name": "articles",
        "source": {"kind": "parquet", "uri": str(folder / "export")},
        "mapping": {"id": "doc_id"},
        "target": {"uri": str(folder / "out.lance")},
    }


def from_file(folder, **changes):
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({**values(folder), **changes}), "utf-8")
    return read_job(path)


def from_python(folder, **changes):
    return JobSpec.model_validate({**values(folder), **changes})


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
    assert read_job(SPECS / spec).fingerprint == FINGERPRINTS[spec]


def test_every_runnable_job_file_has_its_fingerprint_recorded():
    assert sorted(FINGERPRINTS) == sorted(path.name for path in SPECS.glob("*.yaml"))


@pytest.mark.parametrize("change", [{}, *CHANGES], ids=str)
def test_a_job_made_in_python_agrees_with_the_same_job_file(tmp_path, change):
    read, made = from_file(tmp_path, **change), from_python(tmp_path, **change)
    assert made.agreed == read.agreed
    assert made.fingerprint == read.fingerprint
    assert made == read


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_two_jobs_made_in_python_have_two_fingerprints(tmp_path, change):
    assert from_python(tmp_path, **change).fingerprint != from_python(tmp_path).fingerprint


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_copy_with_another_value_is_another_job(tmp_path, change):
    job, other = from_file(tmp_path), from_file(tmp_path, **change)
    key = next(iter(change))
    copied = job.model_copy(update={key: getattr(other, key)})
    assert copied.fingerprint == other.fingerprint
    assert job.fingerprint == from_file(tmp_path).fingerprint


def test_a_copy_with_another_target_is_the_same_job(tmp_path):
    job, other = from_file(tmp_path), from_file(tmp_path, target={"uri": "/elsewhere.lance"})
    assert job.model_copy(update={"target": other.target}).fingerprint == job.fingerprint


def test_other_ways_to_make_the_same_vectors_leave_the_fingerprint(tmp_path):
    job = from_file(tmp_path, embedding={"policy": "remap", "model": "/models/m"})
    other = job.with_embedding(Embedding(policy="regenerate", model="/models/m"))
    assert other.embedding.policy == "regenerate"
    assert (other.agreed, other.fingerprint) == (job.agreed, job.fingerprint)


def test_the_agreement_travels_to_workers(tmp_path):
    job = from_file(tmp_path)
    assert pickle.loads(pickle.dumps(job)).agreed == job.agreed


def test_the_agreement_names_what_is_fingerprinted_and_no_credential(tmp_path):
    source = {"kind": "qdrant", "url": "http://h", "api_key": {"env": "NAME"}, "timeout": 9}
    job = from_python(tmp_path, source=source)
    assert tuple(job.agreed) == FINGERPRINTED
    assert not {"api_key", "timeout"} & set(job.agreed["source"])
    assert job.agreed == agreement(job.name, job.source, job.mapping, job.embedding)
    assert json.loads(json.dumps(job.agreed)) == job.agreed


def test_the_fingerprint_does_not_depend_on_the_order_of_keys(tmp_path):
    agreed = from_python(tmp_path).agreed
    assert fingerprint(dict(reversed(agreed.items()))) == fingerprint(agreed)


def test_what_changed_is_named_with_both_values(tmp_path):
    before = from_python(tmp_path)
    after = before.model_copy(update={"name": "books", "mapping": Mapping(id="uid")})
    assert changed_keys(before.agreed, after.agreed) == [
        'mapping.id: was "doc_id", is "uid"',
        'name: was "articles", is "books"',
    ]
    assert changed_keys(before.agreed, before.agreed) == []
