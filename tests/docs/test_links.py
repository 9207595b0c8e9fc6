"""Check that every relative link of the documentation leads to a file, and to a heading of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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


def test_the_site_lists_every_page():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed: list[str] = []
    entries = list(site["nav"])
    while entries:
        value = next(iter(entries.pop().values()))
        entries += value if isinstance(value, list) else []
        listed += [value] if isinstance(value, str) else []
    documents = [name.removeprefix("docs/") for name in pages() if name.startswith("docs/")]
    assert sorted(listed) == sorted(documents)


@pytest.mark.heavy  # another process reads all pages
def test_the_site_is_built_without_a_broken_link(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    reference = (tmp_path / "reference" / "python.html").read_text()
    assert "chexseg.api.load_study" in reference and "over_pathologies" not in reference
    html = "".join(path.read_text() for path in tmp_path.rglob("*.html"))
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="https?://', html)
