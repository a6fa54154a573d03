"""The documents of a file tree: one record a file."""
