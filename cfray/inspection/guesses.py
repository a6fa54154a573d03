"""What each field of a sampled source probably is: the id, the text, the vector, a reference.

A guess rests on a name and on every sampled value, and says which.  A guess that
the values do not support becomes a comment in the draft, or is left out: a field
without a guess stays whole in custom_metadata, while a wrong id is hard to repair.
Reads a ``Sample``; knows no file and writes no text.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cfray.conversion import identity
from cfray.inspection import fieldnames
from cfray.inspection.samples import FieldSample, Sample
from cfray.job.mapping import Key, LiteralPath, Path, as_path, dotted
from cfray.sources.base import Json

#: Share of the sampled values that must support a guess; the guess says how many do.
_MOSTLY = 0.95
#: Share of the records in which the best named id must be unique; the others would go to
#: quarantine.
_NEARLY_UNIQUE = 0.99
#: Fewest numbers of a vector: shorter lists are coordinates, ranges or ratings.
_MIN_DIMENSION = 8
#: Characters; a field whose texts are longer on average and hold spaces reads like a document.
_DOCUMENT_LENGTH = 40
#: Fewest records from which uniqueness alone, without a name, makes an id.
_MIN_UNIQUE_RECORDS = 10
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
        sure: false for a line that the draft only offers, as a comment.
        name: the key's free name, where the key holds a mapping of names (``mapping.vectors``,
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


def id_like(field: FieldSample) -> bool:
    """Tell a field whose digits are a name and no number: ids, references, codes."""
    return bool(fieldnames.ID_LIKE.search(field.name) or fieldnames.REFERS.search(field.name))


def mapping(sample: Sample) -> list[Guess]:
    """Guess the mapping of a sample, in the order of the job file."""
    return _Mapper(sample).guesses()


class _Mapper:
    """Gives each field to the guess that needs it most.

    The id chooses first, then vectors, references, dates and short texts; the document's text is
    chosen from the fields that remain.
    """

    def __init__(self, sample: Sample) -> None:
        self.sample = sample
        self.used_paths: set[Path] = set()
        #: Tagged id of each record, in the order of the sample.
        self.ids: list[str] = []

    def guesses(self) -> list[Guess]:
        candidates: list[Guess | None] = [
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
            (guess for guess in candidates if guess),
            key=lambda guess: _ORDER.index(guess.key.removeprefix("mapping.")),
        )

    def _free(self, *kinds: str) -> list[FieldSample]:
        return [
            field
            for field in self.sample.fields
            if field.path not in self.used_paths and field.present and field.kind in kinds
        ]

    def _guess(self, key: str, field: FieldSample, why: str, *, name: str = "") -> Guess:
        self.used_paths.add(field.path)
        return Guess(key, rule(field.path), why, name=name, paths=(field.path,))

    def _id(self) -> list[Guess]:
        if self.sample.is_store:
            store_id = next(field for field in self.sample.fields if field.path == ("id",))
            self.ids = self._read_ids("id")
            guess = self._guess("mapping.id", store_id, "the id that the store gives it")
            return [guess, *self._keep_uuid()]
        candidates = [
            field
            for field in self._free("text", "integer", "uuid", "binary")
            if field.present >= _NEARLY_UNIQUE * self.sample.rows
        ]
        named = [
            field
            for field in candidates
            if field.name in fieldnames.IDS or fieldnames.ID_LIKE.search(field.name)
        ]
        named.sort(
            key=lambda field: (
                bool(fieldnames.REFERS.search(field.name)),
                fieldnames.rank(field, fieldnames.IDS),
            )
        )
        rows = self.sample.rows
        unique_counts = [(field, self._count_unique(rule(field.path))) for field in named]
        best = (
            [(field, count) for field, count in unique_counts if count == rows]
            or [(field, count) for field, count in unique_counts if count >= _NEARLY_UNIQUE * rows]
            or [(field, rows) for field in candidates if self._is_unnamed_id(field)]
        )
        if not best:
            return [self._pair(candidates)]
        field, count = best[0]
        self.ids = self._read_ids(rule(field.path))
        why = f"unique in {count:,} of {rows:,} sampled records"
        if count < rows:
            why += "; of records with the same id the first stays, the rest go to quarantine"
        return [self._guess("mapping.id", field, why), *self._keep_uuid()]

    def _keep_uuid(self) -> list[Guess]:
        uuids = all(
            re.fullmatch(r"[su]:[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", text)
            for text in self.ids
        )
        if not uuids:
            return []
        why = "every sampled id is a UUID: uncomment to keep it as the frame's uuid"
        return [Guess("mapping.keep_uuid", True, why, sure=False)]

    def _read_ids(self, id_rule: Json | Key) -> list[str]:
        """Read the ids that a rule names, tagged, in the order of the sample.

        An empty text is no id.
        """
        path = LiteralPath.model_validate(id_rule) if isinstance(id_rule, dict) else id_rule
        return [
            text or ""
            for fields in self.sample.batches
            for text in identity.read_ids(fields, path).tagged.to_pylist()
        ]

    def _count_unique(self, id_rule: Json | Key) -> int:
        counts = Counter(self._read_ids(id_rule))
        return sum(count == 1 for text, count in counts.items() if text not in ("", "s:"))

    def _is_unnamed_id(self, field: FieldSample) -> bool:
        """Tell a unique field that is no text, no date and no measure.

        Only such a field is an id although it is not named like an id.
        """
        if (
            self.sample.rows < _MIN_UNIQUE_RECORDS
            or fieldnames.REFERS.search(field.name)
            or self._count_unique(rule(field.path)) < self.sample.rows
        ):
            return False
        if field.kind == "integer":
            numbers = [int(text) for text in field.texts]
            # a row number counts by one, but for the gaps between the sampled shards
            steps_of_one = sum(b - a == 1 for a, b in itertools.pairwise(numbers))
            return steps_of_one >= _NEARLY_UNIQUE * (len(numbers) - 1)
        words = any(re.search(r"\s", text) or len(text) > 200 for text in field.texts)
        measures = all(re.fullmatch(r"[-+0-9.eE]+", text) for text in field.texts)
        return field.kind == "uuid" or (
            field.kind == "text" and not words and not measures and not field.count_dates()
        )

    def _pair(self, candidates: Sequence[FieldSample]) -> Guess:
        """Guess a composite id of two fields, or say that the id must be filled in."""
        parts = [
            field
            for field in candidates
            if fieldnames.ID_LIKE.search(field.name) or fieldnames.SCOPES.search(field.name)
        ]
        parts.sort(key=lambda field: bool(fieldnames.ID_LIKE.search(field.name)))
        for pair in itertools.combinations(parts[:12], 2):
            key = Key(
                key=[
                    str(rule(field.path))
                    if isinstance(rule(field.path), str)
                    else LiteralPath(path=list(field.path))
                    for field in pair
                ]
            )
            rows = self.sample.rows
            if self._count_unique(key) == rows:
                why = (
                    "no field alone is unique; the pair is unique in "
                    f"{rows:,} of {rows:,} sampled records"
                )
                self.used_paths.update(field.path for field in pair)
                return Guess(
                    "mapping.id",
                    {"key": [rule(field.path) for field in pair]},
                    why,
                    paths=tuple(field.path for field in pair),
                )
        return Guess(
            "mapping.id",
            None,
            "FILL THIS IN: no field and no pair of fields named like ids is unique in the sample, "
            "and an id is never invented",
        )

    def _vectors(self) -> list[Guess]:
        store_vectors = [
            field
            for field in self._free("numbers")
            if self.sample.is_store and field.path[0] in ("vector", "vectors")
        ]
        if store_vectors:
            # the further vectors land in x_vector_<name> without a rule
            self.used_paths.update(field.path for field in store_vectors)
            primary, *further = store_vectors
            why = f"a vector of the store, {primary.dimension} numbers"
            if further:
                why += f"; beside it: {', '.join(dotted(field.path) for field in further)}"
            return [self._guess("mapping.vector", primary, why)]
        candidates = [
            field
            for field in self._free("numbers", "text", "list")
            if field.dimension >= _MIN_DIMENSION
            and field.vectors >= _MOSTLY * field.present
            and (field.has_floats or fieldnames.VECTOR_LIKE.search(field.name))
        ]
        candidates.sort(
            key=lambda field: (
                fieldnames.rank(field, fieldnames.VECTORS),
                not fieldnames.VECTOR_LIKE.search(field.name),
            )
        )
        guesses: list[Guess] = []
        names: set[str] = set()
        for field in candidates:
            records = (
                "every sampled record"
                if field.vectors == self.sample.rows
                else f"{field.vectors:,} of {self.sample.rows:,} sampled records"
            )
            why = f"{field.dimension} numbers in {records}"
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
                self.used_paths.add(field.path)
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
        return declared or self._guessed_references()

    def _guessed_references(self) -> list[Guess]:
        known_ids = set(self.ids) - {"", "s:"}
        if not known_ids:
            return []
        tag = Counter(text[0] for text in known_ids).most_common(1)[0][0]
        # small numbers are ids of something everywhere: numbers refer only where their name says so
        numeric_ids = sum(text[2:].isdigit() for text in known_ids)
        ids_are_telling = tag != "i" and numeric_ids < len(known_ids) / 2
        guesses = []
        for field in self._free("text", "integer", "uuid", "binary", "texts", "numbers", "list"):
            named = bool(fieldnames.REFERS.search(field.name))
            if field.has_floats or not (named or (ids_are_telling and field.kind != "numbers")):
                continue
            guess = self._reference(field, known_ids, tag, named=named)
            if guess is not None:
                guesses.append(guess)
        return guesses

    def _reference(
        self, field: FieldSample, known_ids: set[str], tag: str, *, named: bool
    ) -> Guess | None:
        hits = total = to_itself = start = 0
        path = LiteralPath(path=list(field.path))
        for fields in self.sample.batches:
            rows, tagged = identity.read_references(fields, path, tag)
            for row, text in zip(rows.tolist(), tagged.to_pylist(), strict=True):
                if text not in ("", "s:"):
                    total += 1
                    to_itself += text == self.ids[start + row]
                    hits += text in known_ids and text != self.ids[start + row]
            start += fields.rows
        if (
            not total
            or to_itself > total / 2
            or not (hits >= total / 2 or (named and (hits or not self.sample.is_complete)))
        ):
            return None
        if hits == total:
            why = "every sampled value is an id of another record"
        elif hits:
            why = f"{hits:,} of {total:,} sampled values are ids of other sampled records"
        elif self._shapes(field) & {_shape(text[2:]) for text in known_ids}:
            why = (
                "by its name, and its values look like the ids; the records they name are not in "
                "the sample"
            )
        else:
            return None
        kind = next(
            (kind for words, kind in fieldnames.TYPES if re.search(words, field.name)), "reference"
        )
        self.used_paths.add(field.path)
        return Guess(
            "mapping.relationships",
            {"type": kind, "to": rule(field.path)},
            why,
            paths=(field.path,),
        )

    @staticmethod
    def _shapes(field: FieldSample) -> set[str]:
        return {_shape(text) for text in field.texts}

    def _day(self, key: str, names: Sequence[str], like: re.Pattern[str]) -> Guess | None:
        candidates = [
            field
            for field in self._free("instant", "text", "integer", "number")
            if field.name in names or like.search(field.name)
        ]
        for field in sorted(candidates, key=lambda field: fieldnames.rank(field, names)):
            if field.kind == "instant":
                return self._guess(f"mapping.{key}", field, f"by its name and type {field.type}")
            dates = field.count_dates() if field.kind == "text" else 0
            if dates >= _MOSTLY * field.present:
                return self._guess(
                    f"mapping.{key}",
                    field,
                    f"by its name; {dates:,} of {field.present:,} sampled values read as dates",
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
            if field.mean_length <= longest:
                return self._guess(
                    f"mapping.{key}",
                    field,
                    f"by its name; {field.mean_length:.0f} characters on average",
                )
        if key == "title":
            return Guess(
                "mapping.title",
                None,
                "no field is named like a title; the first line of the text becomes the title",
                sure=False,
            )
        return None

    def _text(self) -> Guess:
        candidates = [
            field
            for field in self._free("text")
            if field.name in fieldnames.TEXTS
            or (
                field.mean_length >= _DOCUMENT_LENGTH
                and field.spaced_texts >= 0.5 * field.present
                and not field.vectors
                and field.count_dates() == 0
            )
        ]
        if not candidates:
            return Guess(
                "mapping.text_content",
                None,
                "no field reads like a document; without one the frames have no text",
                sure=False,
            )
        best = max(
            candidates, key=lambda field: field.mean_length * fieldnames.TEXTS.get(field.name, 1)
        )
        reason = "by its name" if best.name in fieldnames.TEXTS else "the longest texts"
        return self._guess(
            "mapping.text_content", best, f"{reason}; {best.mean_length:,.0f} characters on average"
        )

    def _collection(self) -> Guess | None:
        for field in fieldnames.by_name(self._free("text"), fieldnames.COLLECTIONS):
            different = len(set(field.texts))
            if different <= max(1, min(100, self.sample.rows // 4)):
                why = (
                    f"{different:,} different values in {field.present:,} sampled records: "
                    "uncomment to make a collection of each"
                )
                return Guess("mapping.collection", rule(field.path), why, sure=False)
        return None


def _shape(text: str) -> str:
    """Write a text's pattern: a number as 0, any other word as x, everything else as it is.

    A UUID has the pattern ``x-x-x-x-x``.
    """
    return "0" if text.isdigit() else re.sub(r"\w+", "x", text[:100])
