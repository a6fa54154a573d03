"""Read a slice of an index page by page, and check that all of it came.

The first page says how many documents the slice has; a slice that ends with fewer is an error,
whatever the server answered.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field

from cfray.errors import SourceError
from cfray.sources.base import Json
from cfray.sources.lucene.readers import PointInTimeReader, Reader, ScrollReader
from cfray.sources.lucene.records import Hit, inner_values
from cfray.sources.lucene.schema import IndexSchema, VectorField
from cfray.sources.lucene.server import Server
from cfray.sources.lucene.slices import Slice
from cfray.sources.paging import PageSize


@dataclass(frozen=True, slots=True)
class Page:
    """Documents of one page.

    Attributes:
        hits: as the server gives them.
        faults: id -> why the document cannot become a record.  Where its JSON cannot be kept, its
            ``_source`` is that JSON as a text.
    """

    hits: list[Hit]
    faults: dict[str, str] = field(default_factory=dict)


def read_slice(
    server: Server, part: Slice, schema: IndexSchema, page_size: PageSize
) -> Generator[Page]:
    """Read a slice, and check that as many documents came as it has.

    Raises:
        SourceError: it has more or fewer, their order is not the one that was asked for, or the
            point in time or the scroll is gone.
    """
    reader = (ScrollReader if server.settings.read_by == "scroll" else PointInTimeReader)(
        server, part
    )
    read_rows = 0
    with closing(reader.pages(page_size)) as pages:
        for hits, faults in pages:
            if any("_source" not in hit for hit in hits):
                raise SourceError(
                    f"{server.settings.address}, {part}: documents came without their _source",
                    "let the credential read _source, or leave the index out of source.collections",
                )
            read_rows += len(hits)
            exact = [hit for hit in hits if hit["_id"] not in faults]
            yield Page(hits, _missing_vectors(reader, exact, schema) | faults)
    if reader.total is not None and read_rows != reader.total:
        raise SourceError(
            f"{server.settings.address}, {part}: {read_rows} documents came of the {reader.total} "
            "that the server counted when the reading began",
            "run the same command again; if it repeats, name the server's version in a report "
            "of a fault",
        )


def _missing_vectors(reader: Reader, hits: list[Hit], schema: IndexSchema) -> dict[str, str]:
    """Say which documents came without a vector that the server has of them.

    Vectors are optional, so a document without one is asked for in the index: there the vector
    either was never, or is and was left out of ``_source``.
    """
    faults: dict[str, str] = {}
    for vector in (*schema.vectors.values(), *schema.inner_vectors):
        without = [hit["_id"] for hit in hits if not _has_vector(hit, vector)]
        if not without:
            continue
        conditions: list[Json] = [
            vector.exists_query(),
            {"ids": {"values": list[Json](without)}},
        ]
        found = reader.search(
            {"size": len(without), "_source": False, "query": {"bool": {"filter": conditions}}}
        )
        for hit in found["hits"]["hits"]:
            faults[hit["_id"]] = (
                f"the server has a vector {vector.path} of this document and left it out of "
                "_source; read it from where the index was filled, or index it with vectors in "
                "_source"
            )
    return faults


def _has_vector(hit: Hit, vector: VectorField) -> bool:
    return any(value is not None for value in inner_values(hit["_source"], vector.path))
