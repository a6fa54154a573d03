"""Ids that were listed once and written down: the shards of a store that can only be read by id.

A manifest is cut into one file a shard, JSON Lines of strings, in the run's
scratch folder.  Paging a live store by offset loses rows when others are deleted
meanwhile (``sources.md`` 2.4); a written list does not move.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice

from cfray.errors import SourceError
from cfray.runtime.filesystems import Folder
from cfray.sources.base import Context, Shard


def shards(
    collection: str, ids: Iterable[str], per_shard: int, context: Context, row_bytes: int
) -> Iterator[Shard]:
    """Write the ids down, ``per_shard`` to a file, and give a shard for each file."""
    folder = Folder(context.scratch)
    digest = hashlib.sha256(collection.encode()).hexdigest()[:12]
    stream = iter(ids)
    number = 0
    while part := list(islice(stream, per_shard)):
        name = f"ids-{digest}-{number:06d}.jsonl"
        folder.publish(
            name, "".join(f"{json.dumps(one, ensure_ascii=True)}\n" for one in part).encode()
        )
        yield Shard(
            f"{collection}#{number:06d}",
            {"manifest": name},
            rows=len(part),
            size=len(part) * row_bytes,
            collection=collection,
        )
        number += 1


def ids_of(shard: Shard, context: Context) -> list[str]:
    """Read the ids of a shard.

    Raises:
        SourceError: the scratch folder beside the target has lost the file.
    """
    name = str(shard.where["manifest"])
    data = Folder(context.scratch).read(name)
    if data is None:
        raise SourceError(
            f"the list of ids {context.scratch}/{name} is gone",
            "restore the folder beside the target, or start anew with another target",
        )
    return [json.loads(line) for line in data.decode().splitlines()]
