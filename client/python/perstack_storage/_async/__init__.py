"""The asyncio client: one connection for each event loop. Nothing but this room imports asyncio.

Entry point: `client.AsyncClient`. It imports `_core` and `_wire`, never `_sync`.
"""
