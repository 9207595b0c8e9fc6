"""Rows of tables, and how they are written."""
