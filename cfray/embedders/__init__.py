"""Embedders: text in, vectors out.

``base.Embedder`` says what an embedder is; ``open.open_embedder`` opens the job's.
"""
