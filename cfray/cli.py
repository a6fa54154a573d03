"""One command per verb; each reads its arguments, calls the pipeline and shows what came back.

stdout carries the result (with ``--json`` exactly one document, at every end),
stderr everything else.  The heavy imports stand inside the commands:
``cfray --help`` needs no Ray and no Lance.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from rich.console import Console

from cfray.errors import CfrayError, ConfigError, Interrupted
from cfray.runtime.plurals import counted

if TYPE_CHECKING:
    from cfray.embedding.forecast import EmbeddingForecast
    from cfray.inspection.source import Draft
    from cfray.job.spec import JobSpec
    from cfray.report.facts import Report
    from cfray.report.progress import Progress
    from cfray.syncing.sync import Deletes

#: What typer raises for a command line that it cannot read; typer 0.29 carries click inside, so the
#: class is taken from typer's own public one.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Move a whole corpus into one proven Lance dataset. Exit codes: 0 done and verified, "
    "1 failed or stopped (resumable), 2 refused, 3 done with rows in quarantine, 4 a check failed, "
    "5 another run holds the target, 6 a check could not be decided, 7 the source has gone on "
    "since, 130/143 interrupted.",
)
quarantine_app = typer.Typer(
    no_args_is_help=True, help="Look at the rows that did not fit, or try them again."
)
app.add_typer(quarantine_app, name="quarantine")


def _set_verbose(value: bool) -> bool:
    if value:
        logging.getLogger("cfray").setLevel(logging.INFO)
    return value


Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        callback=_set_verbose,
        help="One line on stderr for every shard that is staged or committed.",
    ),
]
JobFile = Annotated[Path, typer.Argument(help="The job file (YAML).", show_default=False)]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print exactly one JSON document on stdout; everything else goes to stderr.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Remap although the gate refuses the map; recorded in the dataset."
    ),
]
OnlyPlan = Annotated[
    bool,
    typer.Option(
        "--plan",
        help="Only say what would happen, from a sample of the target's texts; write nothing.",
    ),
]
Restart = Annotated[
    bool,
    typer.Option(
        "--restart",
        help="Start over: remove the target and the folder beside it first, after saying what "
        "that is. Committed rows are removed only after confirmation (or with --yes).",
    ),
]
Extend = Annotated[
    bool,
    typer.Option(
        "--extend",
        help="Copy the files, too, that have appeared at the source since the plan.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Confirm what --restart removes.")]
KeepVersions = Annotated[
    int | None,
    typer.Option("--keep-versions", min=1, help="Retire all but the newest n versions first."),
]


TargetOrJob = Annotated[
    str, typer.Argument(help="Address of a target, or its job file.", show_default=False)
]


@app.callback()
def options(*, verbose: Verbose = False) -> None:
    """Set what holds for every command."""


@app.command()
def inspect(
    source: Annotated[
        str,
        typer.Argument(
            help="A YAML file with a source section, or a file, folder or glob.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Write the draft here instead of stdout; of a location that needs several jobs, "
            "the draft of each to a file with its label in the name (X-csv.yaml).",
        ),
    ] = None,
    *,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Look at a source and draft a job file that runs unedited, with a comment per guess."""
    from cfray.inspection.source import as_documents, draft_all, path_of

    _refuse_existing(out)
    drafts = draft_all(source, out)
    paths = [path_of(draft, out) if out else None for draft in drafts]
    for path in paths:
        _refuse_existing(path)
    if len(drafts) > 1:
        _say(f"{source} needs {len(drafts)} jobs, and here is a draft for each; none reads all")
    for draft, path in zip(drafts, paths, strict=True):
        if path is not None:
            path.write_text(draft.text, encoding="utf-8")
        _say_of_draft(draft, path)
    if as_json:
        listed = [
            {
                "file": None if path is None else str(path),
                "job_file": draft.text,
                "guesses": draft.guesses,
                "missing_id": draft.missing,
                "warnings": list(draft.warnings),
            }
            for draft, path in zip(drafts, paths, strict=True)
        ]
        # of a single draft its keys stand at the top, too
        alone = {key: listed[0][key] for key in ("job_file", "guesses")} if len(drafts) == 1 else {}
        _print_json({**alone, "drafts": listed})
    elif out is None:
        typer.echo(as_documents(drafts), nl=False)


def _say_of_draft(draft: Draft, path: Path | None) -> None:
    """Say what a draft lacks and what its plan would warn of, and only then what comes next."""
    where = path or "the draft"
    if draft.missing:
        _say(f"mapping.id is empty in {where}: {draft.missing}")
    for warning in draft.warnings:
        _say(f"WARNING  {warning}" if path is None else f"WARNING  {path}: {warning}")
    if path is None:
        return
    first = "fill in mapping.id there, then " if draft.missing else ""
    first += "see the warnings above, then " if draft.warnings else ""
    _say(f"wrote {path}; next: {first}cfray plan {path}")


def _refuse_existing(path: Path | None) -> None:
    if path is not None and path.exists():
        raise ConfigError(f"{path} exists", "give another --out, or remove it")


@app.command()
def plan(job_file: JobFile, *, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Say what would happen and what would be lost; write nothing."""
    from cfray import pipeline
    from cfray.planning import show

    job = _read_job(job_file)
    run_plan, forecast = pipeline.forecast(job)
    if as_json:
        _print_json(show.as_json(run_plan, forecast))
    else:
        show.show_forecast(job.name, run_plan, forecast, Console())


@app.command()
def migrate(
    job_file: JobFile,
    *,
    force: Force = False,
    extend: Extend = False,
    restart: Restart = False,
    yes: Yes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Plan, copy, commit, compact, index and verify one job; run it again to resume."""
    from cfray import pipeline, runs

    job = _read_job(job_file)
    if restart:
        runs.restart_target(job, _say, lambda: yes or _confirmed("Remove them?"))
    report = pipeline.migrate(job, _progress(quiet=quiet), force=force, extend=extend)
    _finish(report, as_json=as_json)


@app.command()
def embed(
    job_file: JobFile,
    *,
    plan: OnlyPlan = False,
    force: Force = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the vectors of a finished target anew, as the job file's embedding section says.

    Run it again to resume.
    """
    from cfray import pipeline

    job = _read_job(job_file)
    if plan:
        _show_embedding(pipeline.embedding_forecast(job), as_json=as_json)
        return
    _finish(pipeline.embed(job, _progress(quiet=quiet), force=force), as_json=as_json)


def _show_embedding(forecast: EmbeddingForecast, *, as_json: bool) -> None:
    if as_json:
        _print_json(forecast.as_json())
        return
    for sentence in forecast.sentences():
        typer.echo(sentence)


@app.command()
def query(
    target: Annotated[
        str, typer.Argument(help="The target's address, or its job file.", show_default=False)
    ],
    text: Annotated[str, typer.Argument(help="What to look for.", show_default=False)],
    *,
    k: Annotated[int, typer.Option("--k", min=1, max=1000, help="Hits.")] = 10,
    mode: Annotated[str, typer.Option("--mode", help="auto, vector, text or hybrid.")] = "auto",
    where: Annotated[
        str | None,
        typer.Option(
            "--where", help="SQL condition on the columns, such as \"collection = 'articles'\"."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Folder or package of the model, where it is not where the dataset says.",
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Search a target by vector, by words or by both; embed the query as the corpus was."""
    from typing import get_args

    from cfray import pipeline
    from cfray.target.search import Mode, Question

    if mode not in get_args(Mode):
        known_modes = ", ".join(get_args(Mode))
        raise ConfigError(f"--mode {mode} is not known", f"give one of {known_modes}")
    question = Question(text, k, mode, where, model=model)  # type: ignore[arg-type]  # a Mode now
    answer = pipeline.search(target, question)
    if as_json:
        _print_json({"mode": answer.mode, "told": answer.note, "hits": answer.hits})
        return
    for rank, hit in enumerate(answer.hits, 1):
        typer.echo(f"{rank:3d}  {hit['score']:.4f}  {hit['title']}  [{hit['original_id']}]")
        typer.echo(f"     {' '.join((hit['text_content'] or '').split())[:140]}")
    _say(f"{counted(len(answer.hits), 'hit')}, {answer.mode} search {answer.note}".rstrip())


@app.command()
def status(job_file: JobFile, *, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Say how far a target is; needs no access to the run itself."""
    from cfray import pipeline

    figures = pipeline.status(_read_job(job_file))
    if as_json:
        _print_json(figures)
        return
    for name, value in figures.items():
        number = f"{value:,}" if type(value) is int else str(value)
        typer.echo(f"{name.replace('_', ' ')}: {number}")


@app.command()
def verify(
    job_file: JobFile,
    *,
    against: Annotated[
        str,
        typer.Option(
            "--against",
            help="ledger: needs no source. source: also reads every record of it again.",
        ),
    ] = "ledger",
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Copy damaged rows anew from the source, verify again (with --against source).",
        ),
    ] = False,
    certificate: Annotated[
        bool,
        typer.Option(
            "--certificate",
            help="Write what was verified into the dataset, for later commands to compare with.",
        ),
    ] = False,
    parity: Annotated[
        bool,
        typer.Option(
            "--parity",
            help="Ask source and target the same searches; the source's answers are those of "
            "cfray baseline, where there are any.",
        ),
    ] = False,
    counts: Annotated[
        bool,
        typer.Option(
            "--counts",
            help="With --against source: only count the source's records, and see whether it was "
            "written to.",
        ),
    ] = False,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample",
            min=1,
            help="With --against source: compare whole shards, drawn at random, that hold this "
            "many records.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Re-read the target and compare it with the ledger, or with the ledger and the source."""
    from typing import get_args

    from cfray import pipeline

    if against not in get_args(pipeline.Against):
        known = " or ".join(get_args(pipeline.Against))
        raise ConfigError(f"--against {against} is not known", f"give {known}")
    for option, is_given in (
        ("--repair", repair),
        ("--counts", counts),
        ("--sample", sample is not None),
    ):
        if is_given and against != "source":
            raise ConfigError(
                f"{option} needs --against source", f"give both, or leave {option} out"
            )
    if certificate and (counts or sample is not None):
        raise ConfigError(
            "a certificate is of all records", "leave --counts and --sample out, or --certificate"
        )
    if repair + counts + (sample is not None) > 1:
        raise ConfigError(
            "--repair compares every record, --sample some and --counts none",
            "give one of the three",
        )
    asked = pipeline.Verification(
        against,  # type: ignore[arg-type]  # one of its values now
        repair=repair,
        certificate=certificate,
        parity=parity,
        counts=counts,
        sample=sample,
    )
    _finish(pipeline.check(_read_job(job_file), _progress(quiet=quiet), asked), as_json=as_json)


@app.command()
def baseline(job_file: JobFile, *, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Record what the source's own search answers while it is up, for verify --parity."""
    from cfray import pipeline

    recorded = pipeline.record_baseline(_read_job(job_file))
    if as_json:
        _print_json(recorded.summary())
    else:
        typer.echo(recorded.sentence())


@app.command()
def report(job_file: JobFile, *, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Show the report of the last command, and what every command before it came to."""
    from cfray import pipeline
    from cfray.report.text import show_story

    job = _read_job(job_file)
    _show(pipeline.last_report(job), as_json=as_json)
    if not as_json:
        show_story(pipeline.told_story(job), Console())


@app.command()
def optimize(
    job_file: JobFile, *, as_json: AsJson = False, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """Compact small fragments, build or complete the indexes, verify."""
    from cfray import pipeline

    _finish(pipeline.optimize(_read_job(job_file), _progress(quiet=quiet)), as_json=as_json)


@app.command()
def cleanup(
    job_file: JobFile,
    keep_versions: KeepVersions = None,
    *,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Remove exactly the files that no retained version references."""
    from cfray import pipeline

    removed = pipeline.clean_up(_read_job(job_file), keep_versions)
    if as_json:
        _print_json(removed)
        return
    typer.echo(
        f"removed {counted(removed['files'], 'file')} ({counted(removed['bytes'], 'byte')}), "
        f"{counted(removed['receipts'], 'stale receipt')} and "
        f"{counted(removed['versions'], 'version')}"
    )


@app.command()
def versions(
    target: TargetOrJob,
    last: Annotated[int, typer.Option("--last", min=1, help="List so many of the newest.")] = 20,
    *,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """List the versions of a target, the newest first, and what each commit did."""
    from cfray import pipeline

    listed = pipeline.versions_of(target, last)
    if as_json:
        _print_json([version.as_json() for version in listed])
        return
    for version in listed:
        tags = f" ({', '.join(version.tags)})" if version.tags else ""
        rows = counted(version.rows, "row")
        typer.echo(f"{version.number}  {version.written}  {rows}  {version.what}{tags}")


@app.command()
def rollback(
    job_file: JobFile,
    to_version: Annotated[
        int, typer.Option("--to-version", min=1, help="The version to go back to.")
    ],
    *,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make an earlier version of a target the newest one, and verify it; nothing is lost."""
    from cfray import pipeline

    job = _read_job(job_file)
    _finish(pipeline.roll_back(job, to_version, _progress(quiet=quiet)), as_json=as_json)


@app.command()
def backup(
    target: TargetOrJob,
    to: Annotated[
        str, typer.Option("--to", help="Where the backup is, or will be.", show_default=False)
    ],
    *,
    keep_last: Annotated[
        int, typer.Option("--keep-last", min=0, help="Keep so many of the newest points.")
    ] = 0,
    keep_daily: Annotated[
        int,
        typer.Option("--keep-daily", min=0, help="Keep the last point of each of so many days."),
    ] = 0,
    keep_weekly: Annotated[
        int,
        typer.Option("--keep-weekly", min=0, help="Keep the last point of each of so many weeks."),
    ] = 0,
    keep_monthly: Annotated[
        int,
        typer.Option(
            "--keep-monthly", min=0, help="Keep the last point of each of so many months."
        ),
    ] = 0,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Back up a finished target with the folder beside it; only new files are copied.

    Run it again to resume. Without a --keep option every point stays.
    """
    from cfray import pipeline
    from cfray.engine import interrupts
    from cfray.transfers.backup import back_up
    from cfray.transfers.rotation import Rotation

    rotation = Rotation(keep_last, keep_daily, keep_weekly, keep_monthly)
    with interrupts.catch_signals():
        report = back_up(pipeline.address_of(target), pipeline.address_of(to), rotation)
    if as_json:
        _print_json(report.as_json())
    else:
        typer.echo(report.sentence())


@app.command()
def export(
    target: TargetOrJob,
    to: Annotated[
        str, typer.Option("--to", help="Folder that the export goes to.", show_default=False)
    ],
    *,
    format: Annotated[  # noqa: A002  # the name of the option
        str,
        typer.Option(
            "--format",
            help="parquet, arrow, lance, jsonl, json, csv or markdown; or what a store imports: "
            "pinecone, qdrant, milvus, weaviate or chroma.",
        ),
    ] = "parquet",
    form: Annotated[
        str,
        typer.Option(
            "--as",
            help="records: what the source held, with its fields and types. frames: the rows of "
            "the dataset as they are, for another dataset (kind: frames).",
        ),
    ] = "records",
    where: Annotated[
        str, typer.Option("--where", help="SQL on columns of the dataset: only rows that fit.")
    ] = "",
    columns: Annotated[
        str, typer.Option("--columns", help="Names of the fields to write, with commas.")
    ] = "",
    vectors: Annotated[
        str,
        typer.Option(
            "--vectors",
            help="list; text (which pgvector reads); base64 (of little-endian float32); columns "
            "(one a number); none.",
        ),
    ] = "list",
    by_collection: Annotated[
        bool, typer.Option("--by-collection", help="A folder for each collection.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Export a finished target to files that others read, with the hash of each in a manifest.

    Run it again to resume.
    """
    from typing import get_args

    from cfray import pipeline
    from cfray.transfers.exports import settings as of_export

    for option, value, allowed in (
        ("--format", format, get_args(of_export.Format)),
        ("--as", form, get_args(of_export.Form)),
        ("--vectors", vectors, get_args(of_export.VectorForm)),
    ):
        _check_choice(option, value, allowed)
    settings = of_export.ExportSettings(
        format=format,  # type: ignore[arg-type]  # checked above
        form=form,  # type: ignore[arg-type]
        where=where,
        columns=tuple(name.strip() for name in columns.split(",") if name.strip()),
        vectors=vectors,  # type: ignore[arg-type]
        by_collection=by_collection,
    )
    report = pipeline.export_target(pipeline.address_of(target), pipeline.address_of(to), settings)
    if as_json:
        _print_json(report.as_json())
    else:
        typer.echo(report.sentence())
        for note in report.notes():
            _say(f"note: {note}")


@app.command()
def roundtrip(
    target: TargetOrJob,
    work: Annotated[
        str,
        typer.Option(
            "--work",
            help="Folder for the export and the second dataset; removed where nothing differs.",
            show_default=False,
        ),
    ],
    *,
    format: Annotated[  # noqa: A002  # the name of the option
        str, typer.Option("--format", help="parquet, arrow, lance, jsonl, json, csv or markdown.")
    ] = "parquet",
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Export a finished target, make another dataset of that, and compare every document."""
    from typing import get_args

    from cfray import pipeline
    from cfray.transfers.exports.settings import FileFormat

    _check_choice("--format", format, get_args(FileFormat))
    trip = pipeline.prove_round_trip(
        pipeline.address_of(target),
        pipeline.address_of(work),
        format,  # type: ignore[arg-type]  # checked above
        _progress(quiet=quiet),
    )
    if as_json:
        _print_json(trip.as_json())
    else:
        typer.echo(trip.sentence())
    raise typer.Exit(trip.exit_code)


@app.command()
def replicate(
    target: TargetOrJob,
    to: Annotated[
        list[str],
        typer.Option("--to", help="Address of a replica; once for each.", show_default=False),
    ],
    *,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Bring replicas of a finished target in step; only new files are copied.

    A replica that cannot be reached does not stop the others: run it again later.
    """
    from cfray import pipeline
    from cfray.engine import interrupts
    from cfray.transfers.replicate import replicate as bring_in_step

    with interrupts.catch_signals():
        replicas = bring_in_step(
            pipeline.address_of(target), [pipeline.address_of(address) for address in to]
        )
    code = max(replica.exit_code for replica in replicas)
    if as_json:
        in_step = sum(replica.status == "in step" for replica in replicas)
        verdict = f"{in_step} of {counted(len(replicas), 'replica')} in step"
        _print_json(
            {
                "verdict": verdict,
                "exit_code": code,
                "replicas": [asdict(replica) for replica in replicas],
            }
        )
    else:
        for replica in replicas:
            typer.echo(replica.sentence())
    raise typer.Exit(code)


@app.command()
def sync(
    job_file: JobFile,
    deletes: Annotated[
        str,
        typer.Option(
            "--deletes",
            help="What becomes of a record that the source has no more: apply (it leaves the "
            "target), mark (its status becomes deleted) or ignore.",
        ),
    ] = "apply",
    keep_versions: Annotated[
        int,
        typer.Option(
            "--keep-versions",
            min=0,
            help="Keep so many of the newest versions of the target; 0 keeps all.",
        ),
    ] = 50,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what has changed; change nothing.")
    ] = False,
    allow_empty: Annotated[
        bool,
        typer.Option(
            "--allow-empty",
            help="Believe a source, or a source collection, that answers with no record at all.",
        ),
    ] = False,
    read_all: Annotated[
        bool,
        typer.Option(
            "--read-all",
            help="Read shards, too, of which the source says that they are as the last sync has "
            "read them.",
        ),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Bring what has changed at the source into a finished target, in one commit, and verify it.

    What the source may have written to since the last sync is read and compared by hash; only what
    differs is written, and only texts that have changed are embedded again.
    """
    from cfray import pipeline
    from cfray.syncing.sync import SyncSettings

    _check_choice("--deletes", deletes, ("apply", "mark", "ignore"))
    job, progress = _read_job(job_file), _progress(quiet=quiet)
    if dry_run:
        found = pipeline.difference_of(job, progress, reads_all=read_all)
        _show_difference(found, as_json=as_json)
        return
    settings = SyncSettings(cast("Deletes", deletes), allow_empty, read_all)
    _finish(
        pipeline.bring_up_to_date(job, progress, settings, keep_versions or None), as_json=as_json
    )


def _show_difference(found: dict[str, Any], *, as_json: bool) -> None:
    from cfray.syncing.rows_that_differ import sentences

    if as_json:
        _print_json(found)
        return
    typer.echo(f"{found['target']}: {found['difference']}")
    for sentence in sentences(found["rows"]):
        typer.echo(sentence)


@app.command()
def restore(
    backup: Annotated[str, typer.Argument(help="Address of the backup.", show_default=False)],
    to: Annotated[
        str | None, typer.Option("--to", help="Where the dataset goes.", show_default=False)
    ] = None,
    point: Annotated[
        str | None, typer.Option("--point", help="Name of a point; default: the newest.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--where",
            help="SQL on columns: write only the rows that fit, as a Lance dataset without ledger.",
        ),
    ] = None,
    *,
    only_list: Annotated[
        bool, typer.Option("--list", help="Only list the points of the backup.")
    ] = False,
    only_check: Annotated[
        bool,
        typer.Option(
            "--check", help="Only compare every file of all points (or of --point) with its hash."
        ),
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Restore a point of a backup to an address where nothing is, or look at a backup.

    Run it again to resume.
    """
    from cfray import pipeline
    from cfray.engine import interrupts
    from cfray.transfers import restore as restoring

    if (to is not None) + only_list + only_check != 1:
        raise ConfigError("--to, --list and --check: one of them is needed", "give one of them")
    if where is not None and to is None:
        raise ConfigError("--where needs --to", "say where the rows go")
    address = pipeline.address_of(backup)
    with interrupts.catch_signals():
        if to is not None:
            place = pipeline.address_of(to)
            report = (
                restoring.restore(address, point, place)
                if where is None
                else restoring.restore_part(address, point, place, where)
            )
            if as_json:
                _print_json(report.as_json())
            else:
                typer.echo(report.sentence())
            return
        points = (restoring.check if only_check else restoring.list_chosen)(address, point)
    if as_json:
        _print_json([item.summary() for item in points])
        return
    for item in points:
        typer.echo(
            f"{item.name}: version {item.version}, {counted(item.rows, 'row')}, "
            f"{counted(len(item.files) + len(item.state), 'file')}, {item.size:,} bytes"
            f"{'; every file is what it was' if only_check else ''}"
        )


@quarantine_app.command("list")
def quarantine_list(
    job_file: JobFile, *, as_json: AsJson = False, verbose: Verbose = False
) -> None:
    """List the rows in quarantine: stage, reason, position, id."""
    from cfray import pipeline

    rows = pipeline.quarantined(_read_job(job_file))
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['stage']}\t{row['reason']}\t{row['position']}\t{row['id'] or ''}")
    _say(f"{counted(len(rows), 'row')} in quarantine")


@quarantine_app.command("replay")
def quarantine_replay(
    job_file: JobFile, *, as_json: AsJson = False, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """Try the quarantined rows again with the mapping as it is now; each comes in once."""
    from cfray import pipeline

    _finish(pipeline.replay(_read_job(job_file), _progress(quiet=quiet)), as_json=as_json)


def _check_choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a word that an option does not know."""
    if value not in allowed:
        raise ConfigError(f"{option} {value} is unknown", f"choose one of {', '.join(allowed)}")


def _read_job(path: Path) -> JobSpec:
    from cfray.job.file import read_job

    return read_job(path)


def _progress(*, quiet: bool) -> Progress:
    from cfray.report.progress import Progress

    return Progress(Console(stderr=True), quiet=quiet)


def _say(sentence: str) -> None:
    """Write a sentence to stderr."""
    Console(stderr=True, soft_wrap=True).print(sentence, highlight=False, markup=False)


def _confirmed(question: str) -> bool:
    """Ask the operator, where somebody is at the terminal."""
    return sys.stdin.isatty() and typer.confirm(question, err=True)


def _finish(result: Report, *, as_json: bool) -> NoReturn:
    from cfray.report.facts import FILE

    _show(result, as_json=as_json)
    _end_job(result.exit_code, result.verdict, report=f"{result.target}.cfray/{FILE}")
    raise typer.Exit(result.exit_code)


def _show(result: Report, *, as_json: bool) -> None:
    from cfray.report.text import show_report

    if as_json:
        _print_json(result.as_json())
    else:
        show_report(result, Console())


def _print_json(data: Any) -> None:  # parsed JSON
    sys.stdout.write(json.dumps(data, ensure_ascii=False, indent=1, default=str) + "\n")


#: Holds an item while ``run_job`` runs a verb that has not said its verdict.
_verdict_is_due: list[bool] = []


def run_job(*verb: str) -> None:
    """Run a verb as a Ray job: ``main``, with the verdict as the last line on stdout.

    Ray's job server turns every exit code but 0 into 1, and repeats the last lines of a job that
    failed as the job's message.  So the last line is a JSON document: ``exit_code``, ``verdict``,
    and ``report`` (the address of the whole report) or ``remedy``.

    Args:
        verb: the words of the command; its arguments are the process's.
    """
    sys.argv = ["cfray", *verb, *sys.argv[1:]]
    _verdict_is_due.append(True)
    try:
        main()
    finally:
        _verdict_is_due.clear()


def _end_job(code: int, verdict: str, **more: str) -> None:
    """Say the verdict of a Ray job, once."""
    if _verdict_is_due:
        _verdict_is_due.clear()
        document = {"exit_code": code, "verdict": verdict, **more}
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Run the command line.

    Every end is a result on stdout or two sentences on stderr, with ``--json`` one document on
    stdout as well, and an exit code.
    """
    from cfray.engine import interrupts

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    try:
        with interrupts.catch_signals():
            code = app(standalone_mode=False)
    except CfrayError as error:
        _fail(error)
    except typer.Abort:
        _fail(Interrupted("interrupted at a question", "run the same command again"))
    except UsageError as error:
        _refuse_usage(error)
    except Exception as error:  # noqa: BLE001  # the last resort: --json promises a document
        traceback.print_exc()
        _fail(
            CfrayError(
                f"{type(error).__name__}: {error}",
                "this is a fault of cfray's: please report it with the lines above; what is "
                "committed stays",
            )
        )
    code = code if isinstance(code, int) else 0
    _end_job(code, "done")
    sys.exit(code)


def _refuse_usage(error: Any) -> NoReturn:  # a UsageError of typer's
    """Say what is wrong with the command line (exit 2)."""
    context = error.ctx
    message = error.format_message()
    # an error without a message is typer's way to show the help where a verb is missing: it did
    if context is not None and message:
        _say(context.get_usage())
    command = context.command_path if context is not None else "cfray"
    _fail(
        ConfigError(message or "a verb is missing", f"`{command} --help` shows what may be given")
    )


def _fail(error: CfrayError) -> NoReturn:
    """Show an error and end the process with its exit code."""
    code = exit_code(error)
    _say(f"cfray: {error}")
    if "--json" in sys.argv:
        document = {"verdict": f"stopped: {error.what}", "remedy": error.remedy, "exit_code": code}
        _print_json(document)
    _end_job(code, f"stopped: {error.what}", remedy=error.remedy)
    if isinstance(error, Interrupted):
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """End the process as it stands.

    Ray is down and the report is written, but native threads that an interrupt stopped in the
    middle of their work may crash the teardown.
    """
    from cfray.engine import cluster

    cluster.remove_token()
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(code)


def exit_code(error: CfrayError) -> int:
    """Give the exit code of an error."""
    return error.signal_code if isinstance(error, Interrupted) else error.exit_code


if __name__ == "__main__":
    main()
