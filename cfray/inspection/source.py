"""Inspect: look at a source and draft the job file that moves it, with a reason on every line.

The draft runs unedited where the sample shows an id; where it shows none, the id's
line stays empty, which ``plan`` refuses.  This module writes nothing: the command
line decides where the text goes.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cfray.errors import ConfigError, SourceError
from cfray.inspection import drafts, guesses, samples
from cfray.inspection.guesses import Guess
from cfray.inspection.kind import guess_kind
from cfray.job.mapping import dotted
from cfray.job.refusal import refuse
from cfray.job.spec import KINDS, AnySource, JobSpec
from cfray.job.yaml_file import read_yaml
from cfray.runtime import filesystems
from cfray.sources.base import Context, Json
from cfray.sources.files.csv import Csv
from cfray.sources.files.kinds import CODECS, SUFFIXES
from cfray.sources.remote import RemoteSource

_DELIMITERS = (",", "\t", ";", "|")


@dataclass(frozen=True, slots=True)
class Draft:
    """A drafted job file.

    Attributes:
        text: YAML with comments.
        guesses: ``{key, value, why}`` of every line that was guessed and is not commented out
            (parsed JSON).
    """

    text: str
    guesses: list[dict[str, Json]]


@dataclass(frozen=True, slots=True)
class _Origin:
    """What is inspected and where the draft will stand.

    Attributes:
        name: of the job.
        section: the source section as it is given (parsed YAML), its locations absolute.
        draft_locations: key -> location, as the draft writes it.
        base: folder from which the draft's relative paths start.
        target: as the given file names it; None where the draft proposes a target.
        guesses: lines that were guessed without a look at the records.
        ignored: sections of the given file that the draft does not take over.
    """

    name: str
    section: dict[str, Any]
    draft_locations: dict[str, Any]
    base: Path
    target: str | None
    guesses: list[Guess]
    ignored: list[str]


def draft(source: str, out: Path | None) -> Draft:
    """Draft a job file for a source.

    Args:
        source: a YAML file with a section ``source``, or a file, folder, glob or URI of data files.
        out: where the draft will be written; its relative paths start there.

    Raises:
        ConfigError: no file is found, the files are of no known kind or of several, or no record
            can be read.
    """
    try:
        if out is not None and (out.is_dir() or not out.resolve().parent.is_dir()):
            raise ConfigError(
                f"cannot write {out}: it is a folder, or its folder does not exist",
                "give --out the path of a file in an existing folder",
            )
        is_yaml = source.lower().endswith((".yaml", ".yml")) and not filesystems.is_uri(source)
        origin = _from_yaml(Path(source), out) if is_yaml else _from_location(source, out)
        return _draft(origin)
    except SourceError as error:
        raise ConfigError(error.what, error.remedy) from error


def _from_yaml(path: Path, out: Path | None) -> _Origin:
    data = read_yaml(path)
    section = data.get("source")
    is_store = isinstance(section, dict) and issubclass(
        KINDS.get(str(section.get("kind")), BaseModel), RemoteSource
    )
    if not isinstance(section, dict) or not (is_store or isinstance(section.get("uri"), str)):
        raise ConfigError(
            f"{path} has no section source with a uri, or with the kind of a store",
            "write source: {kind: ..., uri: ...} or {kind: qdrant, url: ...}, or give inspect the "
            "path of the data",
        )
    folder = path.resolve().parent
    base = folder if out is None else out.resolve().parent
    locations: dict[str, Any] = {
        key: filesystems.resolve_path(section[key], folder)
        for key in ("uri", "ca_file")
        if isinstance(section.get(key), str)
    }
    key_file = section["api_key"].get("file") if isinstance(section.get("api_key"), dict) else None
    draft_locations: dict[str, Any] = {
        key: _relative(location, base) for key, location in locations.items()
    }
    if isinstance(key_file, str):
        locations["api_key"] = {"file": filesystems.resolve_path(key_file, folder)}
        draft_locations["api_key"] = {"file": _relative(locations["api_key"]["file"], base)}
    kind_guesses = [] if "kind" in section else [guess_kind(locations["uri"])]
    section = {**section, **locations}
    if kind_guesses:
        section["kind"] = kind_guesses[0].value
    default_name = _name_of(locations["uri"]) if "uri" in locations else str(section["kind"])
    name = data.get("name")
    guesses = [*kind_guesses, *([_name_guess(default_name)] if name is None else [])]
    # everything but the sections that the draft replaces is checked as a job file is
    checked_sections = {
        key: value
        for key, value in data.items()
        if key not in ("mapping", "embedding", "index", "limits", "strict")
    }
    try:
        job = JobSpec.model_validate(
            {
                "name": default_name,
                "target": {"uri": "none"},
                **checked_sections,
                "source": section,
            }
        )
    except ValidationError as error:
        refuse(error, path)
    target = None
    if "target" in data:
        target = _relative(filesystems.resolve_path(job.target.uri, folder), base)
    ignored = sorted(set(data) - {"name", "source", "target"})
    return _Origin(job.name, section, draft_locations, base, target, guesses, ignored)


def _from_location(text: str, out: Path | None) -> _Origin:
    base = Path.cwd() if out is None else out.resolve().parent
    location = filesystems.resolve_path(text, Path.cwd())
    kind, name = guess_kind(location), _name_of(location)
    section = {"kind": kind.value, "uri": location}
    draft_locations = {"uri": location if out is None else _relative(location, base)}
    return _Origin(name, section, draft_locations, base, None, [_name_guess(name), kind], [])


def _name_guess(name: str) -> Guess:
    return Guess("name", name, "from the name of the data; part of every uuid this job makes")


def _relative(location: str, base: Path) -> str:
    """Write an absolute path relative to the draft; a URI stays."""
    if filesystems.is_uri(location):
        return location
    relative = os.path.relpath(location, base)
    return relative if relative.startswith("..") else f"./{relative}"


def _root(location: str) -> str:
    """Give the folder of a glob; any other location stays as it is."""
    while any(c in location for c in "*?[") and not os.path.exists(location):
        location = os.path.dirname(location)
    return location


def _name_of(location: str) -> str:
    stem = os.path.basename(_root(location).rstrip("/"))
    known_suffixes = [
        *CODECS,
        ".lance",
        *(suffix for suffixes in SUFFIXES.values() for suffix in suffixes),
    ]
    while stem.lower().endswith(tuple(known_suffixes)):
        stem = os.path.splitext(stem)[0]
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.") or "corpus"


def _draft(origin: _Origin) -> Draft:
    section = dict(origin.section)
    lines = list(origin.guesses)
    source = _source(section)
    if isinstance(source, Csv) and "delimiter" not in section:
        delimiter = _delimiter(source)
        if delimiter != ",":
            lines.append(
                Guess("source.delimiter", delimiter, "what splits the header into most columns")
            )
            section["delimiter"] = delimiter
            source = _source(section)
    sample = samples.take_sample(source)
    mapping = guesses.mapping(sample)
    if isinstance(source, Csv):
        lines += _csv_types(source, sample, mapping)
    lines += mapping
    mapped_paths = {path for line in lines for path in line.paths}
    kind_of_sample = "records, all of the source" if sample.is_complete else "sampled records"
    facts = [
        f"drafted by cfray inspect from {sample.rows:,} {kind_of_sample}; each line says why",
        *[
            f"{count:,} rows of the sample cannot be read and would go to quarantine: {reason}"
            for reason, count in sample.rejects.most_common(3)
        ],
        *(
            [f"not taken over from the inspected file: {', '.join(origin.ignored)}"]
            if origin.ignored
            else []
        ),
    ]
    unmapped = [dotted(field.path) for field in sample.fields if field.path not in mapped_paths]
    sketch = drafts.Sketch(
        origin.name,
        {**section, **origin.draft_locations},
        origin.target or _target(origin, source),
        lines,
        facts,
        unmapped,
    )
    return Draft(drafts.job_file(sketch), [line.as_json() for line in lines if line.sure])


def _target(origin: _Origin, source: AnySource) -> str:
    """Propose a target beside the draft: a free location, or a target that cfray made.

    The target never lies in the source's folder, from which it would be read.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", origin.name).strip("-.") or "corpus"
    uri = origin.section.get("uri")
    root = Path(_root(uri or ""))
    folder = origin.base
    if uri is not None and not filesystems.is_uri(uri) and (root != Path(uri) or root.is_dir()):
        if folder.is_relative_to(root.resolve()):
            folder = root.resolve().parent
        # wherever the draft is moved to, its target must not be its source
        if source.kind == "lance" and root.name == f"{name}.lance":
            name = f"{name}-frames"
    if (folder / f"{name}.lance").exists() and not (folder / f"{name}.lance.cfray").exists():
        name = f"{name}-frames"
    return _relative(str(folder / f"{name}.lance"), origin.base)


def _source(section: dict[str, Any]) -> AnySource:
    return JobSpec.model_validate(
        {"name": "inspect", "source": section, "target": {"uri": "none"}}
    ).source


def _delimiter(source: Csv) -> str:
    """Find the delimiter that splits the header into most columns; the comma if none splits it."""
    columns: Counter[str] = Counter()
    for delimiter in _DELIMITERS:
        with suppress(SourceError):
            candidate = source.model_copy(update={"delimiter": delimiter})
            first_file = candidate.find_files()[0]
            columns[delimiter] = len(candidate.record_schema(first_file, Context()))
    return columns.most_common(1)[0][0] if columns else ","


def _csv_types(source: Csv, sample: samples.Sample, mapping: list[Guess]) -> Iterator[Guess]:
    """Propose types for lists, for further vectors, and for columns that no rule names.

    A type that loses a character of a text is only offered.
    """
    keys = {path[0]: guess.key for guess in mapping if guess.sure for path in guess.paths}
    for field in sample.fields:
        name = field.path[0]
        if name in source.types:
            continue
        if keys.get(name) == "mapping.vectors":
            yield Guess(
                "source.types", "list<double>", "a further vector is carried as numbers", name=name
            )
        elif name in sample.list_types:
            why = "every sampled text is a JSON list" + (
                "; blanks between its items are not kept" if name in keys else ": kept as text"
            )
            yield Guess("source.types", sample.list_types[name], why, sure=name in keys, name=name)
        elif name not in keys and (fitting := samples.fitting_type(field.texts)):
            type_name, is_lossless = fitting
            sure = is_lossless and not guesses.id_like(field)
            doubt = "named like an id" if is_lossless else "some would not come back the same"
            why = (
                "every sampled text fits and comes back the same"
                if sure
                else f"would fit, but is kept as text: {doubt}"
            )
            yield Guess("source.types", type_name, why, sure=sure, name=name)
