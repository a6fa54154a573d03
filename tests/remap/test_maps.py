"""Maps and projections come back from their bytes, and NumPy computes what torch computes.

Equal numbers have equal ids; a vector without a direction becomes or stays zero.
"""

import numpy as np
import pytest

from cfray.errors import ConfigError, LedgerMismatch
from cfray.remap.maps import BLOCK, Map, gelu, pack_arrays, unit_rows
from cfray.remap.projection import Projection, fit_pca

SHAPES = {
    "affine": {"matrix": (6, 4), "offset": (4,)},
    "procrustes": {"matrix": (6, 4), "offset": (4,)},
    "clustered": {
        "matrix": (6, 4),
        "offset": (4,),
        "centres": (3, 6),
        "local_matrices": (3, 6, 4),
        "local_offsets": (3, 4),
    },
    "mlp": {
        "matrix": (6, 4),
        "offset": (4,),
        "hidden": (6, 5),
        "hidden_offset": (5,),
        "outer": (5, 4),
        "outer_offset": (4,),
    },
}


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def random_map(kind, seed=0):
    return Map(
        kind,
        {
            name: draw(*shape, seed=seed + index)
            for index, (name, shape) in enumerate(SHAPES[kind].items())
        },
    )


@pytest.fixture(params=SHAPES)
def fitted(request):
    return random_map(request.param)


class TestMap:
    def test_comes_back_from_its_bytes(self, fitted):
        restored = Map.from_bytes(fitted.to_bytes())
        assert (restored.kind, restored.id, restored.source_dimension, restored.dimension) == (
            fitted.kind,
            fitted.id,
            6,
            4,
        )
        assert np.array_equal(restored.apply(draw(50, 6)), fitted.apply(draw(50, 6)))

    def test_bytes_do_not_depend_on_the_order_of_the_arrays(self, fitted):
        reordered = Map(fitted.kind, dict(reversed(fitted.arrays.items())))
        assert reordered.to_bytes() == fitted.to_bytes()

    def test_numbers_and_kind_decide_the_id(self, fitted):
        other_map = random_map(fitted.kind, seed=1)
        assert len(fitted.id) == 64
        assert other_map.id != fitted.id
        assert random_map("affine").id != random_map("procrustes").id

    def test_gives_unit_vectors(self, fitted):
        new = fitted.apply(draw(50, 6))
        assert new.dtype == np.float32
        assert np.allclose(np.linalg.norm(new, axis=1), 1, atol=1e-6)

    def test_the_length_of_old_vectors_does_not_matter(self, fitted):
        old = draw(50, 6)
        assert np.allclose(fitted.apply(old * np.float32(37)), fitted.apply(old), atol=1e-6)

    def test_a_vector_without_a_direction_becomes_zero(self, fitted):
        old = draw(6, 6)
        old[1], old[2, 3], old[3, 0], old[4, 5] = 0, np.nan, np.inf, -np.inf
        new = fitted.apply(old)
        assert not new[1:5].any()
        assert np.isfinite(new).all()
        assert np.allclose(np.linalg.norm(new[[0, 5]], axis=1), 1, atol=1e-6)

    def test_blocks_change_nothing(self, fitted):
        old = draw(BLOCK + 3, 6)
        assert np.allclose(fitted.apply(old)[-3:], fitted.apply(old[-3:]), atol=1e-6)
        assert fitted.apply(old[:0]).shape == (0, 4)

    def test_refuses_another_width(self, fitted):
        with pytest.raises(ConfigError, match="from 6 to 4"):
            fitted.apply(draw(3, 5))


@pytest.mark.parametrize(
    "data", [b"", b"x" * 100, pack_arrays("affine", {"matrix": draw(2, 2)})[:-3]]
)
def test_damaged_bytes_are_refused(data):
    with pytest.raises(LedgerMismatch, match="no map of cfray"):
        Map.from_bytes(data)


def test_a_projection_is_no_map_and_a_map_no_projection():
    with pytest.raises(LedgerMismatch, match="'pca"):
        Map.from_bytes(fit_pca(unit_rows(draw(20, 4)), 2).to_bytes())
    with pytest.raises(LedgerMismatch, match="'mlp'"):
        Projection.from_bytes(random_map("mlp").to_bytes())


def test_unit_rows_holds_where_squares_leave_float32():
    rows = np.array([[3e38, 3e38, 3e38, 3e38], [1e-44, 1e-44, 1e-44, 1e-44]], np.float32)
    assert np.allclose(unit_rows(rows), 0.5)


def test_numpy_equals_torch():
    torch = pytest.importorskip("torch")
    fitted, old = random_map("mlp"), unit_rows(draw(300, 6))
    tensors = {name: torch.from_numpy(array) for name, array in fitted.arrays.items()}
    rows = torch.from_numpy(old)
    hidden = torch.nn.functional.gelu(
        rows @ tensors["hidden"] + tensors["hidden_offset"], approximate="tanh"
    )
    new = (
        rows @ tensors["matrix"]
        + tensors["offset"]
        + hidden @ tensors["outer"]
        + tensors["outer_offset"]
    )
    assert np.allclose(
        fitted.apply(old), torch.nn.functional.normalize(new, dim=1).numpy(), atol=1e-5
    )
    assert np.allclose(gelu(np.linspace(-9, 9, 99, dtype=np.float32))[[0, -1]], [0, 9], atol=1e-5)


class TestPca:
    @pytest.fixture
    def sample(self):
        """Draw unit vectors in 8 of 32 dimensions, with a mean far from zero and a little noise."""
        return unit_rows(
            draw(2000, 8) @ draw(8, 32, seed=1)
            + 2 * draw(1, 32, seed=2)
            + 0.01 * draw(2000, 32, seed=3)
        )

    def test_keeps_dot_products_and_their_order(self, sample):
        narrow = fit_pca(sample, 9).apply(sample)
        dots_before, dots_after = sample[:200] @ sample.T, narrow[:200] @ narrow.T
        assert np.abs(dots_before - dots_after).max() < 0.005
        shared = [
            len(set(rows_before) & set(rows_after))
            for rows_before, rows_after in zip(
                np.argsort(-dots_before)[:, :10], np.argsort(-dots_after)[:, :10], strict=True
            )
        ]
        assert np.mean(shared) > 9

    def test_is_exact_at_full_width(self, sample):
        narrow = fit_pca(sample, 32).apply(sample)
        assert np.allclose(sample[:100] @ sample.T, narrow[:100] @ narrow.T, atol=1e-5)

    def test_gives_length_1_again_only_where_it_was_1(self, sample):
        longer = sample * np.linspace(1, 5, len(sample), dtype=np.float32)[:, None]
        assert np.allclose(np.linalg.norm(fit_pca(sample, 4).apply(sample), axis=1), 1, atol=1e-6)
        projection = fit_pca(longer, 4)
        assert not projection.normalise
        assert np.allclose(projection.apply(longer), longer @ projection.matrix, atol=1e-6)

    def test_comes_back_and_is_the_same_each_time(self, sample):
        projection = fit_pca(sample, 4)
        restored = Projection.from_bytes(projection.to_bytes())
        assert restored.id == projection.id == fit_pca(sample, 4).id
        assert np.array_equal(restored.apply(sample), projection.apply(sample))
        assert (restored.source_dimension, restored.dimension, restored.normalise) == (32, 4, True)

    def test_the_sample_s_signs_do_not_matter(self, sample):
        assert np.allclose(fit_pca(-sample, 4).matrix, fit_pca(sample, 4).matrix, atol=1e-6)

    def test_a_vector_without_a_direction_stays_so_and_teaches_nothing(self, sample):
        damaged = np.concatenate(
            [sample, np.zeros((1, 32), np.float32), np.full((1, 32), np.nan, np.float32)]
        )
        assert fit_pca(damaged, 4).id == fit_pca(sample, 4).id
        assert not fit_pca(sample, 4).apply(damaged[-2:]).any()

    def test_refuses_more_numbers_than_there_are(self, sample):
        for rows, width in ((sample, 33), (sample[:3], 4)):
            with pytest.raises(ConfigError, match="no projection"):
                fit_pca(rows, width)
        with pytest.raises(ConfigError, match="from 32 to 4"):
            fit_pca(sample, 4).apply(sample[:, :5])
