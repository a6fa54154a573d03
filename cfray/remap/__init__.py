"""Remap: the old model's vectors in, vectors of the new model's space out.

``learn.learn_best_map`` finds a map and judges it; ``maps.Map`` applies it.
"""
