"""Check that the README lists all packages, each with the first line of its docstring."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_layout_lists_every_package_with_its_docstring():
    text = (ROOT / "README.md").read_text()
    layout = text[text.index("## The layout") : text.index("## Licence")]
    rows = re.findall(r"^ +(\w+/|\w+\.py) +(.*)$", layout, re.MULTILINE)
    files = {f"{path.parent.name}/": path for path in (ROOT / "chexseg").glob("*/**/__init__.py")}
    files |= {
        path.name: path
        for path in (ROOT / "chexseg").glob("*.py")
        if not path.name.startswith("__")
    }
    docstrings = {
        name: ast.get_docstring(ast.parse(path.read_text())) or "" for name, path in files.items()
    }
    assert dict(rows) == {name: docstring.splitlines()[0] for name, docstring in docstrings.items()}
