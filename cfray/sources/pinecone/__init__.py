"""Pinecone: a live project, or files in the layout of its import."""
