"""Headers of folders: nested as the folders are, and one for a folder that holds only folders."""

import uuid

import numpy as np

from cfray.job.spec import JobSpec
from cfray.joining.headers import header_rows
from cfray.target.books import CollectionVectors

JOB = {
    "name": "docs",
    "source": {"kind": "filesystem", "uri": "/docs"},
    "mapping": {"collection": "collection"},
    "target": {"uri": "/out"},
}


class _Shape:
    kind, url = "filesystem", "file:///docs"


class _Plan:
    facts: dict = {}  # noqa: RUF012
    consistency, shape = "pinned files", _Shape()


def rows_of(*names, **changes):
    space = uuid.uuid5(uuid.NAMESPACE_URL, "cfray:docs/")
    collections = {
        name: CollectionVectors(str(uuid.uuid5(space, f"header:{name}")), 1, np.array([float(n)]))
        for n, name in enumerate(names)
    }
    job = JobSpec.model_validate(JOB | changes)
    rows = header_rows(job, _Plan(), collections, {"records": 3}, 1)
    return {row["title"]: row for row in rows[1:]}, rows[0]


def ids(row, kind):
    return [item["id"] for item in row["relationships"] if item["type"] == kind]


def test_headers_are_nested_as_the_folders_are():
    rows, dataset = rows_of("a/b", "a/b/c", "a/d", "e")
    uuids = {name: row["uuid"] for name, row in rows.items()}
    assert sorted(rows) == ["a", "a/b", "a/b/c", "a/d", "e"]
    assert uuids["a"] == str(uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, "cfray:docs/"), "header:a"))
    parents = {name: ids(row, "parent") for name, row in rows.items()}
    assert parents == {
        "a": [dataset["uuid"]],
        "e": [dataset["uuid"]],
        "a/b": [uuids["a"]],
        "a/d": [uuids["a"]],
        "a/b/c": [uuids["a/b"]],
    }
    contains = {name: ids(row, "contains") for name, row in rows.items()}
    assert contains == {
        "a": [uuids["a/b"], uuids["a/d"]],
        "a/b": [uuids["a/b/c"]],
        "a/b/c": [],
        "a/d": [],
        "e": [],
    }
    # the mean of 0, 1 and 2, which are below it
    assert rows["a"]["vector"].tolist() == [1.0]
    assert dataset["vector"].tolist() == [1.5]


def test_names_of_other_sources_are_no_folders():
    source = {"kind": "jsonl", "uri": "/docs"}
    rows, dataset = rows_of("a/b", source=source)
    assert sorted(rows) == ["a/b"]
    assert ids(rows["a/b"], "parent") == [dataset["uuid"]]
