"""Qdrant: a live server, or snapshots of its shards."""
