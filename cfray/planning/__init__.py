"""What is decided before anything is created.

Shards, a sample of the source, what every worker must agree on, and what the run would do.
"""
