"""Every awkward text, through the real model: none spoils another one, none is cut in silence."""

import numpy as np
import pyarrow as pa
import pytest

from cfray.embedders.cache import Cache
from cfray.embedders.spec import Embedding
from cfray.embedders.texts import Texts
from tests.embedders.conftest import MODEL

LONG = " ".join(f"stone{number % 50} in the river" for number in range(200))


def texts(embedder, cache=None, **more):
    return Texts(embedder, Embedding(policy="regenerate", model=MODEL, **more), cache)


def test_no_text_no_vector(embedder):
    found = texts(embedder).embedded(pa.array([None, "", " \n\t\u3000", "a text"], pa.string()))
    assert found.missing.tolist() == [True, True, True, False]
    assert not found.vectors[:3].any()
    assert np.linalg.norm(found.vectors[3]) == pytest.approx(1, abs=1e-5)
    assert found.faults == {}


def test_no_texts_at_all(embedder):
    assert texts(embedder).embedded(pa.array([], pa.string())).vectors.shape == (0, 384)


def test_equal_texts_are_embedded_once(embedder):
    found = texts(embedder).embedded(pa.array(["a", "b", "a", "a"]))
    assert found.counts["texts_embedded"] == 2
    assert found.counts["texts_repeated"] == 2
    assert np.array_equal(found.vectors[0], found.vectors[3])
    assert not np.array_equal(found.vectors[0], found.vectors[1])


def test_a_cut_text_is_counted(embedder):
    found = texts(embedder).embedded(pa.array([LONG, "short", LONG]))
    lost = embedder.count_tokens([LONG])[0] - 256
    assert (found.counts["texts_truncated"], found.counts["tokens_lost"]) == (2, 2 * lost)
    assert lost > 0


def test_the_end_of_a_long_text_counts_where_the_job_says_so(embedder):
    other = LONG + " and a volcano erupts under the glacier" * 30
    cut = texts(embedder).embedded(pa.array([LONG, other])).vectors
    whole = texts(embedder, on_long_text="chunk_mean").embedded(pa.array([LONG, other]))
    assert np.array_equal(cut[0], cut[1]), "the model does not see the end"
    assert (whole.vectors[0] * whole.vectors[1]).sum() < 0.99
    np.testing.assert_allclose(np.linalg.norm(whole.vectors, axis=1), 1, atol=1e-5)
    assert whole.counts["texts_pooled"] == 2
    assert whole.counts["tokens_lost"] == 0


def test_a_long_text_is_refused_where_the_job_says_so(embedder):
    found = texts(embedder, on_long_text="error").embedded(pa.array(["short", LONG]))
    assert list(found.faults) == [1]
    assert "longer than the model's 256" in found.faults[1]
    assert found.missing.tolist() == [False, True]


def test_a_million_characters(embedder):
    found = texts(embedder, on_long_text="truncate").embedded(
        pa.array(["word " * 200_000, "x" * 1_000_000, "short"])
    )
    assert not found.missing.any()
    assert found.counts["texts_truncated"] == 1  # a word of a million letters is one unknown token


def test_chunks_are_texts_of_their_documents(embedder):
    found = texts(embedder, chunk={"tokens": 64, "overlap": 8}).embedded(
        pa.array(["short", LONG, None])
    )
    assert found.chunks is not None
    assert set(found.chunks.owner.tolist()) == {1}
    assert found.chunks.number.tolist() == list(range(len(found.chunks.texts)))
    assert all(text in LONG for text in found.chunks.texts)
    assert found.chunks.vectors.shape == (len(found.chunks.texts), 384)
    alone = embedder.encode(found.chunks.texts[:1], embedder.count_tokens(found.chunks.texts[:1]))
    assert (alone[0] * found.chunks.vectors[0]).sum() > 0.999


def test_what_was_computed_comes_from_the_cache(embedder, tmp_path):
    first = Cache(str(tmp_path), embedder.identity.key, 384)
    before = texts(embedder, first).embedded(pa.array(["a", LONG, "b"]))
    first.flush()
    again = texts(embedder, Cache(str(tmp_path), embedder.identity.key, 384)).embedded(
        pa.array(["b", "c", LONG])
    )
    assert again.counts["cache_hits"] == 2
    assert again.counts["texts_embedded"] == 1
    assert again.counts["texts_truncated"] == 1, "what the cache holds was cut all the same"
    assert np.array_equal(again.vectors[[2, 0]], before.vectors[[1, 2]])


def test_a_vector_that_is_none_is_refused_alone(embedder, monkeypatch):
    real = embedder.encode

    def encode(given, tokens):
        made = real(given, tokens)
        made[[text == "poison" for text in given]] = np.nan
        return made

    monkeypatch.setattr(embedder, "encode", encode)
    found = texts(embedder).embedded(pa.array(["fine", "poison"]))
    assert list(found.faults) == [1]
    assert not found.vectors[1].any()
    assert found.vectors[0].any()
