"""Optuna searches over the axes of a study."""
