"""Elasticsearch: indices at a point in time, in slices by a hash of the id.

Servers from 9.2 on leave vectors out of ``_source`` unless they are asked for them, in every way
of reading; here they always are.  Server 8.19 hashes no ids at a point in time: there a shard is
one or more Lucene shards.

Source: https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-open-point-in-time
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

from cfray.sources.base import Context
from cfray.sources.elasticsearch import client, errors
from cfray.sources.lucene.base import LuceneSource
from cfray.sources.lucene.errors import Failure
from cfray.sources.lucene.schema import ParseVector
from cfray.sources.lucene.server import Server


class Elasticsearch(LuceneSource):
    """Indices of an Elasticsearch server (``url``), or elasticdump's files (``uri``)."""

    kind: Literal["elasticsearch"] = "elasticsearch"

    def open_server(self, context: Context) -> AbstractContextManager[Server]:
        """Open Elasticsearch's client for one task."""
        return client.open_server(self, context)

    def read_failure(self, error: Exception) -> Failure | None:
        """Read an error of Elasticsearch's client."""
        return errors.read_failure(error)

    @property
    def parse_vector(self) -> ParseVector:
        """Give the reader of dense vectors' declarations."""
        return client.ElasticServer.parse_vector
