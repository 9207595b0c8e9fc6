"""Rows of the paper's figures, one per point."""
