"""What a resume must agree on: the keys of a job file that decide what the rows of a target are.

A target remembers the agreement of the job that made it.  A job with another agreement is refused,
because its rows would not fit the rows of the target.  The target's location, its indexes, limits
and credentials are no part of an agreement: they change no row.  An agreement is written with all
defaults, so that a default that changes between two versions of cfray is noticed, too.  A key that
a later version brought is left out where it has its default (``Source.later_fields``).

Fingerprints and agreements are stored beside targets: a change to either makes every run that
is under way impossible to resume.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cfray.embedders.spec import Embedding
from cfray.job.mapping import Mapping
from cfray.sources.base import Source

#: Keys that decide what the rows of the target are; a resume must agree on them.
FINGERPRINTED = ("name", "source", "mapping", "embedding")


def agreement(name: str, source: Source, mapping: Mapping, embedding: Embedding) -> dict[str, Any]:
    """Give what a job's fingerprint is made of, as parsed JSON; its keys are ``FINGERPRINTED``."""
    settings = source.model_dump(mode="json", exclude={*source.unfingerprinted, *_unset(source)})
    return {
        "name": name,
        "source": settings,
        "mapping": mapping.model_dump(mode="json"),
        "embedding": embedding.agreed(),
    }


def agreed_to_make_vectors(embedding: dict[str, Any]) -> bool:
    """Tell whether a job makes vectors after its copy (``Embedding.makes_vectors``).

    Args:
        embedding: its section, as it was agreed: keys at their default are left out.
    """
    return embedding["policy"] != "keep" or "reduce" in embedding or "columns" in embedding


def _unset(source: Source) -> set[str]:
    """Name the fields of later versions that have their default."""
    defaults = type(source).model_fields
    return {
        name
        for name in source.later_fields
        if getattr(source, name) == defaults[name].get_default(call_default_factory=True)
    }


def fingerprint(agreed: dict[str, Any]) -> str:
    """Give the SHA-256 of an agreement, written as canonical JSON."""
    text = json.dumps(agreed, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def changed_keys(before: object, after: object, prefix: str = "") -> list[str]:
    """Name the keys in which two agreements differ, with both values.

    Args:
        before: the agreement of the target, or a part of it.
        after: the same part of the agreement of the job.
        prefix: dotted key of that part; empty for a whole agreement.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for key in sorted({*before, *after})
            for line in changed_keys(
                before.get(key), after.get(key), f"{prefix}.{key}" if prefix else key
            )
        ]
    if before == after:
        return []
    return [f"{prefix}: was {json.dumps(before)}, is {json.dumps(after)}"]
