"""The cache never changes a vector and ignores damaged files and files of another model."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cfray.embedders import segments
from cfray.embedders.cache import Cache
from cfray.errors import ConfigError, TargetError

IDENTITY = "ab" * 32
TEXTS = ["", " ", "a", "a ", "ä", "a\u0308", "第三", "🐈", "a\ud800b", "x" * 100_000]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr("cfray.runtime.retry.FIRST_PAUSE", 0.0)
    monkeypatch.setattr("cfray.runtime.retry.JITTER", 0.0)


@pytest.fixture
def uri(tmp_path):
    return str(tmp_path / "cache")


def draw_vectors(count, dimension=4, seed=1):
    return np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)


def fill(uri, texts, values):
    cache = Cache(uri, IDENTITY, values.shape[1])
    cache.add(texts, values)
    cache.flush()
    return cache


def files(uri):
    return sorted(Path(uri, IDENTITY[:32]).glob("*"))


def check_hits(cache, texts, values):
    mask, cached = cache.find(texts)
    assert mask.all()
    # Equal to the bit, so that -0.0 is not 0.0.
    np.testing.assert_array_equal(cached.view(np.uint32), values.view(np.uint32))


def test_what_was_added_is_found_at_once_after_flush_and_by_another(uri):
    values = draw_vectors(len(TEXTS))
    values[0], values[1, 0] = -0.0, np.float32(1e-45)
    cache = Cache(uri, IDENTITY, 4)
    assert not cache.find(TEXTS)[0].any()
    cache.add(TEXTS, values)
    check_hits(cache, TEXTS, values)
    assert not files(uri)
    cache.flush()
    cache.flush()
    assert len(files(uri)) == 1
    check_hits(cache, TEXTS, values)
    check_hits(Cache(uri, IDENTITY, 4), TEXTS, values)
    assert (cache.hits, cache.damaged) == (2 * len(TEXTS), 0)


def test_a_text_that_is_missing_is_a_miss_beside_hits(uri):
    values = draw_vectors(3)
    fill(uri, ["a", "b", "c"], values)
    mask, cached = Cache(uri, IDENTITY, 4).find(["x", "c", "y", "a", "c"])
    assert mask.tolist() == [False, True, False, True, True]
    np.testing.assert_array_equal(cached[mask], values[[2, 0, 2]])
    assert not cached[~mask].any()
    # The caller may change the vectors that the cache gave it.
    cached[:] = 7
    check_hits(Cache(uri, IDENTITY, 4), ["a"], values[:1])


def test_an_empty_batch_is_nothing(uri):
    cache = Cache(uri, IDENTITY, 4)
    mask, cached = cache.find([])
    assert (mask.shape, cached.shape, cached.dtype) == ((0,), (0, 4), np.float32)
    cache.add([], np.zeros((0, 4), np.float32))
    cache.flush()
    assert not files(uri)


def test_another_identity_misses(uri):
    fill(uri, ["a"], draw_vectors(1))
    other_cache = Cache(uri, "cd" * 32, 4)
    assert not other_cache.find(["a"])[0].any()
    assert (other_cache.hits, other_cache.damaged) == (0, 0)


def test_a_segment_is_published_when_it_is_large_enough(uri):
    texts, values = [f"text {number}" for number in range(5_000)], draw_vectors(5_000)
    cache = Cache(uri, IDENTITY, 4)
    for start in range(0, 5_000, 1_000):
        cache.add(texts[start : start + 1_000], values[start : start + 1_000])
        check_hits(cache, texts[: start + 1_000], values[: start + 1_000])
    assert sorted(pq.ParquetFile(file).metadata.num_rows for file in files(uri)) == [3_000]
    cache.flush()
    check_hits(Cache(uri, IDENTITY, 4), texts, values)


def test_more_segments_than_fit_in_memory(uri):
    texts, values = [f"text {number}" for number in range(20)], draw_vectors(20)
    cache = Cache(uri, IDENTITY, 4)
    for number in range(20):
        cache.add(texts[number : number + 1], values[number : number + 1])
        cache.flush()
    assert len(files(uri)) == 20
    for reader in (cache, Cache(uri, IDENTITY, 4)):
        check_hits(reader, texts, values)
        check_hits(reader, texts[::-1], values[::-1])


def test_a_text_may_be_in_several_segments_and_survives_damage_to_one(uri):
    values = draw_vectors(2)
    fill(uri, ["a", "b"], values)
    first_file = files(uri)[0]
    second_cache = Cache(uri, IDENTITY, 4)
    second_cache.add(["a", "b"], values)
    second_cache.flush()
    flip_bit(first_file, first_file.read_bytes().find(values.tobytes()))
    cache = Cache(uri, IDENTITY, 4)
    check_hits(cache, ["a", "b"], values)


def test_keys_that_begin_alike_are_told_apart(uri, monkeypatch):
    real_hash_texts = segments.hash_texts

    def hash_alike(texts):
        keys = real_hash_texts(texts).copy()
        keys[:, :8] = 1
        return keys

    monkeypatch.setattr(segments, "hash_texts", hash_alike)
    values = draw_vectors(6)
    fill(uri, ["a", "b", "c"], values[:3])
    cache = Cache(uri, IDENTITY, 4)
    cache.add(["d", "e", "f"], values[3:])
    cache.flush()
    check_hits(cache, list("fbdace"), values[[5, 1, 3, 0, 2, 4]])
    assert not cache.find(["g"])[0].any()


def flip_bit(file, position):
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def flip_vector_bit(file, values):
    position = file.read_bytes().find(values.tobytes())
    assert position > 0
    flip_bit(file, position + 5)


def flip_key_bit(file, values):
    position = file.read_bytes().find(segments.hash_texts(["b"]).tobytes())
    assert position > 0
    flip_bit(file, position + 20)


def tear(file, values):
    file.write_bytes(file.read_bytes()[:-7])


def empty(file, values):
    file.write_bytes(b"")


def write_foreign_table(file, values):
    pq.write_table(pa.table({"key": [b"x"], "other": [1]}), file)


def write_noise(file, values):
    file.write_bytes(b"PAR1" + bytes(100) + b"PAR1")


def write_segment_of_another_model(file, values):
    file.write_bytes(segments.write_segment(segments.hash_texts(["a", "b"]), values, "cd" * 32))


def drop_digest(file, values):
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata({segments.IDENTITY: IDENTITY.encode()}), file)


def write_wider_vectors(file, values):
    file.write_bytes(
        segments.write_segment(segments.hash_texts(["a", "b"]), draw_vectors(2, 5), IDENTITY)
    )


@pytest.mark.parametrize(
    "damage",
    [
        flip_vector_bit,
        flip_key_bit,
        tear,
        empty,
        write_foreign_table,
        write_noise,
        write_segment_of_another_model,
        drop_digest,
        write_wider_vectors,
    ],
)
def test_a_damaged_segment_is_left_out_and_counted_and_its_texts_are_added_anew(
    uri, damage, caplog
):
    values = draw_vectors(2)
    fill(uri, ["a", "b"], values)
    (file,) = files(uri)
    damage(file, values)
    cache = Cache(uri, IDENTITY, 4)
    with caplog.at_level(logging.WARNING, "cfray"):
        mask, cached = cache.find(["a", "b"])
        assert not mask.any()
        assert not cached.any()
        cache.find(["a", "b"])
    assert (cache.damaged, cache.hits) == (1, 0)
    cache.add(["a", "b"], values)
    cache.flush()
    check_hits(Cache(uri, IDENTITY, 4), ["a", "b"], values)


def test_damage_is_logged_once_with_the_files_name(uri, caplog):
    fill(uri, ["a"], draw_vectors(1))
    tear(files(uri)[0], None)
    with caplog.at_level(logging.WARNING, "cfray"):
        cache = Cache(uri, IDENTITY, 4)
        cache.find(["a"])
    assert [record.getMessage().count(files(uri)[0].name) for record in caplog.records] == [1]


def test_files_of_another_name_are_ignored_and_no_partial_file_stays(uri):
    fill(uri, ["a"], draw_vectors(1))
    assert len(files(uri)) == 1
    Path(uri, IDENTITY[:32], ".x.parquet.1234.part").write_bytes(b"torn")
    Path(uri, IDENTITY[:32], "README").write_text("hello")
    assert Cache(uri, IDENTITY, 4).damaged == 0


def test_a_segment_that_is_deleted_meanwhile_is_a_miss(uri):
    fill(uri, ["a"], draw_vectors(1))
    cache = Cache(uri, IDENTITY, 4)
    files(uri)[0].unlink()
    assert not cache.find(["a"])[0].any()
    assert cache.damaged == 0


def test_vectors_of_another_shape_or_type_are_refused(uri):
    cache = Cache(uri, IDENTITY, 4)
    for wrong_vectors in (
        draw_vectors(2),
        draw_vectors(1, 5),
        draw_vectors(1).astype(np.float64),
        draw_vectors(1).astype(np.float16),
    ):
        with pytest.raises(ValueError, match="float32"):
            cache.add(["a"], wrong_vectors)


def test_what_the_caller_changes_afterwards_changes_nothing(uri):
    values = draw_vectors(1)
    cache = Cache(uri, IDENTITY, 4)
    cache.add(["a"], values)
    values_when_added = values.copy()
    values[:] = 0
    check_hits(cache, ["a"], values_when_added)


def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_cache(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(TargetError, match="cache") as refused:
        fill(str(tmp_path / "cache"), ["a"], draw_vectors(1))
    assert "embedding.cache" in refused.value.remedy
    unpickled = pickle.loads(pickle.dumps(refused.value))
    assert (type(unpickled), str(unpickled)) == (type(refused.value), str(refused.value))


def test_an_unknown_kind_of_filesystem_is_a_mistake_in_the_job_file():
    with pytest.raises(ConfigError):
        Cache("nonsense://there", IDENTITY, 4)


# The other object stores take long to start.
@pytest.mark.parametrize(
    "s3", [pytest.param("moto", marks=pytest.mark.server("moto"))], indirect=True
)
def test_any_filesystem_of_pyarrow_holds_a_cache(s3_place):
    values = draw_vectors(len(TEXTS))
    fill(f"{s3_place}/cache", TEXTS, values)
    check_hits(Cache(f"{s3_place}/cache/", IDENTITY, 4), TEXTS, values)
