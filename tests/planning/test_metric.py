"""The plan says which distance the index is built for, and who says so."""

import pytest

from cfray.job.mapping import SourceShape, vector_fields
from cfray.planning.metric import choose_metric, metrics_of
from cfray.sources.base import Collection
from tests.planning.test_shape import describe, job_spec

SHAPE = SourceShape("qdrant", "http://s", 4, fixed=False, types={}, vectors={}, id_tag="i")


def choose(*collections, metric=None, **mapping):
    job = job_spec(**mapping)
    index = job.index.model_copy(
        update={"vector": job.index.vector.model_copy(update={"metric": metric})}
    )
    return choose_metric(job.model_copy(update={"index": index}), describe(*collections), SHAPE)


def test_collections_that_agree_give_their_metric_and_are_named():
    choice = choose(
        Collection("a", dimension=4, metric="dot"), Collection("b", dimension=4, metric="dot")
    )
    assert (choice.source, choice.metric, choice.notes) == ("dot", "dot", ())
    assert choice.origin == "source (a, b)"


@pytest.mark.parametrize(
    "other",
    [
        Collection("other", rows=7),
        Collection("other", rows=0, dimension=4, metric="cosine"),
        Collection("other", rows=0),
    ],
    ids=["no vector", "empty", "empty without a vector"],
)
def test_a_collection_that_has_nothing_to_search_has_no_say(other):
    for collections in ((Collection("a", 5, 4, "l2"), other), (other, Collection("a", 5, 4, "l2"))):
        choice = choose(*collections)
        assert (choice.source, choice.metric, choice.notes) == ("l2", "l2", ())


def test_where_every_collection_is_empty_their_metric_counts():
    choice = choose(Collection("a", 0, 4, "l2"), Collection("b", 0, 4, "l2"))
    assert choice.source == "l2"


def test_collections_that_disagree_give_no_metric_and_are_named():
    choice = choose(Collection("a", 5, 4, "l2"), Collection("b", 5, 4, "cosine"))
    assert (choice.source, choice.metric, choice.origin) == (None, "cosine", "default")
    assert "l2 in a; cosine in b" in choice.notes[0]
    assert "index.vector.metric" in choice.notes[0]


def test_a_distance_that_lance_lacks_is_no_silent_cosine():
    choice = choose(Collection("a", 5, 4, None))
    assert (choice.source, choice.metric) == (None, "cosine")
    assert choice.notes[0].startswith("the source says no distance for a: there is no vector index")
    choice = choose(Collection("a", 5, 4, None), Collection("b", 5, 4, None))
    assert choice.notes[0].startswith("the source says no distance for a, b:")
    choice = choose(Collection("a", 5, 4, None), Collection("b", 5, 4, "l2"))
    assert "do not say one distance: none of cosine, l2 and dot in a; l2 in b" in choice.notes[0]


def test_the_job_decides_and_a_contradiction_is_said():
    choice = choose(Collection("a", 5, 4, "l2"), metric="dot")
    assert (choice.source, choice.metric) == ("l2", "dot")
    assert choice.origin.startswith("job file")
    assert "l2 in a" in choice.notes[0]
    assert choose(Collection("a", 5, 4, "l2"), metric="l2").notes == ()


def test_a_source_without_a_metric_gives_the_default():
    choice = choose()
    assert (choice.source, choice.metric, choice.origin) == (None, "cosine", "default")


def test_the_metric_is_that_of_the_primary_vector_of_each_collection():
    collections = describe(
        Collection("a", metric="dot", vectors={"t": (4, "cosine"), "u": (4, "l2")}),
        Collection("b", metric="l2", vectors={"u": (4, "cosine")}),
    )
    named = job_spec(vector=["vectors.t", "vectors.u"]).mapping
    assert metrics_of(collections, vector_fields(named, ())) == {"cosine": ["a", "b"]}
    unnamed = job_spec().mapping
    assert metrics_of(collections, vector_fields(unnamed, ("vector",))) == {
        "dot": ["a"],
        "l2": ["b"],
    }
