"""The pipeline: one file per stage, with a function `run`."""
