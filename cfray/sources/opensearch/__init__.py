"""OpenSearch indices, read at a point in time, and elasticdump's files."""
