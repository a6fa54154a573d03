"""The words by which the job file types a field of an export: ``FLOAT_VECTOR``, ``ARRAY<INT8>``.

They are Milvus's own words (pymilvus, ``DataType``); no others are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping

from cfray.sources.milvus.schema import DENSE, SCALARS

_SCALAR_WORDS = {kind.upper(): kind for kind in SCALARS}
#: A type in Milvus's words -> (kind, kind of an array's elements).
FIELD_WORDS = {
    **{word: (kind, "") for word, kind in _SCALAR_WORDS.items()},
    **{f"ARRAY<{word}>": ("Array", kind) for word, kind in _SCALAR_WORDS.items()},
    **{f"{kind.removesuffix('Vector').upper()}_VECTOR": (kind, "") for kind in DENSE},
    "SPARSE_FLOAT_VECTOR": ("SparseFloatVector", ""),
    "JSON": ("JSON", ""),
}


def check_field_words(fields: Mapping[str, str]) -> None:
    """Refuse words that Milvus does not have.

    Raises:
        ValueError: names the field and the word.
    """
    for name, word in fields.items():
        if word not in FIELD_WORDS:
            raise ValueError(
                f"fields: {name} is {word!r}, which is none of {', '.join(sorted(FIELD_WORDS))}"
            )
