"""The ways in which the files of a source can be read.

Of CSV they are dialects, of JSON the places where the records stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from cfray.formats import dialects
from cfray.formats.dialects import Dialect
from cfray.inspection.first_bytes import read_head
from cfray.inspection.guess import Guess
from cfray.inspection.origin import Origin
from cfray.job.spec import AnySource, JobSpec
from cfray.sources.base import Json
from cfray.sources.files.base import FileSource
from cfray.sources.files.csv import Csv
from cfray.sources.files.json import JsonFile


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to read a source.

    Attributes:
        name: what a comment calls it.
        section: the source section.
        guesses: the lines that it adds to the draft.
    """

    name: str
    section: Mapping[str, Any]
    guesses: tuple[Guess, ...] = field(default=())

    @property
    def source(self) -> AnySource:
        """Give the source."""
        return JobSpec.model_validate(
            {"name": "inspect", "source": dict(self.section), "target": {"uri": "none"}}
        ).source

    @property
    def delimiter(self) -> str:
        """Give the delimiter of CSV; the same for all variants of another kind."""
        return str(self.section.get("delimiter", ","))


def list_variants(origin: Origin) -> list[Variant]:
    """List the ways to read a source, the likeliest first.

    What the given file says of the source is not varied.

    Raises:
        SourceError: the files cannot be listed or read.
    """
    plain = Variant("as it is", origin.section)
    source = plain.source
    if isinstance(source, Csv):
        ranked = dialects.rank_dialects(_first_head(source))
    elif isinstance(source, JsonFile):
        ranked = dialects.rank_json(_first_head(source))
    else:
        return [plain]
    fitting = [dialect for dialect in ranked if _agrees(dialect, origin.section)]
    return _unlike(_of_dialect(dialect, origin.section) for dialect in fitting) or [plain]


def _first_head(source: FileSource) -> bytes:
    """Read the head of the first file that is not empty."""
    return next((head for file in source.find_files() if (head := read_head(file))), b"")


def _agrees(dialect: Dialect, section: Mapping[str, Any]) -> bool:
    """Tell a dialect that is not against what the given file says."""
    defaults = {
        "kind": section["kind"],
        "delimiter": ",",
        "quote": '"',
        "escape": None,
        "records": None,
        "orient": "records",
    }
    return all(
        dialect.source.get(key, default) == section[key]
        for key, default in defaults.items()
        if key in section
    )


def _of_dialect(dialect: Dialect, section: Mapping[str, Any]) -> Variant:
    keys = {key: value for key, value in dialect.source.items() if key not in section}
    guesses = [
        Guess(f"source.{key}", cast("Json", value), "" if number else dialect.why)
        for number, (key, value) in enumerate(keys.items())
    ]
    if "encoding" in keys and dialect.encoding_why:
        number = list(keys).index("encoding")
        why = "; ".join(filter(None, [guesses[number].why, dialect.encoding_why]))
        guesses[number] = replace(guesses[number], why=why, warns=True)
    name = ", ".join(f"{key} {value!r}" for key, value in keys.items() if key != "columns")
    return Variant(name or "as it is", {**section, **keys}, tuple(guesses))


def _unlike(variants: Iterable[Variant]) -> list[Variant]:
    """Leave out variants that read as an earlier one does."""
    different: list[Variant] = []
    for variant in variants:
        if all(variant.section != other.section for other in different):
            different.append(variant)
    return different
