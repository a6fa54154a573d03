"""The reasons of quarantined rows are words in a report: no bare sign stands for a number."""

import pytest

from cfray.report.reasons import readable_reason


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("vector has # numbers, the target's have #", "vector has N numbers, the target's have N"),
        ("document of # bytes is over limits.max_document", None),
        ("no id", "no id"),
        ("score## is empty", "score## is empty"),
    ],
)
def test_a_sign_that_stands_for_a_number_is_a_letter(reason, shown):
    assert readable_reason(reason) == (shown or reason.replace("#", "N"))
