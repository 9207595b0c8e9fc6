"""Training loops: their data, checkpoints, timing and Ray Train workers."""
