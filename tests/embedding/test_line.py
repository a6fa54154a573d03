"""The embedding line on a real Ray: samples of texts, and actors that die over them.

It asks a server that counts what it is asked, a double.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cfray.embedders.endpoint import Budgets
from cfray.embedders.open import open_embedder
from cfray.embedders.spec import Embedding
from cfray.embedding.line import EmbeddingLine
from cfray.embedding.model import ActorModel, ModelSettings, Starts
from cfray.errors import ConfigError, EmbeddingError, TargetError
from cfray.runtime.filesystems import Folder
from tests.testbeds.embedding_server import EmbeddingServer, embedded

WIDTH = 8
SENTENCE = "a worker died {times} times"


@pytest.fixture
def ray(shared_ray):
    """Have this process be a driver on the shared Ray."""
    shared_ray.join()


@pytest.fixture
def server():
    with EmbeddingServer(WIDTH) as server:
        yield server


@pytest.fixture
def settings(server, tmp_path):
    """Give a function that makes the settings of the server's model."""

    def of(actors):
        spec = Embedding(
            policy="regenerate",
            endpoint={"url": server.url, "model": "m", "timeout": 600},
            actors=actors,
        )
        identity = open_embedder(spec, Budgets()).identity
        marks = Folder(f"{tmp_path}/marks")
        return ModelSettings(spec, identity.key, WIDTH, "cpu", Budgets(), marks)

    return of


def texts(count):
    return pa.array([f"text {number}" for number in range(count)])


def vectors_of(count):
    return np.stack([embedded(f"text {number}", WIDTH) for number in range(count)])


def test_vectors_come_back_in_order_and_each_actor_loads_once(ray, settings):
    line = EmbeddingLine("articles", settings(2))
    embedding = line.embed(texts(1_300))
    np.testing.assert_allclose(embedding.vectors, vectors_of(1_300), atol=1e-6)
    assert embedding.counts["texts_embedded"] == line.figures.counts["texts_embedded"] == 1_300
    assert 1 <= line.figures.loaded == len(line.figures.spans) <= 2
    (items, embed_sample) = line.operators
    assert embed_sample["name"] == "MapBatches(embed_sample)"
    assert items["rows"] == embed_sample["rows"] == 3, "batches of 512 texts"


def test_queries_come_back_in_order_from_no_more_actors_than_there_are_batches(ray, settings):
    line = EmbeddingLine("articles", settings(2))
    np.testing.assert_allclose(line.embed_queries(texts(3)), vectors_of(3), atol=1e-6)
    assert line.figures.loaded == len(line.figures.spans) == 1


def test_an_error_of_the_model_arrives_as_it_is(ray, settings, server):
    line = EmbeddingLine("articles", settings(1))
    server.fail("too few")
    with pytest.raises(EmbeddingError, match="3 vectors for 4 texts"):
        line.embed(texts(4))


def test_an_actor_with_another_model_refuses(ray, settings):
    line = EmbeddingLine("articles", replace(settings(1), key="0" * 64))
    with pytest.raises(ConfigError, match="another model"):
        line.embed(texts(1))
    assert line.figures.loaded == 0


def test_a_batch_outlives_two_actors_whose_loads_are_counted(ray, settings, server):
    line = EmbeddingLine("articles", settings(1))
    server.kill(lambda text: len(server.deaths) < 2)
    embedding = line.embed(texts(3))
    np.testing.assert_allclose(embedding.vectors, vectors_of(3), atol=1e-6)
    assert len(server.deaths) == 2
    assert line.figures.loaded == 3


def test_a_batch_that_ends_three_actors_ends_the_run(ray, settings, server):
    line = EmbeddingLine("articles", settings(1))
    server.kill("text 1".__eq__)
    with pytest.raises(TargetError, match="actors died 3 times over the same texts") as raised:
        line.embed(texts(3))
    assert "give them more memory" in raised.value.remedy
    assert len(server.deaths) == line.figures.loaded == 3


def test_an_actor_loads_the_model_with_the_first_text(settings):
    model = ActorModel(settings(1))
    begin = model.begin("piece")
    assert model.account(begin).counts == {}
    assert model.settings.loads.list_names() == []
    for number in (1, 2):
        begin = model.begin(f"piece {number}")
        np.testing.assert_allclose(model.embed(texts(3)).vectors, vectors_of(3), atol=1e-6)
        work = model.account(begin)
        assert work.counts == {"texts_embedded": 3}, "of this item alone"
        assert work.actor == model.name
        assert begin == work.begin <= work.end
    assert len(model.settings.loads.list_names()) == 1


def test_a_model_over_whose_load_three_actors_died_is_loaded_for_no_more_of_the_item(settings):
    of_model = settings(1)
    for _ in range(3):
        Starts(of_model.marks.child("loading/piece")).begin(SENTENCE)
    model = ActorModel(of_model)
    model.begin("piece")
    with pytest.raises(TargetError, match="died 3 times while they loaded the model"):
        model.embed(texts(1))
    assert of_model.loads.list_names() == []
    model.begin("another piece")
    assert not model.embed(texts(1)).missing.any()


def test_the_fourth_start_is_refused_where_three_came_to_no_end(tmp_path):
    folder = Folder(f"{tmp_path}/starts")
    for _ in range(3):
        Starts(folder).begin(SENTENCE)
    with pytest.raises(TargetError, match="a worker died 3 times") as raised:
        Starts(folder).begin(SENTENCE)
    assert "run the same command again" in raised.value.remedy
    assert len(folder.list_names()) == 3


def test_a_start_that_came_to_its_end_counts_for_no_death(tmp_path):
    folder = Folder(f"{tmp_path}/starts")
    for begun_only in (False, False, False, False, True, False, True, False, True):
        starts = Starts(folder)
        starts.begin(SENTENCE)
        if not begun_only:
            starts.end()
    with pytest.raises(TargetError, match="a worker died 3 times"):
        Starts(folder).begin(SENTENCE)
