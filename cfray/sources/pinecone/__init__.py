"""Pinecone: a live index, or files in its import layout."""
