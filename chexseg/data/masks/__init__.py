"""Mask files of two sources: matching their image ids, counting their common pixels."""
