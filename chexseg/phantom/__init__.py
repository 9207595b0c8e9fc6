"""Synthetic radiographs: a chest, what can be wrong with it, and a data set of such in the published layout."""
