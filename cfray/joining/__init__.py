"""Rows that join a target after its shards: headers, and rows replayed from quarantine."""
