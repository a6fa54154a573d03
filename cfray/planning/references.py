"""References in the plan: where the source says they point, and which of the sample dangle.

A reference is written without looking up what it points to, so a reference of another type than
the ids would dangle in silence.  The sample shows it, except that what a reference points to may
lie outside the sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cfray.conversion.cases import shape_numbers
from cfray.conversion.fields import Fields
from cfray.conversion.relationships import resolved_references
from cfray.errors import ConfigError
from cfray.job.mapping import (
    Key,
    RelationshipRule,
    SourceShape,
    dotted,
    rule_paths,
    rules_by_shape,
)
from cfray.job.spec import JobSpec
from cfray.planning.sample import Sample
from cfray.sources.base import Description

_TYPES = {
    "s": "texts",
    "i": "integers",
    "u": "UUIDs",
    "o": "ObjectIds",
    "b": "bytes",
    "j": "composite ids",
}


def check_references(job: JobSpec, description: Description) -> None:
    """Refuse a rule that points elsewhere than the source itself says.

    Raises:
        ConfigError: names the field, and where the source and the job file say that it points.
    """
    for rule, _ in rules_by_shape(job.mapping, "relationships"):
        _check_rule(rule, description.references, "")
        for collection in description.collections:
            _check_rule(rule, collection.references, f" of {collection.name}")


def _check_rule(rule: RelationshipRule, references: dict[str, str], whose: str) -> None:
    """Refuse a rule that points elsewhere than the source, or one collection of it, declares."""
    declared = {
        path: references[path] for path in map(dotted, rule_paths(rule.to)) if path in references
    }
    for path, collection in declared.items():
        if rule.collection not in (None, collection):
            remedy = (
                "leave the key out"
                if whose
                else f"write collection: {collection}, or leave the key out"
            )
            raise ConfigError(
                f"mapping.relationships: {path}{whose} refers to {collection}, as the source "
                f"declares, and the job file says collection: {rule.collection}",
                f"{remedy}; nothing was created",
            )
    if len(set(declared.values())) > 1:
        listed = ", ".join(f"{path} to {name}" for path, name in declared.items())
        raise ConfigError(
            f"mapping.relationships: the fields of one rule refer to several collections, as "
            f"the source declares: {listed}",
            "write a rule for each field; nothing was created",
        )


@dataclass(slots=True)
class _Tally:
    """What became of the references of one rule in the sample.

    Attributes:
        total: references.
        dangling: those that point to no record of the sample.
        other_type: those that are of another type than the ids, and what they are.
        example: one that dangles, as ``tag:text``.
    """

    total: int = 0
    dangling: int = 0
    other_type: int = 0
    example: str = ""


def reference_notes(
    job: JobSpec, shape: SourceShape, sample: Sample, uuids: pa.StringArray
) -> tuple[list[str], list[str]]:
    """Say of each rule how many references of the sample point to no record of the sample.

    Args:
        job: the job file.
        shape: of the source.
        sample: of its records.
        uuids: of the frames that the sample gives.

    Returns:
        notes on rules of which some references dangle, and warnings about rules of which all do.
    """
    notes, warnings = [], []
    for rule, shapes in rules_by_shape(job.mapping, "relationships"):
        tally = _tally(job, shape, (rule, shapes), sample, uuids)
        if rule.job not in (None, job.name):
            if tally.total:
                notes.append(
                    f"{_counted(rule, tally)} lead to records of the job {rule.job}, for example "
                    f"{_example(tally)}: whether they are there is counted in the dataset of both "
                    "jobs (kind: targets)"
                )
        elif warning := _warning(rule, shape, tally, is_complete=sample.is_complete):
            warnings.append(warning)
        elif tally.dangling:
            caution = "" if sample.is_complete else "; that may lie outside the sample"
            notes.append(
                f"{_counted(rule, tally)} point to a record that the sample lacks, for example "
                f"{_example(tally)}{caution}"
            )
    return notes, warnings


def _tally(
    job: JobSpec,
    shape: SourceShape,
    rule_and_shapes: tuple[RelationshipRule, list[int]],
    sample: Sample,
    uuids: pa.StringArray,
) -> _Tally:
    """Count the references of one rule, in the records of the shapes that it is for."""
    tally, (rule, shapes) = _Tally(), rule_and_shapes
    paths = job.mapping.paths
    for batch, collection in zip(sample.batches, sample.collections, strict=True):
        fields = Fields(batch, paths, blank_is_null=shape.blank_is_null)
        if job.mapping.cases:
            is_of_rule = np.isin(shape_numbers(fields, job.mapping.cases), shapes)
            of_rule = batch.filter(pa.array(is_of_rule))
            fields = Fields(of_rule, paths, blank_is_null=shape.blank_is_null)
        _, tagged, targets = resolved_references(fields, job, shape, rule, collection)
        if not len(tagged):
            continue
        dangles = pc.invert(pc.is_in(targets, value_set=uuids))
        has_type = pc.starts_with(tagged, f"{shape.id_tag}:")
        tally.total += len(tagged)
        tally.dangling += pc.sum(dangles).as_py()
        tally.other_type += pc.sum(pc.and_(dangles, pc.invert(has_type))).as_py()
        examples = tagged.filter(dangles)
        tally.example = tally.example or (examples[0].as_py() if len(examples) else "")
    return tally


def _warning(
    rule: RelationshipRule, shape: SourceShape, tally: _Tally, *, is_complete: bool
) -> str | None:
    """Warn of a rule of which every reference dangles for certain."""
    if tally.total and tally.other_type == tally.total:
        kind = _TYPES.get(tally.example[:1], "something else")
        return (
            f"ALL REFERENCES DANGLE: {_counted(rule, tally)} are {kind}, and the ids are "
            f"{_TYPES.get(shape.id_tag, shape.id_tag)}: for example {_example(tally)}. Correct "
            "mapping.relationships, or give both fields one type in the source"
        )
    if tally.total and tally.dangling == tally.total and is_complete:
        return (
            f"ALL REFERENCES DANGLE: {_counted(rule, tally)} point to a record that the source "
            f"lacks, for example {_example(tally)}: the ids are spelled otherwise, or the records "
            "are elsewhere (collection: ...)"
        )
    return None


def _counted(rule: RelationshipRule, tally: _Tally) -> str:
    names = " or ".join(dotted(path) for path in rule_paths(rule.to))
    if isinstance(rule.to, Key):
        names = f"({names})"
    return f"{tally.dangling:,} of {tally.total:,} references of the sample ({names})"


def _example(tally: _Tally) -> str:
    return repr(tally.example.partition(":")[2])
