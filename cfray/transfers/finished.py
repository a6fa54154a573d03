"""A finished target that is to be copied: found complete, named for life, pinned meanwhile."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cfray.errors import ConfigError, TargetError
from cfray.runtime.error_text import describe_error
from cfray.target import lease
from cfray.target.commit import Target
from cfray.target.creation import find_target
from cfray.target.ledger import EntryKind, Ledger
from cfray.target.state import State


def open_finished(uri: str) -> tuple[Target, State]:
    """Open a target that holds all it should.

    Raises:
        ConfigError: it does not, or there is none.
    """
    ledger, state = find_target(uri), State(uri)
    plan = state.plan()
    if ledger is None or plan is None:
        raise ConfigError(f"there is no target at {uri}", "give its address, or its job file")
    lease.wait_until_free(state.folder)
    target = Target(uri)
    is_copied = len(ledger.names(EntryKind.SHARD)) == len(plan.shards)
    has_vectors = plan.recipe.policy == "keep" or target.recipe().policy != "keep"
    if not (is_copied and has_vectors and EntryKind.HEADERS in ledger.entries):
        raise ConfigError(f"{uri} is not complete yet", "run cfray migrate with its job file first")
    return target, state


def job_name(state: State) -> str:
    """Give the name of the job that a target is of.

    Raises:
        ConfigError: nobody wrote it down.
    """
    jobs = state.jobs()
    if not jobs:
        raise ConfigError(
            f"{state.folder.uri}/job.json is missing or empty",
            "restore the folder beside the target from a backup",
        )
    return str(jobs[-1]["agreed"]["name"])


def identity_of(state: State, ledger: Ledger) -> str:
    """Name a dataset for as long as it lives: a target that is made anew has another name."""
    plan = state.plan()
    assert plan is not None
    made = [plan.epoch, ledger.fingerprints[0]]
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()[:16]


@contextmanager
def pinned(target: Target, version: int, place: str) -> Iterator[None]:
    """Keep a version from being cleaned up while it is copied to a place.

    Each place has a tag of its own, so the next copy to it removes the tag of one that was killed.
    """
    name = f"cfray-copy-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
    tags = target.open().tags
    with suppress(ValueError, OSError):
        tags.delete(name)
    try:
        tags.create(name, version)
    except (ValueError, OSError) as error:
        raise TargetError(
            f"cannot keep version {version} of {target.uri} from being cleaned up: "
            f"{describe_error(error)[:200]}",
            "a target is copied by a user who may write to it: a tag in it keeps the version",
        ) from error
    try:
        yield
    finally:
        with suppress(ValueError, OSError):  # it costs some space, and the next copy removes it
            target.open().tags.delete(name)
