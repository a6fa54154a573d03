"""Files that are divided again along earlier lines: every part of every file is in one shard."""

from __future__ import annotations

import os
import random
from collections import defaultdict

import pytest

from cfray.sources.base import Context, Shard
from cfray.sources.files.base import MOST_SHARDS_KEPT, parts_of
from cfray.sources.files.jsonl import JsonLines
from cfray.sources.filesystem.manifest import read_manifest
from cfray.sources.filesystem.source import Filesystem

SETTLED = 1_700_000_000


def write(folder, name: str, size: int, second: int) -> None:
    path = folder / name
    path.write_text("".join(f'{{"n": {number:08d}}}\n' for number in range(size)))
    os.utime(path, (SETTLED + second,) * 2)


def change(folder, generator: random.Random, step: int) -> None:
    """Write some files, remove some, put some between them."""
    for path in sorted(folder.iterdir()):
        fate = generator.random()
        if fate < 0.1:
            path.unlink()
        elif fate < 0.25:
            write(folder, path.name, generator.randrange(1, 120), step)
    for _ in range(generator.randrange(3)):
        write(folder, f"{generator.randrange(1000):03d}.jsonl", generator.randrange(1, 120), step)
    write(folder, "always.jsonl", 5, 0)


def ranges(shards: list[Shard]) -> dict[str, list[tuple[int, int]]]:
    """Give the ranges of bytes of each file, sorted; each shard once."""
    assert len({shard.id for shard in shards}) == len(shards)
    found = defaultdict(list)
    for shard in shards:
        for file, where in parts_of(shard):
            found[file.name].append((int(where["from"]), int(where["to"])))
    return {name: sorted(parts) for name, parts in found.items()}


@pytest.mark.parametrize("seed", range(6))
def test_every_byte_of_every_file_is_in_one_shard(tmp_path, seed):
    generator = random.Random(seed)
    for number in range(30):
        write(tmp_path, f"{number * 30:03d}.jsonl", generator.randrange(1, 120), 0)
    source = JsonLines(
        kind="jsonl", uri=str(tmp_path), shard_bytes=generator.choice([700, 2_000, 9_000])
    )
    shards, kept = source.shards(Context()), 0
    for step in range(1, 12):
        change(tmp_path, generator, step)
        again = source.shards_since(shards, Context())
        for name, parts in ranges(again).items():
            ends = [0, *(end for _, end in parts)]
            assert [start for start, _ in parts] == ends[:-1], name
            assert ends[-1] == (tmp_path / name).stat().st_size
        assert ranges(again).keys() == {path.name for path in tmp_path.iterdir()}
        known = {shard.id: shard for shard in shards}
        kept += sum(known.get(shard.id) == shard for shard in again)
        shards = again
    assert kept
    assert source.shards_since(shards, Context()) == shards


def test_shards_that_have_become_many_are_made_anew(tmp_path):
    for number in range(MOST_SHARDS_KEPT + 2):
        write(tmp_path, f"{number:03d}.jsonl", 1, 0)
    finely = JsonLines(kind="jsonl", uri=str(tmp_path), shard_bytes=16)
    coarsely = JsonLines(kind="jsonl", uri=str(tmp_path), shard_bytes=10**6)
    (shard,) = coarsely.shards_since(finely.shards(Context()), Context())
    assert len(list(parts_of(shard))) == MOST_SHARDS_KEPT + 2


@pytest.mark.parametrize("seed", range(6))
def test_every_document_is_in_one_shard(tmp_path, seed):
    generator = random.Random(seed)
    tree, scratch = tmp_path / "tree", tmp_path / "scratch"
    tree.mkdir()
    for number in range(40):
        write(tree, f"{number * 20:03d}.jsonl", generator.randrange(1, 40), 0)
    (tree / os.fsdecode(b"caf\xe9.txt")).write_text("not UTF-8")
    source = Filesystem(kind="filesystem", uri=str(tree), extract="none", shard_bytes=30_000)
    context = Context(scratch=str(scratch))
    shards = source.shards(context)
    for step in range(1, 12):
        change(tree, generator, step)
        again = source.shards_since(shards, context)
        names = [file.name for shard in again for file in read_manifest(shard, context)]
        assert sorted(map(os.fsencode, names)) == sorted(map(os.fsencode, os.listdir(tree)))
        assert len({shard.id for shard in again}) == len(again)
        shards = again
    assert source.shards_since(shards, context) == shards
