"""The vectors of a model that cfray runs are those that the model's library computes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfray.embedders import models, torch_model
from cfray.embedders.sentence_transformers import SentenceTransformersEmbedder, divide
from cfray.embedders.spec import Embedding
from cfray.errors import ConfigError, ProofFailed
from tests.embedders.conftest import MODEL

TEXTS = [
    f"{word} " * count + "of the archive"
    for count, word in enumerate(("lance", "river", "stone", "graph", "token", "ledger"), 1)
] + [
    "x" * 3000,
    "ß 漢字 🙂",
]


def spec(**options):
    return Embedding(policy="regenerate", model=MODEL, **options)


def encode(embedder, texts):
    return embedder.encode(texts, embedder.count_tokens(texts))


def cosines(vectors, other_vectors):
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(other_vectors, axis=1)
    return (vectors * other_vectors).sum(axis=1) / lengths


@pytest.fixture(scope="module")
def library_model():
    """Load the model with its library, in fp32, and use it as its README says."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(models.find_folder(MODEL)), device="cpu", local_files_only=True)


def test_vectors_are_those_of_the_library(embedder, library_model):
    vectors = encode(embedder, TEXTS)
    assert vectors.dtype == np.float32
    assert cosines(vectors, library_model.encode(TEXTS)).min() > 0.999
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_vectors_come_in_the_order_of_the_texts(embedder):
    forward, backward = encode(embedder, TEXTS), encode(embedder, TEXTS[::-1])
    assert cosines(forward, backward[::-1]).min() > 0.9999
    assert cosines(forward[:1], forward[1:2])[0] < 0.9


def test_fp32_is_exactly_the_librarys(library_model):
    fp32_embedder = SentenceTransformersEmbedder(spec(dtype="fp32"), "fp32")
    np.testing.assert_allclose(encode(fp32_embedder, TEXTS), library_model.encode(TEXTS), atol=1e-6)


def test_openvino_agrees():
    pytest.importorskip("openvino")
    openvino = SentenceTransformersEmbedder(spec(engine="openvino"), "bf16")
    assert openvino.identity.engine == "openvino"
    assert (
        cosines(
            encode(openvino, TEXTS), encode(SentenceTransformersEmbedder(spec(), "fp32"), TEXTS)
        ).min()
        > 0.999
    )


def test_a_truncated_vector_has_length_1(embedder):
    truncated = SentenceTransformersEmbedder(spec(truncate_dim=64), "auto")
    vectors = encode(truncated, TEXTS)
    assert vectors.shape[1] == truncated.identity.dimension == 64
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert cosines(vectors, encode(embedder, TEXTS)[:, :64]).min() > 0.9999


def test_a_prompt_stands_before_documents_and_another_before_queries(library_model):
    prompted = SentenceTransformersEmbedder(
        spec(prompt="passage: ", query_prompt="query: "), "fp32"
    )
    np.testing.assert_allclose(
        encode(prompted, TEXTS[:2]),
        library_model.encode([f"passage: {text}" for text in TEXTS[:2]]),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        prompted.encode_queries(TEXTS[:2]),
        library_model.encode([f"query: {text}" for text in TEXTS[:2]]),
        atol=1e-6,
    )
    assert (
        prompted.count_tokens(["a"])[0]
        == library_model.tokenizer("passage: a")["input_ids"].__len__()
    )


def test_batches_tokenised_ahead_are_the_same(embedder):
    """For a GPU, another thread tokenises the next batch; that changes no vector."""
    plain = encode(embedder, TEXTS * 40)
    embedder.prefetches = True
    try:
        assert np.array_equal(encode(embedder, TEXTS * 40), plain)
    finally:
        embedder.prefetches = False


def test_an_engine_that_does_not_agree_is_refused(monkeypatch):
    def negate_weights(model, dtype):
        model[0].auto_model.encoder.layer[0].output.dense.weight.data.neg_()

    monkeypatch.setattr(torch_model, "set_dtype", negate_weights)
    with pytest.raises(ProofFailed, match="does not agree with fp32"):
        SentenceTransformersEmbedder(spec(), "bf16")


def test_a_missing_model_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match="neither a folder nor an installed package"):
        SentenceTransformersEmbedder(spec().model_copy(update={"model": "no-such-model"}), "auto")
    with pytest.raises(ConfigError, match="carries no sentence-transformers model"):
        models.find_folder("pytest")
    with pytest.raises(ConfigError, match="truncate_dim is 999"):
        SentenceTransformersEmbedder(spec(truncate_dim=999), "auto")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no model"):
        models.find_folder(str(tmp_path))


def test_the_hash_is_of_names_and_bytes(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "b" / "README.md").write_text("another text decides no vector")
    (tmp_path / "c" / "config.json").write_text("{} ")
    original, with_readme, other_config = (
        models.hash_files(tmp_path / name) for name in ("a", "b", "c")
    )
    assert original == with_readme != other_config


def test_the_parts_leave_nothing_out(embedder):
    text = "  " + " ".join(f"word{number} stone, river;" for number in range(400)) + " 🙂 end\n"
    text_parts = embedder.split_text(text, 50, 0)
    assert "".join(text_parts) == text
    assert (
        max(
            len(embedder.model.tokenizer(text_part, add_special_tokens=False)["input_ids"])
            for text_part in text_parts
        )
        <= 50
    )
    overlapping = embedder.split_text(text, 50, 10)
    assert len(overlapping) > len(text_parts)
    assert overlapping[1][:5] in overlapping[0]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200).map(sorted), st.integers(1, 4096))
def test_batches_hold_every_text_once_within_the_budget(lengths, budget):
    ranges = list(divide(lengths, budget))
    assert [row for start, end in ranges for row in range(start, end)] == list(range(len(lengths)))
    assert all(
        end - start == 1 or (end - start) * max(lengths[start:end]) <= budget
        for start, end in ranges
    )
