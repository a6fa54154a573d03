"""Before anything is created: shards, a sample, what every worker must agree on, what would happen."""
