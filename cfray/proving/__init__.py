"""Re-read what was written, and compare it with the books."""
