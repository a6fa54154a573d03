"""OpenSearch: indices at a point in time, in slices by a hash of the id.

Pages follow each other by ``_shard_doc``, which servers before 3.3 do not know: there they follow
by ``_id``, for by ``_doc`` documents vanish without an error.

Source: https://docs.opensearch.org/latest/search-plugins/searching-data/point-in-time/
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

from cfray.sources.base import Context
from cfray.sources.lucene.base import LuceneSource
from cfray.sources.lucene.errors import Failure
from cfray.sources.lucene.schema import ParseVector
from cfray.sources.lucene.server import Server
from cfray.sources.opensearch import client, errors


class OpenSearch(LuceneSource):
    """Indices of an OpenSearch server (``url``), or elasticdump's files (``uri``)."""

    kind: Literal["opensearch"] = "opensearch"

    def open_server(self, context: Context) -> AbstractContextManager[Server]:
        """Open OpenSearch's client for one task."""
        return client.open_server(self, context)

    def read_failure(self, error: Exception) -> Failure | None:
        """Read an error of OpenSearch's client."""
        return errors.read_failure(error)

    @property
    def parse_vector(self) -> ParseVector:
        """Give the reader of k-NN vectors' declarations."""
        return client.OpenSearchServer.parse_vector
