"""A target whose rows are all there: compact its fragments, build its indexes."""
