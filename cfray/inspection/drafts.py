"""The text of a drafted job file: a line for each guess, with its reason, safely quoted.

A line that is only offered stands as a comment: the user takes the ``#`` away to
use it.  Defaults stand as comments too, read from the models that hold them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import yaml

from cfray.embedders.spec import Embedding
from cfray.inspection.guess import Guess
from cfray.job.spec import Index, Limits
from cfray.sources.base import Json

#: Names that a comment shows.
_MAX_NAMES = 20


@dataclass(frozen=True, slots=True)
class Sketch:
    """What a draft says.

    Attributes:
        name: of the job.
        source: the source section as it will be written; types that were given stay.
        target: URI of the target.
        guesses: of the sections name, source and mapping, in their order.
        facts: sentences for the top of the file.
        offers: sentences behind the mapping.
        unmapped: source fields that no rule names.
    """

    name: str
    source: Mapping[str, Json]
    target: str
    guesses: Sequence[Guess]
    facts: Sequence[str]
    unmapped: Sequence[str]
    offers: Sequence[str] = ()

    @property
    def text(self) -> str:
        """Write the job file."""
        return job_file(self)

    def with_facts(self, facts: Sequence[str]) -> Sketch:
        """Add sentences to the top of the file."""
        return replace(self, facts=[*self.facts, *facts])


def job_file(sketch: Sketch) -> str:
    """Write a job file."""
    reasons = {guess.key: guess.why for guess in sketch.guesses if guess.sure}
    limits = next((guess for guess in sketch.guesses if guess.key == "limits"), None)
    types = [guess for guess in sketch.guesses if guess.key == "source.types"]
    source = {key: value for key, value in sketch.source.items() if key != "types"}
    lines = [
        *(f"# {plain(fact)}" for fact in sketch.facts),
        "",
        _line("name", sketch.name, reasons.get("name", "")),
        "source:",
    ]
    lines += [
        _line(key, value, reasons.get(f"source.{key}", ""), indent=2)
        for key, value in source.items()
    ]
    lines += [
        _line(key, guess.value, guess.why, indent=2, as_comment=True)
        for guess in sketch.guesses
        if not guess.sure and guess.key != "source.types"
        if (key := guess.key.removeprefix("source.")) != guess.key
    ]
    lines += _types(sketch.source.get("types"), types)
    lines.append("mapping:")
    lines += _mapping([guess for guess in sketch.guesses if guess.key.startswith("mapping.")])
    if sketch.unmapped:
        names = plain(", ".join(sketch.unmapped[:_MAX_NAMES]))
        hidden = len(sketch.unmapped) - _MAX_NAMES
        more = f" and {hidden:,} more" if hidden > 0 else ""
        lines.append(f"  # no rule names these, so custom_metadata keeps them whole: {names}{more}")
    lines += [f"  # {plain(offer)}" for offer in sketch.offers]
    lines.append(_line("target", {"uri": sketch.target}, ""))
    if limits is not None:
        lines.append(_line("limits", limits.value, limits.why))
    lines += ["# the defaults:", *_defaults()]
    return "\n".join(lines) + "\n"


def _types(given_types: Json, guesses: Sequence[Guess]) -> Iterator[str]:
    declared = given_types if isinstance(given_types, dict) else {}
    if not declared and not guesses:
        return
    if declared or any(guess.sure for guess in guesses):
        yield "  types:   # all other columns are text"
    else:
        yield "  # types:   # all columns are text"
    yield from (_line(name, value, "", indent=4) for name, value in declared.items())
    yield from (
        _line(guess.name, guess.value, guess.why, indent=4, as_comment=not guess.sure)
        for guess in guesses
    )


def _mapping(guesses: Sequence[Guess]) -> Iterator[str]:
    written_keys: set[str] = set()
    for guess in guesses:
        key = guess.key.removeprefix("mapping.")
        if key in ("vectors", "relationships", "cases") and key not in written_keys:
            is_used = any(other.sure for other in guesses if other.key == guess.key)
            yield f"  {key}:" if is_used else f"  # {key}:"
        written_keys.add(key)
        if key == "vectors":
            yield _line(guess.name, guess.value, guess.why, indent=4, as_comment=not guess.sure)
        elif key in ("relationships", "cases"):
            mark = "" if guess.sure else "# "
            yield f"    {mark}- {scalar(guess.value)}   # {plain(guess.why)}"
        else:
            yield _line(key, guess.value, guess.why, indent=2, as_comment=not guess.sure)


def _defaults() -> Iterator[str]:
    models = {"embedding": Embedding(), "index": Index(), "limits": Limits()}
    for key, model in models.items():
        yield _line(key, model.model_dump(mode="json", exclude_none=True), "", as_comment=True)


def _line(key: str, value: Json, why: str, *, indent: int = 0, as_comment: bool = False) -> str:
    """Write one line: the key, its value (none where it is None) and the reason behind it."""
    text = "" if value is None else f" {scalar(value)}"
    reason = f"   # {plain(why)}" if why else ""
    return f"{' ' * indent}{'# ' if as_comment else ''}{scalar(key)}:{text}{reason}"


def scalar(value: Json) -> str:
    """Write a value as YAML on one line, fit to stand inside braces, too."""
    text: str = yaml.safe_dump(
        [value], default_flow_style=True, allow_unicode=True, sort_keys=False, width=float("inf")
    )
    # only the double-quoted style keeps a text with a line break on one line
    if len(text.splitlines()) > 1:
        text = yaml.safe_dump(
            [value], default_flow_style=True, default_style='"', sort_keys=False, width=float("inf")
        )
    return text.strip()[1:-1]


def plain(text: str) -> str:
    """Make a text fit for a comment: on one line, without characters that YAML forbids."""
    return re.sub(r"\s+", " ", "".join(c if c.isprintable() or c.isspace() else "?" for c in text))
