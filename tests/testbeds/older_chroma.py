"""Persistent directories of older versions of Chroma, written by those versions (Apache-2.0).

Before 1.0 a collection's space stood in its metadata, and 1.5 reads such directories.  An old
chromadb runs on the requirements of the present one, which the tests have, and on its own
index (PyPI ``chroma-hnswlib``); ``posthog``, by which it reports its use, is left out.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.testbeds.server import Unavailable
from tests.testbeds.wheels import installed

VERSIONS = ("0.4.24", "0.5.23", "0.6.3", "1.0.0")
HNSWLIB_VERSION = "0.7.6"

WRITER = """
import json, sys, types
*sites, folder = sys.argv[1:]
sys.path[:0] = sites
sys.modules["posthog"] = types.ModuleType("posthog")
import numpy
# names that numpy 2 has no more, which 0.4 uses in annotations
for name, now in (("float_", "float64"), ("NaN", "nan"), ("Inf", "inf"), ("uint", "uint64")):
    if not hasattr(numpy, name):
        setattr(numpy, name, getattr(numpy, now))
import chromadb
from chromadb.config import Settings
client = chromadb.PersistentClient(folder, Settings(anonymized_telemetry=False))
for collection in json.load(sys.stdin):
    target = client.create_collection(
        collection["name"], metadata=collection.get("metadata"), embedding_function=None
    )
    for records in collection["adds"]:
        target.add(**records)
    if "later_metadata" in collection:
        target.modify(metadata=collection["later_metadata"])
print(chromadb.__version__)
"""
"""Writes the collections that its input lists into a folder."""


@contextmanager
def installing(version: str) -> Iterator[list[Path]]:
    """Give the folders of a version of chromadb and of its index, installing what is not cached."""
    if not importlib.util.find_spec("chromadb"):
        raise Unavailable('chromadb is not installed; pip install -e ".[dev]" brings it')
    yield [installed("chromadb", version), installed("chroma-hnswlib", HNSWLIB_VERSION)]


def write(version: str, folder: Path, collections: list[dict[str, Any]]) -> Path:
    """Let a version of Chroma, which must be installed, write a persistent directory.

    Args:
        version: of chromadb.
        folder: of the new directory.
        collections: of each ``name``, ``metadata``, ``adds`` (arguments of ``Collection.add``) and
            ``later_metadata`` (which replace the metadata in the end).
    """
    with installing(version) as sites:
        command = [sys.executable, "-c", WRITER, *map(str, sites), str(folder)]
    completed = subprocess.run(
        command,
        input=json.dumps(collections),
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr[-2000:]
    assert completed.stdout.split() == [version]
    return folder
