"""Which images a training uses, and in which order."""
