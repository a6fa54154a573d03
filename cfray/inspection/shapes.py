"""Records of several shapes in one collection: documents of an earlier version beside today's.

Where a field of few values divides the sample so that each part has another text, each part is
guessed for itself: the largest gives the mapping, the others its cases.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa

from cfray.conversion.cases import shape_numbers
from cfray.conversion.fields import Fields
from cfray.inspection.field_samples import FieldSample
from cfray.inspection.guess import Guess, rule
from cfray.inspection.mapper import guess_mapping
from cfray.inspection.samples import Sample
from cfray.job.mapping import Case, Condition, Path, Rules, Scalar, dotted
from cfray.records import values
from cfray.records.record import variant_texts
from cfray.runtime.plurals import counted
from cfray.sources.base import Json

#: Shapes that are told apart at most, and the records of each at least (choices).
_MOST_SHAPES, _LEAST_ROWS = 5, 3
#: Names of fields that say which shape a record has, in the order in which they are looked at.
_NAMES = (
    *("schema_version", "schema", "doc_version", "version", "v", "_v", "__v"),
    *("doc_type", "type", "_type", "kind", "format", "model"),
)
#: Keys of the mapping whose field may be another in records of another shape.
_KEYS = (
    *("text_content", "title", "author", "status", "tags", "contributors"),
    *("created_at", "updated_at"),
)


@dataclass(frozen=True, slots=True)
class _Part:
    """The records that one value of a field chooses.

    Attributes:
        value: of the field.
        rows: how many records.
        guesses: key of the mapping -> the line that these records alone suggest.
    """

    value: Scalar
    rows: int
    guesses: dict[str, Guess]

    def paths(self, key: str) -> tuple[Path, ...]:
        """Give the fields that a line uses; none where these records suggest no such line."""
        guess = self.guesses.get(key)
        return guess.paths if guess is not None else ()


def guess_shapes(sample: Sample) -> list[Guess]:
    """Guess the mapping of a sample, with cases where its records are of several shapes."""
    guesses = guess_mapping(sample)
    text = next(guess.paths for guess in guesses if guess.key == "mapping.text_content")
    if all(field.present == sample.rows for field in sample.fields if (field.path,) == text):
        return guesses  # a text that every record has, or none at all, needs no case
    for field in _candidates(sample):
        parts = sorted(_parts(sample, field), key=lambda part: part.rows, reverse=True)
        texts = [part.paths("mapping.text_content") for part in parts]
        if len(parts) > 1 and all(texts) and len(set(texts)) == len(texts):
            return _with_cases(guesses, field, parts)
    return guesses


def _candidates(sample: Sample) -> Iterator[FieldSample]:
    """Give the fields that may say which shape a record has: every record has a value."""
    for name in _NAMES:
        for field in sample.fields:
            is_plain = field.kind in ("text", "integer")
            if field.path == (name,) and is_plain and field.present == sample.rows:
                yield field


def _parts(sample: Sample, field: FieldSample) -> Iterator[_Part]:
    """Divide the records by the values of a field; nothing where they are too many."""
    texts = {text for fields in sample.records for text in _texts(fields, field.path)}
    for text in sorted(texts) if len(texts) <= _MOST_SHAPES else []:
        value = int(text) if field.kind == "integer" else text
        batches = [_where(batch, field, value) for batch in sample.batches]
        kept = [number for number, batch in enumerate(batches) if batch.num_rows]
        part = replace(
            sample,
            batches=[batches[number] for number in kept],
            collections=[sample.collections[number] for number in kept],
        )
        if part.rows >= _LEAST_ROWS:
            guesses = {guess.key: guess for guess in guess_mapping(part) if guess.sure}
            yield _Part(value, part.rows, guesses)


def _texts(fields: Fields, path: Path) -> set[str]:
    column = fields.columns[path]
    texts = variant_texts(column) if path in fields.variants else values.metadata_texts(column)
    return set(texts.unique().to_pylist())


def _where(batch: pa.RecordBatch, field: FieldSample, value: Scalar) -> pa.RecordBatch:
    """Give the records that have a value, without the columns in which none has anything."""
    condition = Condition.model_validate({"field": rule(field.path), "equals": value})
    numbers = shape_numbers(Fields(batch, {field.path}), [Case(when=condition, mapping=Rules())])
    part = batch.filter(pa.array(numbers == 0))
    filled = [name for name in part.schema.names if part.column(name).null_count < part.num_rows]
    return part.select(filled) if part.num_rows else part


def _with_cases(guesses: list[Guess], field: FieldSample, parts: list[_Part]) -> list[Guess]:
    """Let the largest part give the mapping, and the others its cases."""
    first, *others = parts
    keys = [f"mapping.{key}" for key in _KEYS]
    lines = [guess for guess in guesses if guess.key not in keys]
    lines += [guess for key, guess in first.guesses.items() if key in keys]
    for part in others:
        different = {
            key: guess
            for key, guess in part.guesses.items()
            if key in keys and guess.paths != first.paths(key)
        }
        case: dict[str, Json] = {
            "when": {"field": rule(field.path), "equals": part.value},
            "mapping": {
                key.removeprefix("mapping."): guess.value for key, guess in different.items()
            },
        }
        records = counted(part.rows, "sampled record")
        why = f"{records} with {dotted(field.path)} {part.value!r}, of another shape"
        paths = tuple(path for guess in different.values() for path in guess.paths)
        lines.append(Guess("mapping.cases", case, why, paths=paths))
    return sorted(lines, key=lambda line: line.position)
