"""Read-only, from scores to the paper's tables and figures."""
