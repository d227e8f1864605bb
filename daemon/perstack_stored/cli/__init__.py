"""The command `perstack-stored`: flags, output and exit statuses. The packages below do the work.

Entry point: `main.main`.
"""
