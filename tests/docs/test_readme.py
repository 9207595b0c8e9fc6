"""Check the length of the README, and that its table lists exactly the commands."""

from __future__ import annotations

import re

from typer.main import get_command

from chexseg.cli import app
from tests.docs.pages import ROOT

README = (ROOT / "README.md").read_text()


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150
    assert max(map(len, README.splitlines())) <= 100


def test_the_table_lists_exactly_the_commands():
    names = []
    for name, command in get_command(app).commands.items():
        names += [f"{name} {inner}" for inner in getattr(command, "commands", ())] or [name]
    table = README[README.index("## Commands") : README.index("## Five concepts")]
    assert sorted(re.findall(r"^\| `chexseg ([^`]+)`", table, re.MULTILINE)) == sorted(names)
