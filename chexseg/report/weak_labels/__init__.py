"""How well weak labels agree with experts."""
