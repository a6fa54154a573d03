"""The embedding line on a real Ray, asking a server that counts what it is asked.

The server is a double, which holds back what a test names.
"""

import os
import signal
import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cfray.embedders.endpoint import Budgets
from cfray.embedders.open import open_embedder
from cfray.embedders.spec import Embedding
from cfray.embedding.line import EmbeddingLine
from cfray.embedding.model import ActorModel, ModelSettings
from cfray.errors import ConfigError, EmbeddingError, TargetError
from cfray.runtime.filesystems import Folder
from tests.testbeds.embedding_server import EmbeddingServer, embedded

WIDTH = 8


@pytest.fixture(autouse=True)
def ray(shared_ray):
    """Have this process be a driver on the shared Ray."""
    shared_ray.join()


@pytest.fixture
def server():
    with EmbeddingServer(WIDTH) as server:
        yield server
        server.release()


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


@pytest.fixture
def actors(shared_ray):
    """Give a function that finds the actors of the line."""
    return lambda: [pid for pid, title in shared_ray.busy().items() if "MapWorker" in title]


def texts(count):
    return pa.array([f"text {number}" for number in range(count)])


def vectors_of(count):
    return np.stack([embedded(f"text {number}", WIDTH) for number in range(count)])


def test_vectors_come_back_in_order_and_each_actor_loads_once(settings):
    line = EmbeddingLine("articles", settings(2))
    embedding = line.embed(texts(1_300))
    np.testing.assert_allclose(embedding.vectors, vectors_of(1_300), atol=1e-6)
    assert embedding.counts["texts_embedded"] == line.figures.counts["texts_embedded"] == 1_300
    assert line.figures.loaded == len(line.figures.spans) <= 2
    np.testing.assert_allclose(line.embed_queries(texts(3)), vectors_of(3), atol=1e-6)


def test_an_error_of_the_model_arrives_as_it_is(settings, server):
    line = EmbeddingLine("articles", settings(1))
    server.fail("too few")
    with pytest.raises(EmbeddingError, match="3 vectors for 4 texts"):
        line.embed(texts(4))


def test_an_actor_with_another_model_refuses(settings):
    line = EmbeddingLine("articles", replace(settings(1), key="0" * 64))
    with pytest.raises(ConfigError, match="another model"):
        line.embed(texts(1))


class Killer(threading.Thread):
    """Kills so many actors, each while the server keeps it waiting."""

    def __init__(self, server, actors, kills):
        super().__init__()
        self.server, self.actors, self.kills = server, actors, kills
        server.fail("slow", on=range(1, kills + 1))
        self.requests_before = len(server.requests)

    def run(self):
        killed = set()
        while len(killed) < self.kills:
            for pid in set(self.actors()) - killed:
                if len(self.server.requests) - self.requests_before > len(killed):
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)


@pytest.mark.parametrize("kills", [1, 2])
def test_a_batch_outlives_its_actors(settings, server, actors, kills):
    line = EmbeddingLine("articles", settings(1))
    killer = Killer(server, actors, kills)
    killer.start()
    embedding = line.embed(texts(3))
    killer.join()
    np.testing.assert_allclose(embedding.vectors, vectors_of(3), atol=1e-6)
    assert line.figures.loaded == kills + 1


def test_a_batch_that_kills_every_actor_ends_the_run(settings, server, actors):
    line = EmbeddingLine("articles", settings(1))
    killer = Killer(server, actors, 3)
    killer.start()
    with pytest.raises(TargetError, match="actors died 3 times over the same texts"):
        line.embed(texts(3))
    killer.join()


def test_an_item_is_started_three_times(settings):
    model = ActorModel(settings(1))
    for _ in range(3):
        model.begin("piece")
    with pytest.raises(TargetError, match="over the same texts"):
        model.begin("piece")
    model.begin("another piece")
