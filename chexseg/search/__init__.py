"""Search the axes of a study with Optuna."""
