"""What the source's own search answers: the questions, its answers, and how long each took.

The questions are vectors of the source itself, of which half are shifted a little, or those of a
file.  The source is asked on the driver, one question after the other, by the way that its
connector has: a connection of its own for each question is part of the time.
"""

from __future__ import annotations

import hashlib
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
FILTER_COLUMNS = ("author", "status")
_NO_FILTERS = f"no field that is mapped to {' or '.join(FILTER_COLUMNS)} holds texts alone"
_FORM = 'write {"vector": [..], "collection": NAME, "where": {"author": TEXT}}, one a line'


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
        record: tagged id of the record whose vector it is; empty where it is none's.
    """

    collection: str
    origin: Origin
    vector: list[float]
    ids: list[str]
    seconds: float
    where: dict[str, str] = field(default_factory=dict)
    record: str = ""


@dataclass(frozen=True, slots=True)
class _Question:
    collection: str
    origin: Origin
    vector: Floats
    where: dict[str, str] = field(default_factory=dict)
    condition: FieldEquals | None = None
    record: str = ""


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
    if no_filters and job.parity.queries is not None:
        no_filters = "the questions of the file have none"
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
    return Search(
        *(question.collection, question.origin, vector, ids, seconds),
        *(question.where, question.record),
    )


def _path_of(job: JobSpec, column: str) -> Path:
    """Give the source field that a column is taken from as it stands.

    Raises:
        ConfigError: the mapping makes the column in another way.
    """
    rule = getattr(job.mapping, column, None) if column in FILTER_COLUMNS else None
    if job.mapping.cases or not isinstance(rule, str):
        raise ConfigError(
            f"no filter by {column}: the mapping does not take it from one field as it stands",
            f"filter by one of {', '.join(FILTER_COLUMNS)}, mapped by the name of a field",
        )
    return as_path(rule)


def _draw(job: JobSpec, shape: SourceShape, sample: Sample) -> Iterator[_Question]:
    """Draw vectors of the sample; the same sample gives the same questions."""
    conversion = Conversion(job, shape)
    column = _filter_column(job)
    vectors: list[Floats] = []
    collections: list[str] = []
    texts: list[str | None] = []
    ids: list[str] = []
    has_lists = False
    for batch, collection in zip(sample.batches, sample.collections, strict=True):
        converted = conversion.convert(batch, collection)
        numbers = matrix(converted.frames.column("vector"))
        chosen = has_number(numbers)
        vectors += list(numbers[chosen])
        collections += [collection] * int(chosen.sum())
        records = pa.array(converted.rows[chosen])
        path = None if column is None else _path_of(job, column)
        texts += _texts_of(batch, path).take(records).to_pylist()
        has_lists |= _has_lists(batch, path)
        ids += converted.tagged_ids.filter(pa.array(chosen)).to_pylist()
    if not vectors:
        raise ConfigError(
            "no sampled record of the source has a vector to search for",
            "name a file of questions as parity.queries in the job file",
        )
    random = np.random.default_rng(0)
    for number, row in enumerate(spread_over(collections, -(-job.parity.searches // 2), random)):
        vector, collection, text = vectors[row], collections[row], texts[row]
        yield _Question(collection, "drawn", vector, record=ids[row])
        shifted = _shifted(vector, random)
        if np.isfinite(shifted).all():
            yield _Question(collection, "shifted", shifted)
        if column is not None and text and number % _FILTERED == 0 and not has_lists:
            condition = FieldEquals(_path_of(job, column), text)
            where = {column: text}
            yield _Question(collection, "filtered", vector, where, condition, ids[row])


def _shifted(vector: Floats, random: np.random.Generator) -> Floats:
    """Shift a vector; in float64, for the square of a large float32 is infinite."""
    noise = random.standard_normal(len(vector))
    length = np.linalg.norm(vector.astype(np.float64))
    with np.errstate(over="ignore"):
        shifted: Floats = (vector + noise * (_SHIFT * length / np.linalg.norm(noise))).astype(
            np.float32
        )
    return shifted


def _texts_of(batch: pa.RecordBatch, path: Path | None) -> pa.StringArray:
    """Give a field's values that are texts at the source; null for numbers and other types."""
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


def _has_lists(batch: pa.RecordBatch, path: Path | None) -> bool:
    """Tell whether a field holds lists: some stores look for the text among their items."""
    if path is None:
        return False
    fields = Fields(batch, {path})
    column = fields.columns.get(path)
    if column is None:
        return False
    if path not in fields.variants:
        return bool(pa.types.is_nested(column.type))
    return bool(pc.any(pc.starts_with(variant_types(column), "list")).as_py())


def _filter_column(job: JobSpec) -> str | None:
    """Choose a column that stands for one field of the source as it is; None: there is none."""
    if job.mapping.cases:
        return None
    mapped = (name for name in FILTER_COLUMNS if isinstance(getattr(job.mapping, name), str))
    return next(mapped, None)


def spread_over(collections: list[str], count: int, random: np.random.Generator) -> list[int]:
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
        lines = _read_questions(location).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{location} is no UTF-8", f"write it in UTF-8; {_FORM}") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise ConfigError(f"{location} has no question", _FORM)
    for number, line in numbered:
        try:
            yield _parse(job, json.loads(line), collections, width)
        except ConfigError as error:
            raise ConfigError(f"line {number} of {location}: {error.what}", error.remedy) from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"line {number} of {location} is no question: {error}", _FORM
            ) from error


def digest_of_questions(location: str) -> str:
    """Give the SHA-256 of a file of questions.

    Raises:
        ConfigError: it cannot be read.
    """
    return hashlib.sha256(_read_questions(location)).hexdigest()


def _read_questions(location: str) -> bytes:
    try:
        system, path = open_filesystem(location)
        with system.open_input_stream(path) as stream:
            return bytes(stream.read())
    except OSError as error:
        raise ConfigError(
            f"parity.queries cannot be read: {location}", "correct its address in the job file"
        ) from error


def _parse(job: JobSpec, body: Any, collections: list[str], width: int) -> _Question:
    """Read a question.

    Raises:
        ValueError: it is none; says why.
        ConfigError: the target cannot be searched with its filter.
    """
    if not isinstance(body, dict) or "vector" not in body:
        raise ValueError("it must have a vector")
    unknown = body.keys() - {"vector", "collection", "where"}
    if unknown:
        raise ValueError(f"it has the unknown key {min(unknown)}")
    collection = body.get("collection", collections[0] if len(collections) == 1 else None)
    if collection not in collections:
        raise ValueError(f"its collection must be one of {', '.join(collections[:10])}")
    where = body.get("where", {})
    if not isinstance(where, dict) or len(where) > 1 or not all(map(_is_plain, where.values())):
        raise ValueError("where must be one column with a text")
    condition = None
    for column, text in where.items():
        condition = FieldEquals(_path_of(job, column), text)
    vector = _vector(body["vector"], width)
    return _Question(collection, "given", vector, dict(where), condition)


def _is_plain(text: object) -> bool:
    """Tell whether a value is a text that every store takes: no half character, no NUL."""
    if not isinstance(text, str) or "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _vector(numbers: Any, width: int) -> Floats:
    """Read a vector.

    Raises:
        ValueError: says what is wrong with it.
    """
    is_number = (
        [isinstance(number, int | float) and not isinstance(number, bool) for number in numbers]
        if isinstance(numbers, list)
        else [False]
    )
    if len(is_number) != width or not all(is_number):
        raise ValueError(f"its vector must be a list of {width} numbers")
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray([float(number) for number in numbers]).astype(np.float32)
    except OverflowError:
        vector = np.full(width, np.inf, np.float32)
    if not np.isfinite(vector).all():
        raise ValueError("a number of its vector is no finite float32")
    if not vector.any():
        raise ValueError("its vector must not be zero")
    return vector
