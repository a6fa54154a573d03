"""Vectors into another model's space.

Pairs, the maps that are fitted to them, the gate that judges a map.
"""
