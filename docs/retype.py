# ruff: noqa: INP001  # a tool beside the pages, not a package that is installed
"""Type the tutorial's commands anew and put their output into the tutorial and the README.

``make docs`` runs this module.  The commands run in a folder of their own, over a copy of
``examples``; in the pages that folder is called ``/home/you/cfray``.  ``tests/test_docs.py``
compares the pages with the commands' output without numbers, so that a changed word is noticed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
TUTORIAL, README = ROOT / "docs/tutorial.md", ROOT / "README.md"
SHOWN_FOLDER = "/home/you/cfray"
#: Width of the terminal that the output was made for.
COLUMNS = "100"
#: A command block of the tutorial and the output block behind it.
_PAIR = re.compile(r"```sh\n(?P<typed>.*?)\n```\n\n```text\n.*?\n```", re.DOTALL)
#: Checks that the README's shortened report leaves out.
_LEFT_OUT = ("types of every field", "index coverage")
_SEARCH = "examples/quickstart/search.py out/wordnet.lance a small dog"


def run_line(line: str, folder: Path, variables: Mapping[str, str] | None = None) -> str:
    """Run a command line; ``cfray`` and ``python`` are those of this environment.

    ``variables``: of the environment, beside this process's.

    Raises:
        RuntimeError: the command failed.
    """
    python = shlex.quote(sys.executable)
    command = re.sub(r"^cfray ", f"{python} -m cfray.cli ", line)
    done = subprocess.run(  # noqa: S602  # the lines are the tutorial's
        re.sub(r"^python ", f"{python} ", command),
        shell=True,
        cwd=folder,
        env={**os.environ, **(variables or {}), "COLUMNS": COLUMNS, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{line}\n{done.stdout}")
    shown = done.stdout.replace(str(folder), SHOWN_FOLDER)
    return "\n".join(text.rstrip() for text in shown.rstrip().splitlines())


def retype_tutorial(folder: Path) -> dict[str, str]:
    """Run every command of the tutorial, write the page anew, give the outputs by command."""
    outputs: dict[str, str] = {}

    def with_output(match: re.Match[str]) -> str:
        typed = match["typed"]
        outputs[typed] = run_line(typed, folder)
        return f"```sh\n{typed}\n```\n\n```text\n{outputs[typed]}\n```"

    text = _PAIR.sub(with_output, TUTORIAL.read_text(encoding="utf-8"))
    TUTORIAL.write_text(text, encoding="utf-8")
    return outputs


def retype_readme(report: str, search: str) -> None:
    """Put the report of the tutorial's run and hits of the quickstart's search into the README."""
    lines = report.splitlines()
    passed = [
        line
        for line in lines
        if line.lstrip().startswith("pass") and not any(name in line for name in _LEFT_OUT)
    ]
    report_block = "\n".join([*lines[:3], *passed])
    hits = search.splitlines()
    start = next(row for row, line in enumerate(hits) if line.startswith("2."))
    search_block = "\n".join([*hits[start : start + 5], "..."])
    text = README.read_text(encoding="utf-8")
    for head, block in (("done, ", report_block), ("2. Nearest", search_block)):
        pattern = re.compile(rf"```text\n{re.escape(head)}.*?\n```", re.DOTALL)
        text = pattern.sub(lambda _, block=block: f"```text\n{block}\n```", text)
    README.write_text(text, encoding="utf-8")


def main() -> None:
    """Type everything once."""
    with tempfile.TemporaryDirectory(prefix="cfray-docs-") as name:
        folder = Path(name)
        shutil.copytree(ROOT / "examples", folder / "examples")
        (folder / "out").mkdir()
        outputs = retype_tutorial(folder)
        (report,) = (text for line, text in outputs.items() if line.startswith("cfray migrate"))
        run_line("cfray migrate examples/quickstart/job.yaml --quiet", folder)
        retype_readme(report, run_line(f"python {_SEARCH}", folder))
    sys.stdout.write(f"typed {len(outputs)} commands of {TUTORIAL} and wrote {README}\n")


if __name__ == "__main__":
    main()
