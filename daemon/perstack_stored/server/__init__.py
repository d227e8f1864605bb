"""The serving process: the loop, its coordination of the workers, status, start and stop.

Entry points: `daemon.Daemon` starts and stops everything; `loop.Server` serves.

Imports: everything below. Nobody imports it but `cli`.
"""
