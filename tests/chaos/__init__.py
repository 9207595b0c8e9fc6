"""Disturb runs of a study at random, and compare its tables with those of a quiet run."""
