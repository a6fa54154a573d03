"""A whole draft of a source that is read in one way, and what its plan would say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cfray.inspection.csv_columns import find_list_types, guess_types, with_types
from cfray.inspection.drafts import Sketch
from cfray.inspection.guess import Guess
from cfray.inspection.numbered_columns import name_spread_vectors
from cfray.inspection.origin import Origin
from cfray.inspection.samples import Sample, take_sample
from cfray.inspection.shapes import guess_shapes
from cfray.inspection.store_fields import keep_one_width, undeclared_references
from cfray.inspection.store_names import name_of_store
from cfray.inspection.targets import propose_target
from cfray.inspection.trial import Trial, try_draft
from cfray.inspection.variants import Variant
from cfray.job.mapping import dotted
from cfray.job.spec import Limits
from cfray.runtime.plurals import counted
from cfray.sources.files.csv import Csv

#: Limits that a draft may set, in place of the default of ``limits.max_quarantined``.
_LIMITS = (0.02, 0.05, 0.1, 0.2)
#: Sections of the mapping without which a draft is no worse: a line that makes the plan refuse or
#: quarantine is left out.
_OPTIONAL = (
    "cases",
    "vectors",
    "relationships",
    "created_at",
    "updated_at",
    "tags",
    "contributors",
    "author",
    "status",
)


@dataclass(frozen=True)
class Attempt:
    """A draft, and what its plan would say of the sample.

    Attributes:
        sketch: the draft.
        trial: what its plan would say.
        is_export: false for files of a single JSON object each, without a text or a vector.
    """

    sketch: Sketch
    trial: Trial
    is_export: bool

    @property
    def loss(self) -> float:
        """Give the share of the sampled records that would go to quarantine."""
        return self.trial.loss

    @property
    def complaint(self) -> str:
        """Say what is wrong with it."""
        trial = self.trial
        if trial.refusal is not None:
            return trial.refusal.what
        reasons = trial.quarantined.most_common(1)
        reason = reasons[0][0] if reasons else "the same id in several records"
        lost = trial.quarantined.total() + trial.duplicates
        return f"{lost:,} of {trial.sampled:,} sampled records would go to quarantine: {reason}"


@dataclass(frozen=True)
class _Material:
    """What a draft is made of.

    Attributes:
        origin: what is drafted.
        section: the source section in one way to read the files.
        sample: the records as they are read.
        typed: the records with the lists of CSV as lists.
    """

    origin: Origin
    section: Mapping[str, Any]
    sample: Sample
    typed: Sample

    def attempt(self, lines: Sequence[Guess]) -> Attempt:
        """Write a draft of these lines, and try it."""
        sketch = self._sketch(lines)
        keys = {line.key for line in lines if line.sure}
        is_single = (
            self.sample.source.kind == "json"
            and "records" not in self.section
            and self.sample.rows <= self.sample.sampled_files
        )
        is_export = not is_single or bool(keys & {"mapping.text_content", "mapping.vector"})
        return Attempt(sketch, try_draft(sketch.text, self.sample), is_export)

    def _sketch(self, lines: Sequence[Guess]) -> Sketch:
        section = dict(self.section)
        section |= {
            line.key.removeprefix("source."): line.value
            for line in lines
            if line.sure and line.key.startswith("source.") and line.key != "source.types"
        }
        mapped_paths = {path for line in lines for path in line.paths if line.sure}
        paths = [field.path for field in self.typed.fields]
        return Sketch(
            name=self.origin.name,
            source={**section, **self.origin.draft_locations},
            target=self.origin.target or propose_target(self.origin, str(section["kind"])),
            guesses=lines,
            facts=[
                *_facts(self.sample),
                *self.sample.copies,
                *name_spread_vectors(self.sample.fields),
                *self.sample.passed_over,
                *self.origin.facts,
            ],
            unmapped=[dotted(path) for path in paths if path not in mapped_paths],
            offers=[
                f"a cross-reference that several collections declare differently: {reference}"
                for reference in undeclared_references(self.sample)
            ],
        )


def attempt_draft(origin: Origin, variant: Variant) -> Attempt:
    """Sample a source, guess its mapping, and try the draft.

    Raises:
        ConfigError: no record can be read.
        SourceError: the source cannot be read.
    """
    sample, collections = keep_one_width(take_sample(variant.source))
    if not origin.name:
        origin = origin.with_name(name_of_store(sample))
    declared: Mapping[str, str] = variant.section.get("types") or {}
    is_csv = isinstance(sample.source, Csv)
    list_types = find_list_types(sample, declared) if is_csv else {}
    typed = sample
    if list_types:
        batches = [with_types(batch, list_types) for batch in sample.batches]
        typed = replace(sample, batches=batches)
    mapping = guess_shapes(typed)
    types = list(guess_types(typed, declared, list_types, mapping)) if is_csv else []
    material = _Material(origin, variant.section, sample, typed)
    lines = [*origin.guesses, *variant.guesses, *collections, *types, *mapping]
    return _with_limit(material, _without_faults(material, material.attempt(lines)))


def _without_faults(material: _Material, attempt: Attempt) -> Attempt:
    """Leave out optional lines for which the plan would refuse, or quarantine a record."""
    least = len(material.sample.rejects) / max(1, attempt.trial.sampled)
    for line in attempt.sketch.guesses:
        if attempt.loss <= least:
            break
        if line.sure and line.key.removeprefix("mapping.") in _OPTIONAL:
            doubtful = replace(line, sure=False, why=f"{line.why}; left out: {attempt.complaint}")
            lines = [doubtful if other is line else other for other in attempt.sketch.guesses]
            without = material.attempt(lines)
            if without.loss < attempt.loss:
                attempt = without
    return attempt


def _with_limit(material: _Material, attempt: Attempt) -> Attempt:
    """Raise the limit of the quarantine where the sample would exceed it; say what stops a run."""
    if attempt.trial.refusal is not None:
        fact = f"THE PLAN WOULD BE REFUSED: {attempt.complaint}"
        return replace(attempt, sketch=attempt.sketch.with_facts([fact]))
    if attempt.loss <= Limits().max_quarantined:
        return attempt
    limit = next((limit for limit in _LIMITS if attempt.loss <= limit), None)
    if limit is None:
        fact = f"A RUN WOULD STOP: {attempt.complaint}, more than limits.max_quarantined allows"
        return replace(attempt, sketch=attempt.sketch.with_facts([fact]))
    line = Guess("limits", {"max_quarantined": limit}, attempt.complaint)
    return material.attempt([*attempt.sketch.guesses, line])


def _facts(sample: Sample) -> list[str]:
    word = "record" if sample.is_complete else "sampled record"
    records = counted(sample.rows, word)
    if sample.is_complete:
        is_all = not (sample.passed_over or sample.description.unread)
        records += ", all of the source" if is_all else ", all that this job reads"
    files = ""
    if sample.files > 1 and not sample.is_complete:
        files = f" of {sample.sampled_files:,} of {sample.files:,} files"
    first = f"drafted by cfray inspect from {records}{files}"
    reasons: dict[str, int] = {}
    for reject in sample.rejects:
        reasons[reject.reason] = reasons.get(reject.reason, 0) + 1
    return [
        f"{first}; each line says why",
        *(
            f"{counted(count, 'row')} of the sample cannot be read and would go to quarantine: "
            f"{reason}"
            for reason, count in sorted(reasons.items(), key=lambda item: -item[1])[:3]
        ),
    ]
