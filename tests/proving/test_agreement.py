"""How far two searches agree is worked out as its docstrings say."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cfray.proving.agreement import Answers, interval, recall, tolerance

DISTANCES = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4, "e": 0.5}


def answers(source: str, target: str, distances=DISTANCES, metric="l2", length=1.0) -> Answers:
    return Answers(list(source), list(target), distances, metric, length)


@pytest.mark.parametrize(
    ("source", "target", "agreement"),
    [
        ("abc", "abc", 1.0),
        ("abc", "cba", 1.0),  # the order is told by shared_among
        ("abd", "abc", 1.0),  # a nearer one in place of d
        ("abc", "abd", 2 / 3),  # c is missed
        ("abc", "ade", 1 / 3),
        ("ab", "abc", 2 / 3),  # the application sees a hit more
        ("abc", "ab", 2 / 3),
        ("abx", "abc", 2 / 3),  # x is not in the target at all
        ("", "abc", 0.0),
        ("abc", "", 0.0),
        ("xe", "ad", 0.5),  # nothing outdoes x, and a outdoes e
        ("ae", "cd", 0.5),  # nothing outdoes a, and c outdoes e
    ],
)
def test_a_hit_counts_where_the_target_gives_it_or_a_nearer_one(source, target, agreement):
    assert answers(source, target).agreement == pytest.approx(agreement)


def test_a_question_that_finds_nothing_says_nothing():
    assert answers("", "").is_empty
    assert math.isnan(answers("", "").agreement)
    assert not answers("a", "").is_empty


def test_far_from_the_origin_the_farthest_is_not_equally_near():
    """All vectors are 100 +- 0.1 in 16 numbers: their length says nothing of their distances."""
    vectors = 100 + 0.1 * np.random.default_rng(0).uniform(-1, 1, (200, 16))
    squares = np.square(vectors - vectors[0]).sum(axis=1)
    order = np.argsort(squares)[1:]
    distances = {str(row): float(squares[row]) for row in order}
    near, far = map(str, order[:10]), map(str, order[-10:])
    length = float(np.linalg.norm(vectors[0]))
    assert Answers([*near], [*far], distances, "l2", length).agreement == 0.0
    # what float32 does to such a distance is within the bound
    narrow = vectors.astype(np.float32)
    rounded = np.square(narrow - narrow[0]).sum(axis=1)
    bounds = [tolerance(square, "l2", length) for square in squares]
    assert (np.abs(rounded - squares) <= bounds).all()


def test_records_equally_near_in_float32_are_equally_good():
    distances = {"a": 0.1, "b": 0.2, "c": 0.2 + 1e-7}
    assert answers("ab", "ac", distances).agreement == 1.0
    distances = {"a": 0.1, "b": 0.2, "c": 0.2 + 1e-3}
    assert answers("ab", "ac", distances).agreement == 0.5


def test_negative_distances_of_a_product_are_ordered_as_such():
    """The nearest has the largest product, whose distance is its negative."""
    distances = {"a": -9.0, "b": -5.0, "c": -4.0}
    assert answers("ab", "ac", distances, "dot").agreement == 0.5
    assert answers("ac", "ab", distances, "dot").agreement == 1.0


def test_a_vector_without_a_distance_outdoes_nothing():
    distances = {"a": 0.1, "b": 0.2, "zero": math.nan}
    assert answers("ab", ["a", "zero"], distances).agreement == 0.5


def test_the_order_of_the_first_hits_is_told_apart():
    found = answers("abcd", "bacd")
    assert found.shared_among(1) == 0.0
    assert found.shared_among(2) == 1.0
    assert answers("abcd", "abce").shared_among(4) == 0.75


def test_the_interval_is_wilsons():
    """The values of Wilson's score interval without a correction, from its formula by hand."""
    low, high = interval([1.0] * 100)
    assert (low, high) == pytest.approx((0.9630, 1.0), abs=1e-4)
    low, high = interval([1.0] * 5 + [0.0] * 5)
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert interval([]) == (0.0, 1.0)


def test_recall_counts_the_hits_that_are_as_near_as_the_last_true_neighbour():
    farthest = np.array([0.3, 0.5, np.inf])
    hits = [np.array([0.1, 0.2, 0.31]), np.array([0.5, 0.5, 0.4]), np.array([0.1])]
    # the third question has fewer than three neighbours, and says nothing
    assert recall(hits, farthest, 3) == pytest.approx((2 / 3 + 1) / 2)
    assert math.isnan(recall([np.array([0.1])], np.array([np.inf]), 3))
