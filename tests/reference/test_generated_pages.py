"""Test that the generated pages of docs/reference are up to date and complete."""

from __future__ import annotations

import re

import pytest

from chexseg.config.settings import setting_names
from docs import build_reference
from tests.reference.pages import ROOT, read


@pytest.mark.parametrize("name", ["settings.md", "commands.md"])
def test_generated_page_is_up_to_date(name):
    assert read(f"reference/{name}") == build_reference.pages()[name], (
        "run: python -m docs.build_reference"
    )


def test_every_setting_has_a_meaning():
    entries = re.split(r"^- ", read("reference/settings.md"), flags=re.MULTILINE)[1:]
    heads = [
        re.fullmatch(r"\*\*`([\w.]+)`\*\*: .*; .*\.\n  \S.*", entry.strip(), re.DOTALL)
        for entry in entries
    ]
    assert all(heads)
    assert set(setting_names()) <= {head[1] for head in heads if head}


def test_every_variable_that_chexseg_reads_is_listed():
    page = read("reference/commands.md")
    sources = [path.read_text() for path in (ROOT / "chexseg").rglob("*.py")]
    names = {
        name
        for source in sources
        for name in re.findall(r"(?:environ\.get\(|envvar=|environ\.setdefault\()\"(\w+)", source)
    }
    # These choose how Ray behaves inside a run, and are not for users.
    internal = {name for name in names if name.startswith(("TUNE_", "RAY_TRAIN_", "RAY_AIR_"))}
    for name in names - internal - {"PYTHONSAFEPATH"}:
        assert f"`{name}`" in page
