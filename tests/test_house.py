"""The rules of the package itself hold.

A store has one name in all folders, every module says why it exists, every example job file is
valid, and importing cfray loads no heavy library.
"""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from cfray.job.file import read_job
from cfray.job.spec import KINDS, STORES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cfray"
MODULES = sorted(PACKAGE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("store", STORES)
def test_one_word_for_a_store_in_six_places(store):
    assert (PACKAGE / f"sources/{store}/source.py").exists()
    assert (ROOT / f"docs/stores/{store}.md").exists()
    assert (ROOT / f"tests/sources/test_{store}.py").exists()
    spec = yaml.safe_load((ROOT / f"jobs/specs/{store}.yaml").read_text())
    assert spec["source"]["kind"] == store
    assert store in KINDS
    assert store in PROJECT["optional-dependencies"]


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - set(STORES)))
def test_one_word_for_a_file_format_in_four_places(kind):
    assert (PACKAGE / f"sources/files/{kind}.py").exists()
    assert (ROOT / f"tests/sources/test_{kind}.py").exists()
    spec = yaml.safe_load((ROOT / f"jobs/specs/{kind}.yaml").read_text())
    assert spec["source"]["kind"] == kind


def test_every_folder_of_a_store_is_a_kind_of_source():
    folders = {path.parent.name for path in (PACKAGE / "sources").glob("*/source.py")}
    assert folders == set(STORES)


def test_every_module_says_why_it_exists():
    modules_without_docstring = [
        str(path) for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not modules_without_docstring


def test_no_test_imports_ray_when_it_is_collected():
    """An imported Ray no longer reads the settings with which the tests join theirs."""
    early = [
        path.name
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"^(import|from) ray\b", path.read_text(), re.MULTILINE)
    ]
    assert early == []


@pytest.mark.parametrize(
    "spec", sorted((ROOT / "jobs/specs").glob("*.yaml")), ids=lambda path: path.stem
)
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
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
