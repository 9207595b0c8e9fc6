"""Figures, the page and exports; read-only."""
