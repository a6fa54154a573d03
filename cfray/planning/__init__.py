"""Before anything is created.

Shards, a sample, what every worker must agree on, what would happen.
"""
