"""JSON files of several arrays of records: exports that need a job each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cfray.errors import SourceError
from cfray.formats.json_arrays import Path, find_arrays, record_arrays
from cfray.inspection.guess import Guess
from cfray.inspection.origin import Origin, plain_file_name
from cfray.inspection.spread import spread
from cfray.inspection.variants import list_variants
from cfray.runtime.plurals import counted
from cfray.sources.files.json import JsonFile
from cfray.sources.files.json_text import open_text
from cfray.sources.files.listing import PinnedFile

#: Files that are read for their arrays.
_MOST_FILES = 16
#: Arrays that are drafted; a file of more is one of maps rather than of exports.
_MOST_ARRAYS = 20
#: Arrays that describe the columns of others, and who writes them.
_DESCRIPTIONS: dict[Path, str] = {
    ("schema", "fields"): "describes the columns, as pandas' orient='table' does"
}


def split_by_array(origin: Origin) -> list[Origin]:
    """Make an origin of each array of records; what cannot be split stays as it is."""
    if origin.section.get("kind") != "json" or {"records", "orient"} & set(origin.section):
        return [origin]
    try:
        source = list_variants(origin)[0].source
        if not isinstance(source, JsonFile) or source.records is None:
            return [origin]
        files = [file for file in source.find_files() if file.size]
        counts = _count_records(spread(files, _MOST_FILES))
    except SourceError:
        return [origin]
    ignored = [path for path in counts if path in _DESCRIPTIONS and len(counts) > 1]
    paths = [path for path in counts if path not in ignored]
    if not 1 < len(counts) <= _MOST_ARRAYS:
        return [origin]
    return [_part(origin, path, counts, ignored, is_alone=len(paths) == 1) for path in paths]


def _count_records(files: Iterable[PinnedFile]) -> dict[Path, int]:
    """Count the records of the arrays of all files that ``source.records`` can name."""
    counts: dict[Path, int] = {}
    for file in files:
        with open_text(file) as blocks:
            for path, count in record_arrays(find_arrays(blocks)):
                if not any("." in key or not key for key in path):
                    counts[path] = counts.get(path, 0) + count
    return counts


def _part(
    origin: Origin,
    path: Path,
    counts: dict[Path, int],
    ignored: list[Path],
    *,
    is_alone: bool,
) -> Origin:
    """Make an origin of one array, with a line for the arrays that it leaves."""
    records = ".".join(path)
    other_counts = {
        ".".join(other): counts[other] for other in counts if other not in (path, *ignored)
    }
    guesses = [*origin.guesses]
    why = counted(counts[path], "record")
    if other_counts:
        listed = ", ".join(f"{name} ({count:,})" for name, count in other_counts.items())
        why += f"; not read by this job, but by drafts of their own: {listed}"
    guesses.append(Guess("source.records", records, why))
    section = {**origin.section, "records": records}
    if ignored:
        section["ignore"] = [".".join(other) for other in ignored]
        guesses.append(Guess("source.ignore", section["ignore"], _DESCRIPTIONS[ignored[0]]))
    if other_counts:
        why = "uncomment when other jobs have read these, and plan no longer warns of them"
        guesses.append(Guess("source.ignore", [*other_counts], why, sure=False))
    if is_alone:
        return replace(origin, section=section, guesses=tuple(guesses))
    label = plain_file_name("-".join(filter(None, [origin.label, *path])))
    name = origin.name.removesuffix(f"-{origin.label}") if origin.label else origin.name
    unnamed = tuple(guess for guess in guesses if guess.key != "name")
    part = replace(origin, section=section, guesses=unnamed, label=label)
    return part.with_name(f"{name}-{label}")
