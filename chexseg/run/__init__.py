"""Run a plan on Ray."""
