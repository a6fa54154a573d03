"""Draw the records a map is learned from.

Uniformly, from the source or from the dataset, with text and old vector.

At most 64 shards are read for it, spread over the source, each of them whole:
beginnings of shards are no sample.  Nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.convert import Conversion, Converted
from cfray.engine.tasks import TaskOptions, each
from cfray.frames import digests
from cfray.job.mapping import SourceShape, rule_paths
from cfray.job.spec import JobSpec
from cfray.records.record import Reject
from cfray.sources.base import Context, Shard

#: Shards that are read at most.
_SHARDS = 64
#: Characters of a pseudo-query: about a search's length (a title's place where there is none).
_QUERY = 80


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a drawing task needs to know."""

    job: JobSpec
    layout: SourceShape
    context: Context
    most: int


def from_source(drawing: Drawing, shards: list[Shard]) -> Drawn | None:
    """Draw from the source; None if no record has both a text and a vector."""
    some = [
        shards[place]
        for place in sorted(
            {int(place) for place in np.linspace(0, len(shards) - 1, min(_SHARDS, len(shards)))}
        )
    ]
    pool = TaskOptions(
        None if drawing.job.limits.memory == "auto" else drawing.job.limits.memory, cpus=0.5
    )  # actors may be up, half a core each
    return gathered(each(partial(_from_shard, drawing), some, pool), drawing.most)


def gathered(parts: Iterator[Drawn | None], most: int) -> Drawn | None:
    """Keep the ``most`` rows with the smallest hashes of several parts."""
    every: Drawn | None = None
    for part in parts:
        if part is not None:
            every = part.smallest(most) if every is None else every.with_more(part, most)
    return every


def _from_shard(drawing: Drawing, shard: Shard) -> Drawn | None:
    """Draw from one shard.  Body of a Ray task."""
    conversion = Conversion(drawing.job, drawing.layout)
    titled = bool(rule_paths(drawing.job.mapping.title))
    found: Drawn | None = None
    for item in drawing.job.source.read(shard, drawing.context):
        if isinstance(item, Reject):
            # a row that cannot be read teaches nothing; the copy quarantines and counts it
            continue
        converted = conversion.convert(item, shard.collection)
        one = candidates(
            converted.frames, _usable(converted, drawing.job.embedding.policy), titled=titled
        )
        found = one if found is None else found.with_more(one, drawing.most)
    return found


def _usable(converted: Converted, policy: str) -> npt.NDArray[np.bool_]:
    """Tell the rows that have what is learned from: a vector, a text, or both."""
    there: npt.NDArray[np.bool_] = with_text(converted.frames)
    if policy == "keep":
        return ~converted.missing
    return there if policy == "regenerate" else there & ~converted.missing


def with_text(frames: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Tell the rows whose text is not blank."""
    filled = pc.fill_null(
        pc.not_equal(pc.utf8_trim_whitespace(frames.column("text_content")), ""), False
    )
    there: npt.NDArray[np.bool_] = filled.to_numpy(zero_copy_only=False)
    return there


def candidates(frames: pa.RecordBatch, usable: npt.NDArray[np.bool_], *, titled: bool) -> Drawn:
    """Give the ``usable`` rows of some frames, with a query that should find each of them."""
    frames = frames.filter(pa.array(usable))
    texts = frames.column("text_content")
    queries = frames.column("title") if titled else beginnings(texts)
    return drawn(
        frames.column("uuid"),
        {
            "text": texts,
            "query": pc.coalesce(_unblank(queries), beginnings(texts)),
            "old": frames.column("vector"),
        },
    )


def beginnings(texts: pa.StringArray) -> pa.StringArray:
    """Give each text's first sentence, at most 80 characters of it."""
    begun = pc.utf8_slice_codeunits(pc.utf8_ltrim_whitespace(texts), 0, _QUERY)
    sentence = pc.struct_field(pc.extract_regex(begun, r"^(?P<sentence>[^.!?\r\n]+)"), [0])
    return pc.coalesce(_unblank(sentence), begun)


def _unblank(texts: pa.StringArray) -> pa.StringArray:
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(texts), ""), None, texts)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rows drawn for learning.

    Attributes:
        order: hash of each uuid ``(n,)``; the smallest ones are kept.
        table: ``uuid``, ``text``, ``query`` (a title, or the text's beginning) and ``old``
            (vectors).
    """

    order: npt.NDArray[np.uint64]
    table: pa.Table

    def with_more(self, other: Drawn, most: int) -> Drawn:
        """Add rows and keep the ``most`` with the smallest hashes."""
        return Drawn(
            np.concatenate([self.order, other.order]), pa.concat_tables([self.table, other.table])
        ).smallest(most)

    def smallest(self, most: int) -> Drawn:
        """Keep the ``most`` rows with the smallest hashes, smallest first.

        Whichever shard was read first, the same pairs teach the same map.
        """
        kept = np.argsort(self.order, kind="stable")[:most]
        return Drawn(self.order[kept], self.table.take(pa.array(kept)).combine_chunks())


def drawn(uuids: pa.StringArray, columns: dict[str, pa.Array]) -> Drawn:
    """Make candidates of some rows."""
    return Drawn(digests.row_hashes(uuids), pa.table({"uuid": uuids, **columns}))
