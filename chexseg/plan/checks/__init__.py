"""Checks before a run: counts of the data, networks, space on the disk."""
