"""A field's name in one spelling, whatever language and convention an export has.

Guesses compare names; ``publishedAt``, ``published-at`` and ``Published At`` are one name to them.
"""

from __future__ import annotations

import re
import unicodedata


def plain_name(name: str) -> str:
    """Write a name as lower-case words joined by underscores, without accents.

    ``publishedAt`` and ``published-at`` are ``published_at``, ``Título`` is ``titulo``.
    """
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    words = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", words)
    letters = unicodedata.normalize("NFKD", words.casefold())
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return re.sub(r"[\W_]+", "_", bare).strip("_")
