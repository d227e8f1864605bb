"""What stored records mean to a person: words, runs that hang together, differences, units. No I/O.

`_storectl` prints it, `_inspect` serves it. It reads values of which only the checked fields are sure.
"""
