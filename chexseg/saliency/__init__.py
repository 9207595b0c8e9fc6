"""CAMs, random walks, thresholds and weak masks, as pure functions on tensors."""
