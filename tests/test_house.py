"""The house defends itself: one word in five places, small modules that say why, a light import, every command documented."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cfray.jobfile import read_job
from cfray.jobspec import KINDS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cfray"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = sorted(
    path.stem
    for path in (PACKAGE / "sources").glob("*.py")
    if path.stem not in ("__init__", "base", "files", "listing", "remote", "manifests", "rowgroups") and "_" not in path.stem
)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_one_word_five_places(kind):
    assert (PACKAGE / f"sources/{kind}.py").exists()
    assert (ROOT / f"tests/sources/test_{kind}.py").exists()
    assert yaml.safe_load((ROOT / f"jobs/specs/{kind}.yaml").read_text())["source"]["kind"] == kind


def test_every_source_is_in_the_union():
    assert sorted(KINDS) == SOURCES


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_module_is_small_and_says_why(module):
    source = module.read_text()
    assert len(source.splitlines()) <= 300
    assert ast.get_docstring(ast.parse(source)), f"{module} does not say why it exists"


@pytest.mark.parametrize("spec", sorted((ROOT / "jobs/specs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_spec_is_a_valid_job(spec):
    assert read_job(spec).fingerprint


def test_importing_cfray_loads_nothing_heavy():
    code = (
        "import sys\n"
        "class Blocked:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.split('.')[0] in ('ray', 'lance', 'torch', 'boto3', 'pyarrow'):\n"
        "            raise ImportError(name + ' must not be imported here')\n"
        "sys.meta_path.insert(0, Blocked())\n"
        "import cfray, cfray.cli\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_has_help_and_stands_in_the_readme():
    from typer.main import get_command

    from cfray.cli import app

    readme = (ROOT / "README.md").read_text()
    for name, command in get_command(app).commands.items():
        assert command.help
        assert f"cfray {name}" in readme, f"cfray {name} is not in README.md"
