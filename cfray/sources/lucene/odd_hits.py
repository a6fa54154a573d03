"""Parse an answer of which some document's JSON cannot be kept: each hit by itself.

The answer as a whole is parsed loosely, which finds its totals and where each hit is from.  Then
each hit is parsed exactly, from its own bytes; a document that cannot be keeps its JSON as a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from cfray.errors import SourceError
from cfray.formats.jsontext import InexactJson, parse_json
from cfray.sources.lucene.records import Hit

#: What stands before the hits, and before the document of a hit: within a text both would have a
#: backslash before their second quote.
_HITS = re.compile(r'"hits"\s*:\s*\[')
_SOURCE = re.compile(r'"_source"\s*:\s*')
_BETWEEN = re.compile(r"[\s,]*")
_DECODER = json.JSONDecoder()


def parse_hits(data: bytes) -> tuple[Any, dict[str, str]]:
    """Parse the answer to a search.

    Returns:
        the answer, with the documents that cannot be kept as texts; and of these: id -> why.

    Raises:
        SourceError: it is no answer to a search.
    """
    try:
        text = data.decode()
        answer = json.loads(text)
        texts = list(_texts_of_hits(text))
        loose_hits = answer["hits"]["hits"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise SourceError(
            f"the server gave an answer that cannot be read: {error}",
            "report it with the server's version",
        ) from None
    hits: list[Hit] = []
    faults: dict[str, str] = {}
    for loose, hit_text in zip(loose_hits, texts, strict=True):
        try:
            hit: Any = parse_json(hit_text.encode("utf-8", "surrogatepass"))
        except InexactJson as error:
            faults[str(loose["_id"])] = str(error)
            hit = {**loose, "_source": _document_text(hit_text)}
        hits.append(hit)
    answer["hits"]["hits"] = hits
    return answer, faults


def _texts_of_hits(text: str) -> Iterator[str]:
    """Give the JSON of each hit."""
    found = _HITS.search(text)
    place = found.end() if found else len(text)
    while True:
        place = _BETWEEN.match(text, place).end()  # type: ignore[union-attr]  # it matches nothing, too
        if place >= len(text) or text[place] == "]":
            return
        _, end = _DECODER.raw_decode(text, place)
        yield text[place:end]
        place = end


def _document_text(hit: str) -> str:
    """Give the JSON of the document within a hit."""
    found = _SOURCE.search(hit)
    if found is None:
        return ""
    _, end = _DECODER.raw_decode(hit, found.end())
    return hit[found.end() : end]
