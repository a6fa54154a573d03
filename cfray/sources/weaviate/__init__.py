"""Weaviate: a live server, or its Parquet export."""
