"""The synchronous client: one connection for each thread, safe against signal handlers and forks.

Entry point: `client.Client`. It imports `_core` and `_wire`, never `_async`.
"""
