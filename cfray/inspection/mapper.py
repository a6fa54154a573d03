"""The mapping of a sample, guess by guess, each field for the guess that needs it most.

The id chooses first, then vectors, references, dates and short texts; the document's text is
chosen from the fields that remain.
"""

from __future__ import annotations

from cfray.inspection import fieldnames
from cfray.inspection.documents import guess_documents
from cfray.inspection.guess import Guess
from cfray.inspection.ids import guess_id
from cfray.inspection.labels import (
    guess_day,
    guess_list,
    guess_short,
    guess_title,
    offer_collection,
)
from cfray.inspection.references import guess_references
from cfray.inspection.samples import Sample
from cfray.inspection.store_fields import guess_store_id, guess_store_vector
from cfray.inspection.texts import guess_text
from cfray.inspection.unclaimed import Unclaimed
from cfray.inspection.vector_fields import VectorFields, claim_vectors, guess_vectors


def guess_mapping(sample: Sample) -> list[Guess]:
    """Guess the mapping of a sample, in the order of the job file."""
    if sample.source.kind == "filesystem":
        return guess_documents(sample)
    unclaimed = Unclaimed(sample)
    ids = guess_store_id(unclaimed) if sample.is_store else guess_id(unclaimed)
    store_vectors = guess_store_vector(unclaimed) if sample.is_store else []
    vectors = VectorFields([], []) if store_vectors else claim_vectors(unclaimed)
    guesses: list[Guess | None] = [
        *ids,
        *store_vectors,
        *guess_references(unclaimed),
        guess_day(unclaimed, "created_at", fieldnames.CREATED, fieldnames.CREATED_LIKE),
        guess_day(unclaimed, "updated_at", fieldnames.UPDATED, fieldnames.UPDATED_LIKE),
        guess_list(unclaimed, "tags", fieldnames.TAGS),
        guess_list(unclaimed, "contributors", fieldnames.CONTRIBUTORS),
        guess_title(unclaimed),
        guess_short(unclaimed, "author", fieldnames.AUTHORS),
        guess_short(unclaimed, "status", fieldnames.STATUS),
    ]
    text = guess_text(unclaimed)
    guesses += [
        text,
        *guess_vectors(unclaimed, vectors, text.paths[0] if text.paths else ()),
        offer_collection(unclaimed),
    ]
    return sorted((guess for guess in guesses if guess), key=lambda guess: guess.position)
