"""What each field of a sampled source probably is: the id, the text, the vector, a reference.

A guess rests on a name and on every sampled value, and says which.  Where the
values do not bear a guess out it is offered as a comment or not made at all:
a field without a guess is kept whole in custom_metadata, a wrong id is not
repaired so easily.  Reads a ``Sample``; knows no file and writes no text.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cfray.conversion import identity
from cfray.inspection import fieldnames
from cfray.inspection.samples import Sample, Seen
from cfray.job.mapping import Key, Literally, Path, as_path, dotted
from cfray.sources.base import Json

#: Share of the sampled values that must bear a guess out; the rest, if any, is told in the guess.
_MOSTLY = 0.95
#: Share of the records in which the best named id must be unique; the others would go to
#: quarantine.
_NEARLY_UNIQUE = 0.99
_NARROWEST = 8  # numbers; shorter lists are coordinates, ranges or ratings
# characters; a field whose texts are longer on average and hold spaces reads like a document
_LONG = 40
#: Fewest records from which uniqueness alone, without a name, makes an id.
_ENOUGH = 10
_ORDER = [
    "id",
    "keep_uuid",
    "text_content",
    "title",
    "author",
    "status",
    "vector",
    "vectors",
    "tags",
    "contributors",
]
_ORDER += ["created_at", "updated_at", "collection", "relationships"]


@dataclass(frozen=True, slots=True)
class Guess:
    """One line of the draft.

    Attributes:
        key: of the job file, dotted.
        value: as the job file writes it.
        why: what speaks for it.
        sure: false for what is only offered, as a comment.
        name: behind the key, where that holds a mapping of free names (``mapping.vectors``,
            ``source.types``).
        paths: the source fields it uses.
    """

    key: str
    value: Json
    why: str
    sure: bool = True
    name: str = ""
    paths: tuple[Path, ...] = ()

    def as_json(self) -> dict[str, Json]:
        """Write it for ``--json``."""
        return {
            "key": f"{self.key}.{self.name}" if self.name else self.key,
            "value": self.value,
            "why": self.why,
        }


def rule(path: Path) -> Json:
    """Write a path as a rule: dotted, or one item a level where a name holds a dot."""
    return {"path": list(path)} if as_path(dotted(path)) != path else dotted(path)


def id_like(field: Seen) -> bool:
    """Tell a field whose digits are a name and no number: ids, references, codes."""
    return bool(fieldnames.ID_LIKE.search(field.name) or fieldnames.REFERS.search(field.name))


def mapping(sample: Sample) -> list[Guess]:
    """Guess the mapping of a sample, in the order of the job file."""
    return _Mapper(sample).guesses()


class _Mapper:
    """Gives each field to the guess that needs it most.

    Ids first, then vectors, dates, short texts, and the text from what is left.
    """

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.taken: set[Path] = set()
        self.tagged: list[str] = []

    def guesses(self) -> list[Guess]:
        made: list[Guess | None] = [
            *self._id(),
            *self._vectors(),
            *self._references(),
            self._day("created_at", fieldnames.CREATED, fieldnames.CREATED_LIKE),
            self._day("updated_at", fieldnames.UPDATED, fieldnames.UPDATED_LIKE),
            self._list("tags", fieldnames.TAGS),
            self._list("contributors", fieldnames.CONTRIBUTORS),
            self._short("title", fieldnames.TITLES, 300),
            self._short("author", fieldnames.AUTHORS, 120),
            self._short("status", fieldnames.STATUS, 60),
            self._text(),
            self._collection(),
        ]
        return sorted(
            (guess for guess in made if guess),
            key=lambda guess: _ORDER.index(guess.key.removeprefix("mapping.")),
        )

    def _free(self, *kinds: str) -> list[Seen]:
        return [
            field
            for field in self.sample.fields
            if field.path not in self.taken and field.present and field.kind in kinds
        ]

    def _guess(self, key: str, field: Seen, why: str, *, name: str = "") -> Guess:
        self.taken.add(field.path)
        return Guess(key, rule(field.path), why, name=name, paths=(field.path,))

    def _id(self) -> list[Guess]:
        if self.sample.store:
            own = next(field for field in self.sample.fields if field.path == ("id",))
            self.tagged = self._tagged("id")
            return [self._guess("mapping.id", own, "the store's own id"), *self._keep()]
        fit = [
            field
            for field in self._free("text", "integer", "uuid", "binary")
            if field.present >= _NEARLY_UNIQUE * self.sample.rows
        ]
        named = [
            field
            for field in fit
            if field.name in fieldnames.IDS or fieldnames.ID_LIKE.search(field.name)
        ]
        named.sort(
            key=lambda field: (
                bool(fieldnames.REFERS.search(field.name)),
                fieldnames.rank(field, fieldnames.IDS),
            )
        )
        counted = [(field, self._unique(rule(field.path))) for field in named]
        best = [item for item in counted if item[1] == self.sample.rows] or [
            item for item in counted if item[1] >= _NEARLY_UNIQUE * self.sample.rows
        ]
        if not best:
            best = [(field, self.sample.rows) for field in fit if self._unnamed(field)]
        if best:
            field, unique = best[0]
            self.tagged = self._tagged(rule(field.path))
            rest = (
                ""
                if unique == self.sample.rows
                else "; of each id that repeats one record stays, the others go to quarantine"
            )
            return [
                self._guess(
                    "mapping.id",
                    field,
                    f"unique in {unique:,} of {self.sample.rows:,} sampled records{rest}",
                ),
                *self._keep(),
            ]
        return [self._pair(fit)]

    def _keep(self) -> list[Guess]:
        uuids = all(
            re.fullmatch(r"[su]:[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", text)
            for text in self.tagged
        )
        return (
            [
                Guess(
                    "mapping.keep_uuid",
                    True,
                    "every sampled id is a UUID: uncomment to keep it as the frame's uuid",
                    sure=False,
                )
            ]
            if uuids
            else []
        )

    def _tagged(self, of: Json | Key) -> list[str]:
        """Give the ids a rule finds, tagged, in the order of the sample; an empty text is none."""
        path = Literally.model_validate(of) if isinstance(of, dict) else of
        return [
            text or ""
            for fields in self.sample.batches
            for text in identity.read_ids(fields, path).tagged.to_pylist()
        ]

    def _unique(self, of: Json | Key) -> int:
        counts = Counter(self._tagged(of))
        return sum(count == 1 for text, count in counts.items() if text not in ("", "s:"))

    def _unnamed(self, field: Seen) -> bool:
        """Tell a unique field that is no text, no date and no measure.

        Only such a one is an id without being named so.
        """
        if (
            self.sample.rows < _ENOUGH
            or fieldnames.REFERS.search(field.name)
            or self._unique(rule(field.path)) < self.sample.rows
        ):
            return False
        if field.kind == "integer":
            numbers = [int(text) for text in field.texts]
            counted = sum(
                b - a == 1 for a, b in itertools.pairwise(numbers)
            )  # a row number; between shards there is a gap
            return counted >= _NEARLY_UNIQUE * (len(numbers) - 1)
        words = any(re.search(r"\s", text) or len(text) > 200 for text in field.texts)
        measures = all(re.fullmatch(r"[-+0-9.eE]+", text) for text in field.texts)
        return field.kind == "uuid" or (
            field.kind == "text" and not words and not measures and not field.days()
        )

    def _pair(self, fit: Sequence[Seen]) -> Guess:
        parts = [
            field
            for field in fit
            if fieldnames.ID_LIKE.search(field.name) or fieldnames.SCOPES.search(field.name)
        ]
        parts.sort(key=lambda field: bool(fieldnames.ID_LIKE.search(field.name)))
        for pair in itertools.combinations(parts[:12], 2):
            of = Key(
                key=[
                    str(rule(field.path))
                    if isinstance(rule(field.path), str)
                    else Literally(path=list(field.path))
                    for field in pair
                ]
            )
            if self._unique(of) == self.sample.rows:
                why = f"no field alone is unique; the pair is in {self.sample.rows:,} of {self.sample.rows:,} sampled records"
                self.taken.update(field.path for field in pair)
                return Guess(
                    "mapping.id",
                    {"key": [rule(field.path) for field in pair]},
                    why,
                    paths=tuple(field.path for field in pair),
                )
        return Guess(
            "mapping.id",
            None,
            "FILL THIS IN: no field and no pair of fields named like ids is unique in the sample, and an id is never invented",
        )

    def _vectors(self) -> list[Guess]:
        own = [
            field
            for field in self._free("numbers")
            if self.sample.store and field.path[0] in ("vector", "vectors")
        ]
        if own:  # the others land in x_vector_<name> by themselves
            self.taken.update(field.path for field in own)
            others = (
                f"; beside it: {', '.join(dotted(field.path) for field in own[1:])}"
                if len(own) > 1
                else ""
            )
            return [
                self._guess(
                    "mapping.vector",
                    own[0],
                    f"the store's own vector, {own[0].width} numbers{others}",
                )
            ]
        found = [
            field
            for field in self._free("numbers", "text", "list")
            if field.width >= _NARROWEST and field.wide >= _MOSTLY * field.present
        ]
        found = [
            field for field in found if field.floats or fieldnames.VECTOR_LIKE.search(field.name)
        ]
        found.sort(
            key=lambda field: (
                fieldnames.rank(field, fieldnames.VECTORS),
                not fieldnames.VECTOR_LIKE.search(field.name),
            )
        )
        guesses: list[Guess] = []
        names: set[str] = set()
        for field in found:
            many = (
                "every sampled record"
                if field.wide == self.sample.rows
                else f"{field.wide:,} of {self.sample.rows:,} sampled records"
            )
            why = f"{field.width} numbers in {many}"
            if not guesses:
                guesses.append(self._guess("mapping.vector", field, why))
                continue
            name = re.sub(r"[^A-Za-z0-9_]", "_", dotted(field.path))
            name = name if name not in names else f"{name}_{len(names)}"
            names.add(name)
            guesses.append(
                self._guess("mapping.vectors", field, f"{why}; becomes x_vector_{name}", name=name)
            )
        return guesses

    def _references(self) -> list[Guess]:
        declared = []
        for name, collection in self.sample.references.items():
            field = next(
                (field for field in self.sample.fields if dotted(field.path) == name), None
            )
            if field is not None:
                self.taken.add(field.path)
                value: Json = {
                    "type": "reference",
                    "to": rule(field.path),
                    "collection": collection,
                }
                declared.append(
                    Guess(
                        "mapping.relationships",
                        value,
                        "a cross-reference of the store",
                        paths=(field.path,),
                    )
                )
        return declared or self._found_references()

    def _found_references(self) -> list[Guess]:
        known = set(self.tagged) - {"", "s:"}
        if not known:
            return []
        tag = Counter(text[0] for text in known).most_common(1)[0][0]
        # small numbers are ids of something everywhere, so numbers refer only where their name says
        # so
        telling = tag != "i" and sum(text[2:].isdigit() for text in known) < len(known) / 2
        guesses = []
        for field in self._free("text", "integer", "uuid", "binary", "texts", "numbers", "list"):
            named = bool(fieldnames.REFERS.search(field.name))
            if field.floats or not (named or (telling and field.kind != "numbers")):
                continue
            guess = self._reference(field, known, tag, named=named)
            if guess is not None:
                guesses.append(guess)
        return guesses

    def _reference(self, field: Seen, known: set[str], tag: str, *, named: bool) -> Guess | None:
        hits = total = own = start = 0
        path = Literally(path=list(field.path))
        for fields in self.sample.batches:
            rows, tagged = identity.read_references(fields, path, tag)
            for row, text in zip(rows.tolist(), tagged.to_pylist(), strict=True):
                if text not in ("", "s:"):
                    total += 1
                    own += text == self.tagged[start + row]
                    hits += text in known and text != self.tagged[start + row]
            start += fields.rows
        if (
            not total
            or own > total / 2
            or not (hits >= total / 2 or (named and (hits or not self.sample.whole)))
        ):
            return None
        if hits == total:
            why = "every sampled value is an id of another record"
        elif hits:
            why = f"{hits:,} of {total:,} sampled values are ids of other sampled records"
        elif self._shapes(field) & {_shape(text[2:]) for text in known}:
            why = "by its name, and its values look like the ids; the records they name are not in the sample"
        else:
            return None
        kind = next(
            (kind for words, kind in fieldnames.TYPES if re.search(words, field.name)), "reference"
        )
        self.taken.add(field.path)
        return Guess(
            "mapping.relationships",
            {"type": kind, "to": rule(field.path)},
            why,
            paths=(field.path,),
        )

    @staticmethod
    def _shapes(field: Seen) -> set[str]:
        return {_shape(text) for text in field.texts}

    def _day(self, key: str, names: Sequence[str], like: re.Pattern[str]) -> Guess | None:
        found = [
            field
            for field in self._free("instant", "text", "integer", "number")
            if field.name in names or like.search(field.name)
        ]
        for field in sorted(found, key=lambda field: fieldnames.rank(field, names)):
            if field.kind == "instant":
                return self._guess(f"mapping.{key}", field, f"by its name and type {field.type}")
            read = field.days() if field.kind == "text" else 0
            if read >= _MOSTLY * field.present:
                return self._guess(
                    f"mapping.{key}",
                    field,
                    f"by its name; {read:,} of {field.present:,} sampled values read as dates",
                )
        return None

    def _list(self, key: str, names: Sequence[str]) -> Guess | None:
        for field in fieldnames.by_name(self._free("texts"), names):
            return self._guess(f"mapping.{key}", field, "by its name; lists of texts")
        if key == "tags":
            for field in fieldnames.by_name(self._free("text"), names):
                if not any(re.search(r"[,;|\[]", text) for text in field.texts):
                    return self._guess("mapping.tags", field, "by its name; one text a record")
                return Guess(
                    "mapping.tags",
                    rule(field.path),
                    "by its name, but a text that holds several would become one tag",
                    sure=False,
                )
        return None

    def _short(self, key: str, names: Sequence[str], longest: int) -> Guess | None:
        for field in fieldnames.by_name(self._free("text"), names):
            if field.mean <= longest:
                return self._guess(
                    f"mapping.{key}", field, f"by its name; {field.mean:.0f} characters on average"
                )
        if key == "title":
            return Guess(
                "mapping.title",
                None,
                "no field is named like one; the text's first line is taken",
                sure=False,
            )
        return None

    def _text(self) -> Guess:
        found = [
            field
            for field in self._free("text")
            if field.name in fieldnames.TEXTS
            or (
                field.mean >= _LONG
                and field.spaced >= 0.5 * field.present
                and not field.wide
                and field.days() == 0
            )
        ]
        if not found:
            return Guess(
                "mapping.text_content",
                None,
                "no field reads like a document; without one the frames have no text",
                sure=False,
            )
        best = max(found, key=lambda field: field.mean * fieldnames.TEXTS.get(field.name, 1))
        by = "by its name" if best.name in fieldnames.TEXTS else "the longest texts"
        return self._guess(
            "mapping.text_content", best, f"{by}; {best.mean:,.0f} characters on average"
        )

    def _collection(self) -> Guess | None:
        for field in fieldnames.by_name(self._free("text"), fieldnames.COLLECTIONS):
            different = len(set(field.texts))
            if different <= max(1, min(100, self.sample.rows // 4)):
                why = f"{different:,} different values in {field.present:,} sampled records: uncomment for one collection each"
                return Guess("mapping.collection", rule(field.path), why, sure=False)
        return None


def _shape(text: str) -> str:
    """Write a text's pattern: digits as one 0, other words as one x, the rest as it is.

    (``x-x-x-x-x`` for a UUID).
    """
    return "0" if text.isdigit() else re.sub(r"\w+", "x", text[:100])
