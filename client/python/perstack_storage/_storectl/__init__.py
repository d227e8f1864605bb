"""The command `perstack-storectl`. It uses the public client and a few tools of `_core`.

Entry point: `cli.main`. No other room imports it.
"""
