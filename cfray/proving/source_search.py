"""What the source's own search answers: the questions, its answers, and how long each took.

The questions are vectors of the source itself, of which half are shifted a little, or those of a
file.  The source is asked on the driver, one question after the other, by the way that its
connector has: a connection of its own for each question is part of the time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.convert import Conversion
from cfray.conversion.fields import Fields
from cfray.engine import interrupts
from cfray.errors import CannotFilter, ConfigError
from cfray.job.mapping import Path, SourceShape, as_path
from cfray.job.spec import JobSpec
from cfray.planning.sample import Sample
from cfray.records.record import variant_texts, variant_types
from cfray.records.vectors import Floats, has_number, matrix
from cfray.runtime.filesystems import open_filesystem
from cfray.sources.base import FieldEquals

#: Where a question is from: a record's vector; a record's, shifted; a record's, among the records
#: that have a text in common with it; the file of the job.
Origin = Literal["drawn", "shifted", "filtered", "given"]
#: Length of a shift, as a share of the vector's own.
_SHIFT = 0.1
#: Of the drawn vectors, each n-th is searched for with a filter, too.
_FILTERED = 2
#: Columns by whose texts applications filter; the first that the mapping has is taken.
_FILTER_COLUMNS = ("author", "status")
_NO_FILTERS = f"no record has a text in a field that is mapped to {' or '.join(_FILTER_COLUMNS)}"


@dataclass(frozen=True, slots=True)
class Search:
    """A question and the source's answer.

    Attributes:
        collection: source collection that was searched.
        origin: of the vector.
        vector: ``(d,)``, numbers of float32.
        ids: of the records that the source found, nearest first, with their tags (``i:42``).
        seconds: that the answer took.
        where: column of the target -> text that the records must have; empty without a filter.
    """

    collection: str
    origin: Origin
    vector: list[float]
    ids: list[str]
    seconds: float
    where: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Question:
    collection: str
    origin: Origin
    vector: Floats
    where: dict[str, str] = field(default_factory=dict)
    condition: FieldEquals | None = None


@dataclass(frozen=True, slots=True)
class SourceAnswers:
    """What the source answered.

    Attributes:
        searches: the questions with their answers.
        no_filters: why no search has a filter; empty where some have one.
    """

    searches: list[Search]
    no_filters: str


def ask_source(job: JobSpec, shape: SourceShape, sample: Sample) -> SourceAnswers:
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
        questions = list(_given(job, job.parity.queries, collections, shape.read_dimension))
    else:
        questions = list(_draw(job, shape, sample))
    searches: list[Search] = []
    no_filters = "" if any(question.where for question in questions) else _NO_FILTERS
    for question in questions:
        if question.where and no_filters:
            continue
        try:
            searches.append(_ask(job, question))
        except CannotFilter as error:
            if question.origin == "given":
                raise
            no_filters = error.what
    return SourceAnswers(searches, no_filters)


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Give the median and the 99th percentile of times, in seconds."""
    return {f"p{percent}": round(float(np.percentile(seconds, percent)), 6) for percent in (50, 99)}


def _ask(job: JobSpec, question: _Question) -> Search:
    interrupts.check()
    vector = [float(number) for number in question.vector]
    begin = time.perf_counter()
    ids = job.source.search(question.collection, vector, job.parity.k, question.condition)
    seconds = round(time.perf_counter() - begin, 6)
    return Search(question.collection, question.origin, vector, ids, seconds, question.where)


def _path_of(job: JobSpec, column: str) -> Path:
    """Give the source field that a column is taken from as it stands.

    Raises:
        ConfigError: the mapping makes the column in another way.
    """
    rule = getattr(job.mapping, column, None) if column in _FILTER_COLUMNS else None
    if job.mapping.cases or not isinstance(rule, str):
        raise ConfigError(
            f"no filter by {column}: the mapping does not take it from one field as it stands",
            f"filter by one of {', '.join(_FILTER_COLUMNS)}, mapped by the name of a field",
        )
    return as_path(rule)


def _draw(job: JobSpec, shape: SourceShape, sample: Sample) -> Iterator[_Question]:
    """Draw vectors of the sample; the same sample gives the same questions."""
    conversion = Conversion(job, shape)
    column = _filter_column(job)
    vectors: list[Floats] = []
    collections: list[str] = []
    texts: list[str | None] = []
    for batch, collection in zip(sample.batches, sample.collections, strict=True):
        converted = conversion.convert(batch, collection)
        numbers = matrix(converted.frames.column("vector"))
        chosen = has_number(numbers)
        vectors += list(numbers[chosen])
        collections += [collection] * int(chosen.sum())
        records = pa.array(converted.rows[chosen])
        path = None if column is None else _path_of(job, column)
        texts += _texts_of(batch, path).take(records).to_pylist()
    if not vectors:
        raise ConfigError(
            "no sampled record of the source has a vector to search for",
            "name a file of questions as parity.queries in the job file",
        )
    random = np.random.default_rng(0)
    for number, row in enumerate(_spread_over(collections, -(-job.parity.searches // 2), random)):
        vector, collection, text = vectors[row], collections[row], texts[row]
        noise = random.standard_normal(len(vector))
        shift = noise * (_SHIFT * np.linalg.norm(vector) / np.linalg.norm(noise))
        yield _Question(collection, "drawn", vector)
        yield _Question(collection, "shifted", (vector + shift).astype(np.float32))
        if column is not None and text and number % _FILTERED == 0:
            condition = FieldEquals(_path_of(job, column), text)
            yield _Question(collection, "filtered", vector, {column: text}, condition)


def _texts_of(batch: pa.RecordBatch, path: Path | None) -> pa.StringArray:
    """Give a field's values that are texts; null for others, which the column has as texts, too."""
    no_texts: pa.StringArray = pa.nulls(batch.num_rows, pa.string())
    if path is None:
        return no_texts
    fields = Fields(batch, {path})
    column = fields.columns.get(path)
    if column is None or path in fields.copies:
        return no_texts
    if path in fields.variants:
        is_text = pc.equal(variant_types(column), "string")
        return pc.if_else(is_text, variant_texts(column), None)
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return column.cast(pa.string()) if is_text else no_texts


def _filter_column(job: JobSpec) -> str | None:
    """Choose a column that stands for one field of the source as it is; None: there is none."""
    if job.mapping.cases:
        return None
    mapped = (name for name in _FILTER_COLUMNS if isinstance(getattr(job.mapping, name), str))
    return next(mapped, None)


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


def _given(job: JobSpec, location: str, collections: list[str], width: int) -> Iterator[_Question]:
    """Read the questions of a file.

    Raises:
        ConfigError: names the line that is wrong, and why.
    """
    try:
        system, path = open_filesystem(location)
        with system.open_input_stream(path) as stream:
            lines = stream.read().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"parity.queries cannot be read: {location}", "correct its address in the job file"
        ) from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise ConfigError(f"{location} has no question", 'write {"vector": [..]}, one a line')
    for number, line in numbered:
        try:
            yield _parse(job, json.loads(line), collections, width)
        except ConfigError as error:
            raise ConfigError(f"line {number} of {location}: {error.what}", error.remedy) from error
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"line {number} of {location} is no question: {error}",
                'write {"vector": [..], "collection": NAME}, one a line',
            ) from error


def _parse(job: JobSpec, body: dict[str, Any], collections: list[str], width: int) -> _Question:
    unknown = body.keys() - {"vector", "collection", "where"}
    if unknown or "vector" not in body:
        raise ValueError("its keys are vector, collection and where")
    vector = np.asarray(body["vector"], np.float32)
    if vector.shape != (width,) or not np.isfinite(vector).all() or not vector.any():
        raise ValueError(f"its vector must have {width} numbers, and not be zero")
    collection = body.get("collection", collections[0] if len(collections) == 1 else None)
    if collection not in collections:
        raise ValueError(f"its collection must be one of {', '.join(collections[:10])}")
    where = body.get("where", {})
    if len(where) > 1 or any(not isinstance(text, str) for text in where.values()):
        raise ValueError("where must be one column with a text")
    condition = None
    for column, text in where.items():
        condition = FieldEquals(_path_of(job, column), text)
    return _Question(collection, "given", vector, dict(where), condition)
