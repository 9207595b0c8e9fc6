"""Synthetic radiographs with findings, written as a data set in the published layout."""
