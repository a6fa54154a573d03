"""One command per verb; each reads its arguments, calls the pipeline and shows what came back.

stdout carries the result (with ``--json`` exactly one document), stderr
everything else.  The heavy imports stand inside the commands: ``cfray --help``
needs no Ray and no Lance.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from cfray.errors import CfrayError, ConfigError, Interrupted

if TYPE_CHECKING:
    from cfray.report.facts import Report
    from cfray.report.progress import Progress

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Move a whole corpus into one proven Lance dataset. Exit codes: 0 done and verified, 1 failed or stopped (resumable), 2 refused, "
    "3 done with rows in quarantine, 4 a check failed, 5 another run holds the target, 130/143 interrupted.",
)
quarantine_app = typer.Typer(
    no_args_is_help=True, help="Look at the rows that did not fit, or try them again."
)
app.add_typer(quarantine_app, name="quarantine")


@app.callback()
def options(
    *,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="One line on stderr for every shard that is staged or committed."
        ),
    ] = False,
) -> None:
    """Set what holds for every command."""
    if verbose:
        logging.getLogger("cfray").setLevel(logging.INFO)


JobFile = Annotated[Path, typer.Argument(help="The job file (YAML).", show_default=False)]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json", help="Print exactly one JSON document on stdout; everything else goes to stderr."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Remap although the gate refuses the map; recorded in the dataset."
    ),
]
KeepVersions = Annotated[
    int | None,
    typer.Option("--keep-versions", min=1, help="Retire all but the newest n versions first."),
]


@app.command()
def inspect(
    source: Annotated[
        str,
        typer.Argument(
            help="A YAML file with a source section, or a file, folder or glob.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the draft here instead of stdout.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Look at a source and draft a job file that runs unedited, with a comment per guess."""
    from cfray.inspection.source import draft as draft_job

    if out is not None and out.exists():
        raise ConfigError(f"{out} exists", "give another --out, or remove it")
    draft = draft_job(source, out)
    if out is not None:
        out.write_text(draft.text, encoding="utf-8")
        Console(stderr=True).print(f"wrote {out}; next: cfray plan {out}", highlight=False)
    if as_json:
        _print_json({"job_file": draft.text, "guesses": draft.guesses})
    elif out is None:
        typer.echo(draft.text, nl=False)


@app.command()
def plan(job_file: JobFile, *, as_json: AsJson = False) -> None:
    """Say what would happen and what would be lost; write nothing."""
    from cfray import pipeline
    from cfray.job.file import read_job
    from cfray.planning import forecast

    job = read_job(job_file)
    made, foreseen = pipeline.forecast(job)
    if as_json:
        _print_json(forecast.as_json(made, foreseen))
    else:
        forecast.show_forecast(job.name, made, foreseen, Console())


@app.command()
def migrate(
    job_file: JobFile, *, force: Force = False, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """Plan, copy, commit, compact, index and verify one job; run it again to resume."""
    from cfray import pipeline
    from cfray.job.file import read_job

    _finish(
        pipeline.migrate(read_job(job_file), _progress(quiet=quiet), force=force), as_json=as_json
    )


@app.command()
def embed(
    job_file: JobFile, *, force: Force = False, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """Make the vectors of a finished target anew, as the job file's embedding section says now.

    Run it again to resume.
    """
    from cfray import pipeline
    from cfray.job.file import read_job

    _finish(
        pipeline.embed(read_job(job_file), _progress(quiet=quiet), force=force), as_json=as_json
    )


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
) -> None:
    """Search a target by vector, by words or by both; the query is embedded as the corpus was."""
    from typing import get_args

    from cfray import pipeline
    from cfray.target.search import Mode, Question

    if mode not in get_args(Mode):
        raise ConfigError(f"--mode {mode} is not known", f"give one of {', '.join(get_args(Mode))}")
    answer = pipeline.search(target, Question(text, k, mode, where, model=model))  # type: ignore[arg-type]  # checked above
    if as_json:
        _print_json({"mode": answer.mode, "told": answer.told, "hits": answer.hits})
        return
    for rank, hit in enumerate(answer.hits, 1):
        typer.echo(f"{rank:3d}  {hit['score']:.4f}  {hit['title']}  [{hit['original_id']}]")
        typer.echo(f"     {' '.join((hit['text_content'] or '').split())[:140]}")
    Console(stderr=True).print(
        f"{len(answer.hits)} hits, {answer.mode} search {answer.told}",
        highlight=False,
        markup=False,
    )


@app.command()
def status(job_file: JobFile, *, as_json: AsJson = False) -> None:
    """Say how far a run is, from the ledger; needs no access to the run itself."""
    from cfray import pipeline
    from cfray.job.file import read_job

    figures = pipeline.status(read_job(job_file))
    if as_json:
        _print_json(figures)
        return
    for name, value in figures.items():
        typer.echo(
            f"{name.replace('_', ' ')}: {value:,}"
            if type(value) is int
            else f"{name.replace('_', ' ')}: {value}"
        )


@app.command()
def verify(job_file: JobFile, *, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Re-read the target and compare it with what was written, shard by shard and file by file."""
    from cfray import pipeline
    from cfray.job.file import read_job

    _finish(pipeline.check(read_job(job_file), _progress(quiet=quiet)), as_json=as_json)


@app.command()
def report(job_file: JobFile, *, as_json: AsJson = False) -> None:
    """Show the report of the last run."""
    from cfray import pipeline
    from cfray.job.file import read_job

    _show(pipeline.last_report(read_job(job_file)), as_json=as_json)


@app.command()
def optimize(job_file: JobFile, *, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Compact small fragments, build or complete the indexes, verify."""
    from cfray import pipeline
    from cfray.job.file import read_job

    _finish(pipeline.optimize(read_job(job_file), _progress(quiet=quiet)), as_json=as_json)


@app.command()
def cleanup(
    job_file: JobFile, keep_versions: KeepVersions = None, *, as_json: AsJson = False
) -> None:
    """Remove exactly the files that no retained version references."""
    from cfray import pipeline
    from cfray.job.file import read_job

    removed = pipeline.clean_up(read_job(job_file), keep_versions)
    if as_json:
        _print_json(removed)
    else:
        typer.echo(
            f"removed {removed['files']} files ({removed['bytes']:,} bytes), {removed['receipts']} stale receipts and {removed['versions']} versions"
        )


@quarantine_app.command("list")
def quarantine_list(job_file: JobFile, *, as_json: AsJson = False) -> None:
    """List the rows in quarantine: stage, reason, position, id."""
    from cfray import pipeline
    from cfray.job.file import read_job

    rows = pipeline.quarantined(read_job(job_file))
    if as_json:
        _print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['stage']}\t{row['reason']}\t{row['position']}\t{row['id'] or ''}")
    Console(stderr=True).print(f"{len(rows):,} rows in quarantine", highlight=False)


@quarantine_app.command("replay")
def quarantine_replay(job_file: JobFile, *, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Try the quarantined rows again, with the mapping as it is now.

    The repaired ones come in once.
    """
    from cfray import pipeline
    from cfray.job.file import read_job

    _finish(pipeline.replay(read_job(job_file), _progress(quiet=quiet)), as_json=as_json)


def _progress(*, quiet: bool) -> Progress:
    from cfray.report.progress import Progress

    return Progress(Console(stderr=True), quiet=quiet)


def _finish(result: Report, *, as_json: bool) -> NoReturn:
    _show(result, as_json=as_json)
    raise typer.Exit(result.exit_code)


def _show(result: Report, *, as_json: bool) -> None:
    from cfray.report.text import show_report

    if as_json:
        _print_json(result.as_json())
    else:
        show_report(result, Console())


def _print_json(data: Any) -> None:  # parsed JSON
    sys.stdout.write(json.dumps(data, ensure_ascii=False, indent=1, default=str) + "\n")


def main() -> None:
    """Run the command line; an error is two sentences on stderr and its exit code.

    Never a traceback.
    """
    from cfray.engine import interrupts

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    try:
        with interrupts.heeded():
            app()
    except CfrayError as error:
        console = Console(stderr=True, soft_wrap=True)
        console.print(f"cfray: {error}", highlight=False, markup=False)
        if "--json" in sys.argv:
            _print_json(
                {
                    "verdict": f"stopped: {error.what}",
                    "remedy": error.remedy,
                    "exit_code": exit_code(error),
                }
            )
        if isinstance(error, Interrupted):
            _leave(exit_code(error))
        sys.exit(exit_code(error))


def _leave(code: int) -> NoReturn:
    """End the process as it stands.

    Ray is down and the report written, but native threads that an interrupt left at work may crash
    the teardown.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(code)


def exit_code(error: CfrayError) -> int:
    """Give the exit code of an error."""
    return error.signal_code if isinstance(error, Interrupted) else error.exit_code


if __name__ == "__main__":
    main()
