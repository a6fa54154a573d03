"""Layouts of files that vector databases import: a file a store."""
