"""The whole program, top to bottom.

    plan ─▶ learn ─▶ read ─▶ convert ─▶ embed ─▶ write ─▶ commit ─▶ compact ─▶ index ─▶ verify

What always holds (each has a test; ``README.md`` says which):

1. Shard ids depend on the source and the job file, never on cluster size.  The
   plan is saved once; another fingerprint is refused, naming what changed.
2. A shard is committed whole or not at all; records read = staged + quarantined.
3. Data and ledger change in one Lance commit that refuses to be replayed.
4. One writer per target: the lease, and the epoch in the ledger.
5. Ray may repeat anything before ``write`` at any time.
6. A row that does not fit is quarantined and counted, never dropped.
7. Old versions stay readable; ``cleanup`` removes what no retained version references.
8. Of two records with one identity the first stays; the rest are quarantined.
9. Headers are a last pseudo-shard.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cfray.conversion.embed import Embed
from cfray.copying import duplicates
from cfray.copying.driver import Copying, allowed_quarantine
from cfray.copying.source_count import count_source_again
from cfray.embedding.actors import pool_for, report_pool
from cfray.embedding.from_text import embed_from_text
from cfray.embedding.gate_notes import report_gate
from cfray.embedding.learn import learn_for_copy
from cfray.embedding.reembed import check_reembeddable, plan_reembedding, reembed_target
from cfray.engine import failpoint, interrupts
from cfray.engine.cluster import check_target_is_shared, ray_running
from cfray.errors import ConfigError, LimitReached, ProofFailed
from cfray.finishing import compact, index
from cfray.job.file import read_job
from cfray.job.spec import JobSpec
from cfray.joining import headers
from cfray.joining.replay import quarantined_rows, replay_quarantined
from cfray.planning import plan
from cfray.planning.forecast import Forecast
from cfray.proving import verify
from cfray.report.facts import Report
from cfray.report.progress import Progress
from cfray.report.run import Run
from cfray.runs import (
    MAY_CHANGE_FOR_EMBED,
    MAY_CHANGE_FOR_REPLAY,
    check_target,
    concluded,
    held,
    looked_at,
    refused,
    with_current_dimension,
)
from cfray.runtime.filesystems import is_uri, resolve_path
from cfray.target import cleanup, lease
from cfray.target.books import HEADERS
from cfray.target.creation import find_target
from cfray.target.search import Answer, Question, search_target
from cfray.target.state import Plan


def forecast(job: JobSpec) -> tuple[Plan, Forecast]:
    """Say what a migration would do; write nothing."""
    with refused():
        check_target(job)
        return plan.preview(job)


def migrate(job: JobSpec, progress: Progress, *, force: bool = False) -> Report:
    """Move the whole source into the target and prove it; resume whatever an earlier run left.

    ``force``: use a fitted map although the gate refuses it.
    """
    with (
        held("migrate", job, progress, must_exist=False) as run,
        ray_running(),
        interrupts.catch_signals(),
    ):
        run.report.clock["ray_ready"] = time.time()
        # what the plan said of the source holds for what was read from it
        run.report.notes += run.plan.notes
        check_target_is_shared(job.target.uri)
        with progress.shown():
            copy(run, force=force)
            settle(run)
            finish(run)
        return run.report


def copy(run: Run, *, force: bool) -> None:
    """Read, convert, embed, write and commit every shard; learn first what the vectors need."""
    begin = time.perf_counter()
    copying = Copying(run)
    copying.adopt()
    # a run whose shards are all there asks nothing of its source, which may be switched off by now
    if copying.missing_shards:
        with run.job.source.session() as session, pool_for(run) as pool:
            context = copying.context(session)
            recipe = learn_for_copy(run, context, pool, force=force)
            copying.read(context, Embed(run.job, run.plan.shape, recipe, pool))
            report_pool(run, pool)
            run.count()
            count_source_again(run.job, run.plan, run.report, session)
    run.report.clock["last_commit"] = time.time()
    run.report.clock["copy_seconds"] = (
        run.report.clock["last_commit"] - run.report.clock["ray_ready"]
    )
    run.report.stage("copy").seconds = time.perf_counter() - begin
    failpoint.reach("copy")


def settle(run: Run) -> None:
    """Take out duplicates, count dangling references, write the headers."""
    run.count()
    references = bool(run.job.mapping.relationships)
    identities = run.timed(
        "identities",
        lambda: duplicates.find_duplicates(run.target, run.plan, references=references),
    )
    run.report.counts["dangling_references"] = identities.dangling
    if identities.duplicates:
        if run.job.mapping.on_duplicate == "error":
            reason = next(iter(identities.duplicates.values()))
            raise LimitReached(
                f"{len(identities.duplicates):,} records repeat the identity of an earlier record "
                f"({reason}, ...), and mapping.on_duplicate is error",
                "choose another mapping.id for a new target; nothing was removed",
            )
        counts = run.report.counts
        allowed = allowed_quarantine(run.job, counts["read"]) - counts["quarantined"]
        duplicates.remove_duplicates(run.target, run.state, run.plan, identities, allowed)
    failpoint.reach("duplicates")
    run.timed("headers", lambda: headers.write_headers(run.job, run.plan, run.target, run.state))
    failpoint.reach("headers")
    run.count()


def finish(run: Run) -> None:
    """Compact, index and verify; each step may be interrupted and run again.

    Without the lease no step begins, and no end is reported.
    """
    run.target.check_held(run.target.ledger())
    run.report.counts["fragments_compacted"] = run.timed(
        "compact", lambda: compact.compact(run.target, run.state)
    )
    failpoint.reach("compact")
    run.target.check_held(run.target.ledger())
    index_names = run.timed(
        "index", lambda: index.build(run.target, run.job.index, run.plan.metric)
    )
    if index_names:
        run.report.notes.append(f"indexes built or completed: {', '.join(index_names)}")
    failpoint.reach("index")
    run.timed("verify", lambda: verify.verify(run.target, run.state, run.plan, run.report))
    report_gate(run)
    failpoint.reach("verify")
    ledger = run.target.ledger()
    run.target.check_held(ledger)
    run.report.conclude(ledger)


def optimize(job: JobSpec, progress: Progress) -> Report:
    """Compact, index and verify a target whose shards are all there."""
    with held("optimize", job, progress) as run, ray_running(), interrupts.catch_signals():
        run.count()
        finish(run)
        return run.report


def check(job: JobSpec, progress: Progress) -> Report:
    """Verify a target at the ledger level; change nothing but the report."""
    with (
        looked_at("verify", job, progress) as run,
        concluded(run),
        ray_running(),
        interrupts.catch_signals(),
    ):
        ledger = run.target.ledger()
        run.count()
        run.timed("verify", lambda: verify.verify(run.target, run.state, run.plan, run.report))
        run.report.conclude(ledger)
        return run.report


def replay(job: JobSpec, progress: Progress) -> Report:
    """Try the rows in quarantine again, with the mapping and embedding as they are now."""
    with (
        held("quarantine replay", job, progress, may_change=MAY_CHANGE_FOR_REPLAY) as run,
        ray_running(),
        interrupts.catch_signals(),
    ):
        with pool_for(run) as pool:
            again = embed_from_text(run, pool)
            brought = run.timed("replay", lambda: replay_quarantined(again, run.target, run.state))
        run.report.notes.append(f"{brought:,} records came in from quarantine")
        failpoint.reach("replay")
        headers.write_headers(job, run.plan, run.target, run.state)
        run.count()
        finish(run)
        return run.report


def embed(job: JobSpec, progress: Progress, *, force: bool = False) -> Report:
    """Make the vectors of a finished target anew, as the job file says now.

    Readers of the old version are not disturbed.

    ``force``: use a fitted map although the gate refuses it.
    """
    with held("embed", job, progress, may_change=MAY_CHANGE_FOR_EMBED) as run:
        check_reembeddable(run)
        with ray_running(), interrupts.catch_signals():
            check_target_is_shared(job.target.uri)
            run.count()
            with refused():
                recipe = plan_reembedding(run)
            if recipe is not None:
                reembed_target(run, recipe, force=force)
            run.plan = with_current_dimension(run.plan, job)
            # a run that was killed after its commit left the old centroids
            headers.write_headers(job, run.plan, run.target, run.state)
            run.count()
            finish(run)
        return run.report


def search(location: str, question: Question) -> Answer:
    """Search a target: the newcomer's proof that it works.

    Args:
        location: the target's address, or a job file.
        question: what is asked.
    """
    if location.endswith((".yaml", ".yml")) and not is_uri(location):
        job = read_job(Path(location))
        uri, question = job.target.uri, replace(question, embedding=job.embedding)
    else:
        uri = resolve_path(location, Path.cwd()).rstrip("/")
    if find_target(uri) is None:
        raise ConfigError(
            f"there is no target at {uri}",
            "give its address, or its job file; cfray migrate makes one",
        )
    return search_target(uri, question)


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
        run.report.verdict = f"removed {removed.files} files that no version references"
        return asdict(removed)


def status(job: JobSpec) -> dict[str, Any]:
    """Say how far a target is, from its ledger, its lease and the reports beside it."""
    with looked_at("status", job, _no_progress()) as run:
        run.count()
        holder = lease.read(run.state.folder)
        state, detail = _progress_state(run, holder)
        return {
            "job": job.name,
            "target": job.target.uri,
            "state": state,
            "detail": detail,
            "held_by": "nobody" if holder is None or holder.has_ended else str(holder),
            "version": run.target.open().version,
            "finished": state == "complete",
            **run.report.counts,
            "planned_records": run.plan.rows if run.plan.rows is not None else "unknown",
            "planned_records_exact": run.plan.exact,
        }


def _progress_state(run: Run, holder: lease.Holder | None) -> tuple[str, str]:
    """Name the state of a target, and say what that means for the operator."""
    counts, ledger = run.report.counts, run.target.ledger()
    if holder is not None and not holder.has_ended:
        certainty = (
            "is writing to it"
            if holder.is_here
            else "holds it; whether it is alive is not known from here"
        )
        return "running", f"{holder} {certainty}"
    ended = "" if holder is None else f"; {holder} ended without a report"
    if counts["shards"] < counts["shards_planned"] or HEADERS not in ledger.entries:
        return "unfinished", f"the copy is not complete: run cfray migrate to go on{ended}"
    last_report = Report.last_verification(run.state, ledger)
    if last_report is None:
        remedy = "run cfray migrate (or cfray verify)"
        return "unverified", f"every shard is committed, but not verified yet: {remedy}{ended}"
    if last_report.exit_code == ProofFailed.exit_code:
        return (
            "failed",
            f"cfray {last_report.command} at {last_report.ended}: {last_report.verdict}",
        )
    return "complete", f"cfray {last_report.command} at {last_report.ended}: {last_report.verdict}"


def last_report(job: JobSpec) -> Report:
    """Read the report of the last command.

    Raises:
        ConfigError: there is none.
    """
    with looked_at("report", job, _no_progress()) as run:
        return Report.load(run.state)


def _no_progress() -> Progress:
    from rich.console import Console

    return Progress(Console(stderr=True), quiet=True)
