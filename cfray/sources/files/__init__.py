"""Files as sources: one module a format, and what they share."""
