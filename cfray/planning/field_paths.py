"""The paths of a source's fields, as its schema and a sample show them.

A mapping may name only fields that exist.  A source without a fixed schema may have fields that
the sample lacks; of such a source only a missing id, vector or text is a mistake.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator

import pyarrow as pa

from cfray.conversion import list_items
from cfray.conversion.fields import Fields
from cfray.conversion.file_columns import FILE, file_paths
from cfray.errors import ConfigError
from cfray.job.mapping import Path, dotted
from cfray.job.spec import JobSpec
from cfray.records.record import is_variant, parsed, variant_texts, variant_types
from cfray.records.types import SPARSE

#: Keys of the mapping without whose fields a migration makes no sense.
_REQUIRED = ("id", "vector", "text_content", "vectors")
#: Characters of a header that a message shows.
_SHOWN_HEADER = 80
#: Characters that stand between fields, as YAML writes them.
_DELIMITERS = {";": '";"', "\t": r'"\t"', "|": '"|"', ",": '","', "\x01": r'"\x01"'}
#: Fields that a message lists.
_LISTED_FIELDS = 20


def check_paths(job: JobSpec, batches: list[pa.RecordBatch], *, fixed: bool) -> None:
    """Refuse a mapping that names a field that no record has.

    Args:
        job: the job file.
        batches: the sample.
        fixed: whether the source has a fixed schema.

    Raises:
        ConfigError: names the key, the path and the nearest field of the source.
    """
    paths: set[Path] = set()
    for batch in batches:
        paths |= file_paths(batch)
        for item, column in zip(batch.schema, batch.columns, strict=True):
            paths |= set(nested_paths((item.name,), item, column))
    missing_paths: dict[str, list[Path]] = {}
    asked = [("cases", case.when.path) for case in job.mapping.cases]
    for key, path in [*job.mapping.rules(), *asked]:
        if not (_is_among(path, paths) or _leads_to_item(path, batches)):
            missing_paths.setdefault(key, []).append(path)
    for key, missing in missing_paths.items():
        rule = job.mapping.rule_of(key)
        column = re.sub(r"^cases\.\d+\.", "", key)
        is_fallback = (
            isinstance(rule, list)
            and column not in ("relationships.to", "cases")
            and len(missing) < len(rule)
        )
        if not is_fallback and (fixed or column.split(".")[0] in _REQUIRED):
            raise _no_field(job, key, missing[0], paths)


def _is_among(path: Path, paths: Iterable[Path]) -> bool:
    """Tell whether a path is one of the paths, or leads towards one."""
    return any(other[: len(path)] == path for other in paths)


def _leads_to_item(path: Path, batches: list[pa.RecordBatch]) -> bool:
    """Tell whether a path leads into an item of a list (``data[0]``)."""
    return list_items.has_steps([path]) and any(
        _is_among(path, Fields(batch, {path}).columns) for batch in batches
    )


def _no_field(job: JobSpec, key: str, path: Path, paths: set[Path]) -> ConfigError:
    """Say that a rule names a field that does not exist."""
    names = sorted(map(_written, paths))
    nearest = difflib.get_close_matches(dotted(path), names, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else f"it has {_shortened(names)}"
    is_default = key == "id" and "id" not in job.mapping.model_fields_set
    if delimiter := _other_delimiter(job, names):
        return ConfigError(
            f"mapping.{key}: the source has no field {dotted(path)}, for its header is one column: "
            f"{max(names, key=len)[:_SHOWN_HEADER]}",
            f"write source.delimiter: {delimiter} in the job file; nothing was created",
        )
    return ConfigError(
        f"mapping.{key}{' (its default)' if is_default else ''}: the source has no field "
        f"{dotted(path)}; {hint}",
        "correct the mapping in the job file; nothing was created",
    )


def _written(path: Path) -> str:
    """Write a path as a mapping takes it: a name with a dot is no path of two."""
    name = dotted(path)
    is_plain = len(path) == name.count(".") + 1
    return name if is_plain else f"{{path: [{', '.join(path)}]}}"


def _other_delimiter(job: JobSpec, names: list[str]) -> str:
    """Give the delimiter, as YAML, of a CSV header that was read as a single column."""
    columns = [name for name in names if not name.startswith(FILE)]
    if job.source.kind != "csv" or len(columns) != 1:
        return ""
    counts = {mark: columns[0].count(mark) for mark in _DELIMITERS}
    mark = max(_DELIMITERS, key=counts.__getitem__)
    return _DELIMITERS[mark] if counts[mark] else ""


def _shortened(names: list[str]) -> str:
    listed = ", ".join(names[:_LISTED_FIELDS])
    return listed if len(names) <= _LISTED_FIELDS else f"{listed}, ..."


def nested_paths(path: Path, item: pa.Field, column: pa.Array) -> Iterator[Path]:
    """List the path of a column and the paths of all fields in it.

    The keys of an object are looked up in the values, for a variant column has no schema.
    """
    yield path
    if is_variant(item):
        kinds, texts = variant_types(column).to_pylist(), variant_texts(column).to_pylist()
        objects = [
            parsed(text) for kind, text in zip(kinds, texts, strict=True) if kind == "struct"
        ]
        yield from _object_paths(path, objects)
    elif pa.types.is_struct(item.type) and not item.type.equals(SPARSE):
        for child in item.type:
            yield from nested_paths((*path, child.name), child, pa.nulls(0, child.type))


def _object_paths(path: Path, values: list[object]) -> Iterator[Path]:
    """List the paths of the keys of all objects among these values, at any depth."""
    objects = [value for value in values if isinstance(value, dict)]
    for key in {key for value in objects for key in value}:
        yield (*path, key)
        yield from _object_paths((*path, key), [value[key] for value in objects if key in value])
