"""What is damaged in a target is named and put right, whichever vector store it came from.

``make test`` damages many rows of some of them at once; ``make prove`` does each kind of damage by itself.
"""

from __future__ import annotations

import pytest

from tests.scenarios import damages, runs, stores
from tests.scenarios.damages import NothingToDamage
from tests.scenarios.runs import Job

ROWS, DIMENSION, SHARDS = 300, 24, 4
#: Bytes of a text whose ``raw_data`` Lance puts into a file of its own.
LARGE = 100_000
#: Stores that take no text so large.
SHORT_TEXTS = {
    "milvus": "Milvus takes at most 65,535 bytes of text",
    "pinecone": "Pinecone takes at most 40 kB of metadata",
}
#: Stores that keep no null in a record, or do not tell it from a missing value.
WITHOUT_NULLS = ("chroma", "pinecone", "postgres", "weaviate")


@pytest.fixture(
    scope="module",
    params=[pytest.param(kind, marks=pytest.mark.server(kind)) for kind in stores.KINDS],
)
def bed(request, shared_bed):
    return shared_bed(stores.bed_of(request.param))


@pytest.fixture(scope="module")
def finished(bed, module_cfray, tmp_path_factory) -> Job:
    """Migrate a collection whose texts are ``raw_data``, too, some of them large."""
    rules = bed.mapping()
    text = rules["text_content"]
    rows = bed.awkward(ROWS, DIMENSION)
    if bed.kind not in SHORT_TEXTS:
        for row in [row for row in rows if row.get(text)][:3]:
            row[text] = row[text] * (LARGE // len(row[text]) + 1)
    mapping = {
        "relationships": [{"type": "related", "to": "title"}],
        **rules,
        "raw_data": text,
        "raw_data_type": {"const": "text/plain"},
    }
    job = stores.job_of(
        bed,
        tmp_path_factory.mktemp("finished"),
        bed.seed(rows),
        shard_bytes=ROWS * (4 * DIMENSION + 1_000) // SHARDS,
        mapping=mapping,
    )
    stores.migrate(module_cfray, bed, job, 0)
    return job


@pytest.fixture
def job(finished, tmp_path) -> Job:
    return runs.copied(finished, tmp_path)


@pytest.mark.prove(elsewhere=stores.REPRESENTATIVE)
def test_damaged_rows_are_named_and_repaired_at_once(bed, cfray, finished, job, record_property):
    settings = stores.settings(bed.source("x"))
    left_out = damages.check_found_and_repaired_together(cfray, finished, job, **settings)
    for damage, reason in left_out.items():
        record_property(f"no {damage.__name__}", reason)
    assert list(left_out) == [damages.make_a_null_missing] * (bed.kind in WITHOUT_NULLS)


@pytest.mark.prove
@pytest.mark.parametrize(
    "damage",
    [*damages.OF_ROWS, *damages.OF_FILES],
    ids=lambda damage: damage.__name__,
)
def test_each_damage_is_named_and_repaired(bed, cfray, finished, job, damage):
    settings = stores.settings(bed.source("x"))
    try:
        damages.check_found_and_repaired_alone(cfray, finished, job, damage, **settings)
    except NothingToDamage as reason:
        pytest.skip("; ".join(filter(None, [bed.kind, str(reason), SHORT_TEXTS.get(bed.kind)])))
