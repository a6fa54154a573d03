"""The released contextframe client opens, searches and changes what cfray wrote."""

import datetime as dt
import json

import numpy as np
import pytest

from tests.contract import oracle
from tests.exports import DIMENSION, WORDS, articles, migrated

contextframe = pytest.importorskip(
    "contextframe",
    reason="install it without its dependencies: pip install --no-deps contextframe==0.1.1",
)

JOB = "the articles/2024"
ROWS = articles(400)
WITHOUT_VECTOR = ROWS[7]["uuid"]
MAPPING = {
    "id": "uuid",
    "title": "title",
    "text_content": "body",
    "vector": "embedding",
    "collection": "author",
    "tags": "tags",
    "created_at": "published",
    "relationships": [{"type": "parent", "to": "parent"}],
}


def uuid_of(row):
    return oracle.record_uuid(JOB, "", "s", row["uuid"])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, module_cfray):
    folder = tmp_path_factory.mktemp("client")
    rows = [row | {"embedding": None} if row["uuid"] == WITHOUT_VECTOR else row for row in ROWS]
    migrated(
        module_cfray,
        folder,
        "parquet",
        rows,
        mapping=MAPPING,
        index={"vector": {"type": "IVF_FLAT"}, "scalar": ["uuid", "collection", "tags"]},
    )
    return contextframe.FrameDataset.open(folder / "out/parquet.lance")


def ids(records):
    return sorted(record.uuid for record in records)


@pytest.mark.parametrize(
    "row", [ROWS[0], ROWS[1], ROWS[2], ROWS[399]], ids=["ann, no parent", "bo", "no author", "last"]
)
def test_a_record_is_found_by_its_uuid_with_everything_it_had(dataset, row):
    record = dataset.get_by_uuid(uuid_of(row))
    assert (record.title, record.content, record.tags) == (row["title"], row["body"], row["tags"])
    assert record.created_at == row["published"].astimezone(dt.UTC).date().isoformat()
    assert record.vector.tolist() == np.array(row["embedding"], np.float32).tolist()
    metadata = record.metadata["custom_metadata"]
    assert metadata["original_id"] == row["uuid"]
    assert int(metadata["views"]) == row["views"]
    assert json.loads(metadata["published"]) == oracle.plain(row["published"])
    assert record.metadata["source_type"] == "parquet"


def test_a_uuid_that_nobody_has_is_none(dataset):
    assert dataset.get_by_uuid(oracle.record_uuid(JOB, "", "s", "nobody")) is None


def test_a_record_without_a_vector_is_readable(dataset):
    record = dataset.get_by_uuid(oracle.record_uuid(JOB, "", "s", WITHOUT_VECTOR))
    assert record.vector.tolist() == [0.0] * DIMENSION


@pytest.mark.parametrize("row", ROWS[10:13], ids=lambda row: row["title"])
def test_the_nearest_neighbour_of_a_vector_is_its_record(dataset, row):
    hits = dataset.knn_search(np.array(row["embedding"], np.float32), k=5)
    assert hits[0].uuid == uuid_of(row)
    assert len({hit.uuid for hit in hits}) == 5


def test_full_text_search_finds_the_words_of_a_text(dataset):
    hits = dataset.full_text_search("article 123", k=400)
    assert hits[0].uuid == uuid_of(ROWS[123])
    assert dataset.full_text_search("zzzunheardof") == []


@pytest.mark.parametrize("tag", ["t7", WORDS[3]])
def test_records_are_found_by_tag(dataset, tag):
    assert ids(dataset.find_by_tag(tag)) == sorted(
        uuid_of(row) for row in ROWS if tag in row["tags"]
    )
    assert dataset.find_by_tag("no such tag") == []


@pytest.mark.parametrize("author", ["ann", "bo", None])
def test_a_collection_has_its_members_and_one_header(dataset, author):
    name = author or JOB
    members = dataset.get_collection_members(name)
    assert ids(members) == sorted(uuid_of(row) for row in ROWS if row["author"] == author)
    header = dataset.get_collection_header(name)
    assert (header.metadata["record_type"], header.title) == ("collection_header", name)
    assert {member.metadata["collection_id"] for member in members} == {header.uuid}
    assert ids(dataset.find_related_to(header.uuid, relationship_type="member_of")) == ids(members)
    assert ids(dataset.get_collection_members(name, include_header=True)) == sorted(
        [*ids(members), header.uuid]
    )


def test_a_header_carries_the_centroid_of_its_members(dataset):
    vectors = [
        row["embedding"] for row in ROWS if row["author"] == "bo" and row["uuid"] != WITHOUT_VECTOR
    ]
    header = dataset.get_collection_header("bo")
    np.testing.assert_allclose(header.vector, np.mean(vectors, axis=0), atol=1e-6)


def test_children_are_found_by_their_parent(dataset):
    children = [row for row in ROWS if row["parent"] == ROWS[20]["uuid"]]
    assert len(children) == 9
    assert ids(dataset.find_related_to(uuid_of(ROWS[20]), relationship_type="parent")) == sorted(
        map(uuid_of, children)
    )
    assert dataset.find_related_to(uuid_of(ROWS[21])) == []


def test_the_dataset_describes_itself_in_one_row(dataset):
    (header,) = dataset.find_by_record_type("dataset_header")
    assert header.uuid == oracle.dataset_uuid(JOB)
    assert header.metadata["custom_metadata"]["records"] == str(len(ROWS))


def test_a_record_is_added_and_deleted(dataset):
    added = contextframe.FrameRecord.create(
        title="new", content="brand new", vector=np.ones(DIMENSION, np.float32), embed_dim=DIMENSION
    )
    dataset.add(added)
    assert dataset.get_by_uuid(added.uuid).content == "brand new"
    assert dataset.delete_record(added.uuid) == 1
    assert dataset.get_by_uuid(added.uuid) is None
