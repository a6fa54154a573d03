"""What Python code calls: the commands as functions, and sources as Datasets.

A function returns what the command line prints and raises the error that the command line shows:
no function prints or ends the process.  A job is given as the path of its file, as a dict with
the file's keys or as a ``Job``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.console import Console

from cfray import pipeline
from cfray.errors import ConfigError
from cfray.job.python_job import Job, job_of, source_job
from cfray.job.spec import JobSpec
from cfray.pipeline import Against, Verification
from cfray.planning.preview import Preview
from cfray.report.facts import Report
from cfray.report.progress import Progress
from cfray.sources.base import Source
from cfray.syncing.sync import Deletes, SyncSettings
from cfray.target.search import Answer, Mode, Question

if TYPE_CHECKING:
    from cfray.datasource import Dataset, OnReject, Values

#: A job in any form: the path of its file, its keys, or the job.
AnyJob: TypeAlias = str | Path | Mapping[str, Any] | JobSpec

__all__ = [
    "Answer",
    "AnyJob",
    "Job",
    "Preview",
    "Report",
    "Source",
    "close",
    "migrate",
    "plan",
    "query",
    "read",
    "sync",
    "verify",
]


def plan(job: AnyJob) -> Preview:
    """Say what a migration would do and what would be lost; write nothing.

    Example::

        preview = cfray.plan("jobs/articles.yaml")
        if preview.forecast.lossy:
            print(preview)

    Args:
        job: path of a job file, its keys, or a job.

    Raises:
        ConfigError: the job is wrong, or its source cannot be read.
        LedgerMismatch: another job made the target.
    """
    given = job_of(job)
    return Preview(given.name, *pipeline.forecast(given))


def migrate(
    job: AnyJob, *, force: bool = False, extend: bool = False, progress: bool = False
) -> Report:
    """Move the whole source into the target and prove it; resume what an earlier call left.

    Ray is started on this machine and stopped at the end, unless it runs already or
    ``RAY_ADDRESS`` names a cluster.  Ctrl-C raises ``Interrupted``; the same call goes on.

    Example::

        report = cfray.migrate("jobs/articles.yaml", progress=True)
        assert report.exit_code == 0, report

    Args:
        job: path of a job file, its keys, or a job.
        force: use a fitted map although the gate refuses it.
        extend: copy the files, too, that have appeared at the source since the plan.
        progress: show on stderr how far the run is.

    Returns:
        The report.  ``exit_code`` is 0 where all is verified, 3 with records in quarantine, 4
        where a check failed, 7 where the source has gone on since: these raise nothing.

    Raises:
        ConfigError, LedgerMismatch: refused; nothing was created.
        LeaseHeld: another run holds the target.
        CfrayError: the run failed or stopped; what is committed stays, and the report is saved.
    """
    return pipeline.migrate(job_of(job), _shown(progress=progress), force=force, extend=extend)


def verify(
    job: AnyJob,
    *,
    against: Against = "ledger",
    sample: int | None = None,
    parity: bool = False,
    progress: bool = False,
) -> Report:
    """Re-read the target and compare it with its ledger, or also with its source; change no row.

    Example::

        report = cfray.verify("jobs/articles.yaml")
        failed = [check for check in report.checks if check.status == "fail"]

    Args:
        job: path of a job file, its keys, or a job.
        against: ``ledger`` needs no source; ``source`` also reads every record of it again.
        sample: with ``source``: only whole shards, drawn at random, that hold so many records.
        parity: ask source and target the same searches; the source's answers are those of
            ``cfray baseline``, where there are any.
        progress: show on stderr which step runs.

    Returns:
        The report.  ``exit_code`` is 4 where a check failed, 6 where the source has changed so
        that a comparison with it decides nothing: these raise nothing.

    Raises:
        ConfigError: there is no target yet, or a sample is to be compared with the ledger.
        LedgerMismatch: another job made it.
    """
    if sample is not None and against != "source":
        raise ConfigError("a sample is of the source", 'give against="source", too')
    asked = Verification(against, sample=sample, parity=parity)
    return pipeline.check(job_of(job), _shown(progress=progress), asked)


def sync(
    job: AnyJob,
    *,
    deletes: Deletes = "apply",
    allow_empty: bool = False,
    reads_all: bool = False,
    keep_versions: int | None = 50,
    progress: bool = False,
) -> Report:
    """Bring what has changed at the source into a finished target, in one commit, and verify it.

    What the source may have written to since the last sync is read; only what differs is written,
    and only texts that have changed are embedded.

    Example::

        report = cfray.sync("jobs/articles.yaml")
        print(report.counts["records_changed"])

    Args:
        job: path of a job file, its keys, or a job.
        deletes: what becomes of a record that the source has no more: ``apply`` (it leaves),
            ``mark`` (its ``status`` becomes ``deleted``) or ``ignore``.
        allow_empty: believe a source, or a source collection, that answers with no record at all.
        reads_all: read shards, too, of which the source says that they are as the last sync has
            read them.
        keep_versions: newest versions of the dataset that stay; None keeps all.
        progress: show on stderr which step runs.

    Returns:
        The report, whose ``counts`` have ``records_new``, ``records_changed``, ``records_gone`` and
        ``records_same``.  ``exit_code`` is 3 with records in quarantine, 4 where a check failed:
        these raise nothing.

    Raises:
        ConfigError: the target is not finished, the source answers with nothing, or the job is not
            the target's last.
        LeaseHeld: another run holds the target.
        CfrayError: the sync failed or stopped; nothing was committed.
    """
    settings = SyncSettings(deletes, allow_empty, reads_all)
    return pipeline.bring_up_to_date(
        job_of(job), _shown(progress=progress), settings, keep_versions
    )


def query(
    target: AnyJob,
    text: str,
    *,
    k: int = 10,
    mode: Mode = "auto",
    where: str | None = None,
    model: str | None = None,
) -> Answer:
    """Search a target by vector, by words or by both; Ray is not started.

    Example::

        answer = cfray.query("out/articles.lance", "how a lease works", k=3)
        titles = [hit["title"] for hit in answer.hits]

    Args:
        target: path or URI of the dataset; or a job in any form, which also says how to reach an
            embedding server.
        text: what to look for.
        k: hits.
        mode: ``auto`` is hybrid where the dataset says which model its vectors are from, else
            ``text``.
        where: SQL condition on the columns, such as ``"collection = 'articles'"``.
        model: folder or package of the model, where it is not where the dataset says.

    Returns:
        The hits, best first: dicts with ``uuid``, ``title``, ``text_content``, ``collection``,
        ``original_id`` and ``score``.

    Raises:
        ConfigError: there is no target, the model is another one than the vectors', or the
            condition is wrong.
    """
    question = Question(text, k, mode, where, model=model)
    if isinstance(target, str | Path):
        return pipeline.search(str(target), question)
    job = job_of(target)
    metric = job.index.vector.metric
    question = Question(text, k, mode, where, job.embedding, model, metric)
    return pipeline.search(job.target.uri, question)


def read(
    source: AnyJob | Source,
    *,
    values: Values = "plain",
    on_reject: OnReject = "error",
    origin: bool = False,
    scratch: str | None = None,
) -> Dataset:
    """Give the records of a source as a ``ray.data.Dataset``, one read task a shard.

    For exploring, and for lines of people's own.  **Not exactly once**: Ray Data may run a read
    task again after a crash, and of a source that changes meanwhile it may keep rows of both
    runs, with rows missing or doubled and no error.  Where every record counts, migrate.

    The source's session (a snapshot, woken tenants) is opened by this call.  It is held, and
    kept alive, until ``cfray.close(dataset)``, or until this Dataset and all that were made of it
    are gone; a Dataset that is read after that, or after the store let the session go, raises.

    Ray is used as it runs; else it is started on this machine (or joined at ``RAY_ADDRESS``), and
    runs until the process ends.

    Example::

        articles = cfray.read({"kind": "jsonl", "uri": "exports/articles"})
        articles.schema()
        articles.filter(expr=col("year") > 2020).take(5)  # ray.data.expressions.col
        cfray.close(articles)

    Args:
        source: keys of a source, a source, the path of a YAML file with a section ``source``, or
            a job, whose ``limits.max_document`` counts, too.
        values: what becomes of fields without a type at the source (JSON, document stores).
            ``plain``: a sample decides on one type for each field; objects and fields of several
            types are texts, with JSON for all but strings; a missing key is null.  A later value
            that its column cannot hold raises, and a key that the sample lacks is a column of
            texts in the blocks that have it.  ``exact``: structs ``{type, text, numbers}`` that
            keep null, missing, 1 and 1.0 apart.
        on_reject: what becomes of a row that is no record, such as a line that is no JSON.  It
            never vanishes: ``error`` raises with its place, ``column`` gives it a row of its own
            that has a value only in ``$reject`` (``reason``, ``position``, ``content``).
        origin: add the column ``$file`` (files) or ``$collection`` (stores).
        scratch: URI of an empty folder that every node reaches; needed on a cluster for sources
            that write down lists of ids for their shards.

    Returns:
        A Dataset whose ``count`` needs no reading where the source knows its rows, as Parquet
        does, and whose columns are known before it is read.

    Raises:
        ConfigError: the source is described wrongly.
        SourceError: it cannot be read or holds no record; also while the Dataset is read: a
            reject, a value that does not fit, a closed or expired session.
        SourceUnavailable: the store does not answer, also after its requests were repeated.
        EngineError: Ray did not start.
    """
    from cfray.datasource import ReadOptions, read_dataset

    return read_dataset(source_job(source), ReadOptions(values, on_reject, origin, scratch))


def close(dataset: Dataset) -> None:
    """End the session in which a Dataset of ``cfray.read`` reads its source.

    Example: ``cfray.close(articles)``; closing again is no error.

    Args:
        dataset: as ``cfray.read`` gave it, not one that was made of it.

    Raises:
        ConfigError: ``cfray.read`` did not give it.
        SourceError: the store could not release what the session held.
    """
    from cfray.datasource import close_dataset

    close_dataset(dataset)


def _shown(*, progress: bool) -> Progress:
    return Progress(Console(stderr=True), quiet=not progress)
