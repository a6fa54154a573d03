"""New vectors for rows that the target has already.

What a map is learned from, pieces, the swap.
"""
