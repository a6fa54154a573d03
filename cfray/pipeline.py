"""The whole program, top to bottom.

    plan ─▶ copy ─▶ duplicates ─▶ compact ─▶ embed ─▶ headers ─▶ index ─▶ verify ─▶ report

Two lines of Ray Data carry it: the copy (shards in, receipts out) and the embedding (pieces in,
receipts out), which only a job has whose vectors are made.

What always holds (each has a test; ``README.md`` says which):

1. Shard ids depend on the source and the job file, never on cluster size; pieces depend on data
   files only.  The plan is saved once; another fingerprint is refused, naming what changed (the
   section ``embedding`` binds from the swap of the vectors on).
2. A shard is committed whole or not at all; records read = staged + quarantined.
3. Data and ledger change in one Lance commit that refuses to be replayed.
4. One writer per target: the lease, and the epoch in the ledger.
5. Ray may repeat anything at any time; effects are files with names nobody else has and, last, a
   receipt.
6. A row that does not fit is quarantined and counted, never dropped.  A row that the embedding
   refuses leaves in the commit that brings the vectors.
7. Old versions stay readable; ``cleanup`` removes what no retained version references.
8. Of two records with one identity the first stays; the rest are quarantined.
9. Headers are a last pseudo-shard, written after the vectors are made.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from cfray.copying import duplicates, source_count
from cfray.copying.driver import Copying, allowed_quarantine, context_of
from cfray.copying.duplicates import Identities
from cfray.copying.identities import SearchLimits
from cfray.embedding.embed import embed_target
from cfray.embedding.forecast import EmbeddingForecast, forecast_embedding
from cfray.embedding.gate_notes import report_gate
from cfray.embedding.pending import (
    check_complete,
    report_vectors,
    vectors_are_pending,
    vectors_now,
)
from cfray.embedding.pieces import waiting_pieces
from cfray.embedding.reembed import check_reembeddable, plan_reembedding
from cfray.engine import failpoint
from cfray.engine.cluster import check_memory, check_target_is_shared, ray_for_command
from cfray.errors import CfrayError, ConfigError, LimitReached
from cfray.finishing import compact, index
from cfray.job.file import read_job
from cfray.job.mapping import FRAME_KINDS
from cfray.job.spec import JobSpec, VectorIndexSpec
from cfray.joining import headers
from cfray.joining.extend import extend_plan
from cfray.joining.quarantine import quarantined_rows
from cfray.joining.replay import replay_quarantined
from cfray.planning import plan
from cfray.planning.forecast import Forecast
from cfray.proving import (
    against_source,
    baseline,
    certificate,
    index_recall,
    parity,
    repair,
    source_since,
    up_to_date,
    vector_sanity,
    verify,
)
from cfray.proving.progress_state import progress_state, stage_of
from cfray.report.facts import Report
from cfray.report.progress import Progress
from cfray.report.run import Run, earlier_reports
from cfray.runs import (
    MAY_CHANGE_FOR_EMBED,
    MAY_CHANGE_FOR_REPLAY,
    check_agreement,
    check_target,
    concluded,
    held,
    looked_at,
    refused,
    with_current_dimension,
)
from cfray.runtime.filesystems import check_location, is_uri, resolve_path
from cfray.runtime.plurals import counted
from cfray.syncing import against_source as sync_against_source
from cfray.syncing.difference import compared_once
from cfray.syncing.rows_that_differ import NAMED, rows_that_differ
from cfray.syncing.sync import SyncSettings, check_job_is_last, sync
from cfray.target import cleanup, history, lease
from cfray.target.books import read_books
from cfray.target.commit import Target
from cfray.target.creation import find_target
from cfray.target.damage import damage_named
from cfray.target.ledger import EntryKind
from cfray.target.search import Answer, Question, search_target
from cfray.target.state import Plan, State
from cfray.transfers.export import ExportReport, export
from cfray.transfers.exports.settings import ExportSettings, Format
from cfray.transfers.roundtrip import RoundTrip, round_trip

#: What a verification compares the target with.
Against = Literal["ledger", "source"]


@dataclass(frozen=True, slots=True)
class Verification:
    """What ``verify`` is asked for.

    Attributes:
        against: what the target is compared with.
        repair: copy what is damaged anew from the source.
        certificate: write what was verified into the dataset.
        parity: compare searches in the target with the source's own.
        counts: of the source, only count its records.
        sample: of the source, compare whole shards that hold this many records; None: all.
    """

    against: Against = "ledger"
    repair: bool = False
    certificate: bool = False
    parity: bool = False
    counts: bool = False
    sample: int | None = None

    @property
    def writes(self) -> bool:
        """Tell whether it may change the target, and so needs the lease."""
        return self.repair or self.certificate

    @property
    def compares_records(self) -> bool:
        """Tell whether records of the source are read again."""
        return self.against == "source" and not self.counts


#: What the commands ask for that end with a verification.
_LEDGER_LEVEL = Verification()


def forecast(job: JobSpec) -> tuple[Plan, Forecast]:
    """Say what a migration would do; write nothing."""
    with refused():
        check_target(job)
        present = _present_state(job)
        try:
            run_plan, run_forecast = plan.preview(job)
        except CfrayError as error:
            if present:
                raise ConfigError(error.what, "; ".join([error.remedy, *present])) from error
            raise
    return replace(run_plan, notes=(*present, *run_plan.notes)), run_forecast


def _present_state(job: JobSpec) -> list[str]:
    """Say what a migration finds at its target; nothing where there is no target yet."""
    if State(job.target.uri).plan() is None:
        return []
    with looked_at("plan", job, _no_progress()) as run:
        run.count()
        stage, counts = stage_of(run), run.report.counts
        done = f"{counts['shards']:,} of {counted(counts['shards_planned'], 'shard')}"
        sentence = {
            "copying": f"has {done}: cfray migrate goes on with the others, as they were planned",
            "copied": "has every record: cfray migrate goes on from there, without the source",
            "complete": "is complete: cfray migrate finds nothing to do",
        }[stage]
        return [f"the target {sentence}; what is said here is of a new target"]


def migrate(
    job: JobSpec, progress: Progress, *, force: bool = False, extend: bool = False
) -> Report:
    """Move the whole source into the target and prove it; resume whatever an earlier run left.

    A target on which nothing is to be done is only looked at.

    Args:
        job: the job file.
        progress: where the run is shown.
        force: use a fitted map although the gate refuses it.
        extend: copy the files, too, that have appeared at the source since the plan.
    """
    is_planned = State(job.target.uri).plan() is not None
    report = None if extend else _report_of_up_to_date(job, progress)
    if report is not None:
        return report
    with held("migrate", job, progress, must_exist=False) as run, ray_for_command():
        run.report.clock["ray_ready"] = time.time()
        if extend and is_planned:
            with refused():
                extend_plan(run)
        run.report.notes += notes_of_plan(run)
        check_target_is_shared(job.target.uri)
        if job.limits.memory != "auto":
            check_memory(job.limits.memory)
        with progress.shown():
            copy(run)
            with damage_named(job.target.uri):
                settle(run)
                make_vectors(run, force=force)
                describe(run)
                finish(run)
        return run.report


def notes_of_plan(run: Run) -> Sequence[str]:
    """Give what the plan said of the source; after a sync it is not what was read last."""
    return () if run.target.ledger().names(EntryKind.SYNC) else run.plan.notes


def _report_of_up_to_date(job: JobSpec, progress: Progress) -> Report | None:
    """Look, without the lease, whether nothing is to be done; then report that.

    No version is added and Ray is not started.  None where something is to be done, or may be.
    """
    if State(job.target.uri).plan() is None:
        return None
    with looked_at("migrate", job, progress) as run:
        verification = up_to_date.last_verification(run)
        if verification is None:
            return None
        run.count()
        if source_count.is_missing(run) and source_count.answers(run):
            return None  # the answer belongs into the ledger
        with concluded(run):
            source_since.look_again(run)
            run.report.notes += notes_of_plan(run)
            note_metric(run)
            up_to_date.repeat(run, verification)
        return run.report


def copy(run: Run) -> None:
    """Read, convert, write and commit every shard; the source is released at the end."""
    begin = time.perf_counter()
    copying = Copying(run)
    copying.adopt()
    # a run whose shards are all there asks nothing of its source, which may be switched off by now,
    # but for its count, where an earlier run was killed before it asked
    if copying.missing_shards:
        with run.source_session as session:
            copying.read(context_of(run, session))
            run.count()
            source_count.count_source_again(run, session)
    else:
        run.count()
        source_count.count_later(run)
    run.report.clock["last_commit"] = time.time()
    run.report.clock["copy_seconds"] = (
        run.report.clock["last_commit"] - run.report.clock["ray_ready"]
    )
    run.report.stage("copy").seconds = time.perf_counter() - begin
    failpoint.reach("copy")


def look_at_source(run: Run, *, asked: bool) -> None:
    """See whether the source has gone on; a store that this run has just read is not asked.

    ``asked``: the operator asks for a look at the source.
    """
    was_just_read = run.job.source.is_remote and run.report.counts.get("shards_read")
    if asked or (run.report.command == "migrate" and not was_just_read):
        source_since.look_again(run)
    else:
        source_since.leave_out(run)


def settle(run: Run) -> None:
    """Take out duplicates, count dangling references."""
    run.count()
    identities = find_identities(run)
    if identities.duplicates:
        if run.job.mapping.on_duplicate == "error":
            reason = next(iter(identities.duplicates.values()))
            number = len(identities.duplicates)
            raise LimitReached(
                f"{counted(number, 'record repeats', 'records repeat')} the identity of an earlier "
                f"record ({reason}, ...), and mapping.on_duplicate is error",
                "choose another mapping.id for a new target; nothing was removed",
            )
        counts = run.report.counts
        allowed = allowed_quarantine(run.job, counts["read"]) - counts["quarantined"]
        duplicates.remove_duplicates(run.target, run.state, run.plan, identities, allowed)
    failpoint.reach("duplicates")
    run.count()


def find_identities(run: Run) -> Identities:
    """Look at every identity of the target; the report says how many references dangle."""
    workers = run.job.limits.workers
    identities = run.timed(
        "identities",
        lambda: duplicates.find_duplicates(
            run.target,
            run.plan,
            references=bool(run.job.mapping.relationships) or run.job.source.kind in FRAME_KINDS,
            limits=SearchLimits(workers=None if workers == "auto" else workers),
        ),
    )
    run.report.counts["dangling_references"] = identities.dangling
    return identities


def make_vectors(run: Run, *, force: bool) -> None:
    """Make the vectors that the job asks for, from what is copied."""
    if not vectors_are_pending(run.job, run.plan, run.target, run.target.ledger()):
        return
    compact_fragments(run)
    build_text_index(run)
    failpoint.reach("copied")
    receipt = embed_target(run, run.plan.recipe, force=force)
    if receipt.quarantined and run.job.mapping.relationships:
        find_identities(run)  # what refers to the records that left dangles now
    run.report.clock["vectors_ready"] = time.time()
    run.plan = with_current_dimension(run.plan, run.job)
    run.count()


def describe(run: Run) -> None:
    """Write the headers: they state counts, and carry the centroids of the vectors."""
    run.timed("headers", lambda: headers.write_headers(run))
    failpoint.reach("headers")
    run.count()


def finish(run: Run, asked: Verification = _LEDGER_LEVEL) -> verify.TargetFindings:
    """Compact, index and verify; each step may be interrupted and run again.

    Without the lease no step begins, and no end is reported.
    """
    compact_fragments(run)
    failpoint.reach("compact")
    run.target.check_held(run.target.ledger())
    count = index.count_vectors(read_books(run.state, run.target.ledger()))
    index_names = run.timed(
        "index", lambda: index.build(run.target, run.job.index, run.plan.metric, count)
    )
    if index_names:
        run.report.notes.append(f"indexes built or completed: {', '.join(index_names)}")
    if compact.is_due(run.target.open()):
        # Lance merges fragments only where the same indexes cover them
        compact_fragments(run)
    note_metric(run)
    failpoint.reach("index")
    found, _ = verify_all(run, asked)
    failpoint.reach("verify")
    ledger = run.target.ledger()
    run.target.check_held(ledger)
    run.report.conclude(ledger)
    return found


def compact_fragments(run: Run, *, deletions: bool = False) -> None:
    """Merge small fragments, and leave out deleted rows if they cost a search."""
    run.target.check_held(run.target.ledger())
    is_due = compact.is_due(run.target.open(), deletions=deletions)
    if run.job.mapping.raw_data is not None and is_due:
        verify.check_raw_files(run.target, run.state)
    merged = run.timed(
        "compact", lambda: compact.compact(run.target, run.state, deletions=deletions)
    )
    counts = run.report.counts
    counts["fragments_compacted"] = counts.get("fragments_compacted", 0) + merged


def build_text_index(run: Run) -> None:
    """Build what searches by words need: a target may be copied, without vectors, for days."""
    words = {"vector": VectorIndexSpec(type="none"), "scalar": []}
    spec = run.job.index.model_copy(update=words)
    none = index.VectorCount(0)
    run.timed("index", lambda: index.build(run.target, spec, run.plan.metric, none))


def verify_all(
    run: Run, asked: Verification
) -> tuple[verify.TargetFindings, dict[str, str] | None]:
    """Make every check, and report what earlier commands have judged.

    Returns:
        What the checks at the ledger level found, and what ``compare_with_source`` returns; None
        where the source was not to be read.
    """
    # first, for it may add a version of the dataset, which then is verified
    recall = run.timed("recall", lambda: index_recall.measure_recall(run))
    found = run.timed(
        "verify",
        lambda: verify.verify(
            *(run.target, run.state, run.plan, run.report),
            has_raw_data=run.job.mapping.raw_data is not None,
        ),
    )
    run.timed("vectors", lambda: vector_sanity.describe_vectors(run))
    unlike = None
    is_synced = bool(run.target.ledger().names(EntryKind.SYNC))
    if asked.compares_records and is_synced:
        run.timed("source check", lambda: sync_against_source.compare_with_source(run, found))
    elif asked.compares_records:
        unlike = run.timed(
            "source check",
            lambda: against_source.compare_with_source(run, found, sample=asked.sample),
        )
    else:
        against_source.leave_out_source(run)
    run.report.checks.append(recall)
    if asked.parity:
        run.timed("parity", lambda: parity.compare_searches(run))
    else:
        parity.leave_out_parity(run)
    certificate.check_certificate(run, found)
    source_count.report_source_count(run)
    look_at_source(run, asked=asked.against == "source")
    report_vectors(run)
    report_gate(run)
    return found, unlike


def note_metric(run: Run) -> None:
    """Say in the report by which distance vectors are compared, and why."""
    notes = index.metric_notes(run.target.open(), run.job.index, run.plan.metric)
    # the plan may say already that job and source differ, for the job file of its time
    known_beginnings = {note.partition(";")[0] for note in run.report.notes}
    run.report.notes += [note for note in notes if note.partition(";")[0] not in known_beginnings]


def optimize(job: JobSpec, progress: Progress) -> Report:
    """Compact, index and verify a target whose shards are all there."""
    with held("optimize", job, progress) as run:
        check_complete(run)
        with ray_for_command():
            run.count()
            with damage_named(job.target.uri):
                finish(run)
        return run.report


def check(job: JobSpec, progress: Progress, verification: Verification | None = None) -> Report:
    """Verify a target; a plain verification changes nothing but the report."""
    verification = verification or Verification()
    if verification.writes:
        return _check_held(job, progress, verification)
    with (
        looked_at("verify", job, progress) as run,
        concluded(run),
        ray_for_command(),
    ):
        ledger = run.target.ledger()
        tell_what_is_known(run)
        holder = lease.read(run.state.folder)
        if holder is not None and not holder.has_ended:
            run.report.notes.append(
                f"{holder} is at work on the target: what it has not done yet shows as missing here"
            )
        verify_all(run, verification)
        run.report.conclude(ledger)
        return run.report


def _check_held(job: JobSpec, progress: Progress, verification: Verification) -> Report:
    """Verify a target that may be repaired and certified; a repaired target is verified again."""
    with held("verify", job, progress) as run:
        check_complete(run)
        if verification.repair and run.target.ledger().names(EntryKind.SYNC):
            raise ConfigError(
                f"cfray sync has brought {job.target.uri} up to date, and --repair copies shards "
                "of the plan anew",
                "restore a backup, or go back to a version that is whole (cfray rollback); then "
                "run cfray sync",
            )
        with ray_for_command():
            tell_what_is_known(run)
            found, unlike = verify_all(run, verification)
            if (
                verification.repair
                and unlike is not None
                and found.is_damaged
                and run.timed("repair", lambda: repair.repair(run, found, unlike))
            ):
                failpoint.reach("repair")
                run.report.begin_checks_anew()
                run.count()
                with damage_named(job.target.uri):
                    found = finish(run, verification)
            run.report.conclude(run.target.ledger())
            if verification.certificate and certificate.can_be_issued(run.report):
                certificate.issue(run, found)
        return run.report


def tell_what_is_known(run: Run) -> None:
    """Count, and tell what earlier commands have found that this one does not look at."""
    run.count()
    run.report.notes += notes_of_plan(run)
    ledger = run.target.ledger()
    for report in earlier_reports(run):
        dangling = report.counts.get("dangling_references")
        if dangling is not None and report.ledger_digest == ledger.digest:
            run.report.counts["dangling_references"] = dangling
            return


def replay(job: JobSpec, progress: Progress) -> Report:
    """Try the rows in quarantine again, with the mapping and embedding as they are now."""
    with held("quarantine replay", job, progress, may_change=MAY_CHANGE_FOR_REPLAY) as run:
        check_complete(run)
        with ray_for_command():
            brought = run.timed("replay", lambda: replay_quarantined(run))
            run.report.notes.append(f"{counted(brought, 'record')} came in from quarantine")
            failpoint.reach("replay")
            headers.write_headers(run)
            run.count()
            with damage_named(job.target.uri):
                finish(run)
        return run.report


def bring_up_to_date(
    job: JobSpec, progress: Progress, settings: SyncSettings, keep_versions: int | None
) -> Report:
    """Bring what has changed at the source into a finished target, and verify it.

    Args:
        job: the job file.
        progress: where the run is shown.
        settings: of the sync.
        keep_versions: retire all but the newest n versions afterwards; None keeps all.
    """
    with held("sync", job, progress) as run:
        check_complete(run)
        check_job_is_last(run, run.target.ledger())
        with ray_for_command():
            check_target_is_shared(job.target.uri)
            with progress.shown(), damage_named(job.target.uri):
                sync(run, settings)
            run.count()
            repeated = find_identities(run).duplicates
            if repeated:
                rows = counted(len(repeated), "row shares its", "rows share their")
                run.report.notes.append(f"{rows} identity with a row that another program wrote")
            with damage_named(job.target.uri):
                headers.write_headers(run)
                compact_fragments(run, deletions=True)
                finish(run)
                if keep_versions is not None:
                    cleanup.clean_up(run.target, run.state, keep_versions)
        return run.report


def difference_of(job: JobSpec, progress: Progress, *, reads_all: bool) -> dict[str, Any]:
    """Say how the source differs from a finished target; change nothing.

    ``reads_all``: read shards, too, that are as the last sync has read them.
    """
    with looked_at("sync", job, progress) as run:
        check_complete(run)
        check_job_is_last(run, run.target.ledger())
        with (
            ray_for_command(),
            refused(),
            compared_once(run, remembers=not reads_all) as difference,
        ):
            return {
                "target": job.target.uri,
                "difference": difference.sentence(),
                "read": difference.read,
                "quarantined": difference.quarantined,
                "records_new": difference.new,
                "records_changed": difference.changed,
                "records_gone": len(difference.gone_rows),
                "records_unfit": len(difference.unfit_rows),
                "records_same": difference.same,
                "shards_unread": difference.unread,
                "rows": [asdict(row) for row in islice(rows_that_differ(run, difference), NAMED)],
            }


def embed(job: JobSpec, progress: Progress, *, force: bool = False) -> Report:
    """Make the vectors of a finished target anew, as the job file says now.

    Readers of the old version are not disturbed.

    ``force``: use a fitted map although the gate refuses it.
    """
    with held("embed", job, progress, may_change=MAY_CHANGE_FOR_EMBED) as run:
        check_reembeddable(run)
        with ray_for_command():
            check_target_is_shared(job.target.uri)
            run.count()
            with refused():
                recipe = plan_reembedding(run)
            if recipe is not None:
                embed_target(
                    run, recipe, force=force, companions=partial(headers.headers_of_swap, run)
                )
            run.plan = with_current_dimension(run.plan, job)
            # a run that was killed after its commit left the old centroids
            headers.write_headers(run)
            run.count()
            with damage_named(job.target.uri):
                finish(run)
        return run.report


def roll_back(job: JobSpec, version: int, progress: Progress) -> Report:
    """Make an earlier version of a finished target the newest one, and verify it.

    Raises:
        ConfigError: there is no way back to this version.
        LedgerMismatch: the version is of another job file.
    """
    may_change = (*MAY_CHANGE_FOR_REPLAY, *MAY_CHANGE_FOR_EMBED)
    with looked_at("rollback", job, progress, may_change=may_change) as run:
        check_agreement(job, history.check_rollback(run.target, run.state, run.plan, version))
    with held("rollback", job, progress, may_change=may_change) as run:
        history.roll_back(run.target, version)
        failpoint.reach("rolled-back")
        run.plan = with_current_dimension(run.plan, job)
        with ray_for_command():
            tell_what_is_known(run)
            verify_all(run, _LEDGER_LEVEL)
            run.report.conclude(run.target.ledger())
        return run.report


def record_baseline(job: JobSpec) -> baseline.Baseline:
    """Record what the source is and what its search answers, beside the target of a job.

    Raises:
        ConfigError: the source cannot be read or searched, or its kind is files.
        LeaseHeld: a run is at work on the target.
    """
    state = State(job.target.uri)
    check_target(job)
    lease.wait_until_free(state.folder)
    with refused():
        recorded = baseline.record_baseline(job)
    recorded.save(state)
    return recorded


def embedding_forecast(job: JobSpec) -> EmbeddingForecast:
    """Say what ``embed`` would do; write nothing.

    Raises:
        ConfigError: ``embed`` would refuse.
    """
    with looked_at("embed", job, _no_progress(), may_change=MAY_CHANGE_FOR_EMBED) as run:
        check_reembeddable(run)
        with refused():
            return forecast_embedding(run)


def search(location: str, question: Question) -> Answer:
    """Search a target: the newcomer's proof that it works.

    Args:
        location: the target's address, or a job file.
        question: what is asked.
    """
    uri = address_of(location)
    if _is_job_file(location):
        job = read_job(Path(location))
        metric = job.index.vector.metric
        question = replace(question, embedding=job.embedding, metric=metric)
    if find_target(uri) is None:
        raise ConfigError(
            f"there is no target at {uri}",
            "give its address, or its job file; cfray migrate makes one",
        )
    return search_target(uri, question)


def versions_of(location: str, last: int) -> list[history.Version]:
    """List the newest versions of a target.

    Raises:
        ConfigError: there is no target.
    """
    uri = address_of(location)
    if find_target(uri) is None:
        raise ConfigError(f"there is no target at {uri}", "give its address, or its job file")
    return history.list_versions(Target(uri), last)


def export_target(uri: str, address: str, settings: ExportSettings) -> ExportReport:
    """Export a finished target to files that others read."""
    settings.check()
    with ray_for_command():
        return export(uri, address, settings)


def prove_round_trip(uri: str, work: str, file_format: Format, progress: Progress) -> RoundTrip:
    """Prove that an export of a finished target brings its documents back."""
    with ray_for_command():
        return round_trip(uri, work, file_format, lambda job: migrate(job, progress))


def address_of(location: str) -> str:
    """Give the address of the target that a job file makes, or that is named.

    Raises:
        ConfigError: it holds a secret, or names the root of a storage.
    """
    if _is_job_file(location):
        return read_job(Path(location)).target.uri
    try:
        check_location(location)
    except ValueError as error:
        what, _, remedy = str(error).partition("; ")
        raise ConfigError(what, remedy) from None
    address = resolve_path(location, Path.cwd()).rstrip("/")
    # of s3:// and of / nothing remains
    if not location or not address or address.endswith(":"):
        raise ConfigError(f"{location!r} names no dataset", "give the address of its folder")
    return address


def _is_job_file(location: str) -> bool:
    return location.endswith((".yaml", ".yml")) and not is_uri(location)


def quarantined(job: JobSpec) -> list[dict[str, Any]]:
    """List the rows in quarantine (without the copy that replay needs)."""
    with looked_at("quarantine list", job, _no_progress()) as run:
        rows = quarantined_rows(run.state, run.target.ledger())
        return [{**row.content.readable(), "file": row.file, "line": row.line} for row in rows]


def clean_up(job: JobSpec, keep_versions: int | None) -> dict[str, int]:
    """Remove exactly the files that no retained version references."""
    with held("cleanup", job, _no_progress()) as run:
        removed = cleanup.clean_up(run.target, run.state, keep_versions)
        run.count()
        run.report.exit_code = 0
        files = counted(removed.files, "file")
        run.report.verdict = f"removed {files} that no version references"
        return asdict(removed)


def status(job: JobSpec) -> dict[str, Any]:
    """Say how far a target is, from its ledger, its lease and the reports beside it."""
    with looked_at("status", job, _no_progress(), may_change=MAY_CHANGE_FOR_EMBED) as run:
        run.count()
        holder = lease.read(run.state.folder)
        state, detail = progress_state(run, holder)
        if job.fingerprint not in run.target.ledger().fingerprints:
            detail += "; this job file asks for other vectors, which cfray embed makes"
        return {
            "job": job.name,
            "target": job.target.uri,
            "state": state,
            "stage": stage_of(run),
            "detail": detail,
            "held_by": "nobody" if holder is None or holder.has_ended else str(holder),
            "version": run.target.open().version,
            "finished": state == "complete",
            "vectors": vectors_now(run),
            "pieces_waiting": waiting_pieces(run.state),
            "source": source_since.recall_last_look(run),
            **run.report.counts,
            "planned_records": run.plan.rows if run.plan.rows is not None else "unknown",
            "planned_records_exact": run.plan.exact,
        }


def told_story(job: JobSpec) -> list[Report]:
    """Read the report of every command on a target, the oldest first.

    Raises:
        ConfigError: there is none.
    """
    with looked_at("report", job, _no_progress(), may_change=MAY_CHANGE_FOR_EMBED) as run:
        return [*Report.newest_first(run.state)][::-1]


def last_report(job: JobSpec) -> Report:
    """Read the report of the last command.

    Raises:
        ConfigError: there is none.
    """
    with looked_at("report", job, _no_progress(), may_change=MAY_CHANGE_FOR_EMBED) as run:
        return Report.load(run.state)


def _no_progress() -> Progress:
    from rich.console import Console

    return Progress(Console(stderr=True), quiet=True)
