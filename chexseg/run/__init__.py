"""Running a plan on Ray."""
