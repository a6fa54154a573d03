"""What is refused before anything is created, and with which words."""

from __future__ import annotations

import pytest

from cfray.errors import ConfigError, EmbeddingError, EmbeddingUnavailable, SourceUnavailable
from cfray.runs import refused


def test_an_embedding_server_that_may_answer_later_says_that_nothing_was_created():
    with pytest.raises(EmbeddingUnavailable) as caught, refused():
        raise EmbeddingUnavailable("the server does not answer", "start it", retry_after=2.0)
    assert caught.value.what == "the server does not answer; nothing was created or changed"
    assert (caught.value.remedy, caught.value.retry_after) == ("start it", 2.0)


@pytest.mark.parametrize("error", [EmbeddingError, SourceUnavailable])
def test_other_refusals_are_errors_of_the_job(error):
    with pytest.raises(ConfigError) as caught, refused():
        raise error("it said no", "correct it")
    assert str(caught.value) == "it said no\n  remedy: correct it"
