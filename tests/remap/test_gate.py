"""The gate counts the right shares, refuses a bad map and estimates a larger corpus.

Its shares are those of a plain count, and its interval holds the true share of a larger corpus.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from cfray.remap.extrapolation import extrapolate
from cfray.remap.gate import decisive_share, judge, top1_in_10
from cfray.remap.learn import learn_best_map
from cfray.remap.maps import unit_rows
from cfray.remap.pairs import Pairs
from cfray.remap.solve import fit_ridge

WIDTH = 24


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def corpus(rows, seed=0):
    """Draw documents and queries of a new model, and of an old model that warps them with noise."""
    draws = np.random.default_rng(seed)
    topics = draws.standard_normal((200, WIDTH))
    new = unit_rows(
        topics[draws.integers(0, 200, rows)] + 0.8 * draws.standard_normal((rows, WIDTH)) + 0.5
    )
    queries = unit_rows(new + 0.2 * draws.standard_normal((rows, WIDTH)))
    warp = np.random.default_rng(77).standard_normal((WIDTH, 32)) / np.sqrt(WIDTH)
    old, old_queries = (
        unit_rows(np.tanh(4 * vectors @ warp) + 0.1 * draws.standard_normal((len(vectors), 32)))
        for vectors in (new, queries)
    )
    return Pairs(old, new, queries, old_queries)


def count_by_hand(pairs, queries, mapped):
    """Count ``top1_in_10`` query by query."""
    hits = []
    for query in queries:
        nearest = np.argmax(pairs.new @ query)
        hits.append(nearest in np.argsort(-(mapped @ query))[:10])
    return np.mean(hits)


@pytest.fixture(scope="module")
def small_corpus():
    return corpus(1600)


@pytest.fixture(scope="module")
def noisy_documents(small_corpus):
    return unit_rows(small_corpus.new + 0.1 * draw(1600, WIDTH, seed=5))


class TestJudge:
    def test_counts_as_a_plain_count_does(self, small_corpus, noisy_documents):
        verdict = judge(small_corpus, noisy_documents, "x", 1600, seed=0)
        assert verdict.pools[-1].top1_in_10 == pytest.approx(
            count_by_hand(small_corpus, small_corpus.queries, noisy_documents), abs=1e-9
        )
        assert top1_in_10(small_corpus, noisy_documents) == pytest.approx(
            verdict.pools[-1].top1_in_10
        )
        assert verdict.quality == pytest.approx(verdict.pools[-1].top1_in_10)

    def test_counts_smaller_pools_as_a_plain_count_does(self, small_corpus, noisy_documents):
        shares, overlaps, hits = [], [], []
        for start in range(0, 1600, 400):
            block = small_corpus.take(np.arange(start, start + 400))
            mapped = noisy_documents[start : start + 400]
            shares.append(count_by_hand(block, block.queries, mapped))
            tops = [
                np.argsort(-(block.queries @ documents.T))[:, :10]
                for documents in (block.new, mapped)
            ]
            overlaps += [
                len(set(new_rows) & set(mapped_rows)) / 10
                for new_rows, mapped_rows in zip(*tops, strict=True)
            ]
            hits += [
                row in nearest_rows
                for row, nearest_rows in enumerate(
                    np.argsort(-(block.old_queries @ block.old.T))[:, :10]
                )
            ]
        pool = judge(small_corpus, noisy_documents, "x", 1600, seed=0).pools[1]
        assert pool.size == 400
        assert pool.top1_in_10 == pytest.approx(np.mean(shares))
        assert pool.overlap == pytest.approx(np.mean(overlaps))
        assert pool.old == pytest.approx(np.mean(hits))

    def test_with_titles_quality_is_the_share_of_hits_that_remains(
        self, small_corpus, noisy_documents
    ):
        verdict = judge(replace(small_corpus, labelled=True), noisy_documents, "x", 1600, seed=0)
        assert verdict.basis == "titles"
        assert verdict.quality == pytest.approx(min(1, verdict.remapped / verdict.new))
        assert verdict.lower < verdict.quality
        assert decisive_share(
            replace(small_corpus, labelled=True), noisy_documents
        ) == pytest.approx(verdict.remapped / verdict.new)
        assert decisive_share(small_corpus, noisy_documents) == top1_in_10(
            small_corpus, noisy_documents
        )
        assert verdict.nearest[0] == pytest.approx(verdict.pools[-1].top1_in_10)
        assert (
            judge(replace(small_corpus, labelled=True), small_corpus.new, "x", 1600, seed=0).quality
            == 1
        )
        assert not judge(
            replace(small_corpus, labelled=True), unit_rows(draw(1600, WIDTH)), "x", 1600, seed=0
        ).passes(0.1)

    def test_a_perfect_map_is_perfect(self, small_corpus):
        verdict = judge(small_corpus, small_corpus.new, "x", 1600, seed=0)
        assert verdict.quality == verdict.upper == 1
        # No query of 1,600 missed; the rule of three allows for 3 more queries that would.
        assert verdict.lower == pytest.approx(1600 / 1603)
        assert verdict.pools[-1].overlap == 1
        assert verdict.new == verdict.remapped
        assert verdict.pools[-1].neighbours_remapped == 1

    def test_a_perfect_map_is_not_promised_to_be_perfect_elsewhere(self, small_corpus):
        assert judge(small_corpus, small_corpus.new, "x", 100_000, seed=0).lower < 1

    @pytest.mark.parametrize("constant", [np.ones, np.zeros])
    def test_a_map_that_makes_all_documents_equal_finds_nothing(self, small_corpus, constant):
        verdict = judge(
            small_corpus, unit_rows(constant((1600, WIDTH), np.float32)), "x", 1600, seed=0
        )
        assert verdict.quality < 0.02
        assert not verdict.passes(0.5)

    def test_refuses_a_bad_map_and_passes_a_good_one(self, small_corpus):
        bad_map = judge(small_corpus, unit_rows(draw(1600, WIDTH)), "x", 1600, seed=0)
        good_map = judge(
            small_corpus, unit_rows(small_corpus.new + 0.001 * draw(1600, WIDTH)), "x", 1600, seed=0
        )
        assert not bad_map.passes(0.1)
        assert good_map.passes(0.95)

    def test_the_lower_bound_decides(self, small_corpus, noisy_documents):
        verdict = judge(small_corpus, noisy_documents, "x", 1600, seed=0)
        assert verdict.lower < verdict.quality < verdict.upper
        assert not verdict.passes(verdict.quality)
        assert verdict.passes(verdict.lower)

    def test_documents_ask_where_there_are_no_queries(self, small_corpus, noisy_documents):
        verdict = judge(
            Pairs(small_corpus.old, small_corpus.new), noisy_documents, "x", 1600, seed=0
        )
        scores, mapped = small_corpus.new @ small_corpus.new.T, small_corpus.new @ noisy_documents.T
        np.fill_diagonal(scores, -2)
        np.fill_diagonal(mapped, -2)
        by_hand = np.mean(
            [scores[row].argmax() in np.argsort(-mapped[row])[:10] for row in range(1600)]
        )
        assert verdict.basis == "documents"
        assert (
            verdict.quality
            == pytest.approx(by_hand)
            == pytest.approx(verdict.pools[-1].neighbours_remapped)
        )
        assert verdict.new is verdict.remapped is verdict.old is None

    def test_documents_without_a_query_are_searched_and_do_not_ask(
        self, small_corpus, noisy_documents
    ):
        queries = small_corpus.queries.copy()
        queries[::2] = 0
        verdict = judge(
            Pairs(small_corpus.old, small_corpus.new, queries, small_corpus.old_queries),
            noisy_documents,
            "x",
            1600,
            seed=0,
        )
        assert (verdict.queries, verdict.pools[-1].size, verdict.basis) == (800, 1600, "sentences")
        assert verdict.quality == pytest.approx(
            count_by_hand(small_corpus, small_corpus.queries[1::2], noisy_documents)
        )

    def test_the_verdict_as_json_and_as_lines(self, small_corpus, noisy_documents):
        verdict = judge(
            replace(small_corpus, labelled=True), noisy_documents, "affine", 50_000, seed=0
        )
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
        for pairs in (
            Pairs(small_corpus.old, small_corpus.new),
            Pairs(small_corpus.old, small_corpus.new, small_corpus.queries),
        ):
            assert 3 <= len(judge(pairs, noisy_documents, "affine", 50_000, seed=0).lines()) <= 6


class TestExtrapolation:
    SIZES = (250, 500, 1000, 2000)

    def flags(self, shares, queries=4000):
        return np.stack([np.arange(queries) < round(share * queries) for share in shares], axis=1)

    def test_between_the_sizes_it_interpolates(self):
        flags = self.flags((0.9, 0.8, 0.7, 0.6))
        for rows, share in ((2000, 0.6), (500, 0.8), (10, 0.9), (round(1000 * 2**0.5), 0.65)):
            assert extrapolate(flags, self.SIZES, rows, seed=0)[0] == pytest.approx(share, abs=1e-3)

    def test_beyond_the_sizes_it_takes_the_lower_line_and_the_interval_holds_both(self):
        flags = self.flags((0.9, 0.8, 0.7, 0.6))
        quality, lower, upper = extrapolate(flags, self.SIZES, 8000, seed=0)
        # The line through the quantiles 1.282, 0.842, 0.524 and 0.253 reads -0.466.
        assert quality == pytest.approx(0.32, abs=0.005)
        assert lower < 0.32
        # The straight line reads 0.4.
        assert upper > 0.4

    def test_a_larger_corpus_never_finds_more(self):
        rising = self.flags((0.8, 0.82, 0.84, 0.86))
        assert extrapolate(rising, self.SIZES, 10**6, seed=0)[0] <= 0.86

    def test_stays_a_share(self):
        falling = self.flags((0.9, 0.6, 0.3, 0.05))
        assert extrapolate(falling, self.SIZES, 10**9, seed=0)[:2] == (0, 0)

    def test_the_seed_decides_the_resamples(self):
        flags = np.random.default_rng(0).random((500, 4)) < 0.8
        assert extrapolate(flags, self.SIZES, 9000, seed=1) == extrapolate(
            flags, self.SIZES, 9000, seed=1
        )

    def test_fewer_queries_say_less(self):
        draws = np.random.default_rng(0).random((4000, 1)) < np.array([0.9, 0.87, 0.83, 0.8])
        of_many, of_few = (
            extrapolate(draws[:count], self.SIZES, 9000, seed=0) for count in (4000, 400)
        )
        assert of_few[2] - of_few[1] > of_many[2] - of_many[1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_interval_holds_the_truth_of_a_corpus_eight_times_the_gate_s(seed):
    documents = corpus(17_600, seed)
    base = fit_ridge(documents.old[:1600], documents.new[:1600], seed=0)
    gate, large_corpus = (
        documents.take(np.arange(1600, 3600)),
        documents.take(np.arange(1600, 17_600)),
    )
    verdict = judge(gate, base.apply(gate.old), "affine", len(large_corpus), seed=0)
    # These queries belong to documents that are not in the gate.
    query_rows = np.arange(2000, 4000)
    scores, mapped_scores = (
        large_corpus.queries[query_rows] @ large_corpus.new.T,
        large_corpus.queries[query_rows] @ base.apply(large_corpus.old).T,
    )
    nearest_score = np.take_along_axis(mapped_scores, scores.argmax(axis=1, keepdims=True), axis=1)
    true_share = ((mapped_scores >= nearest_score).sum(axis=1) <= 10).mean()
    assert verdict.lower <= true_share <= verdict.upper
    # The share at the size of the gate is too high for the larger corpus.
    assert verdict.pools[-1].top1_in_10 > verdict.upper


def test_learning_chooses_judges_and_repeats_itself():
    pairs = corpus(3000)
    first_map, first_verdict = learn_best_map(pairs, 3000, seed=1)
    second_map, second_verdict = learn_best_map(pairs, 3000, seed=1)
    assert (second_map.id, second_verdict) == (first_map.id, first_verdict)
    # The old model warps, so a rotation is not enough.
    assert first_verdict.candidate in ("affine", "clustered")
    # 27.5 % of 3,000 are 825, cut to eighths.
    assert first_verdict.pools[-1].size == 824
    assert first_verdict.quality > 0.6
    assert (first_map.source_dimension, first_map.dimension) == (32, WIDTH)


def test_learning_sees_through_pairs_that_have_nothing_to_do_with_each_other():
    _, verdict = learn_best_map(
        Pairs(unit_rows(draw(2000, 32)), unit_rows(draw(2000, WIDTH, seed=1))), 2000
    )
    assert verdict.upper < 0.15
    assert not verdict.passes(0.5)
