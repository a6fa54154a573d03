"""The first line: shards in, receipts out."""
