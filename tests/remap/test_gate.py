"""The gate: its shares are those a plain count gives.

Its interval holds the truth of a larger corpus, and what is bad does not pass.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from cfray.remap.extrapolation import extrapolated
from cfray.remap.gate import decisive, judge, top1_in_10
from cfray.remap.learn import learn
from cfray.remap.maps import unit
from cfray.remap.pairs import Pairs
from cfray.remap.solve import ridge

WIDTH = 24


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def corpus(rows, seed=0):
    """Documents and their queries by a new model.

    Both by an old one that sees them through a warped and noisy glass.
    """
    made = np.random.default_rng(seed)
    topics = made.standard_normal((200, WIDTH))
    new = unit(
        topics[made.integers(0, 200, rows)] + 0.8 * made.standard_normal((rows, WIDTH)) + 0.5
    )
    queries = unit(new + 0.2 * made.standard_normal((rows, WIDTH)))
    warp = np.random.default_rng(77).standard_normal((WIDTH, 32)) / np.sqrt(WIDTH)
    old, old_queries = (
        unit(np.tanh(4 * rows_ @ warp) + 0.1 * made.standard_normal((len(rows_), 32)))
        for rows_ in (new, queries)
    )
    return Pairs(old, new, queries, old_queries)


def counted(pairs, queries, found):
    """top1_in_10 as one would count it by hand."""
    hits = []
    for query in queries:
        nearest = np.argmax(pairs.new @ query)
        hits.append(nearest in np.argsort(-(found @ query))[:10])
    return np.mean(hits)


@pytest.fixture(scope="module")
def small():
    return corpus(1600)


@pytest.fixture(scope="module")
def noisy(small):
    return unit(small.new + 0.1 * draw(1600, WIDTH, seed=5))


class TestJudge:
    def test_counts_as_one_would_by_hand(self, small, noisy):
        verdict = judge(small, noisy, "x", 1600, seed=0)
        assert verdict.pools[-1].top1_in_10 == pytest.approx(
            counted(small, small.queries, noisy), abs=1e-9
        )
        assert top1_in_10(small, noisy) == pytest.approx(verdict.pools[-1].top1_in_10)
        assert verdict.quality == pytest.approx(verdict.pools[-1].top1_in_10)

    def test_counts_smaller_pools_as_one_would_by_hand(self, small, noisy):
        shares, overlaps, hits = [], [], []
        for start in range(0, 1600, 400):
            part = small.kept(np.arange(start, start + 400))
            found = noisy[start : start + 400]
            shares.append(counted(part, part.queries, found))
            tops = [
                np.argsort(-(part.queries @ documents.T))[:, :10] for documents in (part.new, found)
            ]
            overlaps += [len(set(a) & set(b)) / 10 for a, b in zip(*tops, strict=True)]
            hits += [
                at in row
                for at, row in enumerate(np.argsort(-(part.old_queries @ part.old.T))[:, :10])
            ]
        pool = judge(small, noisy, "x", 1600, seed=0).pools[1]
        assert pool.size == 400
        assert pool.top1_in_10 == pytest.approx(np.mean(shares))
        assert pool.overlap == pytest.approx(np.mean(overlaps))
        assert pool.old == pytest.approx(np.mean(hits))

    def test_with_titles_it_is_the_share_of_hits_that_is_left(self, small, noisy):
        verdict = judge(replace(small, labelled=True), noisy, "x", 1600, seed=0)
        assert verdict.basis == "titles"
        assert verdict.quality == pytest.approx(min(1, verdict.remapped / verdict.new))
        assert verdict.lower < verdict.quality
        assert decisive(replace(small, labelled=True), noisy) == pytest.approx(
            verdict.remapped / verdict.new
        )
        assert decisive(small, noisy) == top1_in_10(small, noisy)
        assert verdict.nearest[0] == pytest.approx(verdict.pools[-1].top1_in_10)
        assert judge(replace(small, labelled=True), small.new, "x", 1600, seed=0).quality == 1
        assert not judge(
            replace(small, labelled=True), unit(draw(1600, WIDTH)), "x", 1600, seed=0
        ).passed(0.1)

    def test_a_perfect_map_is_perfect(self, small):
        verdict = judge(small, small.new, "x", 1600, seed=0)
        assert verdict.quality == verdict.upper == 1
        assert verdict.lower == pytest.approx(
            1600 / 1603
        )  # none of 1,600 missed: up to 3 may be, by the rule of three
        assert verdict.pools[-1].overlap == 1
        assert verdict.new == verdict.remapped
        assert verdict.pools[-1].neighbours_remapped == 1

    def test_a_perfect_map_is_not_promised_to_be_perfect_elsewhere(self, small):
        assert judge(small, small.new, "x", 100_000, seed=0).lower < 1

    @pytest.mark.parametrize("collapsed", [np.ones, np.zeros])
    def test_a_map_that_makes_all_documents_equal_finds_nothing(self, small, collapsed):
        verdict = judge(small, unit(collapsed((1600, WIDTH), np.float32)), "x", 1600, seed=0)
        assert verdict.quality < 0.02
        assert not verdict.passed(0.5)

    def test_refuses_a_bad_map_and_passes_a_good_one(self, small):
        bad = judge(small, unit(draw(1600, WIDTH)), "x", 1600, seed=0)
        good = judge(small, unit(small.new + 0.001 * draw(1600, WIDTH)), "x", 1600, seed=0)
        assert not bad.passed(0.1)
        assert good.passed(0.95)

    def test_the_lower_bound_decides(self, small, noisy):
        verdict = judge(small, noisy, "x", 1600, seed=0)
        assert verdict.lower < verdict.quality < verdict.upper
        assert not verdict.passed(verdict.quality)
        assert verdict.passed(verdict.lower)

    def test_documents_ask_where_there_are_no_queries(self, small, noisy):
        verdict = judge(Pairs(small.old, small.new), noisy, "x", 1600, seed=0)
        scores, found = small.new @ small.new.T, small.new @ noisy.T
        np.fill_diagonal(scores, -2)
        np.fill_diagonal(found, -2)
        by_hand = np.mean(
            [scores[row].argmax() in np.argsort(-found[row])[:10] for row in range(1600)]
        )
        assert verdict.basis == "documents"
        assert (
            verdict.quality
            == pytest.approx(by_hand)
            == pytest.approx(verdict.pools[-1].neighbours_remapped)
        )
        assert verdict.new is verdict.remapped is verdict.old is None

    def test_documents_without_a_query_are_searched_and_do_not_ask(self, small, noisy):
        asked = small.queries.copy()
        asked[::2] = 0
        verdict = judge(
            Pairs(small.old, small.new, asked, small.old_queries), noisy, "x", 1600, seed=0
        )
        assert (verdict.queries, verdict.pools[-1].size, verdict.basis) == (800, 1600, "sentences")
        assert verdict.quality == pytest.approx(counted(small, small.queries[1::2], noisy))

    def test_says_it_in_json_and_in_lines(self, small, noisy):
        verdict = judge(replace(small, labelled=True), noisy, "affine", 50_000, seed=0)
        body = json.loads(json.dumps(verdict.as_json()))
        assert (body["candidate"], body["rows"], body["basis"]) == ("affine", 50_000, "titles")
        assert [pool["size"] for pool in body["pools"]] == [200, 400, 800, 1600]
        assert body["old"] == round(verdict.old, 4)
        text = "\n".join(verdict.lines())
        for share in (
            verdict.new,
            verdict.remapped,
            verdict.old,
            verdict.quality,
            verdict.lower,
            verdict.upper,
        ):
            assert f"{share:.3f}" in text
        assert "at 50,000 documents" in text
        for pairs in (Pairs(small.old, small.new), Pairs(small.old, small.new, small.queries)):
            assert 3 <= len(judge(pairs, noisy, "affine", 50_000, seed=0).lines()) <= 6


class TestExtrapolation:
    SIZES = (250, 500, 1000, 2000)

    def flags(self, shares, queries=4000):
        return np.stack([np.arange(queries) < round(share * queries) for share in shares], axis=1)

    def test_between_the_sizes_it_interpolates(self):
        flags = self.flags((0.9, 0.8, 0.7, 0.6))
        for rows, share in ((2000, 0.6), (500, 0.8), (10, 0.9), (round(1000 * 2**0.5), 0.65)):
            assert extrapolated(flags, self.SIZES, rows, seed=0)[0] == pytest.approx(
                share, abs=1e-3
            )

    def test_beyond_them_it_takes_the_lower_line_and_the_interval_holds_both(self):
        flags = self.flags((0.9, 0.8, 0.7, 0.6))
        quality, lower, upper = extrapolated(flags, self.SIZES, 8000, seed=0)
        assert quality == pytest.approx(
            0.32, abs=0.005
        )  # quantiles 1.282, 0.842, 0.524, 0.253: their line reads -0.466
        assert lower < 0.32
        assert upper > 0.4  # where the straight line is

    def test_a_larger_corpus_never_finds_more(self):
        rising = self.flags((0.8, 0.82, 0.84, 0.86))
        assert extrapolated(rising, self.SIZES, 10**6, seed=0)[0] <= 0.86

    def test_stays_a_share(self):
        falling = self.flags((0.9, 0.6, 0.3, 0.05))
        assert extrapolated(falling, self.SIZES, 10**9, seed=0)[:2] == (0, 0)

    def test_is_the_seed_s(self):
        flags = np.random.default_rng(0).random((500, 4)) < 0.8
        assert extrapolated(flags, self.SIZES, 9000, seed=1) == extrapolated(
            flags, self.SIZES, 9000, seed=1
        )

    def test_fewer_queries_say_less(self):
        made = np.random.default_rng(0).random((4000, 1)) < np.array([0.9, 0.87, 0.83, 0.8])
        many, few = (extrapolated(made[:count], self.SIZES, 9000, seed=0) for count in (4000, 400))
        assert few[2] - few[1] > many[2] - many[1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_interval_holds_the_truth_of_a_corpus_eight_times_the_gate_s(seed):
    whole = corpus(17_600, seed)
    base = ridge(whole.old[:1600], whole.new[:1600], seed=0)
    gate, rest = whole.kept(np.arange(1600, 3600)), whole.kept(np.arange(1600, 17_600))
    verdict = judge(gate, base.apply(gate.old), "affine", len(rest), seed=0)
    asking = np.arange(2000, 4000)  # no query of the gate's
    truth, found = rest.queries[asking] @ rest.new.T, rest.queries[asking] @ base.apply(rest.old).T
    nearest = np.take_along_axis(found, truth.argmax(axis=1, keepdims=True), axis=1)
    true = ((found >= nearest).sum(axis=1) <= 10).mean()
    assert verdict.lower <= true <= verdict.upper
    assert (
        verdict.pools[-1].top1_in_10 > verdict.upper
    )  # at its own size the gate would have overstated it


def test_learning_chooses_judges_and_repeats_itself():
    pairs = corpus(3000)
    chosen, verdict = learn(pairs, 3000, seed=1)
    again, same = learn(pairs, 3000, seed=1)
    assert (again.id, same) == (chosen.id, verdict)
    assert verdict.candidate in (
        "affine",
        "clustered",
    )  # the glass is warped: a rotation is not enough
    assert verdict.pools[-1].size == 824  # 27.5 % of 3,000 are 825, cut to eighths
    assert verdict.quality > 0.6
    assert (chosen.source_dimension, chosen.dimension) == (32, WIDTH)


def test_learning_sees_through_pairs_that_have_nothing_to_do_with_each_other():
    _, verdict = learn(Pairs(unit(draw(2000, 32)), unit(draw(2000, WIDTH, seed=1))), 2000)
    assert verdict.upper < 0.15
    assert not verdict.passed(0.5)
