"""Tools for a base that nobody serves: check, audit, repair, rebuild, backup, restore, dump, import.

Entry points: one module or package for each command; `locked.held_base` opens a base and locks it.

Invariant: a tool that reads changes nothing. Imports: `startup` and below; never `server`.
"""
