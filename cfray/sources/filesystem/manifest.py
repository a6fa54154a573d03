"""The frozen list of files: each shard's part of it, written beside the target.

A part is JSON Lines, one line a file: its path, size, modification time and links.  Its name holds
a digest of its content, so that a plan that is made again never changes the list of a run.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cfray.errors import SourceError
from cfray.runtime.filesystems import Folder
from cfray.sources.base import Context, Shard
from cfray.sources.files.walk import Entry

#: What a file costs beside its bytes, in bytes: opening one takes as long as reading so many.
_BYTES_PER_FILE = 4096


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One file as the plan saw it.

    Attributes:
        name: path below the root; bytes that are not UTF-8 are surrogates (PEP 383).
        size: bytes.
        modified: modification time in ns since the epoch.
        links: the links that lead from the name to the file, each as it is written.
    """

    name: str
    size: int
    modified: int
    links: tuple[str, ...] = ()


def write_shards(
    root: str, files: Sequence[Entry], shard_bytes: int, context: Context, *, first: int = 0
) -> list[Shard]:
    """Cut the list into shards of about ``shard_bytes``, and write each down.

    Args:
        root: path or URI of the folder that the names are relative to.
        files: sorted.
        shard_bytes: what a shard aims at.
        context: of the run; its scratch folder takes the list.
        first: number of the first shard.
    """
    groups = enumerate(_groups(files, shard_bytes), first)
    return [_write_shard(root, number, group, context) for number, group in groups]


def write_shards_since(
    root: str,
    files: Sequence[Entry],
    shard_bytes: int,
    context: Context,
    earlier: Sequence[Shard],
) -> list[Shard]:
    """Cut the list where an earlier one was cut, so that what did not change is cut alike.

    A part that has grown to more than two shards is cut anew; where a third of the earlier shards
    is left, all is.

    Args:
        root: as of ``write_shards``.
        files: as of ``write_shards``.
        shard_bytes: as of ``write_shards``.
        context: as of ``write_shards``.
        earlier: shards that ``write_shards`` or this function made.
    """
    if any(shard.where.get("root") != root for shard in earlier):
        return write_shards(root, files, shard_bytes, context)
    firsts = sorted(
        (os.fsencode(json.loads(str(shard.where["first"]))), shard.id) for shard in earlier
    )
    names = [first for first, _ in firsts]
    parts: list[list[Entry]] = [[] for _ in firsts]
    for file in files:
        parts[max(bisect_right(names, os.fsencode(file.name)) - 1, 0)].append(file)
    filled = [
        (int(shard_id.partition("#")[2]), part)
        for (_, shard_id), part in zip(firsts, parts, strict=True)
        if part
    ]
    if len(filled) * 3 < len(earlier) or not filled:
        return write_shards(root, files, shard_bytes, context)
    shards, following = [], 1 + max(number for number, _ in filled)
    for number, part in filled:
        groups = list(_groups(part, shard_bytes))
        if len(groups) <= 2:
            groups = [part]
        shards.append(_write_shard(root, number, groups[0], context))
        for group in groups[1:]:
            shards.append(_write_shard(root, following, group, context))
            following += 1
    return shards


def _write_shard(root: str, number: int, group: Sequence[Entry], context: Context) -> Shard:
    lines = [json.dumps([file.name, file.size, file.modified, file.links]) for file in group]
    data = "".join(f"{line}\n" for line in lines).encode()
    digest = hashlib.sha256(data).hexdigest()
    name = f"files-{number:06d}-{digest[:16]}.jsonl"
    Folder(context.scratch).publish(name, data)
    return Shard(
        f"files#{number:06d}",
        # JSON of the name: one that is not UTF-8 is no text that a file of JSON could hold
        {"root": root, "manifest": name, "sha256": digest, "first": json.dumps(group[0].name)},
        rows=len(group),
        size=sum(file.size for file in group),
    )


def _groups(files: Sequence[Entry], shard_bytes: int) -> Iterator[list[Entry]]:
    group: list[Entry] = []
    cost = 0
    for file in files:
        if group and cost + file.size + _BYTES_PER_FILE > shard_bytes:
            yield group
            group, cost = [], 0
        group.append(file)
        cost += file.size + _BYTES_PER_FILE
    if group:
        yield group


def read_manifest(shard: Shard, context: Context) -> list[ListedFile]:
    """Read a shard's part of the list.

    Raises:
        SourceError: the folder beside the target has lost or changed it.
    """
    name = str(shard.where["manifest"])
    data = Folder(context.scratch).read(name)
    if data is None or hashlib.sha256(data).hexdigest() != shard.where["sha256"]:
        state = "gone" if data is None else "damaged"
        raise SourceError(
            f"the list of files {context.scratch}/{name} is {state}",
            "restore the folder beside the target, or start anew with another target",
        )
    return [
        ListedFile(name, size, modified, tuple(links))
        for name, size, modified, links in map(json.loads, data.decode().splitlines())
    ]
