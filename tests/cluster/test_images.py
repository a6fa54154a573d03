"""The two images: linted, pinned, not root, no secret, built from files that are sent to Docker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.cluster.schemas import ROOT

IMAGES = sorted((ROOT / "cluster/docker").glob("Dockerfile*[!e]"))
HADOLINT = shutil.which(
    "hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
)


def lint(text):
    """Give hadolint's findings, one a line; a finding of any severity counts."""
    found = subprocess.run(
        [HADOLINT, "--no-color", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert not found.stderr
    return found.stdout.splitlines()


@pytest.fixture(params=["Dockerfile", "Dockerfile.gpu"])
def image(request):
    return ROOT / "cluster/docker" / request.param


@pytest.fixture
def text(image):
    return image.read_text()


def words(text, instruction):
    """Give the arguments of an instruction's lines, continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return re.findall(rf"^{instruction} (.+)$", joined, re.MULTILINE)


def test_hadolint_finds_nothing(text):
    assert not lint(text)


def test_hadolint_finds_a_base_without_a_version_and_a_root():
    findings = lint("FROM python\nUSER root\n")
    assert any("DL3006" in line for line in findings)
    assert any("DL3002" in line for line in findings)


def test_the_base_is_pinned_and_the_same_in_both_images(text):
    bases = {line.split()[0] for line in words(text, "FROM")}
    assert len(bases) == 1
    (base,) = bases
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base)
    assert bases == {line.split()[0] for line in words(IMAGES[0].read_text(), "FROM")}


def test_the_process_is_not_root(text):
    assert words(text, "USER") == ["1000:1000"]
    assert text.index("\nUSER ") > text.rindex("\nRUN ")


def test_no_secret_is_baked_in(text):
    names = " ".join(words(text, "ENV") + words(text, "ARG"))
    assert not re.search("KEY|TOKEN|SECRET|PASSWORD", names)


def test_what_is_copied_exists_and_is_sent_to_docker(image, text):
    sent = set(re.findall("^!(.+)$", Path(f"{image}.dockerignore").read_text(), re.MULTILINE))
    sources = set()
    for line in words(text, "COPY"):
        if not line.startswith("--from"):
            sources.update(line.split()[:-1])
    assert sources == sent
    assert all((ROOT / name).exists() for name in sources)
    assert "jobs" in sources


def test_what_is_installed_are_extras_of_the_project_in_the_tested_versions(text):
    (extras,) = (line.removeprefix("EXTRAS=") for line in words(text, "ARG") if "EXTRAS" in line)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    assert "cluster" in extras.split(",")
    assert any("-c constraints.txt" in line for line in words(text, "RUN"))
