"""The reasons of quarantined rows, as a report shows them to people."""

from __future__ import annotations

import re

#: Receipts write this sign for any number, so that rows are counted together.
_ANY_NUMBER = re.compile(r"(?<![^\s'\"\[])#(?![^\s,.;'\"\]])")


def readable_reason(reason: str) -> str:
    """Write a reason that many rows share: N stands for the number that differs from row to row."""
    return _ANY_NUMBER.sub("N", reason)
