"""What a run found, as values; how far it is; the rendering for people."""
