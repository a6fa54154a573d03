"""The columns that an embedding makes of frames: vectors, origins, further columns, refusals."""

import numpy as np
import pyarrow as pa
import pytest

from cfray.conversion import chunk_frames
from cfray.embedders.recipe import Recipe
from cfray.embedders.spec import Embedding
from cfray.embedding.vectors import VectorMaker, count_origins, made_fields
from cfray.frames.schema import ORIGIN
from cfray.remap.maps import Map, unit_rows
from cfray.remap.projection import fit_pca
from cfray.target.exact_vectors import ExactVectors
from cfray.target.state import State
from tests.embedding.letters import DIMENSION, IDENTITY, letters_model, vector_of

ENDPOINT = {"endpoint": {"url": "http://127.0.0.1:9", "api": "tei"}}
REGENERATED = f"regenerated model={IDENTITY.key[:16]}"
LONG = "one two three four five six seven eight nine"


def uuid_of(number):
    return f"{number:08d}-0000-0000-0000-000000000000"


def frames_of(texts, *, old=None, titles=None, is_chunk=None, origins=None):
    """Make frames with what vectors are made of; ``old`` are their present vectors, 2 wide."""
    rows = len(texts)
    old = np.zeros((rows, 2), np.float32) if old is None else np.array(old, np.float32)
    if origins is None:
        origins = ["kept" if any(vector) else None for vector in old.tolist()]
    owners = [uuid_of(0) if flag else None for flag in is_chunk or [False] * rows]
    return pa.RecordBatch.from_pydict(
        {
            "uuid": [uuid_of(number) for number in range(rows)],
            "text_content": pa.array(texts, pa.string()),
            "title": pa.array(titles or [None] * rows, pa.string()),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(old.ravel()), 2),
            ORIGIN: pa.array(origins, pa.string()),
            chunk_frames.FIELD.name: pa.array(owners, pa.string()),
        }
    )


def embedding_of(policy, **options):
    body = {"policy": policy, **options}
    return Embedding.model_validate(body if policy == "keep" else {**ENDPOINT, **body})


def make(frames, policy="regenerate", *, target="t", fitted="", **options):
    """Make the new columns of frames, and see that their types are the target's."""
    embedding = embedding_of(policy, **options)
    width = 2 if policy == "keep" else DIMENSION
    reduction = ""
    if embedding.reduce is not None:
        width = embedding.reduce.dimension
        reduction = "truncate"
    identity = None if policy == "keep" else IDENTITY
    recipe = Recipe(policy, width, identity, map=fitted, reduction=reduction)
    model = None if policy == "keep" else letters_model(embedding)
    new = VectorMaker(embedding, recipe, target, model)(frames)
    types = {field.name: field.type for field in made_fields(embedding, recipe)}
    assert {name: column.type for name, column in new.columns.items()} == types
    assert all(len(column) == frames.num_rows for column in new.columns.values())
    return new


def vectors_of(new, name="vector"):
    return [None if row is None else np.array(row) for row in new.columns[name].to_pylist()]


def test_regenerate_embeds_every_text_that_there_is():
    new = make(frames_of(["tea at six", None, " ", "a seat"]))
    tea, *without, seat = vectors_of(new)
    assert np.array_equal(tea, vector_of("tea at six"))
    assert np.array_equal(seat, vector_of("a seat"))
    assert [vector.tolist() for vector in without] == [[0.0] * DIMENSION] * 2
    assert new.columns[ORIGIN].to_pylist() == [REGENERATED, None, None, REGENERATED]
    assert new.refused == {}
    assert count_origins(new.columns[ORIGIN]) == {"vectors_regenerated": 2}


@pytest.mark.parametrize("policy", ["keep", "regenerate"])
def test_a_missing_vector_is_zeros_or_null_or_refuses_the_frame(policy):
    frames = frames_of(["tea", None], old=[[3, 4], [0, 0]])
    assert not vectors_of(make(frames, policy))[1].any()
    assert vectors_of(make(frames, policy, missing_vector="null"))[1] is None
    refusing = make(frames, policy, missing_vector="quarantine")
    assert list(refusing.refused) == [1]
    assert "embedding.missing_vector is quarantine" in refusing.refused[1]


def test_keep_takes_the_vectors_as_they_are():
    frames = frames_of([None, None, None], old=[[3, 4], [0, 0], [0.6, 0.8]])
    new = make(frames, "keep")
    assert new.columns["vector"].equals(frames.column("vector"))
    assert new.columns[ORIGIN].to_pylist() == ["kept", None, "kept"]
    assert count_origins(new.columns[ORIGIN]) == {"vectors_kept": 2}


def test_reduce_keeps_the_first_numbers_at_the_length_that_vectors_had():
    frames = frames_of([None, None], old=[[0.6, 0.8], [3, 4]])
    new = make(frames, "keep", reduce={"method": "truncate", "dimension": 1})
    unit_vector, longer_vector = vectors_of(new)
    assert unit_vector.tolist() == [1.0]
    assert longer_vector.tolist() == [3.0], "its length was not 1 and carried a meaning"
    new = make(frames_of(["tea at six"]), reduce={"method": "truncate", "dimension": 3})
    first_numbers = vector_of("tea at six")[:3]
    assert vectors_of(new)[0] == pytest.approx(first_numbers / np.linalg.norm(first_numbers))


def test_reduce_applies_the_projection_that_was_learned(tmp_path):
    target = str(tmp_path / "t.lance")
    old = np.random.default_rng(5).normal(size=(50, 2)).astype(np.float32)
    projection = fit_pca(old, 1)
    State(target).maps.publish(f"{projection.id}.safetensors", projection.to_bytes())
    embedding = embedding_of("keep", reduce={"method": "pca", "dimension": 1})
    maker = VectorMaker(embedding, Recipe("keep", 1, reduction=projection.id), target)
    new = maker(frames_of([None] * 50, old=old))
    assert np.array_equal(np.stack(vectors_of(new)), projection.apply(old))


@pytest.fixture
def mapped_target(tmp_path):
    """Save a map from 2 to 6 numbers, and the exact vector of the record 0."""
    target = str(tmp_path / "t.lance")
    matrix = np.arange(12, dtype=np.float32).reshape(2, DIMENSION)
    fitted = Map("affine", {"matrix": matrix, "offset": np.ones(DIMENSION, np.float32)})
    state = State(target)
    state.maps.publish(f"{fitted.id}.safetensors", fitted.to_bytes())
    exact = vector_of("exact")[None]
    ExactVectors.save(state, fitted.id, pa.array([uuid_of(0)]), exact)
    return target, fitted


def test_remap_maps_old_vectors_and_embeds_the_text_where_there_is_none(mapped_target):
    target, fitted = mapped_target
    old = [[1, 0], [1, 2], [0, 0], [0, 0]]
    texts = ["exact", "never embedded", "tea", None]
    new = make(frames_of(texts, old=old), "remap", target=target, fitted=fitted.id)
    pair, mapped, embedded, missing = vectors_of(new)
    assert np.array_equal(pair, vector_of("exact"))
    # a product of matrices may differ in its last bit with the number of rows
    np.testing.assert_allclose(mapped, fitted.apply(np.array([[1, 2]], np.float32))[0], rtol=1e-6)
    assert np.array_equal(embedded, vector_of("tea"))
    assert not missing.any()
    remapped = f"remapped model={IDENTITY.key[:16]} map={fitted.id[:16]}"
    assert new.columns[ORIGIN].to_pylist() == [REGENERATED, remapped, REGENERATED, None]
    assert new.counts["texts_embedded"] == 1, "a map needs no text"


def test_remap_embeds_no_text_where_every_frame_has_a_vector(mapped_target):
    target, fitted = mapped_target
    old = np.array([[1, 0], [1, 2]], np.float32)
    frames = frames_of(["exact", "b"], old=old).slice(1)
    new = make(frames, "remap", target=target, fitted=fitted.id)
    assert np.array_equal(vectors_of(new)[0], unit_rows(fitted.apply(old[1:]))[0])
    assert new.counts["texts_embedded"] == 0


def test_a_refused_text_has_no_vector_and_says_why():
    frames = frames_of(["tea", LONG, "poison", None])
    new = make(frames, on_long_text="error", missing_vector="quarantine")
    assert set(new.refused) == {1, 2, 3}
    assert "embedding.on_long_text is error" in new.refused[1]
    assert "NaN" in new.refused[2]
    assert "embedding.missing_vector is quarantine" in new.refused[3]
    assert [bool(vector.any()) for vector in vectors_of(new)] == [True, False, False, False]
    assert new.columns[ORIGIN].to_pylist() == [REGENERATED, None, None, None]


def test_a_refused_text_that_only_a_map_lacked_refuses_its_own_row(mapped_target):
    target, fitted = mapped_target
    old = [[1, 2], [0, 0], [0, 0]]
    frames = frames_of(["poison", "tea", "poison"], old=old)
    new = make(frames, "remap", target=target, fitted=fitted.id)
    assert list(new.refused) == [2]


def test_a_vector_of_which_reduce_leaves_zeros_is_refused():
    frames = frames_of([None, None], old=[[0, 1], [0, 0]])
    new = make(frames, "keep", reduce={"method": "truncate", "dimension": 1})
    assert list(new.refused) == [0], "the other one has no vector, as before"
    assert "embedding.reduce" in new.refused[0]
    assert new.columns[ORIGIN].to_pylist() == [None, None]


@pytest.mark.parametrize(("number", "fits"), [(65_519.99, True), (65_520, False), (-7e4, False)])
def test_a_number_that_no_half_holds_is_refused_and_never_infinite(number, fits):
    frames = frames_of([None, None], old=[[number, 1], [0, 0]])
    columns = {"half": {"of": "vector", "dtype": "float16"}}
    new = make(frames, "keep", columns=columns, missing_vector="null")
    assert list(new.refused) == ([] if fits else [0])
    half, missing = vectors_of(new, "x_vector_half")
    assert np.isfinite(half).all()
    assert missing is None
    if not fits:
        assert "float16" in new.refused[0]


def test_long_texts_are_cut_and_counted():
    new = make(frames_of([LONG, "tea"]))
    assert np.array_equal(vectors_of(new)[0], vector_of(LONG))
    assert (new.counts["texts_truncated"], new.counts["tokens_lost"]) == (1, 1)
    assert new.refused == {}


def test_further_columns_hold_another_text_or_the_vector_in_another_type():
    columns = {"name": {"of": "title"}, "half": {"of": "vector", "dtype": "float16"}}
    frames = frames_of(["tea at six", "a seat"], titles=["some toast", None])
    new = make(frames, columns=columns, reduce={"method": "truncate", "dimension": 3})
    assert np.array_equal(vectors_of(new, "x_vector_name")[0], vector_of("some toast"))
    assert vectors_of(new, "x_vector_name")[1] is None, "only the primary vector may be zeros"
    vectors, halves = vectors_of(new), vectors_of(new, "x_vector_half")
    for vector, half in zip(vectors, halves, strict=True):
        assert np.array_equal(half.astype(np.float16), vector.astype(np.float16))
    assert new.refused == {}


def test_a_vector_of_zeros_is_no_vector_of_a_text():
    new = make(frames_of(["tea", "nothing", None]))
    assert new.refused == {1: "the model gave a vector of zeros"}
    assert new.columns[ORIGIN].to_pylist() == [REGENERATED, None, None]


def test_a_refused_title_refuses_its_document():
    columns = {"name": {"of": "title"}}
    new = make(frames_of(["tea", "tea"], titles=["toast", "poison"]), columns=columns)
    assert list(new.refused) == [1]
    assert new.refused[1].startswith("title: ")


def test_the_reason_of_the_text_goes_before_that_of_a_column():
    new = make(frames_of(["poison"], titles=["poison"]), columns={"name": {"of": "title"}})
    assert not new.refused[0].startswith("title: ")


def test_chunks_have_a_vector_and_no_further_columns():
    columns = {"name": {"of": "title"}, "half": {"of": "vector", "dtype": "float16"}}
    frames = frames_of(["tea", "seat"], titles=["poison", "poison"], is_chunk=[False, True])
    new = make(frames, columns=columns)
    assert np.array_equal(vectors_of(new)[1], vector_of("seat"))
    assert list(new.refused) == [0], "the title of a chunk is its document's"
    for name in ("x_vector_name", "x_vector_half"):
        assert vectors_of(new, name)[1] is None


def test_frames_that_are_none():
    new = make(frames_of(["tea"]).slice(1), columns={"half": {"of": "vector"}})
    assert (new.refused, +new.counts) == ({}, {})
