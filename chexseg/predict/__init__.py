"""Masks of new images by a finished segmenter."""
