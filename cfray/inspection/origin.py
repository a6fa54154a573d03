"""What is inspected and where the draft will stand: the given file or location, and its jobs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cfray.errors import ConfigError
from cfray.inspection.guess import Guess
from cfray.inspection.kind import Group, look_at
from cfray.job.refusal import refuse
from cfray.job.spec import KINDS, JobSpec
from cfray.job.yaml_file import read_yaml
from cfray.runtime import filesystems
from cfray.sources.files.kinds import SUFFIXES
from cfray.sources.remote import RemoteSource


@dataclass(frozen=True, slots=True)
class Origin:
    """What a draft is made of, and where it will stand.

    Attributes:
        name: of the job; empty where the records name it.
        section: the source section as it is given (parsed YAML), its locations absolute.
        draft_locations: key -> location, as the draft writes it.
        base: folder from which the draft's relative paths start.
        target: as the given file names it; None where the draft proposes a target.
        guesses: lines that were guessed without a look at the records.
        facts: sentences for the top of the draft.
        label: what tells this draft from others of the same location; empty where there is none.
        files: some of the names of its files.
    """

    name: str
    section: Mapping[str, Any]
    draft_locations: Mapping[str, Any]
    base: Path
    target: str | None = None
    guesses: tuple[Guess, ...] = ()
    facts: tuple[str, ...] = ()
    label: str = ""
    files: str = ""

    def alone(self) -> Origin:
        """Take the label off, also from the name: no other draft is made of the location."""
        if not self.label or not self.name.endswith(f"-{self.label}"):
            return replace(self, label="")
        unnamed_guesses = tuple(guess for guess in self.guesses if guess.key != "name")
        named = replace(self, guesses=unnamed_guesses, label="")
        return named.with_name(self.name.removesuffix(f"-{self.label}"))

    def at(self, uri: str) -> Origin:
        """Move another location, written in the draft as the first one is."""
        is_absolute = self.draft_locations["uri"] == self.section["uri"]
        written = uri if is_absolute else relative_to(uri, self.base)
        return replace(
            self,
            section={**self.section, "uri": uri},
            draft_locations={**self.draft_locations, "uri": written},
        )

    def with_name(self, name: str) -> Origin:
        """Name the job after its data."""
        guess = Guess("name", name, "from the name of the data; part of every uuid this job makes")
        return replace(self, name=name, guesses=(guess, *self.guesses))


def find_origins(source: str, out: Path | None) -> list[Origin]:
    """Find what is to be drafted: one job, or one for each kind of files at a location.

    Raises:
        ConfigError: no file is found, or the given file is no job file.
        SourceError: the location cannot be looked at.
    """
    is_yaml = source.lower().endswith((".yaml", ".yml")) and not filesystems.is_uri(source)
    return _from_yaml(Path(source), out) if is_yaml else _from_location(source, out)


def _from_location(text: str, out: Path | None) -> list[Origin]:
    base = Path.cwd() if out is None else out.resolve().parent
    location = filesystems.resolve_path(text, Path.cwd())
    contents = look_at(location)
    name = name_of(location)
    origins = []
    for group in contents.groups:
        uri = group.uri if out is None else relative_to(group.uri, base)
        section = {"kind": group.kind, "uri": group.uri}
        origin = Origin(
            name="",
            section=section,
            draft_locations={"uri": uri},
            base=base,
            guesses=(group.guess,),
            facts=tuple(contents.notes),
            label=group.label,
            files=group.files,
        )
        origins.append(origin.with_name(_job_name(name, group, len(contents.groups))))
    return origins


def _job_name(name: str, group: Group, groups: int) -> str:
    """Name a job: after the data, and where several jobs move them after its part of it, too."""
    if group.kind == "lance" and group.label:
        return group.label
    return f"{name}-{group.label}" if groups > 1 else name


def _from_yaml(path: Path, out: Path | None) -> list[Origin]:
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
    locations = _locations(section, folder)
    origin = Origin(
        name=str(data["name"]) if "name" in data else "",
        section={**section, **locations},
        draft_locations={key: _rewritten(value, base) for key, value in locations.items()},
        base=base,
    )
    groups = [] if "kind" in section else look_at(locations["uri"]).groups
    origins = [_of_group(origin, group, len(groups)) for group in groups] or [origin]
    return [_checked(origin, data, path, folder, is_store=is_store) for origin in origins]


def _locations(section: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Give the locations of a source section, absolute."""
    locations: dict[str, Any] = {
        key: filesystems.resolve_path(section[key], folder)
        for key in ("uri", "ca_file")
        if isinstance(section.get(key), str)
    }
    key_file = section["api_key"].get("file") if isinstance(section.get("api_key"), dict) else None
    if isinstance(key_file, str):
        locations["api_key"] = {"file": filesystems.resolve_path(key_file, folder)}
    return locations


def _rewritten(location: Any, base: Path) -> Any:
    if isinstance(location, dict):
        return {"file": relative_to(location["file"], base)}
    return relative_to(location, base)


def _of_group(origin: Origin, group: Group, groups: int) -> Origin:
    named = replace(
        origin,
        section={**origin.section, "kind": group.kind, "uri": group.uri},
        draft_locations={**origin.draft_locations, "uri": relative_to(group.uri, origin.base)},
        guesses=(group.guess,),
        label=group.label,
        files=group.files,
    )
    if origin.name and groups > 1:
        return replace(named, name=f"{origin.name}-{group.label}")
    return named


def _checked(
    origin: Origin, data: dict[str, Any], path: Path, folder: Path, *, is_store: bool
) -> Origin:
    """Check everything but the sections that the draft replaces, as a job file is checked."""
    uri = origin.section.get("uri")
    if not origin.name and not is_store:
        origin = origin.with_name(name_of(str(uri)))
    replaced = ("mapping", "embedding", "index", "limits", "strict", "name")
    checked = {key: value for key, value in data.items() if key not in replaced}
    try:
        job = JobSpec.model_validate(
            {"target": {"uri": "none"}, **checked, "name": origin.name or "inspect"}
            | {"source": dict(origin.section)}
        )
    except ValidationError as error:
        refuse(error, path)
    ignored = sorted(set(data) - {"name", "source", "target"})
    facts = origin.facts
    if ignored:
        facts += (f"not taken over from the inspected file: {', '.join(ignored)}",)
    target = None
    if "target" in data:
        target = relative_to(filesystems.resolve_path(job.target.uri, folder), origin.base)
    return replace(origin, target=target, facts=facts)


def relative_to(location: str, base: Path) -> str:
    """Write an absolute path relative to the draft; a URI stays."""
    if filesystems.is_uri(location):
        return location
    relative = os.path.relpath(location, base)
    return relative if relative.startswith("..") else f"./{relative}"


def folder_of_glob(location: str) -> str:
    """Give the folder of a glob; any other location stays as it is."""
    while any(c in location for c in "*?[") and not os.path.exists(location):
        location = os.path.dirname(location)
    return location


def name_of(location: str) -> str:
    """Name a job after the file or folder that it moves."""
    stem = os.path.basename(folder_of_glob(location).rstrip("/"))
    known_suffixes = (
        *(".gz", ".zst", ".xz", ".bz2", ".lz4", ".zip", ".lance", ".sql"),
        *(suffix for suffixes in SUFFIXES.values() for suffix in suffixes),
    )
    while stem.lower().endswith(known_suffixes):
        stem = os.path.splitext(stem)[0]
    return plain_file_name(stem)


def plain_file_name(text: str) -> str:
    """Write a text as the name of a file: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "corpus"
