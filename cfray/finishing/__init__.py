"""A target whose rows are all committed: merge its small fragments, build its indexes.

Both leave the rows, their ids and the ledger as they are, and both may be interrupted and
run again.
"""
