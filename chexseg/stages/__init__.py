"""The pipeline: one module per stage, each with a function `run`."""
