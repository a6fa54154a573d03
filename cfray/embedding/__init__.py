"""New vectors for rows that the target has already: what a map is learned from, pieces, the swap."""
