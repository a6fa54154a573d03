"""The target that a draft proposes: beside it, outside of the source, and of no other job."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import yaml

from cfray.inspection.origin import Origin, folder_of_glob, plain_file_name, relative_to
from cfray.runtime import filesystems

#: Job files beside the draft that are looked at.
_MOST_JOB_FILES = 200


def propose_target(origin: Origin, kind: str) -> str:
    """Propose a target beside the draft: a free location, or one that this source's job made.

    The target never lies in the source's folder, from which it would be read.
    """
    name = plain_file_name(origin.name)
    uri = origin.section.get("uri")
    root = Path(folder_of_glob(uri or ""))
    folder = origin.base
    if uri is not None and not filesystems.is_uri(uri) and (root != Path(uri) or root.is_dir()):
        if folder.is_relative_to(root.resolve()):
            folder = root.resolve().parent
        # wherever the draft is moved to, its target must not be its source
        if kind == "lance" and root.name == f"{name}.lance":
            name = f"{name}-frames"
    if (folder / f"{name}.lance").exists() and not (folder / f"{name}.lance.cfray").exists():
        name = f"{name}-frames"
    foreign_targets = _targets_of_others(origin)
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    free = next(
        name
        for name in names
        if folder / f"{name}.lance" not in foreign_targets
        and not _was_made_of_another(folder / f"{name}.lance.cfray" / "job.json", origin)
    )
    return relative_to(str(folder / f"{free}.lance"), origin.base)


def _targets_of_others(origin: Origin) -> set[Path]:
    """List the targets of the job files beside the draft that read another source."""
    targets = set()
    for path in sorted(origin.base.glob("*.y*ml"))[:_MOST_JOB_FILES]:
        try:
            job = yaml.safe_load(path.read_text(encoding="utf-8"))
            source, target = job["source"], job["target"]["uri"]
            is_same = _reads_the_same(source, origin, path.parent)
        except (OSError, UnicodeError, yaml.YAMLError, TypeError, KeyError, ValueError):
            continue  # no job file
        if not is_same and isinstance(target, str) and not filesystems.is_uri(target):
            targets.add(Path(filesystems.resolve_path(target, path.parent)))
    return targets


def _reads_the_same(source: dict[str, object], origin: Origin, folder: Path) -> bool:
    """Tell whether a job file reads what the draft reads; a folder and a glob in it are one."""
    keys = ("kind", "url", "records", "collections")
    if any(source.get(key) != origin.section.get(key) for key in keys):
        return False
    uri, drafted_uri = source.get("uri"), origin.section.get("uri")
    if isinstance(uri, str) and isinstance(drafted_uri, str):
        return folder_of_glob(filesystems.resolve_path(uri, folder)) == folder_of_glob(drafted_uri)
    return uri == drafted_uri


def _was_made_of_another(agreement: Path, origin: Origin) -> bool:
    """Tell whether a target exists that a job of another source made."""
    uri = origin.section.get("uri")
    try:
        text = agreement.read_text(encoding="utf-8")
    except OSError:
        return False
    return uri is not None and json.dumps(folder_of_glob(str(uri)))[1:-1] not in text
