"""Measurements, run by ``make bench``: they print ratios and assert none, for a clock decides nothing on a shared machine."""
