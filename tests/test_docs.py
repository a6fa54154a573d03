"""The documentation does what it says.

Links lead somewhere, commands are commands, job files are job files, snippets run, pages that are
written from the code equal the code.  The tutorial's commands run once, and its outputs and the
snippets of ``docs/open-it-with.md`` and ``docs/python.md`` are held against what they leave behind.
"""

import ast
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import jsonschema
import pytest
import typer
import yaml

from cfray.cli import app
from cfray.job.file import read_job
from cfray.job.spec import KINDS, STORES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "CHANGELOG.md",
        ROOT / "cluster/README.md",
        *DOCS.rglob("*.md"),
    ]
)
SPECS = sorted((ROOT / "jobs/specs").glob("*.yaml"))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SCHEMA = json.loads((DOCS / "reference/job.schema.json").read_text())
COMMAND = typer.main.get_command(app)


def load_tool(name):
    """Load a module of ``docs/``, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate, retype = load_tool("generate"), load_tool("retype")


def name(page):
    return str(page.relative_to(ROOT))


@cache
def fences(page):
    """List the fenced blocks of a page: language and text."""
    return FENCE.findall(page.read_text())


@cache
def prose(page):
    """Give a page without its fenced blocks."""
    return FENCE.sub("", page.read_text())


def inline_code(page):
    return re.findall(r"`([^`\n]+)`", prose(page))


@cache
def anchors(page):
    return {generate.slug(title) for title in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)}


# -- links, paths, names -------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_and_anchor_leads_somewhere(page):
    text = re.sub(r"`[^`\n]+`", "", prose(page))
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


# a decision may name a path of its day
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "decisions.md"], ids=name)
def test_every_path_of_the_repository_that_a_page_names_exists(page):
    rooms = ("cfray/", "tests/", "jobs/", "docs/", "examples/", "cluster/", ".ci/")
    named = [code for code in inline_code(page) if code.startswith(rooms) and " " not in code]
    missing = [path for path in named if "<" not in path and not (ROOT / path).exists()]
    assert not missing


def test_the_map_names_every_page():
    linked = {
        (DOCS / link.partition("#")[0]).resolve()
        for link in re.findall(r"\]\(([^)\s]+)\)", (DOCS / "index.md").read_text())
    }
    assert set(DOCS.rglob("*.md")) - {DOCS / "index.md"} <= linked


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 8_000


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_extra_that_a_page_installs_is_one(page):
    named = re.findall(r"(?:cfray|'\.)\[([a-z]+)\]", page.read_text())
    assert set(named) <= EXTRAS.keys()


# -- commands ------------------------------------------------------------------------------------


def typed_lines(page):
    """List the command lines in the fenced shell blocks of a page."""
    for language, text in fences(page):
        if language in ("sh", "console"):
            lines = [line.removeprefix("$ ").strip() for line in text.splitlines()]
            yield from (line for line in lines if line and not line.startswith("#"))


def parse_command(words, *, whole):
    """Let the real command line read the words; nothing is invoked.

    ``whole``: every argument must be given; in running text a command may stand without them.
    """
    command, context = COMMAND, COMMAND.make_context("cfray", [], resilient_parsing=True)
    while hasattr(command, "commands"):
        assert words, "no command"
        assert words[0] in command.commands, f"no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
        if not words and not whole:
            return
    try:
        command.make_context(command.name, list(words), parent=context)
    except typer.BadParameter.__bases__[0] as error:
        if whole or "Missing argument" not in error.format_message():
            raise AssertionError(error.format_message()) from error


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_line_is_one_that_cfray_knows(page):
    typed = [(line, True) for line in typed_lines(page)]
    typed += [(code, False) for code in inline_code(page)]
    wrong = []
    for line, whole in typed:
        words = shlex.split(line, comments=True) if line.startswith("cfray ") else []
        if len(words) < 2 or not re.fullmatch(r"[a-z]+", words[1]) or words[-1] == "[options]":
            continue
        try:
            parse_command(words[1:], whole=whole)
        except AssertionError as error:
            wrong.append(f"{line}: {error}")
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    typed = [*typed_lines(page), *inline_code(page)]
    lines = [shlex.split(line, comments=True) for line in typed if re.search(r"\bmake\b", line)]
    called = [words[words.index("make") + 1 :] for words in lines if "make" in words]
    goals = {word for words in called for word in words if re.fullmatch(r"[a-z-]+", word)}
    assert goals <= targets


def test_every_command_is_documented():
    text = "\n".join(page.read_text() for page in PAGES if page.parent.name != "reference")
    missing = [words for words, _ in generate.leaves(COMMAND) if f"cfray {words}" not in text]
    assert not missing


# -- job files -----------------------------------------------------------------------------------

#: Completes a fragment of a job file, such as a section alone.
FRAME = {
    "name": "docs",
    "source": {"kind": "parquet", "uri": "rows.parquet"},
    "target": {"uri": "out.lance"},
}


def job_blocks():
    for page in PAGES:
        for number, (language, text) in enumerate(fences(page)):
            if language == "yaml" and (body := yaml.safe_load(text)) is not None:
                yield pytest.param(body, id=f"{name(page)}-{number}")


@pytest.mark.parametrize("body", list(job_blocks()))
def test_every_job_file_in_the_pages_is_valid(body, tmp_path):
    job_file = tmp_path / "job.yaml"
    job_file.write_text(yaml.safe_dump(FRAME | body))
    assert read_job(job_file).fingerprint
    jsonschema.validate(FRAME | body, SCHEMA)


@pytest.mark.parametrize("store", STORES)
def test_the_job_file_of_a_stores_page_is_the_spec(store):
    (block,) = (
        text for language, text in fences(DOCS / f"stores/{store}.md") if language == "yaml"
    )
    assert block == (ROOT / f"jobs/specs/{store}.yaml").read_text()


def test_the_job_file_of_the_page_on_files_is_the_spec():
    (block,) = (text for language, text in fences(DOCS / "files.md") if language == "yaml")
    assert block == (ROOT / "jobs/specs/csv.yaml").read_text()


def test_the_page_on_files_names_every_kind():
    assert {
        kind
        for kind in KINDS.keys() - set(STORES)
        if f"| `{kind}` |" not in (DOCS / "files.md").read_text()
    } == set()


# -- generated pages -----------------------------------------------------------------------------


@cache
def generated_pages():
    return generate.pages()


@pytest.mark.parametrize("page", ["job-file.md", "job.schema.json", "commands.md"])
def test_generated_pages_are_what_the_code_says(page):
    path = DOCS / "reference" / page
    assert path.read_text() == generated_pages()[path], "run make docs"


@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_every_spec_fits_the_schema(spec):
    jsonschema.validate(yaml.safe_load(spec.read_text()), SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"limits": {"max_quarantined": "1%", "max_document": "1.5 GB", "memory": "auto"}},
        {"source": {"kind": "jsonl", "uri": "x", "shard_bytes": "64MiB"}},
        {"mapping": {"relationships": {"type": "parent", "to": ["a", {"path": ["b.c"]}]}}},
        {"source": {"kind": "pinecone", "collections": ["birds"]}},
    ],
    ids=["sizes and shares", "shard_bytes", "one relationship", "no address"],
)
def test_the_schema_takes_what_the_reader_takes(change, tmp_path):
    job_file = tmp_path / "job.yaml"
    job_file.write_text(yaml.safe_dump(FRAME | change))
    assert read_job(job_file)
    jsonschema.validate(FRAME | change, SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"nmae": "x"},
        {"source": {"kind": "parquet", "uri": "x", "url": "y"}},
        {"source": {"uri": "x"}},
        {"limits": {"max_document": "large"}},
        {"embedding": {"policy": "kepe"}},
    ],
    ids=["unknown key", "key of another kind", "no kind", "no size", "no policy"],
)
def test_the_schema_refuses_what_the_reader_refuses(change):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(FRAME | change, SCHEMA)


# -- troubleshooting -----------------------------------------------------------------------------


@cache
def strings_of_the_code():
    """List every string of the package, with ``{}`` for what is filled in."""
    texts = []
    for path in (ROOT / "cfray").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "{}"
                        for part in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_every_message_that_troubleshooting_explains_is_one_of_the_code():
    page = (DOCS / "troubleshooting.md").read_text().partition("## The job file")[2]
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")]
    messages = [
        code
        for row in rows
        for code in re.findall(r"`([^`]+)`", row)
        if " " in code and not code.startswith("cfray ")
    ]
    assert len(messages) > 20
    assert not [message for message in messages if message not in strings_of_the_code()]


# -- the tutorial and the snippets ---------------------------------------------------------------


@pytest.fixture(scope="module")
def clone(tmp_path_factory, shared_ray):
    """Run the tutorial's commands, in order, where the examples are; give folder and outputs."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "out").mkdir()
    shared_ray.touched = True
    outputs = {
        line: retype.run_line(line, folder, shared_ray.environment)
        for line in typed_lines_of_the_tutorial()
    }
    return folder, outputs


def typed_lines_of_the_tutorial():
    blocks = fences(DOCS / "tutorial.md")
    return [line for language, text in blocks if language == "sh" for line in text.splitlines()]


def without_numbers(text):
    """Compare what is said, not how large, how fast or where."""
    text = re.sub(r"\S*/out/", "OUT/", text)
    return {
        " ".join(re.sub(r"[\d.,]+", "0", line).split())
        for line in text.splitlines()
        if line.strip()
    }


def test_the_tutorial_shows_what_its_commands_print(clone):
    _, outputs = clone
    blocks = [block for block in fences(DOCS / "tutorial.md") if block[0] in ("sh", "text")]
    assert len(blocks) == 2 * len(outputs)
    for (_, typed), (_, shown) in zip(blocks[::2], blocks[1::2], strict=True):
        assert without_numbers(shown) == without_numbers(outputs[typed.strip()]), typed


def test_the_readme_shows_commands_and_lines_of_the_tutorial(clone):
    _, outputs = clone
    printed = without_numbers("\n".join(outputs.values()))
    (shown,) = (text for _, text in fences(ROOT / "README.md") if text.startswith("done, "))
    assert without_numbers(shown) - {"0"} <= printed
    typed = [line for line in typed_lines(ROOT / "README.md") if line.startswith("cfray ")]
    assert {line.removesuffix(" --quiet") for line in outputs} >= set(typed)


def snippets():
    pages = [(DOCS / f"{name}.md").read_text() for name in ("open-it-with", "python")]
    for section in [part for page in pages for part in page.split("\n## ")[1:]]:
        title = section.partition("\n")[0]
        for number, (language, text) in enumerate(FENCE.findall(section)):
            if language == "python":
                yield pytest.param(text, id=f"{title.replace(' ', '-')}-{number}")


def run_code(code, clone):
    """Run Python in the tutorial's folder, in a process of its own; give what it prints.

    Ray Data leaves detached actors behind, so that its snippet starts a Ray that ends with it.
    """
    for module in re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed; docs/open-it-with.md says how")
    folder, _ = clone
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("code", list(snippets()))
def test_every_snippet_opens_the_dataset(code, clone):
    assert run_code(code, clone).strip()


def test_lancedb_still_ignores_the_index_that_the_page_says_it_ignores(clone):
    listed = run_code(
        "import lancedb\n"
        "frames = lancedb.connect('out').open_table('synsets')\n"
        "print([index.name for index in frames.list_indices()])",
        clone,
    )
    assert "uuid_idx" not in listed
    assert "text_content_idx" in listed
