"""Rows that join a target after its shards: headers, and rows replayed from quarantine.

Both are pseudo-shards: their rows have a receipt and an entry in the ledger, as those of
a shard have, and ``verify`` checks them in the same way.
"""
