"""Inspect: look at a source and draft the job file that moves it.

With the reason for every guess on its line.

The draft runs unedited on a sane export and fails loudly on another: where no
id can be found the line is left empty, which ``plan`` refuses.  Writes nothing;
the command line decides where the text goes.
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

import pyarrow.fs as pafs
from pydantic import BaseModel, ValidationError

from cfray.errors import ConfigError, SourceError
from cfray.inspection import drafts, guesses, samples
from cfray.inspection.guesses import Guess
from cfray.job.file import read_yaml, refuse
from cfray.job.mapping import dotted
from cfray.job.spec import KINDS, AnySource, JobSpec
from cfray.runtime import filesystems
from cfray.sources.base import Context, Json
from cfray.sources.files.base import FileSource
from cfray.sources.files.csv import Csv
from cfray.sources.files.listing import CODECS, listed
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
        written: the locations as the draft writes them, by key.
        base: folder the draft's relative paths start from.
        target: as given; None to propose one.
        guessed: lines that were guessed on the way here.
        ignored: sections of the given file that the draft does not take over.
    """

    name: str
    section: dict[str, Any]
    written: dict[str, Any]
    base: Path
    target: str | None
    guessed: list[Guess]
    ignored: list[str]


def draft(source: str, out: Path | None) -> Draft:
    """Draft a job file for a source.

    Args:
        source: a YAML file with a section ``source``, or a file, folder, glob or URI of data files.
        out: where the draft will be written; its relative paths start there.

    Raises:
        ConfigError: nothing there, no or more than one known kind of file, or nothing that can be
            read.
    """
    try:
        if out is not None and (out.is_dir() or not out.resolve().parent.is_dir()):
            raise ConfigError(
                f"cannot write {out}: it is a folder, or its folder does not exist",
                "give --out the path of a file in an existing folder",
            )
        is_yaml = source.lower().endswith((".yaml", ".yml")) and not filesystems.is_uri(source)
        origin = _from_yaml(Path(source), out) if is_yaml else _from_place(source, out)
        return _drafted(origin)
    except SourceError as error:
        raise ConfigError(error.what, error.remedy) from error


def _from_yaml(path: Path, out: Path | None) -> _Origin:
    data = read_yaml(path)
    section = data.get("source")
    store = isinstance(section, dict) and issubclass(
        KINDS.get(str(section.get("kind")), BaseModel), RemoteSource
    )
    if not isinstance(section, dict) or not (store or isinstance(section.get("uri"), str)):
        raise ConfigError(
            f"{path} has no section source with a uri, or with the kind of a store",
            "write source: {kind: ..., uri: ...} or {kind: qdrant, url: ...}, or give inspect the data's own path",
        )
    own = path.resolve().parent
    base = own if out is None else out.resolve().parent
    places: dict[str, Any] = {
        key: filesystems.absolute(section[key], own)
        for key in ("uri", "ca_file")
        if isinstance(section.get(key), str)
    }
    key_file = section["api_key"].get("file") if isinstance(section.get("api_key"), dict) else None
    written: dict[str, Any] = {key: _written(place, base) for key, place in places.items()}
    if isinstance(key_file, str):
        places["api_key"] = {"file": filesystems.absolute(key_file, own)}
        written["api_key"] = {"file": _written(places["api_key"]["file"], base)}
    guessed = [] if "kind" in section else [_kind_of(places["uri"])]
    section = {**section, **places}
    if guessed:
        section["kind"] = guessed[0].value
    named = _name_of(places["uri"]) if "uri" in places else str(section["kind"])
    name = data.get("name")
    if name is None:
        guessed.append(
            Guess("name", named, "from the data's own name; part of every uuid this job makes")
        )
    # everything but the sections that the draft replaces is checked as a job file is
    rest = {
        key: value
        for key, value in data.items()
        if key not in ("mapping", "embedding", "index", "limits", "strict")
    }
    try:
        job = JobSpec.model_validate(
            {"name": named, "target": {"uri": "none"}, **rest, "source": section}
        )
    except ValidationError as error:
        refuse(error, path, {"source": section})
    target = (
        None if "target" not in data else _written(filesystems.absolute(job.target.uri, own), base)
    )
    ignored = sorted(set(data) - {"name", "source", "target"})
    return _Origin(job.name, section, written, base, target, guessed, ignored)


def _from_place(text: str, out: Path | None) -> _Origin:
    base = Path.cwd() if out is None else out.resolve().parent
    place = filesystems.absolute(text, Path.cwd())
    kind = _kind_of(place)
    name = _name_of(place)
    guessed = [
        Guess("name", name, "from the data's own name; part of every uuid this job makes"),
        kind,
    ]
    written = {"uri": place if out is None else _written(place, base)}
    return _Origin(name, {"kind": kind.value, "uri": place}, written, base, None, guessed, [])


def _written(place: str, base: Path) -> str:
    """Write an absolute path relative to the draft; a URI stays."""
    if filesystems.is_uri(place):
        return place
    relative = os.path.relpath(place, base)
    return relative if relative.startswith("..") else f"./{relative}"


def _root(place: str) -> str:
    """Give the folder of a glob; anything else as it is."""
    while any(c in place for c in "*?[") and not os.path.exists(place):
        place = os.path.dirname(place)
    return place


def _name_of(place: str) -> str:
    stem = os.path.basename(_root(place).rstrip("/"))
    known = [
        *CODECS,
        ".lance",
        *(suffix for model in _file_kinds().values() for suffix in model.suffixes),
    ]
    while stem.lower().endswith(tuple(known)):
        stem = os.path.splitext(stem)[0]
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-.") or "corpus"


def _file_kinds() -> dict[str, type[FileSource]]:
    return {kind: model for kind, model in KINDS.items() if issubclass(model, FileSource)}


def _kind_of(place: str) -> Guess:
    """Guess the kind of source from what lies at a place.

    Raises:
        ConfigError: nothing, nothing known, or several kinds.
    """
    try:
        system, path = filesystems.filesystem(place)
        versions = system.get_file_info(f"{path.rstrip('/')}/_versions")
    except OSError as error:
        raise ConfigError(
            f"cannot look at {place}: {error}",
            "check that the filesystem answers and that its credentials are set",
        ) from error
    if versions.type == pafs.FileType.Directory:
        return Guess("source.kind", "lance", "the folder holds _versions, as a Lance dataset does")
    files = listed(place)
    if not files:
        raise ConfigError(
            f"no file at {place}",
            "give the path of a file, a folder, a glob or a YAML file with a section source",
        )
    found: dict[str, list[str]] = {}
    for file in files:
        found.setdefault(_suffix_kind(file.name), []).append(file.name)
    known = {kind: names for kind, names in found.items() if kind}
    kinds = "; ".join(
        f"{kind}: {', '.join(model.suffixes)}" for kind, model in _file_kinds().items()
    )
    if not known:
        raise ConfigError(
            f"no known kind of file at {place}: {', '.join(found[''][:5])}",
            f"name the kind in a YAML file with source: {{kind: ..., uri: ...}}; known suffixes are {kinds} (and .gz, .zst behind them); lance: a dataset's folder",
        )
    folder = system.get_file_info(path).type == pafs.FileType.Directory
    if len(known) > 1 or (not folder and len(found) > 1):  # a glob reads every file it matches
        told = "; ".join(
            f"{len(names):,} {kind or 'unknown'} ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''})"
            for kind, names in found.items()
        )
        raise ConfigError(
            f"{place} holds several kinds of files: {told}",
            "inspect one kind at a time: give a glob, or a YAML file that names source.kind",
        )
    (kind, names), *_ = known.items()
    return Guess(
        "source.kind",
        kind,
        f"by the suffix of {names[0] if len(names) == 1 else f'{len(names):,} files'}",
    )


def _suffix_kind(name: str) -> str:
    stem = name.lower()
    for codec in CODECS:
        stem = stem.removesuffix(codec)
    return next(
        (kind for kind, model in _file_kinds().items() if stem.endswith(model.suffixes)), ""
    )


def _drafted(origin: _Origin) -> Draft:
    section = dict(origin.section)
    lines = list(origin.guessed)
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
    found = guesses.mapping(sample)
    if isinstance(source, Csv):
        lines += _csv_types(source, sample, found)
    lines += found
    used = {path for line in lines for path in line.paths}
    facts = [
        f"drafted by cfray inspect from {sample.rows:,} {'records, all there are' if sample.whole else 'sampled records'}; each line says why",
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
    rest = [dotted(field.path) for field in sample.fields if field.path not in used]
    sketch = drafts.Sketch(
        origin.name,
        {**section, **origin.written},
        origin.target or _target(origin, source),
        lines,
        facts,
        rest,
    )
    return Draft(drafts.job_file(sketch), [line.as_json() for line in lines if line.sure])


def _target(origin: _Origin, source: AnySource) -> str:
    """Propose a place beside the draft that is free or ours, but never inside the source's folder.

    Which it would be read from.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", origin.name).strip("-.") or "corpus"
    place = origin.section.get("uri")
    root = Path(_root(place or ""))
    folder = origin.base
    if (
        place is not None
        and not filesystems.is_uri(place)
        and (root != Path(place) or root.is_dir())
    ):
        if folder.is_relative_to(root.resolve()):
            folder = root.resolve().parent
        if (
            source.kind == "lance" and root.name == f"{name}.lance"
        ):  # wherever the draft is taken, it must not name its own source
            name = f"{name}-frames"
    if (folder / f"{name}.lance").exists() and not (folder / f"{name}.lance.cfray").exists():
        name = f"{name}-frames"
    return _written(str(folder / f"{name}.lance"), origin.base)


def _source(section: dict[str, Any]) -> AnySource:
    return JobSpec.model_validate(
        {"name": "inspect", "source": section, "target": {"uri": "none"}}
    ).source


def _delimiter(source: Csv) -> str:
    """Find what splits the header into most columns; the comma where nothing splits it."""
    columns: Counter[str] = Counter()
    for delimiter in _DELIMITERS:
        with suppress(SourceError):
            other = source.model_copy(update={"delimiter": delimiter})
            columns[delimiter] = len(other.record_schema(other.files()[0], Context()))
    return columns.most_common(1)[0][0] if columns else ","


def _csv_types(source: Csv, sample: samples.Sample, found: list[Guess]) -> Iterator[Guess]:
    """Propose types for columns: lists, further vectors.

    What no rule takes where a type loses no character.
    """
    used = {path[0]: guess.key for guess in found if guess.sure for path in guess.paths}
    for field in sample.fields:
        name = field.path[0]
        if name in source.types:
            continue
        if used.get(name) == "mapping.vectors":
            yield Guess(
                "source.types", "list<double>", "a further vector is carried as numbers", name=name
            )
        elif name in sample.typed:
            why = "every sampled text is a JSON list" + (
                "; blanks between its items are not kept" if name in used else ": kept as text"
            )
            yield Guess("source.types", sample.typed[name], why, sure=name in used, name=name)
        elif name not in used and (fits := samples.fitting_type(field.texts)):
            wanted, same = fits
            sure = same and not guesses.id_like(field)
            named = "named like an id" if same else "some would not come back the same"
            why = (
                "every sampled text fits and comes back the same"
                if sure
                else f"would fit, but is kept as text: {named}"
            )
            yield Guess("source.types", wanted, why, sure=sure, name=name)
