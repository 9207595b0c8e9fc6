"""Masks drawn over radiographs, and the colours of figures, tables and overlays."""
