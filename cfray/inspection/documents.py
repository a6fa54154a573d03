"""The mapping of a tree of documents: its records have known fields, so nothing is guessed.

A rule for a field that no sampled record has is a line of the draft all the same, where other
records may have it: a tree may hold pictures that the sample does not.
"""

from __future__ import annotations

from cfray.inspection.guess import Guess
from cfray.inspection.samples import Sample

#: Key of the mapping -> field of the record, and what it is.
_FIELDS = {
    "id": ("id", "the path below source.uri"),
    "text_content": ("text", "the text of the file"),
    "title": ("title", "of the front matter, the page or the document, else the first heading"),
    "updated_at": ("modified", "the file's modification time"),
    "collection": ("collection", "the folder"),
    "source_file": ("path", "the path, which bytes that are not UTF-8 do not break"),
    "raw_data": ("raw", "the bytes of a file from which no text comes"),
    "raw_data_type": ("raw_type", "their MIME type"),
}
#: Key of the mapping -> keys of front matter, and properties of documents, that it is taken from.
_OFTEN = {
    "author": (("author",), ("properties", "author")),
    "tags": (("tags",), ("keywords",)),
    "created_at": (("date",), ("created",), ("properties", "created_at")),
}


def guess_documents(sample: Sample) -> list[Guess]:
    """Give the mapping of a tree of documents, in the order of the job file."""
    present = {field.path for field in sample.fields if field.present}
    guesses = [
        Guess(f"mapping.{key}", name, why, paths=((name,),)) for key, (name, why) in _FIELDS.items()
    ]
    for key, paths in _OFTEN.items():
        path = next((path for path in paths if path in present), None)
        if path is not None:
            why = "by its name, in the front matter or the properties of a document"
            guesses.append(Guess(f"mapping.{key}", ".".join(path), why, paths=(path,)))
    return sorted(guesses, key=lambda guess: guess.position)
