"""Chroma: a live server, or its persistent directory."""
