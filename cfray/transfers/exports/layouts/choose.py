"""Chooses the layout of a store."""

from __future__ import annotations

from cfray.transfers.exports.layouts.base import Layout
from cfray.transfers.exports.layouts.chroma import ChromaLayout
from cfray.transfers.exports.layouts.facts import Facts
from cfray.transfers.exports.layouts.milvus import MilvusLayout
from cfray.transfers.exports.layouts.pinecone import PineconeLayout
from cfray.transfers.exports.layouts.qdrant import QdrantLayout
from cfray.transfers.exports.layouts.weaviate import WeaviateLayout

_LAYOUTS: dict[str, type[Layout]] = {
    "pinecone": PineconeLayout,
    "qdrant": QdrantLayout,
    "milvus": MilvusLayout,
    "weaviate": WeaviateLayout,
    "chroma": ChromaLayout,
}


def layout_of(name: str, facts: Facts) -> Layout:
    """Give the layout of a store."""
    return _LAYOUTS[name](facts)
