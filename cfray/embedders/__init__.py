"""Embedders: text in, vectors out.

``base.Embedder`` is what each of them is, ``open.opened`` the way in.
"""
