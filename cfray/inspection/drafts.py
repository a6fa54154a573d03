"""The text of a drafted job file: one line a guess, its reason behind it, everything safely quoted.

What is only offered stands as a comment, so that taking a ``#`` away is all it
takes.  Defaults are shown as comments, read from the models that hold them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from cfray.embedders.spec import Embedding
from cfray.inspection.guesses import Guess
from cfray.job.spec import Index, Limits
from cfray.sources.base import Json

_LISTED = 20  # names shown in a comment


@dataclass(frozen=True, slots=True)
class Sketch:
    """What a draft says.

    Attributes:
        name: of the job.
        source: the source section as it will be written; types that were given stay.
        target: URI of the target.
        guesses: of the sections name, source and mapping, in their order.
        facts: sentences for the top of the file.
        rest: source fields that no rule names.
    """

    name: str
    source: Mapping[str, Json]
    target: str
    guesses: Sequence[Guess]
    facts: Sequence[str]
    rest: Sequence[str]


def job_file(sketch: Sketch) -> str:
    """Write a job file."""
    whys = {guess.key: guess.why for guess in sketch.guesses}
    types = [guess for guess in sketch.guesses if guess.key == "source.types"]
    given = {key: value for key, value in sketch.source.items() if key != "types"}
    lines = [
        *(f"# {plain(fact)}" for fact in sketch.facts),
        "",
        _line("name", sketch.name, whys.get("name", "")),
        "source:",
    ]
    lines += [
        _line(key, value, whys.get(f"source.{key}", ""), indent=2) for key, value in given.items()
    ]
    lines += _types(sketch.source.get("types"), types)
    lines.append("mapping:")
    lines += _mapping([guess for guess in sketch.guesses if guess.key.startswith("mapping.")])
    if sketch.rest:
        more = f" and {len(sketch.rest) - _LISTED:,} more" if len(sketch.rest) > _LISTED else ""
        lines.append(
            f"  # no rule names these, so custom_metadata keeps them whole: {plain(', '.join(sketch.rest[:_LISTED]))}{more}"
        )
    lines.append(_line("target", {"uri": sketch.target}, ""))
    lines += ["# the defaults:", *_defaults()]
    return "\n".join(lines) + "\n"


def _types(given: Json, guesses: Sequence[Guess]) -> Iterator[str]:
    declared = given if isinstance(given, dict) else {}
    if not declared and not guesses:
        return
    live = bool(declared) or any(guess.sure for guess in guesses)
    yield (
        "  types:   # all other columns are text" if live else "  # types:   # all columns are text"
    )
    yield from (_line(name, value, "", indent=4) for name, value in declared.items())
    yield from (
        _line(guess.name, guess.value, guess.why, indent=4, off=not guess.sure) for guess in guesses
    )


def _mapping(guesses: Sequence[Guess]) -> Iterator[str]:
    seen: set[str] = set()
    for guess in guesses:
        key = guess.key.removeprefix("mapping.")
        if key in ("vectors", "relationships") and key not in seen:
            yield f"  {key}:"
        seen.add(key)
        if key == "vectors":
            yield _line(guess.name, guess.value, guess.why, indent=4)
        elif key == "relationships":
            yield f"    - {scalar(guess.value)}   # {plain(guess.why)}"
        else:
            yield _line(key, guess.value, guess.why, indent=2, off=not guess.sure)


def _defaults() -> Iterator[str]:
    models = {"embedding": Embedding(), "index": Index(), "limits": Limits()}
    for key, model in models.items():
        yield _line(key, model.model_dump(mode="json", exclude_none=True), "", off=True)


def _line(key: str, value: Json, why: str, *, indent: int = 0, off: bool = False) -> str:
    text = "" if value is None else f" {scalar(value)}"
    return f"{' ' * indent}{'# ' if off else ''}{scalar(key)}:{text}{f'   # {plain(why)}' if why else ''}"


def scalar(value: Json) -> str:
    """Write a value as YAML on one line, fit to stand inside braces, too."""
    text: str = yaml.safe_dump(
        [value], default_flow_style=True, allow_unicode=True, sort_keys=False, width=float("inf")
    )
    if (
        len(text.splitlines()) > 1
    ):  # a text with a line break: only the double-quoted style keeps it on one line
        text = yaml.safe_dump(
            [value], default_flow_style=True, default_style='"', sort_keys=False, width=float("inf")
        )
    return text.strip()[1:-1]


def plain(text: str) -> str:
    """Make a text fit for a comment: on one line, without characters that YAML forbids."""
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() or c.isspace() else "?" for c in text))
