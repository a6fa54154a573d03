"""Decoders of bytes that sources share: no store, no network, no mapping."""
