"""The result, and the paper's claims with their verdicts."""
