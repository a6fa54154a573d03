"""Does this object store honour conditional PUT under a race?

A Lance commit is a ``PUT`` of the next manifest on the condition that there is none
(``If-None-Match: *``).  A store that ignores the condition tells two writers at once that they won,
and the rows of one writer are gone without an error.  So it is tried before the first commit, with
threads released together: a store that checks first and writes later passes any trial in sequence.
A single winner in a few rounds is evidence, not proof.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cfray.errors import ConfigError
from cfray.runtime.filesystems import strip_credentials
from cfray.target.probed_azure import AzureStore
from cfray.target.probed_gcs import GcsStore
from cfray.target.probed_s3 import S3Store
from cfray.target.probed_store import RACERS, TIMEOUT, ProbedStore

#: Races; the first race opens the connections, and the later races run on open connections.
ROUNDS = 3
_STORES: dict[str, Callable[[str, str], ProbedStore]] = {
    "s3": S3Store,
    "az": AzureStore,
    "gs": GcsStore,
}


def check_conditional_put(uri: str) -> None:
    """Refuse an object store that would lose commits; any other kind of target passes.

    Writes a few objects of some bytes beside the target, under ``<target>.cfray/probe/``, and
    deletes them.

    Raises:
        ConfigError: the store is not safe, the bucket does not exist, the credentials are missing
            or refused, or the store's client is not installed.
        TargetUnavailable: the store did not answer.
    """
    open_store = _STORES.get(uri.partition("://")[0])
    if open_store is None:
        return
    location = strip_credentials(uri).rstrip("/")
    store = open_store(location, uuid.uuid4().hex)
    with store.explaining():
        flaw = _find_flaw(store)
    if flaw:
        raise ConfigError(
            f"{location} is on a store that does not honour conditional PUT: {flaw}; it would lose "
            "commits without an error",
            "use a store with atomic conditional writes (Amazon S3, Azure Blob Storage, Google "
            "Cloud Storage, MinIO, SeaweedFS), or a local target",
        )


def _find_flaw(store: ProbedStore) -> str:
    """Try a store; give what it does wrong, or an empty text."""
    races = [f"race-{number}" for number in range(ROUNDS)]
    # without a condition: wrong credentials and buckets show here
    outdated_tag = store.put("match", b"old")
    try:
        store.put("match", b"new")
        status = store.put_if_unchanged("match", b"late", outdated_tag)
        if status != 412:
            return (
                f"a PUT with an outdated If-Match was answered with {status}, not refused with 412"
            )
        return next(filter(None, (_race(store, name) for name in races)), "")
    finally:
        for name in ("match", *races):
            store.delete(name)


def _race(store: ProbedStore, name: str) -> str:
    """Let racers create the same object at once; give what went wrong, or an empty text."""
    gate = threading.Barrier(RACERS, timeout=TIMEOUT)

    def put(racer: int) -> int:
        gate.wait()
        return store.put_if_absent(name, b"racer %d" % racer)

    with ThreadPoolExecutor(RACERS) as pool:
        statuses = list(pool.map(put, range(RACERS)))
    winners = statuses.count(200)
    if winners != 1:
        return (
            f"{winners} of {RACERS} racing PUTs with If-None-Match succeeded, not exactly one "
            f"(answers {sorted(set(statuses))})"
        )
    if store.read(name) == b"racer %d" % statuses.index(200):
        return ""
    return "a PUT with If-None-Match that was refused changed the object all the same"
