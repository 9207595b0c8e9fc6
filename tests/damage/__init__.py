"""Damage each kind of file in each way, and see what each command makes of it."""
