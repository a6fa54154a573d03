"""Searches by words, in the source and in the target: does each side find the text they are from?

The two sides split texts into words and rank by rules of their own, so their hits are rarely the
same.  What can be judged is whether an application that found a text by words of it still does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from lance import LanceDataset

from cfray.conversion.convert import Conversion
from cfray.engine import interrupts
from cfray.errors import CannotSearchWords
from cfray.job.mapping import Path, SourceShape, as_path
from cfray.job.spec import JobSpec
from cfray.planning.sample import Sample
from cfray.proving.agreement import interval
from cfray.proving.source_search import quantiles, spread_over

#: Words of a question, and of the shortest text that one is drawn from.
_WORDS, _SHORTEST = 5, 8
#: Of the searches that the job asks for, each n-th is made by words, too.
_SHARE = 2
#: Uuids that one condition names.
_NAMED_UUIDS = 1_000
#: What a word is to both sides, whatever else they take for one: digits and letters.
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class WordSearch:
    """Words of a text, and what the source finds by them.

    Attributes:
        collection: source collection that was searched.
        words: separated by spaces.
        record: tagged id of the record whose text they are from.
        ids: of the records that the source found, best first, with their tags (``i:42``).
        seconds: that the answer took.
    """

    collection: str
    words: str
    record: str
    ids: list[str]
    seconds: float


@dataclass(frozen=True, slots=True)
class WordHits:
    """What both sides found for a question.

    Attributes:
        source, target: the uuids of their hits, best first.
        record: uuid of the record whose text the words are from.
        seconds: that the answer of the target took.
    """

    source: list[str]
    target: list[str]
    record: str
    seconds: float


def ask_words(job: JobSpec, shape: SourceShape, sample: Sample) -> tuple[list[WordSearch], str]:
    """Search a source by words that are drawn from its texts.

    Returns:
        the searches, and why there are none (empty where there are some).

    Raises:
        SourceError: the store did not answer.
    """
    path = _text_path(job)
    if path is None:
        return [], "mapping.text_content does not take the text from one field as it stands"
    searches: list[WordSearch] = []
    try:
        for collection, words, record in _draw(job, shape, sample):
            interrupts.check()
            begin = time.perf_counter()
            ids = job.source.search_words(collection, words, path, job.parity.k)
            seconds = round(time.perf_counter() - begin, 6)
            searches.append(WordSearch(collection, words, record, ids, seconds))
    except CannotSearchWords as error:
        return [], error.what
    if not searches:
        return [], f"no sampled record has a text of {_SHORTEST} words"
    return searches, ""


def _text_path(job: JobSpec) -> Path | None:
    rule = job.mapping.text_content
    if job.mapping.cases or not (rule is None or isinstance(rule, str)):
        return None
    return as_path(rule or "text")


def _draw(job: JobSpec, shape: SourceShape, sample: Sample) -> Iterator[tuple[str, str, str]]:
    """Draw collection, words and record; the same sample gives the same questions."""
    conversion = Conversion(job, shape)
    texts: list[list[str]] = []
    collections: list[str] = []
    ids: list[str] = []
    for batch, collection in zip(sample.batches, sample.collections, strict=True):
        converted = conversion.convert(batch, collection)
        columns = (converted.frames.column("text_content"), converted.tagged_ids)
        for text, tagged_id in zip(*(column.to_pylist() for column in columns), strict=True):
            words = _WORD.findall(text or "")
            if len(words) >= _SHORTEST and tagged_id:
                texts.append(words)
                collections.append(collection)
                ids.append(tagged_id)
    random = np.random.default_rng(0)
    for row in spread_over(collections, -(-job.parity.searches // _SHARE), random):
        start = int(random.integers(0, len(texts[row]) - _WORDS + 1))
        yield collections[row], " ".join(texts[row][start : start + _WORDS]), ids[row]


def compare_words(
    dataset: LanceDataset, searches: list[WordSearch], hits: list[WordHits], k: int
) -> dict[str, Any]:
    """Work out how well both sides find the texts whose words they were asked for.

    A hit with the same text counts as well as the record itself.

    Returns:
        What ``Report.parity`` says of ``words``.
    """
    uuids = {uuid for item in hits for uuid in (*item.source, *item.target, item.record)}
    text_of = _texts_of(dataset, sorted(uuids))

    def finds(side: list[str], record: str) -> bool:
        wanted = text_of.get(record)
        return record in side or (
            wanted is not None and any(text_of.get(uuid) == wanted for uuid in side)
        )

    found = [(finds(item.source, item.record), finds(item.target, item.record)) for item in hits]
    kept = [1.0 if in_target else 0.0 for in_source, in_target in found if in_source]
    if not kept:
        return {"none": f"the source finds none of {len(hits):,} texts by words of theirs"}
    low, high = interval(kept)
    same = [
        len(set(item.source) & set(item.target)) / len(item.source) for item in hits if item.source
    ]
    return {
        "searches": len(hits),
        "k": k,
        "source_found": sum(in_source for in_source, _ in found),
        "target_found": sum(in_target for _, in_target in found),
        "kept": round(float(np.mean(kept)), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "same": round(float(np.mean(same)), 4) if same else None,
        "source_seconds": quantiles([search.seconds for search in searches]),
        "target_seconds": quantiles([item.seconds for item in hits]),
    }


def _texts_of(dataset: LanceDataset, uuids: list[str]) -> dict[str, str]:
    """Read the texts of some rows of the target."""
    texts: dict[str, str] = {}
    for start in range(0, len(uuids), _NAMED_UUIDS):
        names = ", ".join(f"'{uuid}'" for uuid in uuids[start : start + _NAMED_UUIDS])
        table: pa.Table = dataset.to_table(
            columns=["uuid", "text_content"], filter=f"uuid IN ({names})"
        )
        texts.update(zip(table["uuid"].to_pylist(), table["text_content"].to_pylist(), strict=True))
    return texts


def sentence_about(words: dict[str, Any]) -> str:
    """Say in the report how searches by words compare."""
    if "none" in words:
        return f"searches by words were not compared: {words['none']}"
    return (
        f"by words: of {words['searches']:,} texts the source finds {words['source_found']:,} by "
        f"{_WORDS} words of theirs, the target {words['target_found']:,}; of those that the source "
        f"finds the target finds {words['kept']:.3f} (95 % interval {words['low']:.3f} to "
        f"{words['high']:.3f})"
    )
