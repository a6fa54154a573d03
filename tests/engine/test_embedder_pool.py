"""The pool of embedding actors on a real Ray, asking a server that counts what it is asked.

The server is a double, which holds back what a test names.
"""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cfray.embedders.batches import divide_texts
from cfray.embedders.endpoint import Budgets
from cfray.embedders.open import open_embedder
from cfray.embedders.spec import Embedding
from cfray.engine.embedder_pool import start_pool
from cfray.errors import ConfigError, EmbeddingError, TargetError
from tests.testbeds.embedding_server import EmbeddingServer, embedded
from tests.testbeds.processes import until

WIDTH = 8


@pytest.fixture(autouse=True)
def ray(shared_ray):
    """Have this process be a driver on the shared Ray."""
    shared_ray.join()


@pytest.fixture
def embedding_workers(shared_ray):
    """Give a function that finds the actors that are computing at this moment."""
    return lambda: [pid for pid, title in shared_ray.busy().items() if "Worker.embed" in title]


@pytest.fixture
def server():
    with EmbeddingServer(WIDTH) as server:
        yield server


def spec(server, actors):
    return Embedding(
        policy="regenerate",
        endpoint={"url": server.url, "model": "m", "timeout": 600},
        actors=actors,
    )


def identity_of(job):
    return open_embedder(job, Budgets()).identity


def texts(count, first=0):
    return pa.array([f"text {number}" for number in range(first, first + count)])


def test_vectors_come_back_in_order(server):
    job = spec(server, 2)
    with start_pool(job, identity_of(job)) as handle:
        embedding = handle.embed(texts(1_300))
        assert handle.embed(pa.array([], pa.string())).vectors.shape == (0, WIDTH)
    np.testing.assert_allclose(
        embedding.vectors,
        np.stack([embedded(f"text {number}", WIDTH) for number in range(1_300)]),
        atol=1e-6,
    )
    assert embedding.counts["texts_embedded"] == 1_300


def test_there_are_as_many_actors_as_there_is_work_for(server):
    job = spec(server, {"min": 1, "max": 3})
    with start_pool(job, identity_of(job)) as handle, ThreadPoolExecutor(4) as asking:
        handle.embed(texts(3))
        assert handle.figures().actors == 1
        server.fail("slow", on=range(1, 4))
        before = len(server.requests)
        waiting = [asking.submit(handle.embed, texts(3, 100 * number)) for number in range(4)]
        until(
            lambda: len(server.requests) - before == 3,
            "three actors ask at once: two more came up while the first one was kept waiting",
        )
        figures = handle.figures()
        server.release()
        assert [len(batch.result().missing) for batch in waiting] == [3, 3, 3, 3]
    assert figures.actors == figures.loaded == 3


def test_a_batch_outlives_its_actor(server, embedding_workers):
    job = spec(server, 1)
    with start_pool(job, identity_of(job)) as handle, ThreadPoolExecutor(1) as asking:
        handle.embed(texts(1))
        server.fail("slow", on=(1,))
        before = len(server.requests)
        waiting = asking.submit(handle.embed, texts(3))
        until(lambda: len(server.requests) > before, "the batch is under way")
        (actor,) = until(embedding_workers, "an actor embeds")
        os.kill(actor, signal.SIGKILL)
        embedding = waiting.result()
        figures = handle.figures()
    server.release()
    np.testing.assert_allclose(
        embedding.vectors,
        np.stack([embedded(f"text {number}", WIDTH) for number in range(3)]),
        atol=1e-6,
    )
    assert (figures.loaded, figures.actors) == (2, 1)


def test_a_batch_that_kills_every_actor_ends_the_run(server, embedding_workers):
    job = spec(server, 1)
    with start_pool(job, identity_of(job)) as handle, ThreadPoolExecutor(1) as asking:
        handle.embed(texts(1))
        server.fail("slow", on=range(1, 20))
        waiting = asking.submit(handle.embed, texts(3))
        killed = set()
        while not waiting.done():
            for actor in set(embedding_workers()) - killed:
                os.kill(actor, signal.SIGKILL)
                killed.add(actor)
        with pytest.raises(TargetError, match="3 embedding actors died"):
            waiting.result()
    server.release()
    assert len(killed) == 3


def test_an_error_of_the_model_arrives_as_it_is(server):
    job = spec(server, 2)
    with start_pool(job, identity_of(job)) as handle:
        handle.embed(texts(1))
        server.fail("too few")
        with pytest.raises(EmbeddingError, match="3 vectors for 4 texts"):
            handle.embed(texts(4))
        assert len(handle.embed(texts(4)).missing) == 4


def test_an_actor_with_another_model_refuses(server):
    with (
        start_pool(
            spec(server, 1), replace(identity_of(spec(server, 1)), sha256="0" * 64)
        ) as handle,
        pytest.raises(ConfigError, match="another model"),
    ):
        handle.embed(texts(1))


@pytest.mark.parametrize("rows", [1, 3, 512])
def test_batches_hold_every_text_once(rows):
    column = pa.array(["a", None, "", "b" * 5_000_000, "c"])
    pieces = list(divide_texts(column, rows))
    assert pa.chunked_array(pieces).to_pylist() == column.to_pylist()
    assert all(len(piece) <= rows for piece in pieces)
    assert all(
        len(piece) == 1 or sum(len(text or "") for text in piece.to_pylist()) <= 4 * 2**20
        for piece in pieces
    )
