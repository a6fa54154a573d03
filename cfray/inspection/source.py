"""Inspect: look at a source and draft the job files that move it, with a reason on every line.

A draft runs unedited where the sample shows an id; where it shows none, the id's line stays
empty, which ``plan`` refuses.  This module writes nothing: the command line decides where the
texts go.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from cfray.errors import CfrayError, ConfigError, SourceError
from cfray.inspection.attempt import Attempt, attempt_draft
from cfray.inspection.csv_tables import split_by_header
from cfray.inspection.ids import FILL_IN
from cfray.inspection.json_tables import split_by_array
from cfray.inspection.origin import Origin, find_origins, plain_file_name
from cfray.inspection.variants import Variant, list_variants
from cfray.sources.base import Json
from cfray.sources.files.unread_arrays import NOT_READ

#: Share of the sampled records that may go to quarantine before other ways to read the files are
#: tried.
_TOLERATED = 0.01
#: Share of the sampled records that may go to quarantine before another delimiter than the
#: likeliest is tried: with a wrong one a whole line is a field, and nothing in it is unreadable.
_OTHER_DELIMITER = 0.5
#: Ways to read the files that are tried at most.
_MAX_ATTEMPTS = 6


@dataclass(frozen=True, slots=True)
class Draft:
    """A drafted job file.

    Attributes:
        text: YAML with comments.
        guesses: ``{key, value, why}`` of every line that was guessed and is not commented out
            (parsed JSON).
        label: what tells it from the other drafts of the same location; empty where it is alone.
        is_export: false where its files are single objects of JSON without a text or a vector, as
            libraries write them beside an export.
        missing: why its id must be filled in; empty where it runs unedited.
        warnings: what ``cfray plan`` would warn of.
    """

    text: str
    guesses: list[dict[str, Json]]
    label: str = ""
    is_export: bool = True
    missing: str = ""
    warnings: tuple[str, ...] = ()


def path_of(draft: Draft, out: Path) -> Path:
    """Say where a draft goes: beside ``out``, with its label in the name, where it has one."""
    if not draft.label:
        return out
    return out.with_name(f"{out.stem}-{plain_file_name(draft.label)}{out.suffix}")


def as_documents(drafts: list[Draft]) -> str:
    """Write drafts as one text; several as YAML documents, each with a line that numbers it."""
    if len(drafts) == 1:
        return drafts[0].text
    return "".join(
        f"---\n# draft {number} of {len(drafts)}, of {draft.label}: a job file each; --out "
        f"writes them to files\n{draft.text}"
        for number, draft in enumerate(drafts, 1)
    )


def draft(source: str, out: Path | None) -> Draft:
    """Draft the job file of a location that one job moves.

    Args:
        source: a YAML file with a section ``source``, or a file, folder, glob or URI of data files.
        out: where the draft will be written; its relative paths start there.

    Raises:
        ConfigError: no file is found, the files are of no known kind or need several jobs, or no
            record can be read.
    """
    drafts = draft_all(source, out)
    if len(drafts) > 1:
        raise ConfigError(
            f"{source} needs a job for each of: {', '.join(draft.label for draft in drafts)}",
            "draft them with draft_all",
        )
    return drafts[0]


def draft_all(source: str, out: Path | None) -> list[Draft]:
    """Draft a job file for each kind of files, or each table, at a location.

    Raises:
        ConfigError: as ``draft``, but several jobs are several drafts.
    """
    try:
        if out is not None and (out.is_dir() or not out.resolve().parent.is_dir()):
            what = "it is a folder" if out.is_dir() else f"there is no folder {out.parent}"
            raise ConfigError(
                f"cannot write {out}: {what}",
                "give --out the path of a file in an existing folder",
            )
        origins = [
            part
            for origin in find_origins(source, out)
            for by_header in split_by_header(origin)
            for part in split_by_array(by_header)
        ]
        origins = _with_different_labels(origins)
        if len(origins) == 1:
            return [_draft(origins[0], [])]
        return _draft_each(origins)
    except SourceError as error:
        raise ConfigError(error.what, error.remedy) from error


def _with_different_labels(origins: list[Origin]) -> list[Origin]:
    """Number the drafts that would be written to one file, or propose one target."""
    labels: Counter[str] = Counter()
    different = []
    for origin in origins:
        label = plain_file_name(origin.label)
        labels[label] += 1
        if origin.label and labels[label] > 1:
            unnamed = tuple(guess for guess in origin.guesses if guess.key != "name")
            numbered = f"{origin.label}-{labels[label]}"
            relabelled = replace(origin, label=numbered, guesses=unnamed)
            different.append(relabelled.with_name(f"{origin.name}-{labels[label]}"))
        else:
            different.append(origin)
    return different


def _draft_each(origins: list[Origin]) -> list[Draft]:
    """Draft several jobs; what is no export beside others that are is named, not drafted.

    Raises:
        CfrayError: none of them can be drafted; gives the reason of the first.
    """
    drafts: dict[int, Draft] = {}
    reasons: dict[int, CfrayError | str] = {}
    for number, origin in enumerate(origins):
        try:
            drafts[number] = _draft(origin, [])
        except (SourceError, ConfigError) as error:
            reasons[number] = error
    if any(draft.is_export for draft in drafts.values()):
        for number in [number for number, draft in drafts.items() if not draft.is_export]:
            reasons[number] = "single objects without a text or a vector"
            del drafts[number]
    for reason in reasons.values():
        if not drafts and isinstance(reason, CfrayError):
            raise reason
    facts = [
        f"not drafted, kind {origins[number].section['kind']} ({origins[number].files}): "
        f"{getattr(reason, 'what', reason)}"
        for number, reason in reasons.items()
    ]
    if not facts:
        return list(drafts.values())
    drafted_origins = [origins[number] for number in drafts]
    if len(drafted_origins) == 1:
        drafted_origins = [drafted_origins[0].alone()]
    return [_draft(origin, facts) for origin in drafted_origins]


def _draft(origin: Origin, facts: list[str]) -> Draft:
    """Draft a job file in the way to read the files that loses least, the likeliest first."""
    attempts: list[tuple[Variant, Attempt]] = []
    failures: list[tuple[Variant, CfrayError]] = []
    variants = list_variants(origin)[:_MAX_ATTEMPTS]
    for variant in variants:
        is_readable = any(attempt.loss <= _OTHER_DELIMITER for _, attempt in attempts)
        if is_readable and variant.delimiter != variants[0].delimiter:
            continue
        try:
            attempts.append((variant, attempt_draft(origin, variant)))
        except (SourceError, ConfigError) as error:
            failures.append((variant, error))
            continue
        if attempts[-1][1].loss <= _TOLERATED:
            break
    if not attempts:
        raise failures[0][1]
    # of two that lose the same, min takes the first
    variant, best = min(attempts, key=lambda item: item[1].loss)
    passed_over = [
        f"passed over, {other.name}: {attempt.complaint}"
        for other, attempt in attempts
        if other is not variant
    ] + [f"passed over, {other.name}: {error.what}" for other, error in failures]
    sketch = best.sketch.with_facts([*passed_over, *facts])
    guesses = [line.as_json() for line in sketch.guesses if line.sure]
    missing = [
        line.why.removeprefix(f"{FILL_IN}: ")
        for line in sketch.guesses
        if line.sure and line.key == "mapping.id" and line.value is None
    ]
    lines = [f"{line.key}: {line.why}" for line in sketch.guesses if line.warns]
    warnings = (*best.trial.warnings, *lines)
    if origin.label and "records" in origin.section:
        # the other arrays have drafts of their own
        warnings = tuple(text for text in warnings if not text.startswith(NOT_READ))
    if best.trial.refusal is not None:
        warnings = (f"THE PLAN WOULD BE REFUSED: {best.complaint}", *warnings)
    return Draft(sketch.text, guesses, origin.label, best.is_export, "".join(missing[:1]), warnings)
