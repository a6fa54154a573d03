"""What an export writes: which rows, in which form, into which files."""
