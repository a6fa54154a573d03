"""Which field is the document's text: named like one, or the longest prose."""

from __future__ import annotations

from cfray.inspection import fieldnames
from cfray.inspection.field_samples import FieldSample
from cfray.inspection.guess import Guess
from cfray.inspection.unclaimed import Unclaimed
from cfray.job.mapping import dotted

#: Characters; a field whose texts are longer on average and are prose reads like a document.
_DOCUMENT_LENGTH = 40
#: Further texts that a reason names.
_LISTED = 5


def guess_text(unclaimed: Unclaimed) -> Guess:
    """Guess the document's text; JSON, base64, numbers and vectors never are one."""
    candidates = [field for field in unclaimed.fields("text") if _may_be_document(field)]
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
    why = f"{reason}; {best.mean_length:,.0f} characters on average"
    other_texts = [
        dotted(field.path) for field in candidates if field is not best and _is_long(field)
    ]
    if other_texts:
        why += f"; other long texts: {', '.join(other_texts[:_LISTED])}"
    return unclaimed.take("text_content", best, why)


def _may_be_document(field: FieldSample) -> bool:
    if field.vectors or field.data > field.present / 2:
        return False
    return field.name in fieldnames.TEXTS or (_is_long(field) and not field.dates)


def _is_long(field: FieldSample) -> bool:
    return field.mean_length >= _DOCUMENT_LENGTH and field.prose >= field.present / 2
