"""Figures of what is beyond one machine: the replicated journal against the local one, and the mirror."""
