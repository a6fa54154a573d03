"""Fitting recovers the map that made the pairs, and the same pairs give the same bytes.

Where a network learns nothing, the affine map remains.
"""

import dataclasses

import numpy as np
import pytest

from cfray.errors import ConfigError
from cfray.remap import networks, solve
from cfray.remap.gate import top1_in_10
from cfray.remap.learn import learn_best_map
from cfray.remap.maps import unit_rows
from cfray.remap.networks import Training, train_network
from cfray.remap.pairs import Pairs
from cfray.remap.solve import (
    NETWORK_ROWS,
    fit_candidates,
    fit_clustered,
    fit_procrustes,
    fit_ridge,
)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rotation(width, seed=9):
    return np.linalg.qr(draw(width, width, seed=seed).astype(np.float64))[0].astype(np.float32)


def cosine(vectors, other_vectors):
    return (vectors * other_vectors).sum(axis=1)


@pytest.fixture(scope="module")
def old():
    """Draw 4,500 unit vectors that lean to one side, as models' vectors do."""
    return unit_rows(draw(4500, 32) + 1.5 * draw(1, 32, seed=1))


def nonlinear(old, seed=2):
    """Give a smooth function of old vectors that is no affine map."""
    return unit_rows(
        np.tanh(6 * old @ draw(32, 24, seed=seed)) @ draw(24, 20, seed=seed + 1)
        + draw(1, 20, seed=seed + 2)
    )


class TestProcrustes:
    def test_finds_a_rotation(self, old):
        turned_by = rotation(32)
        fitted = fit_procrustes(old, old @ turned_by)
        assert np.allclose(fitted.arrays["matrix"], turned_by, atol=1e-5)
        assert cosine(fitted.apply(old), old @ turned_by).min() > 0.99999

    @pytest.mark.parametrize("widths", [(32, 20), (20, 32)])
    def test_is_orthonormal_between_widths(self, old, widths):
        matrix = fit_procrustes(
            old[:, : widths[0]], unit_rows(draw(4500, widths[1], seed=3))
        ).arrays["matrix"]
        gram = matrix.T @ matrix if widths[0] > widths[1] else matrix @ matrix.T
        assert matrix.shape == widths
        assert np.allclose(gram, np.eye(20), atol=1e-5)


class TestRidge:
    @pytest.mark.parametrize("width", [20, 32, 48])
    def test_finds_an_affine_map_between_widths(self, old, width):
        new = old @ draw(32, width, seed=4) + draw(1, width, seed=5)
        fitted = fit_ridge(old[:4000], new[:4000], seed=0)
        assert cosine(fitted.apply(old[4000:]), unit_rows(new[4000:])).min() > 0.9999

    def test_holds_back_where_there_is_nothing_to_learn(self, old):
        """The penalty shrinks a matrix fitted to noise, and leaves a rotation as it is."""
        few_vectors, noise = old[:300], unit_rows(draw(300, 32, seed=6))
        unpenalised = np.linalg.lstsq(
            few_vectors - few_vectors.mean(axis=0), noise - noise.mean(axis=0), rcond=None
        )[0]
        assert np.linalg.norm(
            fit_ridge(few_vectors, noise, seed=0).arrays["matrix"]
        ) < 0.9 * np.linalg.norm(unpenalised)
        assert np.linalg.norm(
            fit_ridge(few_vectors, few_vectors @ rotation(32), seed=0).arrays["matrix"]
        ) == pytest.approx(np.sqrt(32), rel=1e-3)

    def test_accepts_vectors_that_leave_dimensions_empty(self, old):
        flat = old.copy()
        flat[:, 16:] = 0
        assert np.isfinite(fit_ridge(unit_rows(flat), old, seed=0).apply(unit_rows(flat))).all()


def test_clusters_correct_what_bends(old):
    base = fit_ridge(old[:4000], nonlinear(old[:4000]), seed=0)
    fitted = fit_clustered(old[:4000], nonlinear(old[:4000]), base, seed=0)
    assert (
        cosine(fitted.apply(old[4000:]), nonlinear(old[4000:])).mean()
        > cosine(base.apply(old[4000:]), nonlinear(old[4000:])).mean()
    )


def test_clusters_of_nothing_do_no_harm(old):
    equal_vectors = np.repeat(old[:1], 40, axis=0)
    assert np.isfinite(
        fit_clustered(
            equal_vectors, equal_vectors, fit_ridge(equal_vectors, equal_vectors, seed=0), seed=0
        ).apply(old)
    ).all()


SMALL = Training(hidden=64, epochs=4)


class TestNetwork:
    def test_corrects_what_bends(self, old):
        pairs = Pairs(old[:4000], nonlinear(old[:4000]))
        base = fit_ridge(pairs.old, pairs.new, seed=0)
        fitted = train_network(pairs, base, dataclasses.replace(SMALL, rate=5e-3, epochs=10))
        held_out = Pairs(old[4000:], nonlinear(old[4000:]))
        assert (
            top1_in_10(held_out, fitted.apply(held_out.old))
            > top1_in_10(held_out, base.apply(held_out.old)) + 0.02
        )

    def test_a_round_that_destroys_the_map_is_not_used(self, old):
        """The learning rate makes weights explode, so the untrained network beats every round."""
        pairs = Pairs(old, unit_rows(old @ rotation(32) + 0.05 * draw(4500, 32, seed=7)))
        base = fit_ridge(pairs.old, pairs.new, seed=0)
        fitted = train_network(pairs, base, dataclasses.replace(SMALL, rate=30.0))
        assert not fitted.arrays["outer"].any()
        assert np.allclose(fitted.apply(old), base.apply(old), atol=1e-6)

    def test_learns_where_queries_go(self, old, monkeypatch):
        """Queries lie far from all documents; only a network trained on queries maps them well."""
        # Every round scores higher than the one before it, so that the last one is used.
        rounds = iter(range(100))
        monkeypatch.setattr(networks, "_score", lambda *_: next(rounds))
        pairs = Pairs(old, nonlinear(old), nonlinear(old, seed=5))
        training, held_out = pairs.take(np.arange(4000)), pairs.take(np.arange(4000, 4500))
        base = fit_ridge(training.old, training.new, seed=0)
        hits = []
        for weight in (0.0, 1.0):
            fitted = train_network(
                training, base, dataclasses.replace(SMALL, rate=5e-3, queries=weight)
            ).apply(held_out.old)
            scores = held_out.queries @ fitted.T
            hits.append(((scores >= np.diag(scores)[:, None]).sum(axis=1) <= 10).mean())
        assert hits[0] < 0.1
        assert hits[1] > 0.3

    def test_documents_without_a_query_are_allowed(self, old):
        queries = old.copy()
        queries[::2] = 0
        pairs = Pairs(old, old @ rotation(32), queries @ rotation(32))
        fitted = train_network(
            pairs, fit_ridge(pairs.old, pairs.new, seed=0), dataclasses.replace(SMALL, queries=1.0)
        )
        assert all(np.isfinite(array).all() for array in fitted.arrays.values())

    def test_leaves_the_callers_torch_as_it_was(self, old):
        torch = pytest.importorskip("torch")
        torch.manual_seed(5)
        expected, threads = torch.rand(1), torch.get_num_threads()
        torch.manual_seed(5)
        train_network(Pairs(old[:600], old[:600]), fit_ridge(old[:600], old[:600], seed=0), SMALL)
        assert torch.equal(torch.rand(1), expected)
        assert torch.get_num_threads() == threads


def test_every_candidate_is_the_same_twice_and_the_simplest_is_first(old, monkeypatch):
    monkeypatch.setattr(solve, "NETWORK_ROWS", 600)
    pairs = Pairs(old[:600], nonlinear(old[:600]), nonlinear(old[:600], seed=5))
    first_fits, second_fits = (
        [(name, fitted.id) for name, fitted in fit_candidates(pairs, 3)] for _ in range(2)
    )
    assert first_fits == second_fits
    assert [name for name, _ in first_fits] == [
        "procrustes",
        "affine",
        "clustered",
        "mlp",
        "mlp with queries",
    ]


def test_few_pairs_try_no_network(old):
    pairs = Pairs(old[: NETWORK_ROWS - 1], nonlinear(old[: NETWORK_ROWS - 1]))
    assert [name for name, _ in fit_candidates(pairs, 0)] == ["procrustes", "affine", "clustered"]


class TestPairs:
    def test_shares_of_the_parts(self):
        rows = draw(20_000, 2)
        assert [len(subset) for subset in Pairs(rows, rows).split(0)] == [12_000, 2_500, 5_500]

    def test_a_document_is_in_one_part_only_however_often_it_occurs(self, old):
        new = np.concatenate([old, old[:1500], old[:500]])
        subsets = Pairs(np.concatenate([old, old[:1500], old[:500]]), new).clean().split(0)
        texts = [{row.tobytes() for row in subset.new} for subset in subsets]
        assert [len(subset) for subset in subsets] == [len(subset) for subset in texts]
        assert sum(map(len, texts)) == len(old) == len(set.union(*texts))

    def test_the_seed_decides_the_split(self, old):
        split_of_seed_1, second_split_of_seed_1, split_of_seed_2 = (
            Pairs(old, old).split(seed)[2].old for seed in (1, 1, 2)
        )
        assert np.array_equal(split_of_seed_1, second_split_of_seed_1)
        assert not np.array_equal(split_of_seed_1, split_of_seed_2)

    def test_rows_stay_together(self, old):
        pairs = Pairs(old, 2 * old, 3 * old, 4 * old, labelled=True).clean()
        for subset in pairs.split(0):
            assert subset.labelled
            for array in (subset.new, subset.queries, subset.old_queries):
                assert np.allclose(array, subset.old, atol=1e-6)

    def test_vectors_without_a_direction_are_left_out(self, old):
        damaged, new = old.copy(), old.copy()
        damaged[3], damaged[4, 1], new[5] = 0, np.nan, np.inf
        assert len(Pairs(damaged, new).clean()) == len(old) - 3

    def test_too_few_queries_are_dropped(self, old):
        queries = old.copy()
        queries[999:] = 0
        assert Pairs(old, old, queries).clean().queries is None

    def test_too_few_pairs_are_refused(self, old):
        with pytest.raises(ConfigError, match="999 distinct documents"):
            learn_best_map(Pairs(old[:999], old[:999]), 5000)

    def test_arrays_of_different_lengths_are_refused(self, old):
        with pytest.raises(ConfigError, match="one document"):
            Pairs(old, old[:-1])
