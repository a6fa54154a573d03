"""Ids that were listed once and written down: the shards of a store that can only be read by id.

The list is written as files in the run's scratch folder, one for each shard, JSON Lines of
strings.  Paging a live store by offset would lose rows: a record that is deleted meanwhile
moves all later records to an earlier page.  A written list does not move.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice

from cfray.errors import SourceError
from cfray.runtime.filesystems import Folder
from cfray.sources.base import Context, Shard


def write_id_shards(
    collection: str, ids: Iterable[str], per_shard: int, context: Context, row_bytes: int
) -> Iterator[Shard]:
    """Write ids down, ``per_shard`` to a file, and give a shard for each file.

    Args:
        collection: the source collection that the ids are from.
        ids: in any order; consumed once.
        per_shard: ids of a shard.
        context: of the run; its scratch folder takes the files.
        row_bytes: bytes of a record, for the shards' sizes.
    """
    folder = Folder(context.scratch)
    digest = hashlib.sha256(collection.encode()).hexdigest()[:12]
    stream = iter(ids)
    number = 0
    while shard_ids := list(islice(stream, per_shard)):
        name = f"ids-{digest}-{number:06d}.jsonl"
        lines = (f"{json.dumps(record_id, ensure_ascii=True)}\n" for record_id in shard_ids)
        folder.publish(name, "".join(lines).encode())
        yield Shard(
            f"{collection}#{number:06d}",
            {"manifest": name},
            rows=len(shard_ids),
            size=len(shard_ids) * row_bytes,
            collection=collection,
        )
        number += 1


def read_ids(shard: Shard, context: Context) -> list[str]:
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
