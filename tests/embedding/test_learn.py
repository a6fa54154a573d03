"""How long a full regenerate takes is estimated from what went through the model.

Never from what a cache gave back.
"""

import pytest

from cfray.embedding.learn import full_regenerate


def test_the_sample_s_own_speed_counts():
    assert full_regenerate(100.0, 20_000, 0.0, 1_000_000) == 5_000


def test_what_the_cache_gave_took_the_model_no_time():
    assert full_regenerate(80.0, 20_000, 0.2, 1_000_000) == pytest.approx(5_000)


@pytest.mark.parametrize("cached", [0.5, 0.9, 1.0])
def test_a_sample_from_the_cache_says_nothing(cached):
    assert full_regenerate(1.0, 20_000, cached, 100_000_000) is None
