"""No awkward text spoils the vector of another text, and none is cut without being counted."""

import numpy as np
import pyarrow as pa
import pytest

from cfray.embedders.cache import Cache
from cfray.embedders.spec import Embedding
from cfray.embedders.texts import TextEmbedder
from tests.embedders.conftest import MODEL

LONG = " ".join(f"stone{number % 50} in the river" for number in range(200))


def text_embedder(embedder, cache=None, **options):
    spec = Embedding(policy="regenerate", model=MODEL, **options)
    return TextEmbedder(embedder, spec, cache)


def test_no_text_no_vector(embedder):
    embedded = text_embedder(embedder).embed(
        pa.array([None, "", " \n\t\u3000", "a text"], pa.string())
    )
    assert embedded.missing.tolist() == [True, True, True, False]
    assert not embedded.vectors[:3].any()
    assert np.linalg.norm(embedded.vectors[3]) == pytest.approx(1, abs=1e-5)
    assert embedded.faults == {}


def test_no_texts_at_all(embedder):
    assert text_embedder(embedder).embed(pa.array([], pa.string())).vectors.shape == (0, 384)


def test_equal_texts_are_embedded_once(embedder):
    embedded = text_embedder(embedder).embed(pa.array(["a", "b", "a", "a"]))
    assert embedded.counts["texts_embedded"] == 2
    assert embedded.counts["texts_repeated"] == 2
    assert np.array_equal(embedded.vectors[0], embedded.vectors[3])
    assert not np.array_equal(embedded.vectors[0], embedded.vectors[1])


def test_a_cut_text_is_counted(embedder):
    embedded = text_embedder(embedder).embed(pa.array([LONG, "short", LONG]))
    tokens_lost = embedder.count_tokens([LONG])[0] - 256
    assert (embedded.counts["texts_truncated"], embedded.counts["tokens_lost"]) == (
        2,
        2 * tokens_lost,
    )
    assert tokens_lost > 0


def test_the_end_of_a_long_text_counts_where_the_job_says_so(embedder):
    longer_text = LONG + " and a volcano erupts under the glacier" * 30
    truncated = text_embedder(embedder).embed(pa.array([LONG, longer_text])).vectors
    pooled = text_embedder(embedder, on_long_text="chunk_mean").embed(pa.array([LONG, longer_text]))
    assert np.array_equal(truncated[0], truncated[1]), "the model does not read the end"
    assert (pooled.vectors[0] * pooled.vectors[1]).sum() < 0.99
    np.testing.assert_allclose(np.linalg.norm(pooled.vectors, axis=1), 1, atol=1e-5)
    assert pooled.counts["texts_pooled"] == 2
    assert pooled.counts["tokens_lost"] == 0


def test_a_long_text_is_refused_where_the_job_says_so(embedder):
    embedded = text_embedder(embedder, on_long_text="error").embed(pa.array(["short", LONG]))
    assert list(embedded.faults) == [1]
    assert "longer than the model's 256" in embedded.faults[1]
    assert embedded.missing.tolist() == [False, True]


def test_a_million_characters(embedder):
    embedded = text_embedder(embedder, on_long_text="truncate").embed(
        pa.array(["word " * 200_000, "x" * 1_000_000, "short"])
    )
    assert not embedded.missing.any()
    # A word of a million letters is a single unknown token.
    assert embedded.counts["texts_truncated"] == 1


def test_vectors_that_were_computed_come_from_the_cache(embedder, tmp_path):
    cache = Cache(str(tmp_path), embedder.identity.key, 384)
    computed = text_embedder(embedder, cache).embed(pa.array(["a", LONG, "b"]))
    cache.flush()
    reused = text_embedder(embedder, Cache(str(tmp_path), embedder.identity.key, 384)).embed(
        pa.array(["b", "c", LONG])
    )
    assert reused.counts["cache_hits"] == 2
    assert reused.counts["texts_embedded"] == 1
    assert reused.counts["texts_truncated"] == 1, (
        "a text whose vector comes from the cache was cut too"
    )
    assert np.array_equal(reused.vectors[[2, 0]], computed.vectors[[1, 2]])


def test_a_vector_of_nan_is_refused_alone(embedder, monkeypatch):
    real_encode = embedder.encode

    def encode(texts, tokens):
        vectors = real_encode(texts, tokens)
        vectors[[text == "poison" for text in texts]] = np.nan
        return vectors

    monkeypatch.setattr(embedder, "encode", encode)
    embedded = text_embedder(embedder).embed(pa.array(["fine", "poison"]))
    assert list(embedded.faults) == [1]
    assert not embedded.vectors[1].any()
    assert embedded.vectors[0].any()
