"""What the source's own search answers: the questions, its answers, and how long each took.

The questions are vectors of the source itself, of which half are shifted a little, or those of a
file.  The source is asked on the driver, one question after the other, by the way that its
connector has: a connection of its own for each question is part of the time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cfray.conversion.convert import Conversion
from cfray.engine import interrupts
from cfray.errors import ConfigError
from cfray.job.mapping import SourceShape
from cfray.job.spec import JobSpec
from cfray.planning.sample import Sample
from cfray.records.vectors import Floats, has_number, matrix
from cfray.runtime.filesystems import open_filesystem

#: Where the vector of a question is from: a record; a record's, shifted; the file of the job.
Origin = Literal["drawn", "shifted", "given"]
#: Length of a shift, as a share of the vector's own.
_SHIFT = 0.1


@dataclass(frozen=True, slots=True)
class Search:
    """A question and the source's answer.

    Attributes:
        collection: source collection that was searched.
        origin: of the vector.
        vector: ``(d,)``, numbers of float32.
        ids: of the records that the source found, nearest first, with their tags (``i:42``).
        seconds: that the answer took.
    """

    collection: str
    origin: Origin
    vector: list[float]
    ids: list[str]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Question:
    collection: str
    origin: Origin
    vector: Floats


def ask_source(job: JobSpec, shape: SourceShape, sample: Sample) -> list[Search]:
    """Ask the source what the job's section ``parity`` says.

    Args:
        job: whose source is asked.
        shape: of the source.
        sample: records whose vectors are searched for, if the job names no file.

    Raises:
        ConfigError: the file of the questions is wrong, or no sampled record has a vector.
        SourceError: the store has no search of its own, or did not answer.
    """
    collections = sorted(set(sample.collections))
    if job.parity.queries is not None:
        questions = list(_given(job.parity.queries, collections, shape.read_dimension))
    else:
        questions = list(_draw(job, shape, sample))
    return [_ask(job, question) for question in questions]


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Give the median and the 99th percentile of times, in seconds."""
    return {f"p{percent}": round(float(np.percentile(seconds, percent)), 6) for percent in (50, 99)}


def _ask(job: JobSpec, question: _Question) -> Search:
    interrupts.check()
    vector = [float(number) for number in question.vector]
    begin = time.perf_counter()
    ids = job.source.search(question.collection, vector, job.parity.k)
    seconds = time.perf_counter() - begin
    return Search(question.collection, question.origin, vector, ids, round(seconds, 6))


def _draw(job: JobSpec, shape: SourceShape, sample: Sample) -> Iterator[_Question]:
    """Draw vectors of the sample; the same sample gives the same questions."""
    conversion = Conversion(job, shape)
    vectors: list[Floats] = []
    collections: list[str] = []
    for batch, collection in zip(sample.batches, sample.collections, strict=True):
        numbers = matrix(conversion.convert(batch, collection).frames.column("vector"))
        with_number = numbers[has_number(numbers)]
        vectors += list(with_number)
        collections += [collection] * len(with_number)
    if not vectors:
        raise ConfigError(
            "no sampled record of the source has a vector to search for",
            "name a file of questions as parity.queries in the job file",
        )
    random = np.random.default_rng(0)
    for row in _spread_over(collections, -(-job.parity.searches // 2), random):
        vector, collection = vectors[row], collections[row]
        noise = random.standard_normal(len(vector))
        shift = noise * (_SHIFT * np.linalg.norm(vector) / np.linalg.norm(noise))
        yield _Question(collection, "drawn", vector)
        yield _Question(collection, "shifted", (vector + shift).astype(np.float32))


def _spread_over(collections: list[str], count: int, random: np.random.Generator) -> list[int]:
    """Draw rows, of each source collection about as many."""
    rows_of: dict[str, list[int]] = {}
    for row in random.permutation(len(collections)).tolist():
        rows_of.setdefault(collections[row], []).append(row)
    drawn: list[int] = []
    while len(drawn) < count and any(rows_of.values()):
        for name in sorted(rows_of):
            if rows_of[name] and len(drawn) < count:
                drawn.append(rows_of[name].pop())
    return drawn


def _given(location: str, collections: list[str], width: int) -> Iterator[_Question]:
    """Read the questions of a file.

    Raises:
        ConfigError: names the line that is wrong, and why.
    """
    try:
        system, path = open_filesystem(location)
        with system.open_input_stream(path) as stream:
            lines = stream.read().decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"parity.queries cannot be read: {location}", "correct its address in the job file"
        ) from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise ConfigError(f"{location} has no question", 'write {"vector": [..]}, one a line')
    for number, line in numbered:
        try:
            yield _parse(json.loads(line), collections, width)
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"line {number} of {location} is no question: {error}",
                'write {"vector": [..], "collection": NAME}, one a line',
            ) from error


def _parse(body: dict[str, Any], collections: list[str], width: int) -> _Question:
    unknown = body.keys() - {"vector", "collection"}
    if unknown or "vector" not in body:
        raise ValueError("its keys are vector and collection")
    vector = np.asarray(body["vector"], np.float32)
    if vector.shape != (width,) or not np.isfinite(vector).all() or not vector.any():
        raise ValueError(f"its vector must have {width} numbers, and not be zero")
    collection = body.get("collection", collections[0] if len(collections) == 1 else None)
    if collection not in collections:
        raise ValueError(f"its collection must be one of {', '.join(collections[:10])}")
    return _Question(collection, "given", vector)
