"""Small exports in the shapes that people really have, each with the draft that a person writes.

A case is a folder that ``build`` fills without cfray, with the writer that makes such files where
it matters.  Its inputs are what ``cfray inspect`` is given; the answers beside them are the id, the
text, the title and the vectors that a person who looks at the data would choose.
"""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

#: Width of the vectors.
WIDTH = 8
_SENTENCE = "the lake keeps ice until late spring and boats wait near an old pier"


@dataclass(frozen=True)
class Answer:
    """What a person writes into the job file.

    Attributes:
        kind: of the source.
        id: dotted path; of a composite id the paths with + between them; empty where nothing is
            an id and the line must stay empty.
        text: dotted path of the document's text; empty where there is none.
        title: dotted path; empty where there is none.
        vector: dotted path, with ``as`` behind a colon where it must be declared.
        vectors: paths of the further vectors, written likewise.
        source: further keys of the source section.
        quarantined: records of the sample that cannot be moved.
        label: of the draft, where the input needs several jobs.
    """

    kind: str
    id: str = "id"
    text: str = "body"
    title: str = "title"
    vector: str = "embedding"
    vectors: tuple[str, ...] = ()
    source: Mapping[str, object] = field(default_factory=dict)
    quarantined: int = 0
    label: str = ""


@dataclass(frozen=True)
class Refusal:
    """The input cannot be read right, and the message names what these patterns match."""

    patterns: tuple[str, ...]


Expected = Answer | Refusal | tuple[Answer, ...]


@dataclass(frozen=True)
class Case:
    """A folder of inputs.

    Attributes:
        build: writes the case into an empty folder.
        inputs: what ``cfray inspect`` is given, below that folder -> what a person would do.
        needs: modules of the writers.
    """

    build: Callable[[Path], None]
    inputs: Mapping[str, Expected]
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Give the name of the case."""
        return self.build.__name__

    @property
    def missing(self) -> list[str]:
        """Name the writers that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def case(
    inputs: Mapping[str, Expected] | Expected, *, needs: tuple[str, ...] = ()
) -> Callable[[Callable[[Path], None]], Case]:
    """Make a case of the function that builds it; a single answer is that of the whole folder."""
    of_inputs = inputs if isinstance(inputs, Mapping) else {".": inputs}
    return lambda build: Case(build, of_inputs, needs)


def vector(seed: int) -> list[float]:
    """Make a unit vector of float32 numbers."""
    numbers = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    unit: list[float] = (numbers / np.linalg.norm(numbers)).tolist()
    return unit


def text(seed: int) -> str:
    """Make a document."""
    words = random.Random(seed)
    return f"Document {seed}. " + " ".join(words.choice(_SENTENCE.split()) for _ in range(30))


def row(number: int) -> dict[str, object]:
    """Make a record: id, title, body, embedding, n."""
    return {
        "id": f"d{number:04d}",
        "title": f"Title {number}",
        "body": text(number),
        "embedding": vector(number),
        "n": number,
    }


def rows(count: int, start: int = 0) -> list[dict[str, object]]:
    """Make records that follow one another."""
    return [row(number) for number in range(start, start + count)]


def without(record: dict[str, object], *names: str) -> dict[str, object]:
    """Leave fields out of a record."""
    return {name: value for name, value in record.items() if name not in names}


def table(records: list[dict[str, object]], **columns: pa.Array) -> pa.Table:
    """Make a table of records, its vectors float32, with further columns."""
    result = pa.Table.from_pylist(records)
    index = result.schema.get_field_index("embedding")
    if index >= 0:
        floats = result.column(index).cast(pa.list_(pa.float32()))
        result = result.set_column(index, "embedding", floats)
    for name, column in columns.items():
        result = result.append_column(name, column)
    return result


def write_lines(path: Path, records: list[dict[str, object]]) -> None:
    """Write one JSON object a line."""
    path.write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8"
    )
