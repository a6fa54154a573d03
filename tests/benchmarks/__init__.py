"""Measurements, run by ``make bench``.

They print ratios and assert none, for a clock decides nothing on a shared machine.
"""
