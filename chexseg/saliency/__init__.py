"""From a classifier to masks: pure functions on tensors."""
