"""Fitting: known maps are found again, what cannot be learnt collapses to the affine map.

The same pairs give the same bytes.
"""

import dataclasses

import numpy as np
import pytest

from cfray.errors import ConfigError
from cfray.remap import networks, solve
from cfray.remap.gate import top1_in_10
from cfray.remap.learn import learn
from cfray.remap.maps import unit
from cfray.remap.networks import Training, trained
from cfray.remap.pairs import Pairs
from cfray.remap.solve import NETWORK_ROWS, candidates, clustered, procrustes, ridge


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rotation(width, seed=9):
    return np.linalg.qr(draw(width, width, seed=seed).astype(np.float64))[0].astype(np.float32)


def cosine(a, b):
    return (a * b).sum(axis=1)


@pytest.fixture(scope="module")
def old():
    """4,500 unit vectors that lean to one side, as models' vectors do."""
    return unit(draw(4500, 32) + 1.5 * draw(1, 32, seed=1))


def bent(old, seed=2):
    """A smooth function of old vectors that no affine map is."""
    return unit(
        np.tanh(6 * old @ draw(32, 24, seed=seed)) @ draw(24, 20, seed=seed + 1)
        + draw(1, 20, seed=seed + 2)
    )


class TestProcrustes:
    def test_finds_a_rotation(self, old):
        turn = rotation(32)
        found = procrustes(old, old @ turn)
        assert np.allclose(found.arrays["matrix"], turn, atol=1e-5)
        assert cosine(found.apply(old), old @ turn).min() > 0.99999

    @pytest.mark.parametrize("widths", [(32, 20), (20, 32)])
    def test_is_orthonormal_between_widths(self, old, widths):
        matrix = procrustes(old[:, : widths[0]], unit(draw(4500, widths[1], seed=3))).arrays[
            "matrix"
        ]
        gram = matrix.T @ matrix if widths[0] > widths[1] else matrix @ matrix.T
        assert matrix.shape == widths
        assert np.allclose(gram, np.eye(20), atol=1e-5)


class TestRidge:
    @pytest.mark.parametrize("width", [20, 32, 48])
    def test_finds_an_affine_map_between_widths(self, old, width):
        new = old @ draw(32, width, seed=4) + draw(1, width, seed=5)
        found = ridge(old[:4000], new[:4000], seed=0)
        assert cosine(found.apply(old[4000:]), unit(new[4000:])).min() > 0.9999

    def test_holds_back_where_there_is_nothing_to_learn(self, old):
        """Without a penalty the matrix of noise is as large as least squares makes it.

        That of a rotation is the rotation.
        """
        few, noise = old[:300], unit(draw(300, 32, seed=6))
        free = np.linalg.lstsq(few - few.mean(axis=0), noise - noise.mean(axis=0), rcond=None)[0]
        assert np.linalg.norm(ridge(few, noise, seed=0).arrays["matrix"]) < 0.9 * np.linalg.norm(
            free
        )
        assert np.linalg.norm(
            ridge(few, few @ rotation(32), seed=0).arrays["matrix"]
        ) == pytest.approx(np.sqrt(32), rel=1e-3)

    def test_stands_vectors_that_fill_no_dimension(self, old):
        flat = old.copy()
        flat[:, 16:] = 0
        assert np.isfinite(ridge(unit(flat), old, seed=0).apply(unit(flat))).all()


def test_clusters_correct_what_bends(old):
    base = ridge(old[:4000], bent(old[:4000]), seed=0)
    found = clustered(old[:4000], bent(old[:4000]), base, seed=0)
    assert (
        cosine(found.apply(old[4000:]), bent(old[4000:])).mean()
        > cosine(base.apply(old[4000:]), bent(old[4000:])).mean()
    )


def test_clusters_of_nothing_do_no_harm(old):
    same = np.repeat(old[:1], 40, axis=0)
    assert np.isfinite(clustered(same, same, ridge(same, same, seed=0), seed=0).apply(old)).all()


SMALL = Training(hidden=64, epochs=4)


class TestNetwork:
    def test_corrects_what_bends(self, old):
        pairs = Pairs(old[:4000], bent(old[:4000]))
        base = ridge(pairs.old, pairs.new, seed=0)
        found = trained(pairs, base, dataclasses.replace(SMALL, rate=5e-3, epochs=10))
        held = Pairs(old[4000:], bent(old[4000:]))
        assert (
            top1_in_10(held, found.apply(held.old)) > top1_in_10(held, base.apply(held.old)) + 0.02
        )

    def test_what_it_destroys_is_not_kept(self, old):
        """With a rate at which weights explode every round is worse than none.

        None is what is left.
        """
        pairs = Pairs(old, unit(old @ rotation(32) + 0.05 * draw(4500, 32, seed=7)))
        base = ridge(pairs.old, pairs.new, seed=0)
        found = trained(pairs, base, dataclasses.replace(SMALL, rate=30.0))
        assert not found.arrays["outer"].any()
        assert np.allclose(found.apply(old), base.apply(old), atol=1e-6)

    def test_learns_where_queries_go(self, old, monkeypatch):
        """Queries that the new model's own documents say nothing of.

        Only who was shown some brings documents to where they are.
        """
        rounds = iter(range(100))
        monkeypatch.setattr(
            networks, "_found", lambda *_: next(rounds)
        )  # keep the last round, whatever it finds
        pairs = Pairs(old, bent(old), bent(old, seed=5))
        fit, held = pairs.kept(np.arange(4000)), pairs.kept(np.arange(4000, 4500))
        base = ridge(fit.old, fit.new, seed=0)
        hits = []
        for weight in (0.0, 1.0):
            found = trained(fit, base, dataclasses.replace(SMALL, rate=5e-3, queries=weight)).apply(
                held.old
            )
            scores = held.queries @ found.T
            hits.append(((scores >= np.diag(scores)[:, None]).sum(axis=1) <= 10).mean())
        assert hits[0] < 0.1
        assert hits[1] > 0.3

    def test_documents_without_a_query_are_allowed(self, old):
        asked = old.copy()
        asked[::2] = 0
        pairs = Pairs(old, old @ rotation(32), asked @ rotation(32))
        found = trained(
            pairs, ridge(pairs.old, pairs.new, seed=0), dataclasses.replace(SMALL, queries=1.0)
        )
        assert all(np.isfinite(array).all() for array in found.arrays.values())

    def test_leaves_the_callers_torch_as_it_was(self, old):
        torch = pytest.importorskip("torch")
        torch.manual_seed(5)
        expected, threads = torch.rand(1), torch.get_num_threads()
        torch.manual_seed(5)
        trained(Pairs(old[:600], old[:600]), ridge(old[:600], old[:600], seed=0), SMALL)
        assert torch.equal(torch.rand(1), expected)
        assert torch.get_num_threads() == threads


def test_every_candidate_comes_out_the_same_twice_simplest_first(old, monkeypatch):
    monkeypatch.setattr(solve, "NETWORK_ROWS", 600)
    pairs = Pairs(old[:600], bent(old[:600]), bent(old[:600], seed=5))
    first, second = ([(name, found.id) for name, found in candidates(pairs, 3)] for _ in range(2))
    assert first == second
    assert [name for name, _ in first] == [
        "procrustes",
        "affine",
        "clustered",
        "mlp",
        "mlp with queries",
    ]


def test_few_pairs_try_no_network(old):
    pairs = Pairs(old[: NETWORK_ROWS - 1], bent(old[: NETWORK_ROWS - 1]))
    assert [name for name, _ in candidates(pairs, 0)] == ["procrustes", "affine", "clustered"]


class TestPairs:
    def test_shares_are_what_they_should_be(self):
        rows = draw(20_000, 2)
        assert [len(part) for part in Pairs(rows, rows).split(0)] == [12_000, 2_500, 5_500]

    def test_a_document_is_in_one_part_only_however_often_it_occurs(self, old):
        new = np.concatenate([old, old[:1500], old[:500]])
        parts = Pairs(np.concatenate([old, old[:1500], old[:500]]), new).usable().split(0)
        texts = [{row.tobytes() for row in part.new} for part in parts]
        assert [len(part) for part in parts] == [len(part) for part in texts]
        assert sum(map(len, texts)) == len(old) == len(set.union(*texts))

    def test_a_split_is_the_seed_s(self, old):
        same, again, other = (Pairs(old, old).split(seed)[2].old for seed in (1, 1, 2))
        assert np.array_equal(same, again)
        assert not np.array_equal(same, other)

    def test_rows_stay_together(self, old):
        pairs = Pairs(old, 2 * old, 3 * old, 4 * old, labelled=True).usable()
        for part in pairs.split(0):
            assert part.labelled
            for array in (part.new, part.queries, part.old_queries):
                assert np.allclose(array, part.old, atol=1e-6)

    def test_vectors_that_are_none_are_left_out(self, old):
        damaged, other = old.copy(), old.copy()
        damaged[3], damaged[4, 1], other[5] = 0, np.nan, np.inf
        assert len(Pairs(damaged, other).usable()) == len(old) - 3

    def test_too_few_queries_are_none(self, old):
        asked = old.copy()
        asked[999:] = 0
        assert Pairs(old, old, asked).usable().queries is None

    def test_too_few_pairs_are_refused(self, old):
        with pytest.raises(ConfigError, match="999 distinct documents"):
            learn(Pairs(old[:999], old[:999]), 5000)

    def test_arrays_of_different_lengths_are_refused(self, old):
        with pytest.raises(ConfigError, match="one document"):
            Pairs(old, old[:-1])
