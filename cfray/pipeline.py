"""The whole program, top to bottom.

    plan ─▶ read ─▶ convert ─▶ write ─▶ commit ─▶ compact ─▶ index ─▶ verify

What always holds (each has a test; ``design.md``, "Invariants"):

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
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from cfray import errors
from cfray.errors import CfrayError, ConfigError, LedgerMismatch, LimitReached, SourceError
from cfray.jobspec import FINGERPRINTED, JobSpec, changed_keys
from cfray.lease import Lease, wait_until_free
from cfray.ledger import DUPLICATES, Ledger, Plan, Receipt, State
from cfray.progress import Progress
from cfray.report import Report
from cfray.sources.base import Context
from cfray.stages import commit, compact, copy, duplicates, failpoint, headers, index, interrupts, plan, probe, verify
from cfray.stages.cluster import check_target_is_shared, cores, ray_running
from cfray.stages.commit import Target
from cfray.stages.convert import Conversion

logger = logging.getLogger("cfray")

#: Share of the driver's time that commits may take: a commit waits until it is 20 times its cost since the last one.
_COMMIT_SHARE = 20


@dataclass(slots=True)
class Run:
    """One command at work on one target."""

    job: JobSpec
    state: State
    target: Target
    plan: Plan
    report: Report
    progress: Progress


def migrate(job: JobSpec, progress: Progress) -> Report:
    """Move the whole source into the target and prove it; resume whatever an earlier run left.

    Raises:
        CfrayError: refused before anything was created (exit 2) or held by another run (exit 5).
    """
    report = Report("migrate", job.name, job.target.uri, job.fingerprint, versions=versions())
    with held(job, report, progress) as run, concluded(run), ray_running(), interrupts.heeded():
        report.clock["ray_ready"] = time.time()
        check_target_is_shared(job.target.uri)
        with progress.shown(), job.source.session():
            copied(run)
            settled(run)
        finished(run)
    return report


def optimize(job: JobSpec, progress: Progress) -> Report:
    """Compact, index and verify a target whose shards are all there."""
    report = Report("optimize", job.name, job.target.uri, job.fingerprint, versions=versions())
    with held(job, report, progress, must_exist=True) as run, concluded(run), ray_running(), interrupts.heeded():
        account(run)
        finished(run)
    return report


def check(job: JobSpec, progress: Progress) -> Report:
    """Verify a target at the ledger level; writes nothing but the report."""
    report = Report("verify", job.name, job.target.uri, job.fingerprint, versions=versions())
    run = reading(job, report, progress)
    with concluded(run), ray_running(), interrupts.heeded():
        account(run)
        timed(run, "verify", lambda: verify.verify(run.target, run.state, run.plan, report))
        report.conclude()
    return report


def forecast(job: JobSpec) -> tuple[Plan, plan.Forecast]:
    """Say what a migration would do; write nothing."""
    with refused():
        agreed(job, commit.find(job.target.uri))
        return plan.make_plan(job)


def reading(job: JobSpec, report: Report, progress: Progress) -> Run:
    """Open a finished or unfinished target without taking it.

    Raises:
        ConfigError: there is no target yet.
        LedgerMismatch: it belongs to another job.
    """
    ledger = commit.find(job.target.uri)
    state = State(job.target.uri)
    saved = state.plan()
    if ledger is None or saved is None:
        raise ConfigError(f"there is no target at {job.target.uri} yet", "run cfray migrate first")
    agreed(job, ledger)
    report.consistency = saved.consistency
    return Run(job, state, Target(job.target.uri, ledger.epoch), saved, report, progress)


@contextmanager
def held(job: JobSpec, report: Report, progress: Progress, *, must_exist: bool = False) -> Iterator[Run]:
    """Take the target for the block: judge the lease, plan if nobody did, create the target or raise its epoch.

    Raises:
        CfrayError: refused (exit 2, nothing created) or held by another run (exit 5).
    """
    with refused():
        ledger = commit.find(job.target.uri)
        agreed(job, ledger)
        state = State(job.target.uri)
        wait_until_free(state.folder)
        if must_exist and (ledger is None or state.plan() is None):
            raise ConfigError(f"there is no target at {job.target.uri} yet", "run cfray migrate first")
        saved = state.plan() if ledger is not None else None
        made = saved if saved is not None else plan.make_plan(job)[0]
        if ledger is None:
            probe.probe_conditional_put(job.target.uri)
    lease = Lease(state.folder)
    if ledger is None:
        target = commit.create(job.target.uri, Conversion(job, made.layout).schema, made.layout.types, job.fingerprint)
    else:
        lease.announce()
        target = commit.take_over(job.target.uri)
    lease.start()
    failpoint.reached("lease")
    try:
        if saved is None:
            _check_nothing_committed(target)
            state.save_jobs([{"fingerprint": job.fingerprint, "agreed": job.agreed}])
            state.save_plan(made)
        failpoint.reached("plan")
        report.consistency = made.consistency
        yield Run(job, state, target, made, report, progress)
    finally:
        lease.release()


def _check_nothing_committed(target: Target) -> None:
    """Refuse to plan anew what was committed under another plan.

    Raises:
        LedgerMismatch: the plan is gone, the data is not.
    """
    if target.ledger().entries:
        raise LedgerMismatch(
            f"{target.uri}.cfray/plan.json is missing, but the target has committed shards",
            "restore the folder beside the target, or give another target.uri",
        )


@contextmanager
def refused() -> Iterator[None]:
    """Before anything is created, a source's error is a refusal (exit 2)."""
    try:
        yield
    except SourceError as error:
        raise ConfigError(error.what, error.remedy) from error


def agreed(job: JobSpec, ledger: Ledger | None) -> None:
    """Refuse a job that is not the one the target was made by.

    Raises:
        LedgerMismatch: names every key that changed.
    """
    if ledger is None or job.fingerprint in ledger.fingerprints:
        return
    known = State(job.target.uri).jobs()
    before = known[-1]["agreed"] if known else {}
    changed = [line for key in FINGERPRINTED for line in changed_keys(before.get(key), job.agreed.get(key), key)]
    raise LedgerMismatch(
        f"{job.target.uri} was made by another job; changed: " + "; ".join(changed or ["(job.json beside the target is missing)"]),
        "undo the change, or give another target.uri; to retry quarantined rows with a corrected mapping, run cfray quarantine replay",
    )


@contextmanager
def concluded(run: Run) -> Iterator[None]:
    """Write the report at every end, and let errors through after that."""
    try:
        yield
    except BaseException as error:
        known = (
            error
            if isinstance(error, CfrayError)
            else CfrayError(f"{type(error).__name__}: {error}", "this is a fault of cfray's: please report it with the log; what is committed stays")
        )
        if isinstance(error, errors.LeaseHeld):
            raise  # the report belongs to the run that has the target now
        account(run)
        run.report.fail(known)
        run.report.save(run.state)
        raise
    run.report.save(run.state)


def copied(run: Run) -> None:
    """Bring every shard into the target, committing each while later ones are still being read."""
    begin = time.perf_counter()
    ledger = run.target.ledger()
    done = [run.state.receipt(name, entry.nonce) for name, entry in ledger.entries.items() if name.isdigit()]
    run.progress.start(
        run.plan.rows, exact=run.plan.exact, shards=len(run.plan.shards), done_shards=len(done), done_rows=sum(one.read for one in done)
    )
    committer = Committer(run, sum(one.quarantined for one in done), sum(one.read for one in done))
    try:
        for receipt in _adoptable(run, ledger):
            committer.add(receipt)
        committer.flush()
        left = [number for number in range(len(run.plan.shards)) if str(number) not in ledger.entries and str(number) not in committer.names]
        run.report.counts["shards_resumed"] = len(run.plan.shards) - len(left)
        run.report.counts["shards_adopted"] = len(committer.names)
        run.report.counts["shards_read"] = 0
        for receipt in _streamed(run, left):
            run.report.counts["shards_read"] += 1
            committer.add(receipt)
    finally:
        committer.flush()
    committer.check_limit(final=True)
    run.report.clock["last_commit"] = time.time()
    run.report.clock["copy_seconds"] = run.report.clock["last_commit"] - run.report.clock["ray_ready"]
    run.report.stage("copy").seconds = time.perf_counter() - begin


def _adoptable(run: Run, ledger: Ledger) -> Iterator[Receipt]:
    """Yield the receipts of shards that an earlier run staged and did not commit."""
    for name, nonces in run.state.staged_names().items():
        if name.isdigit() and name not in ledger.entries:
            yield run.state.receipt(name, nonces[0])


def _streamed(run: Run, numbers: list[int]) -> Iterator[Receipt]:
    """Copy shards in one streaming Ray Data execution; receipts as they come.

    Raises:
        CfrayError: the first shard that could not be copied.
    """
    import ray
    from ray.data import DataContext, TaskPoolStrategy

    if not numbers:
        return
    settings = DataContext.get_current()
    settings.enable_progress_bars = False
    settings.max_errored_blocks = 0  # anything else drops blocks in silence (engine.md 2.2)
    limits = run.job.limits
    memory = {} if limits.memory == "auto" else {"memory": limits.memory}
    workers = cores() if limits.workers == "auto" else limits.workers
    context = Context(session=run.plan.session, scratch=run.state.scratch.uri, max_record=limits.max_document)
    cargo = copy.Cargo(run.job, run.plan.layout, context, run.target.epoch)
    items = [{"number": number, "shard": json.dumps(asdict(run.plan.shards[number]))} for number in numbers]
    receipts = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        partial(copy.copy_task, cargo=cargo), batch_size=1, batch_format="pyarrow", compute=TaskPoolStrategy(size=workers), num_cpus=1, **memory
    )
    for row in receipts.iter_rows():
        if row["error"]:
            raise _revived(json.loads(row["error"]))
        yield Receipt.from_json(row["receipt"])


def _revived(data: dict[str, str]) -> CfrayError:
    """Make an error from a worker again."""
    kind: type[CfrayError] = getattr(errors, data["type"])
    return kind(data["what"], data["remedy"])


class Committer:
    """Commits receipts in groups, often enough to be visible and seldom enough to be cheap."""

    def __init__(self, run: Run, quarantined: int, read: int) -> None:
        """Start with what earlier runs committed."""
        self.run = run
        self.names: set[str] = set()
        self.waiting: list[Receipt] = []
        self.quarantined, self.read = quarantined, read
        self.cost = 0.0
        self.last = 0.0

    def add(self, receipt: Receipt) -> None:
        """Take one staged shard; commit it now or with the next ones.

        Raises:
            LimitReached: too many records are in quarantine.
        """
        if receipt.name in self.names:
            return  # Ray repeated a task after it had published: the first receipt counts
        failpoint.reached("stage")
        self.names.add(receipt.name)
        self.waiting.append(receipt)
        self.run.progress.add(receipt)
        self.run.report.clock.setdefault("first_receipt", time.time())
        self.quarantined += receipt.quarantined
        self.read += receipt.read
        if time.perf_counter() - self.last >= self.cost * _COMMIT_SHARE:
            self.flush()
        self.check_limit(final=False)

    def flush(self) -> None:
        """Commit what waits."""
        if not self.waiting:
            return
        begin = time.perf_counter()
        group, self.waiting = self.waiting, []
        commit.commit_receipts(self.run.target, group)
        failpoint.reached("commit")
        self.last = time.perf_counter()
        self.cost = self.last - begin
        figures = self.run.report.stage("commit")
        figures.seconds += self.cost
        figures.rows += sum(receipt.frames for receipt in group)
        self.run.progress.commit(self.cost)
        for receipt in group:
            logger.info("committed shard=%s rows=%d seconds=%.3f", receipt.shard, receipt.frames, self.cost)

    def check_limit(self, *, final: bool) -> None:
        """Stop a run that quarantines too much; a share is judged against the records the plan expects, at the end against those read.

        Raises:
            LimitReached: what is committed stays.
        """
        expected = self.read if final else max(self.read, self.run.plan.rows or 0)
        if self.quarantined > allowed(self.run.job, expected):
            raise LimitReached(
                f"{self.quarantined:,} of {self.read:,} records read so far are in quarantine, more than limits.max_quarantined ({self.run.job.limits.max_quarantined}) allows",
                "see why with `cfray quarantine list`; raise limits.max_quarantined and run the same command again to go on, or correct the mapping and start with a new target",
            )


def allowed(job: JobSpec, records: int) -> float:
    """Give the number of records that may be quarantined."""
    limit = job.limits.max_quarantined
    return limit * records if isinstance(limit, float) else limit


def settled(run: Run) -> None:
    """Take out duplicates, count dangling references, write the headers."""
    begin = time.perf_counter()
    account(run)
    found = duplicates.inspect(run.target, run.plan, references=bool(run.job.mapping.relationships))
    run.report.counts["dangling_references"] = found.dangling
    if found.extra:
        if run.job.mapping.on_duplicate == "error":
            first = next(iter(found.extra.values()))
            raise LimitReached(
                f"{len(found.extra):,} records share their identity with another one ({first}, ...), and mapping.on_duplicate is error",
                "choose another mapping.id for a new target; nothing was removed",
            )
        duplicates.remove(run.target, run.state, run.plan, found, allowed(run.job, run.report.counts["read"]) - run.report.counts["quarantined"])
    failpoint.reached("duplicates")
    headers.write_headers(run.job, run.plan, run.target, run.state)
    failpoint.reached("headers")
    run.report.stage("settle").seconds = time.perf_counter() - begin
    account(run)


def finished(run: Run) -> None:
    """Compact, index and verify: each step may be interrupted and run again."""
    run.report.counts["fragments_compacted"] = timed(run, "compact", lambda: compact.compact(run.target, run.state))
    failpoint.reached("compact")
    built = timed(run, "index", lambda: index.build(run.target, run.job.index, run.plan.metric))
    failpoint.reached("index")
    if built:
        run.progress.say(f"indexes built or completed: {', '.join(built)}")
    timed(run, "verify", lambda: verify.verify(run.target, run.state, run.plan, run.report))
    failpoint.reached("verify")
    run.report.conclude()


def timed(run: Run, name: str, work: Callable[[], Any]) -> Any:  # whatever the work returns
    """Do one step of the driver and note how long it took."""
    run.progress.say(f"{name} ...")
    begin = time.perf_counter()
    result = work()
    run.report.stage(name).seconds += time.perf_counter() - begin
    return result


def account(run: Run) -> None:
    """Count from the committed receipts, never from what this process happened to see."""
    report = run.report
    ledger = run.target.ledger()
    totals = dict.fromkeys(("read", "staged", "quarantined", "frames"), 0)
    details: dict[str, int] = {}
    for name in ("read", "convert", "write"):
        report.stages.pop(name, None)
    for receipt in run.state.committed(ledger):
        if receipt.name in ledger.replays or receipt.name == DUPLICATES:
            totals["quarantined"] += receipt.quarantined
        elif receipt.name.isdigit():
            for name in totals:
                totals[name] += getattr(receipt, name)
            for stage, seconds in receipt.seconds.items():
                figures = report.stage(stage)
                figures.seconds += seconds
                figures.rows += receipt.read
                figures.bytes += receipt.size
        if receipt.name in ledger.replays:
            totals["staged"] += receipt.staged
            totals["frames"] += receipt.frames
            totals["quarantined"] -= len(receipt.resolved)
        if receipt.name == DUPLICATES:
            totals["staged"] -= receipt.quarantined
            totals["frames"] -= receipt.quarantined
        for name, count in receipt.counts.items():
            details[name] = details.get(name, 0) + count
    report.counts.update(totals)
    report.quarantine_reasons = {name.removeprefix("quarantined: "): count for name, count in details.items() if name.startswith("quarantined: ")}
    report.counts.update({name: count for name, count in details.items() if not name.startswith("quarantined: ")})
    report.counts["shards"] = sum(name.isdigit() for name in ledger.entries)
    report.counts["shards_planned"] = len(run.plan.shards)


def versions() -> dict[str, str]:
    """Give the versions of what writes the target."""
    return {name: version(name) for name in ("cfray", "ray", "pylance", "pyarrow")}
