"""The command `perstack-stored`: flags, output and exit statuses. The work is done in the packages below.

Entry point: `main.main`.
"""
