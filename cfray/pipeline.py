"""The whole program, top to bottom.

    plan ─▶ learn ─▶ read ─▶ convert ─▶ embed ─▶ write ─▶ commit ─▶ compact ─▶ index ─▶ verify

What always holds (each has a test; ``README.md`` says which):

1. Shard ids depend on the source and the job file, never on cluster size.  The
   plan is saved once; another fingerprint is refused, naming what changed.
2. A shard is committed whole or not at all; records read = staged + quarantined.
3. Data and ledger change in one Lance commit that refuses to be replayed.
4. One writer per target: the lease, and the epoch in the ledger.
5. Anything before ``write`` may be repeated by Ray at any time.
6. A row that does not fit is quarantined and counted, never dropped.
7. Old versions stay readable; ``cleanup`` removes what none of them references.
8. Two records with one identity: the first stays, the rest are quarantined.
9. Headers are a last pseudo-shard.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cfray.conversion.embed import Embed
from cfray.copying import duplicates
from cfray.copying.driver import Copying, allowed
from cfray.copying.source_count import count_source_again
from cfray.embedding.command import (
    check_reembeddable,
    embed_from_text,
    learned,
    pool_for,
    reembed_target,
    report_gate,
    report_pool,
)
from cfray.engine import failpoint, interrupts
from cfray.engine.cluster import check_target_is_shared, ray_running
from cfray.errors import ConfigError, LimitReached
from cfray.finishing import compact, index
from cfray.job.file import read_job
from cfray.job.spec import JobSpec
from cfray.joining import headers
from cfray.joining.replay import quarantined_rows, replay_quarantined
from cfray.planning import plan
from cfray.planning.forecast import Forecast
from cfray.proving import verify
from cfray.report.facts import FILE, Report
from cfray.report.progress import Progress
from cfray.report.run import Run
from cfray.runs import (
    EMBEDDED,
    REPLAYED,
    check_agreement,
    held,
    looked_at,
    refused,
    with_current_dimension,
)
from cfray.runtime.filesystems import absolute, is_uri
from cfray.target import cleanup, commit
from cfray.target.lease import read as lease_holder
from cfray.target.search import Answer, Question, search_target
from cfray.target.state import Plan


def forecast(job: JobSpec) -> tuple[Plan, Forecast]:
    """Say what a migration would do; write nothing."""
    with refused():
        check_agreement(job, commit.find(job.target.uri))
        return plan.forecast(job)


def migrate(job: JobSpec, progress: Progress, *, force: bool = False) -> Report:
    """Move the whole source into the target and prove it; resume whatever an earlier run left.

    ``force``: use a fitted map although the gate refuses it.
    """
    with (
        held("migrate", job, progress, must_exist=False) as run,
        ray_running(),
        interrupts.heeded(),
    ):
        run.report.clock["ray_ready"] = time.time()
        run.report.notes += (
            run.plan.notes
        )  # what the plan said of the source holds for what was read from it
        check_target_is_shared(job.target.uri)
        with progress.shown():
            copy(run, force=force)
            settle(run)
            finish(run)
        return run.report


def copy(run: Run, *, force: bool) -> None:
    """Read, convert, embed, write and commit every shard; learn first what the vectors need."""
    begin = time.perf_counter()
    copying = Copying(run.job, run.plan, run.target, run.report, run.progress)
    copying.adopt()
    # a run whose shards are all there asks nothing of its source, which may be switched off by now
    if copying.left:
        with run.job.source.session() as session, pool_for(run) as pool:
            context = copying.context(session)
            recipe = learned(run, context, pool, force=force)
            copying.read(context, Embed(run.job, run.plan.layout, recipe, pool))
            report_pool(run, pool)
            run.count()
            count_source_again(run.job, run.plan, run.report, session)
    run.report.clock["last_commit"] = time.time()
    run.report.clock["copy_seconds"] = (
        run.report.clock["last_commit"] - run.report.clock["ray_ready"]
    )
    run.report.stage("copy").seconds = time.perf_counter() - begin
    failpoint.reached("copy")


def settle(run: Run) -> None:
    """Take out duplicates, count dangling references, write the headers."""
    run.count()
    found = run.timed(
        "identities",
        lambda: duplicates.find_duplicates(
            run.target, run.plan, references=bool(run.job.mapping.relationships)
        ),
    )
    run.report.counts["dangling_references"] = found.dangling
    if found.extra:
        if run.job.mapping.on_duplicate == "error":
            first = next(iter(found.extra.values()))
            raise LimitReached(
                f"{len(found.extra):,} records share their identity with another one ({first}, ...), and mapping.on_duplicate is error",
                "choose another mapping.id for a new target; nothing was removed",
            )
        left = allowed(run.job, run.report.counts["read"]) - run.report.counts["quarantined"]
        duplicates.remove_duplicates(run.target, run.state, run.plan, found, left)
    failpoint.reached("duplicates")
    run.timed("headers", lambda: headers.write_headers(run.job, run.plan, run.target, run.state))
    failpoint.reached("headers")
    run.count()


def finish(run: Run) -> None:
    """Compact, index and verify: each step may be interrupted and run again.

    None is begun, and no end reported, without the lease.
    """
    run.target.check_held(run.target.ledger())
    run.report.counts["fragments_compacted"] = run.timed(
        "compact", lambda: compact.compact(run.target, run.state)
    )
    failpoint.reached("compact")
    run.target.check_held(run.target.ledger())
    built = run.timed("index", lambda: index.build(run.target, run.job.index, run.plan.metric))
    run.report.notes += [f"indexes built or completed: {', '.join(built)}"] if built else []
    failpoint.reached("index")
    run.timed("verify", lambda: verify.verify(run.target, run.state, run.plan, run.report))
    report_gate(run)
    failpoint.reached("verify")
    run.target.check_held(run.target.ledger())
    run.report.conclude()


def optimize(job: JobSpec, progress: Progress) -> Report:
    """Compact, index and verify a target whose shards are all there."""
    with held("optimize", job, progress) as run, ray_running(), interrupts.heeded():
        run.count()
        finish(run)
        return run.report


def check(job: JobSpec, progress: Progress) -> Report:
    """Verify a target at the ledger level; changes nothing but the report."""
    with looked_at("verify", job, progress) as run, ray_running(), interrupts.heeded():
        run.count()
        run.timed("verify", lambda: verify.verify(run.target, run.state, run.plan, run.report))
        run.report.conclude()
        run.report.save(run.state)
        return run.report


def replay(job: JobSpec, progress: Progress) -> Report:
    """Try the rows in quarantine again, with the mapping and embedding as they are now."""
    with (
        held("quarantine replay", job, progress, repair=REPLAYED) as run,
        ray_running(),
        interrupts.heeded(),
    ):
        run.remember_job()
        with pool_for(run) as pool:
            again = embed_from_text(run, pool)
            brought = run.timed(
                "replay", lambda: replay_quarantined(again.job, again, run.target, run.state)
            )
        run.report.notes.append(f"{brought:,} records came in from quarantine")
        failpoint.reached("replay")
        headers.write_headers(job, run.plan, run.target, run.state)
        run.count()
        finish(run)
        return run.report


def embed(job: JobSpec, progress: Progress, *, force: bool = False) -> Report:
    """Make the vectors of a finished target anew, as the job file says now.

    Readers of the old version are not disturbed.

    ``force``: use a fitted map although the gate refuses it.
    """
    with held("embed", job, progress, repair=EMBEDDED) as run:
        check_reembeddable(run)
        with ray_running(), interrupts.heeded():
            check_target_is_shared(job.target.uri)
            run.remember_job()
            run.count()
            reembed_target(run, force=force)
            run.plan = with_current_dimension(run.plan, job)
            headers.write_headers(
                job, run.plan, run.target, run.state
            )  # a run that was killed after its commit left the old centroids
            run.count()
            finish(run)
        return run.report


def search(place: str, question: Question) -> Answer:
    """Search a target: the newcomer's proof that it works.

    Args:
        place: the target's address, or a job file.
        question: what is asked.
    """
    if place.endswith((".yaml", ".yml")) and not is_uri(place):
        job = read_job(Path(place))
        uri, question = job.target.uri, replace(question, embedding=job.embedding)
    else:
        uri = absolute(place, Path.cwd()).rstrip("/")
    if commit.find(uri) is None:
        raise ConfigError(
            f"there is no target at {uri}",
            "give its address, or its job file; cfray migrate makes one",
        )
    return search_target(uri, question)


def quarantined(job: JobSpec) -> list[dict[str, Any]]:
    """List the rows in quarantine (without the copy that replay needs)."""
    with looked_at("quarantine list", job, _silent()) as run:
        rows = quarantined_rows(run.state, run.target.ledger())
        return [
            {
                **{
                    name: row.entry[name]
                    for name in ("stage", "reason", "position", "id", "content")
                },
                "file": row.file,
                "line": row.line,
            }
            for row in rows
        ]


def clean_up(job: JobSpec, keep_versions: int | None) -> dict[str, int]:
    """Remove exactly the files that no retained version references."""
    with held("cleanup", job, _silent()) as run:
        removed = cleanup.clean_up(run.target, run.state, keep_versions)
        run.count()
        run.report.exit_code, run.report.verdict = (
            0,
            f"removed {removed.files} files that no version references",
        )
        return asdict(removed)


def status(job: JobSpec) -> dict[str, Any]:
    """Say how far a run is, from the ledger alone."""
    with looked_at("status", job, _silent()) as run:
        run.count()
        holder = lease_holder(run.state.folder)
        counts = run.report.counts
        return {
            "job": job.name,
            "target": job.target.uri,
            "held_by": str(holder) if holder else "nobody",
            "version": run.target.open().version,
            "finished": counts["shards"] == counts["shards_planned"],
            **counts,
            "planned_records": run.plan.rows if run.plan.rows is not None else "unknown",
            "planned_records_exact": run.plan.exact,
        }


def last_report(job: JobSpec) -> Report:
    """Read the report of the last run.

    Raises:
        ConfigError: there is none.
    """
    with looked_at("report", job, _silent()) as run:
        data = run.state.folder.read(FILE)
        if data is None:
            raise ConfigError(
                f"{job.target.uri} has no report yet", "let a run end, or run cfray verify"
            )
        return Report.from_json(json.loads(data))


def _silent() -> Progress:
    from rich.console import Console

    return Progress(Console(stderr=True), quiet=True)
