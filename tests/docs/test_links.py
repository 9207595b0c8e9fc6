"""Check that every relative link of the documentation leads to a file, and to a heading of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import BLOCK, ROOT, pages

LINK = re.compile(r"(?<!\\)\]\(([^)\s]+)\)|^\[[^]]+\]: (\S+)$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    names: list[str] = []
    for title in re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        names.append(name if name not in names else f"{name}-{names.count(name)}")
    return set(names)


def links(page: str) -> list[str]:
    """Return the relative links of a page, also those of pictures."""
    text = re.sub(r"`[^`\n]*`", "", BLOCK.sub("", (ROOT / page).read_text()))
    targets = (one or other for one, other in LINK.findall(text))
    return [target for target in targets if "://" not in target]


@pytest.mark.parametrize("page", pages())
def test_links_resolve(page):
    broken = []
    for target in links(page):
        name, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            broken.append(target)
    assert not broken


def test_every_page_is_in_the_index():
    index = {(ROOT / "docs" / target).resolve() for target in links("docs/README.md")}
    assert set(map(Path, map(ROOT.joinpath, pages()))) - index <= {
        ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "README.md",
    }  # fmt: skip
