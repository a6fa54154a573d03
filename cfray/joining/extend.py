"""Extend the plan of a target by the files that have appeared at its source.

The planned shards keep their numbers, and those of the new files follow.  The shape stays: new
files are converted as if the plan's sample had not seen them, which loses nothing, for a value of
another type than the recorded one carries its own.  What the new files would send to quarantine is
looked at first, for an extension of which a shard is committed is never taken back.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace

import pyarrow as pa

from cfray.conversion.chunk_frames import document_rows
from cfray.engine import failpoint, throttle
from cfray.errors import ConfigError
from cfray.planning.field_paths import check_paths
from cfray.planning.findings import WOULD_STOP, Bad, limit_warnings
from cfray.planning.forecast import make_forecast
from cfray.planning.sample import check_sample, read_sample
from cfray.planning.source_types import lossy_fields
from cfray.report.run import Run
from cfray.runtime.clock import utc_now
from cfray.runtime.plurals import counted
from cfray.sources.base import Context, Description, Shard
from cfray.target.ledger import EntryKind
from cfray.target.state import Extension, Plan

#: Files that a note names.
_NAMED = 5
#: uuids looked up at once.
_BATCH_ROWS = 1000
#: What can be done where a target cannot be extended.
_ANEW = "migrate into a new target.uri"


def extend_plan(run: Run) -> list[str]:
    """Add what has appeared at the source to the plan, and save it.

    An extension of which nothing is committed is planned anew: its files may have been written to
    or removed since.

    Args:
        run: a command that holds the target.

    Returns:
        the names of the files that are added.

    Raises:
        ConfigError: the source does not grow by files, the vectors of the target were made from
            its records, the job file has another mapping than the shards were copied by, the new
            files do not fit, or something would be lost under ``strict``; the plan is as it was.
        SourceError: the source cannot be read.
    """
    source = run.job.source
    _check_extendable(run)
    plan = _without_unbegun(run)
    with (
        tempfile.TemporaryDirectory(prefix="cfray-plan-") as scratch,
        run.source_session as session,
    ):
        context = Context(
            session=session.state,
            scratch=scratch,
            max_record=run.job.limits.max_document,
            throttle=throttle.local_budget(source),
        )
        marks = source.marks(context) or {}
        appeared = sorted(marks.keys() - plan.marks.keys())
        # an empty file may be filled yet: it appears then
        counts = source.count_in(appeared, context) if appeared else {}
        added = {name: marks[name] for name in appeared if counts.get(name) != 0}
        if not added and plan is run.plan:
            return []
        if added:
            _check_vectors_are_kept(run)
            plan = _with_shards(run, plan, added, context)
        run.state.save_scratch_files(scratch)
    run.state.save_plan(plan)
    run.plan = plan
    failpoint.reach("extended")
    return sorted(added)


def _without_unbegun(run: Run) -> Plan:
    """Give the plan without its last extension, if no shard of that is committed."""
    plan = run.plan
    if not plan.extensions:
        return plan
    last = plan.extensions[-1]
    committed = run.target.ledger().names(EntryKind.SHARD)
    if any(int(name) >= last.first for name in committed):
        return plan
    return replace(
        plan,
        shards=plan.shards[: last.first],
        rows=last.rows,
        exact=last.exact,
        size=last.size,
        notes=plan.notes[: last.notes],
        marks={name: mark for name, mark in plan.marks.items() if name not in set(last.files)},
        extensions=plan.extensions[:-1],
    )


def _check_extendable(run: Run) -> None:
    """Refuse a source that does not grow by files, a plan without its files, another mapping.

    Raises:
        ConfigError: says why, and what can be done.
    """
    if not run.job.source.grows_by_files:
        raise ConfigError(
            f"--extend copies files that have appeared, and a source of the kind "
            f"{run.job.source.kind} does not grow by files",
            _ANEW,
        )
    if run.target.ledger().names(EntryKind.SYNC):
        raise ConfigError(
            f"cfray sync has brought {run.job.target.uri} up to date with its source since it was "
            "planned",
            "cfray sync brings the files in that have appeared",
        )
    if not run.plan.marks:
        raise ConfigError(
            f"the plan of {run.job.target.uri} does not say which files it was made of: an earlier "
            "version of cfray made it",
            _ANEW,
        )
    jobs = {entry["fingerprint"]: entry["agreed"] for entry in run.state.jobs()}
    first = jobs.get(run.target.ledger().fingerprints[0], run.job.agreed)
    if first["mapping"] != run.job.agreed["mapping"]:
        raise ConfigError(
            "the job file has another mapping than the one by which the shards were copied: a "
            "replay brought rows in by it",
            "extend with the first job file, then replay the quarantine with this one",
        )


def _check_vectors_are_kept(run: Run) -> None:
    """Refuse a target whose vectors were made from its records.

    Raises:
        ConfigError: the records that come in would have none.
    """
    ledger = run.target.ledger()
    is_made = run.target.recipe().policy != "keep" or bool(ledger.names(EntryKind.EMBED))
    if is_made:
        raise ConfigError(
            f"the vectors of {run.job.target.uri} were made from its records, and --extend makes "
            "none for those that come in later",
            _ANEW,
        )


def _with_shards(run: Run, plan: Plan, added: dict[str, str], context: Context) -> Plan:
    """Put the shards of files behind those of a plan, if their records fit.

    ``added``: name of a file -> its mark.
    """
    source = run.job.source
    shards = sorted(
        source.shards_of(sorted(added), len(plan.shards), context), key=lambda shard: shard.id
    )
    if not shards:
        return plan
    description = source.describe(context, shards)
    _check_fit(run, description, shards, context)
    known = plan.rows is not None and description.rows is not None
    further = len(added) - _NAMED
    names = ", ".join(sorted(added)[:_NAMED]) + (f" and {further:,} more" if further > 0 else "")
    note = (
        f"extended at {utc_now()} by {counted(len(added), 'file')} that appeared after the "
        f"plan: {names}; of two records with one identity the one planned first stays, and what "
        "notes say of a sample is of the files that were planned first"
    )
    extension = Extension(
        epoch=run.target.epoch,
        first=len(plan.shards),
        files=sorted(added),
        rows=plan.rows,
        exact=plan.exact,
        size=plan.size,
        notes=len(plan.notes),
    )
    return replace(
        plan,
        shards=[*plan.shards, *shards],
        rows=(plan.rows or 0) + (description.rows or 0) if known else None,
        exact=plan.exact and description.exact,
        size=plan.size + description.size,
        notes=(*plan.notes, note),
        marks={**plan.marks, **added},
        extensions=(*plan.extensions, extension),
    )


def _check_fit(run: Run, description: Description, shards: list[Shard], context: Context) -> None:
    """Refuse files of which so much would go to quarantine that the run would stop.

    Raises:
        ConfigError: nothing was changed.
    """
    job = run.job
    lossy = lossy_fields(description)
    if job.strict and lossy:
        raise ConfigError(
            "strict is true and the files that appeared would lose something: " + "; ".join(lossy),
            "take them away, or correct them; nothing was changed",
        )
    sample = read_sample(job, shards, context)
    check_sample(description, sample)
    try:
        # id, vector and text are needed; any other field may be in the other files alone
        check_paths(job, sample.batches, fixed=False)
    except ConfigError as error:
        raise _unfit(error.what) from error
    forecast, frames = make_forecast(job, description, run.plan.shape, sample)
    refused = forecast.quarantined.total()
    duplicates = forecast.duplicates + _count_known(run, frames)
    bad = Bad(forecast.sampled, refused, duplicates, is_whole=forecast.is_whole)
    for warning in limit_warnings(job, bad, description.rows):
        reasons = [reason for reason, _ in forecast.quarantined.most_common(3)]
        reasons += ["the target has a record of this identity"] * (duplicates > 0)
        raise _unfit(f"{'; '.join(reasons)}: {warning.removeprefix(f'{WOULD_STOP}: ')}")


def _unfit(why: str) -> ConfigError:
    return ConfigError(
        f"the files that appeared do not fit: {why}",
        "take them away, or migrate them by a job file and into a target.uri of their own; "
        "nothing was changed",
    )


def _count_known(run: Run, frames: list[pa.RecordBatch]) -> int:
    """Count the documents of a sample whose identity the target has."""
    uuids = [
        uuid
        for batch in frames
        for uuid in batch.column("uuid")
        .take(pa.array(document_rows(batch), pa.int64()))
        .to_pylist()
    ]
    dataset, known = run.target.open(), 0
    for start in range(0, len(uuids), _BATCH_ROWS):
        names = ",".join(f"'{uuid}'" for uuid in uuids[start : start + _BATCH_ROWS])
        known += dataset.count_rows(f"uuid IN ({names})")
    return known
