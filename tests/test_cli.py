"""Every command ends with one JSON document and with an exit code of the contract."""

import json
import subprocess
import sys

import pytest

from cfray import cli


@pytest.fixture
def run_command(monkeypatch, capfd):
    """Run a command line in this process; give its exit code, stdout and stderr."""

    def command(*arguments):
        monkeypatch.setattr("sys.argv", ["cfray", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        out, err = capfd.readouterr()
        return exit_info.value.code, out, err

    return command


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["migrate"], "job_file"),
        (["migrat", "job.yaml"], "No such command"),
        (["plan", "job.yaml", "--colour"], "--colour"),
        (["query", "out.lance", "words", "--k", "0"], "--k"),
        (["quarantine", "forget", "job.yaml"], "No such command"),
        (["cleanup", "job.yaml", "--keep-versions", "none"], "--keep-versions"),
        (["status", "job.yaml", "another.yaml"], "another.yaml"),
    ],
)
def test_a_usage_error_is_a_document_and_two_sentences(run_command, arguments, words):
    code, out, err = run_command(*arguments, "--json")
    document = json.loads(out)
    assert code == document["exit_code"] == 2
    assert words in document["verdict"]
    assert "--help" in document["remedy"]
    assert words in err
    code, out, err = run_command(*arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_a_fault_of_ours_is_a_document_too(run_command, monkeypatch):
    monkeypatch.setattr("cfray.pipeline.status", lambda _job: 1 / 0)
    monkeypatch.setattr("cfray.cli._read_job", lambda path: path)
    code, out, err = run_command("status", "job.yaml", "--json")
    assert code == json.loads(out)["exit_code"] == 1
    assert "ZeroDivisionError" in json.loads(out)["verdict"]
    assert "Traceback" in err


@pytest.mark.parametrize("arguments", [["--verbose", "status"], ["status", "--verbose"]])
def test_verbose_stands_on_either_side_of_the_verb(run_command, monkeypatch, arguments):
    levels = []
    monkeypatch.setattr(
        "cfray.cli.logging.Logger.setLevel", lambda _self, level: levels.append(level)
    )
    monkeypatch.setattr("cfray.pipeline.status", lambda _job: {})
    monkeypatch.setattr("cfray.cli._read_job", lambda path: path)
    assert run_command(*arguments, "job.yaml")[0] == 0
    assert cli.logging.INFO in levels


def test_every_command_has_help():
    from typer.main import get_command

    for command in get_command(cli.app).commands.values():
        assert command.help


def test_a_verb_alone_shows_the_help_and_is_refused():
    process = subprocess.run(
        [sys.executable, "-m", "cfray.cli", "quarantine"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "replay" in process.stdout + process.stderr
