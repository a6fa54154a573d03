"""Records, the neutral rows as a source has them: their values, types and vectors."""
