"""Read the pages of docs/."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def read(name: str) -> str:
    """Return the text of a page, named by its path below docs/."""
    return (ROOT / "docs" / name).read_text()
