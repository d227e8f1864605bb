"""Offline tools for a base that is not served: check, audit, repair, rebuild, backup, restore, dump, import.

Entry points: one module or package for each command; `locked.locked_datadir` opens and locks a base.

Invariant: a tool that reads changes nothing. Imports: `startup` and below; never `server`.
"""
