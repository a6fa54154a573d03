"""The duration of a full regenerate is estimated from the texts that the model embedded.

A vector that a cache gave took the model no time and does not count.
"""

import pytest

from cfray.embedding.learn_map import estimate_regenerate_seconds


def test_the_sample_s_speed_counts():
    assert estimate_regenerate_seconds(100.0, 20_000, 0.0, 1_000_000) == 5_000


def test_what_the_cache_gave_took_the_model_no_time():
    assert estimate_regenerate_seconds(80.0, 20_000, 0.2, 1_000_000) == pytest.approx(5_000)


@pytest.mark.parametrize("cached_share", [0.5, 0.9, 1.0])
def test_a_sample_from_the_cache_says_nothing(cached_share):
    assert estimate_regenerate_seconds(1.0, 20_000, cached_share, 100_000_000) is None
