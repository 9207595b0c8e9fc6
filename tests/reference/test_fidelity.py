"""Test the table of docs/explanation/fidelity.md: its settings exist, and so do its tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from chexseg.config import study_file

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explanation" / "fidelity.md").read_text()
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| (?!matter|---)", line)]
SETTING = re.compile(r"`(\w+(?:\.\w+)*): ([\w.-]+)`")
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
#: Matters of the specification that a row may have split, but none may be missing.
MATTERS = 30


def settings_of(row: str) -> dict[str, object]:
    return {name: yaml.safe_load(value) for name, value in SETTING.findall(row)}


@pytest.mark.parametrize(
    "row", [row for row in ROWS if settings_of(row)], ids=lambda row: row[2:30]
)
def test_the_settings_of_a_row_are_valid(row):
    settings: dict[str, object] = {}
    for name, value in settings_of(row).items():
        *sections, field = name.split(".")
        section = settings
        for key in sections:
            section = section.setdefault(key, {})  # type: ignore[assignment]
        section[field] = value
    # Students and IRNet on pretrained weights need these.
    settings.setdefault("distil", {}).setdefault("fraction", 0.1)  # type: ignore[attr-defined]
    study_file.parse(yaml.safe_dump({"name": "row", "settings": settings}), "row.yaml")


def test_every_published_matter_has_a_row_with_a_test_that_exists():
    published = [row for row in ROWS if row.count(" | ") == 3]
    assert len(published) == MATTERS
    for row in published:
        tests = TEST.findall(row)
        assert tests, row
        for path, name in tests:
            source = (ROOT / path).read_text()
            assert not name or f"def {name}(" in source, f"{path}::{name}"
