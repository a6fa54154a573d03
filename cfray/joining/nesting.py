"""Collections that are folders: each has a header, and headers are nested as the folders are.

A folder that holds only folders has no record, and so no collection yet; its header stands for all
that is below it.  What a folder says of itself, in its README or index file, is its header's text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from cfray.frames.schema import header_uuid, record_uuids
from cfray.target.books import CollectionVectors
from cfray.target.commit import Target

#: Files that say what their folder is; of several, the first (a choice).
_ABOUT = (
    *("README.md", "README.rst", "README.txt", "README", "readme.md", "Readme.md"),
    *("index.md", "_index.md", "index.rst", "index.html", "index.htm"),
)
#: uuids looked up at once.
_BATCH_ROWS = 1000


def folder_above(name: str) -> str:
    """Give the folder that a folder lies in; empty at the root."""
    return name.rpartition("/")[0]


def with_folders(
    collections: Mapping[str, CollectionVectors], space: UUID
) -> dict[str, CollectionVectors]:
    """Add the folders without records of their own, each with the vectors of all below it.

    Args:
        collections: name -> its vectors.
        space: the UUID namespace of the source collection.
    """
    added: dict[str, CollectionVectors] = {}
    for name, vectors in collections.items():
        folder = folder_above(name)
        while folder:
            if folder not in collections:
                other = added.get(folder)
                added[folder] = CollectionVectors(
                    header_uuid(space, folder),
                    vectors.count + (other.count if other else 0),
                    vectors.total + other.total if other else vectors.total,
                )
            folder = folder_above(folder)
    return {**collections, **added}


def folders_below(names: Iterable[str]) -> dict[str, list[str]]:
    """Give the folders directly in each folder, sorted."""
    below: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        if folder := folder_above(name):
            below[folder].append(name)
    return below


def texts_about(target: Target, space: UUID, folders: Iterable[str]) -> dict[str, str]:
    """Give the text of each folder's README or index file; folders without one are left out.

    Args:
        target: whose records have their paths as ids.
        space: the UUID namespace of the source collection.
        folders: names of collections.
    """
    files = [(folder, f"{folder}/{name}") for folder in folders for name in _ABOUT]
    uuids = record_uuids(space, pa.array([f"s:{path}" for _, path in files], pa.string()))
    is_there = pc.is_in(uuids, _present(target, uuids)).to_pylist()
    first: dict[str, str] = {}
    for (folder, _), uuid, present in zip(files, uuids.to_pylist(), is_there, strict=True):
        if present and folder not in first:
            first[folder] = uuid
    texts = _texts(target, list(first.values()))
    return {folder: texts[uuid] for folder, uuid in first.items() if texts.get(uuid)}


def _present(target: Target, uuids: pa.StringArray) -> pa.StringArray:
    """Give those of the uuids that rows of a target have, in one pass over the column."""
    found = [
        pc.filter(batch.column("uuid"), pc.is_in(batch.column("uuid"), uuids))
        for batch in target.open().scanner(columns=["uuid"]).to_batches()
    ]
    return pa.concat_arrays(found) if found else pa.array([], pa.string())


def _texts(target: Target, uuids: list[str]) -> dict[str, str]:
    dataset = target.open()
    texts: dict[str, str] = {}
    for start in range(0, len(uuids), _BATCH_ROWS):
        names = ",".join(f"'{uuid}'" for uuid in uuids[start : start + _BATCH_ROWS])
        rows = dataset.to_table(columns=["uuid", "text_content"], filter=f"uuid IN ({names})")
        texts |= {row["uuid"]: row["text_content"] for row in rows.to_pylist()}
    return texts
