"""What ``cfray inspect`` drafts of stores whose collections differ, on the stores' own servers."""

import uuid
from itertools import count

import numpy as np
import pytest
import yaml

from cfray.inspection import source as inspection
from cfray.job.file import read_job
from cfray.planning.plan import preview
from tests.scenarios.stores import section
from tests.sources.qdrant_bed import QdrantBed
from tests.sources.weaviate_bed import WeaviateBed
from tests.testbeds.real_inputs import text

_NUMBERS = count()


def fresh(word):
    """Return the name of a collection that no other test uses."""
    return f"{word.capitalize()}Drafts{next(_NUMBERS)}"


def vector(seed, width):
    """Return a vector of ``width`` numbers."""
    return np.random.default_rng(seed).standard_normal(width).tolist()


def drafted(folder, source):
    """Draft a job file for a store, and plan it unedited."""
    (folder / "source.yaml").write_text(yaml.safe_dump({"source": section(source)}))
    out = folder / "job.yaml"
    out.write_text(inspection.draft(str(folder / "source.yaml"), out).text)
    job = read_job(out)
    _, forecast = preview(job)
    assert not forecast.quarantined
    return job, out.read_text()


class TestQdrant:
    @pytest.fixture
    def bed(self, shared_bed):
        return shared_bed(QdrantBed)

    def create(self, client, name, widths, rows, start=0):
        """Create a collection with these vectors; a width instead of a dict is the unnamed one."""
        from qdrant_client import models as m

        def params(width):
            return m.VectorParams(size=width, distance=m.Distance.COSINE)

        def vectors(seed):
            if isinstance(widths, int):
                return vector(seed, widths)
            return {key: vector(seed + n, width) for n, (key, width) in enumerate(widths.items())}

        config = (
            params(widths)
            if isinstance(widths, int)
            else {key: params(width) for key, width in widths.items()}
        )
        client.create_collection(name, vectors_config=config)
        points = [
            m.PointStruct(
                id=str(uuid.UUID(int=start + number + 1)),
                vector=vectors(number),
                payload={"title": f"Title {number}", "body": text(number)},
            )
            for number in range(rows)
        ]
        client.upsert(name, points)

    def test_collections_that_call_their_vectors_differently_keep_them_all(self, bed, tmp_path):
        articles, notes = fresh("articles"), fresh("notes")
        with bed.client() as client:
            self.create(client, articles, {"content": 8, "title": 8}, 20)
            self.create(client, notes, {"note": 8}, 10)
        job, draft = drafted(tmp_path, bed.source(articles, notes))
        assert job.mapping.vector == ["vectors.content", "vectors.note"]
        assert job.name == f"{articles}-{notes}"
        assert "beside it: vectors.title" in draft

    def test_collections_of_another_width_are_left_out_and_named(self, bed, tmp_path):
        articles, notes, images = fresh("articles"), fresh("notes"), fresh("images")
        with bed.client() as client:
            self.create(client, articles, 8, 20)
            self.create(client, notes, 8, 10)
            self.create(client, images, 16, 5)
        job, draft = drafted(tmp_path, bed.source(articles, notes, images))
        assert job.source.collections == [articles, notes]
        assert f"{images} has 16" in draft
        assert job.mapping.vector == "vector"

    def test_ids_that_two_collections_share_are_not_offered_as_uuids(self, bed, tmp_path):
        articles, notes = fresh("articles"), fresh("notes")
        with bed.client() as client:
            self.create(client, articles, 8, 20)
            self.create(client, notes, 8, 10, start=10)
        assert "keep_uuid" not in drafted(tmp_path, bed.source(articles, notes))[1]
        assert "# keep_uuid: true" in drafted(tmp_path, bed.source(articles))[1]


class TestWeaviate:
    @pytest.fixture
    def bed(self, shared_bed):
        return shared_bed(WeaviateBed)

    def test_a_declared_reference_is_drafted_with_its_collection(self, bed, tmp_path):
        from weaviate.classes.config import Configure, DataType, Property, ReferenceProperty

        firm, person = fresh("firm"), fresh("person")
        firms = bed.client.collections.create(
            firm,
            properties=[Property(name="name", data_type=DataType.TEXT)],
            vector_config=Configure.Vectors.self_provided(),
        )
        firm_id = firms.data.insert({"name": "Lake Ice Ltd"}, vector=vector(1, 8))
        persons = bed.client.collections.create(
            person,
            properties=[Property(name="name", data_type=DataType.TEXT)],
            references=[
                ReferenceProperty(name="by", target_collection=firm),
                ReferenceProperty(name="knows", target_collection=person),
            ],
            vector_config=Configure.Vectors.self_provided(),
        )
        for number in range(3):
            persons.data.insert(
                {"name": f"P {number}"}, vector=vector(number, 8), references={"by": firm_id}
            )
        job, draft = drafted(tmp_path, bed.source(firm, person))
        rules = [(rule.to, rule.collection) for rule in job.mapping.relationships]
        assert ("by", firm) in rules
        assert f"to: knows, collection: {person}" in draft
