"""Stands for a package that isn't installed (tests/plain_install.py)."""

raise ModuleNotFoundError(f"{__name__} is hidden by a test", name=__name__)
