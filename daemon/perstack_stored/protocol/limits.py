"""Bounds of the protocol that are no settings."""

READ_ALL_RECORDS_MAX = 10_000
