"""Counting the pixels of predicted and true masks."""
