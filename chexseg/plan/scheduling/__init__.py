"""The order and the remaining time of a plan's runs, pure so that they can be simulated."""
