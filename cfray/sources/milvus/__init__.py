"""Milvus: a live server, or the files of its bulk writer."""
