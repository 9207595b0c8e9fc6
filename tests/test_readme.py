"""The README's layout names every file, once, and nothing else; every shipped study is mentioned where it should be."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_layout_names_exactly_the_files_that_are_there():
    text = (ROOT / "README.md").read_text()
    layout = text[text.index("## The layout") : text.index("## Licence")]
    named, folders = [], {}
    for line in layout.splitlines():
        indent, words = len(line) - len(line.lstrip()), line.split()
        folders = {deep: name for deep, name in folders.items() if deep < indent}
        if words and words[0].endswith("/"):
            folders[indent] = words[0]
        names = [word for word in words if re.fullmatch(r"[a-z_0-9]+\.(py|html)", word)]
        if names and words[0] == names[0]:
            named += ["".join(folders.values()) + name for name in names]
    there = [
        str(path.relative_to(ROOT))
        for folder in ("chexseg", "benchmarks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".html") and path.name not in ("__init__.py", "__main__.py")
    ]
    assert sorted(named) == sorted(there)
