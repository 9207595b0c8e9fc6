"""Draw the pictures of docs/explanation/architecture.md; run as ``python -m docs.build_pictures``.

`packages.svg` comes from the layers in pyproject.toml and the packages' docstrings, `data-flow.svg`
from the tables below. Tests compare both with their files, and `ARROWS` with the planner.
"""

from __future__ import annotations

import ast
import textwrap
import tomllib
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"

STYLE = """\
<style>
  :root { --page: #ffffff; --ink: #1f2328; --soft: #57606a; --box: #eef4fb; --edge: #4f76a3; }
  @media (prefers-color-scheme: dark) {
    :root { --page: #0d1117; --ink: #e6edf3; --soft: #9da7b3; --box: #16263a; --edge: #7fa9d6; }
  }
  .page { fill: var(--page); }
  .box { fill: var(--box); stroke: var(--edge); stroke-width: 1.2; }
  .outside { fill: none; stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 4 3; }
  .arrow { fill: none; stroke: var(--edge); stroke-width: 1.4; marker-end: url(#head); }
  .head { fill: var(--edge); }
  text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
  .name { font-size: 14px; font-weight: 600; fill: var(--ink); }
  .note { font-size: 11px; fill: var(--soft); }
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"
  markerUnits="userSpaceOnUse" orient="auto"><path class="head" d="M0 0 8 4 0 8z"/></marker></defs>
"""


def main() -> None:
    """Write both pictures."""
    for name, text in pictures().items():
        (IMAGES / name).write_text(text)


def pictures() -> dict[str, str]:
    """Return file name -> text of the pictures."""
    return {"packages.svg": packages(), "data-flow.svg": data_flow()}


def svg(width: int, height: int, title: str, parts: list[str]) -> str:
    """Return an SVG document of these elements."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="{escape(title)}">\n<title>{escape(title)}</title>\n{STYLE}'
        f'<rect class="page" width="{width}" height="{height}"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def text(x: float, y: float, line: str, style: str, anchor: str = "start") -> str:
    """Return one line of text."""
    return f'<text class="{style}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(line)}</text>'


def box(x: int, y: int, width: int, height: int, name: str, lines: list[str], style: str) -> str:
    """Return a box with a name and lines below it, in its middle."""
    top = y + (height - 15 * len(lines)) / 2 + 5
    middle = x + width / 2
    parts = [f'<rect class="{style}" x="{x}" y="{y}" width="{width}" height="{height}" rx="5"/>']
    parts.append(text(middle, top, name, "name", "middle"))
    parts += [
        text(middle, top + 15 * number, line, "note", "middle")
        for number, line in enumerate(lines, start=1)
    ]
    return "\n".join(parts)


# ---- packages ------------------------------------------------------------------------------------

#: Name of a row -> its packages, each column from top to bottom.
ROWS: dict[str, list[list[str]]] = {
    "Start": [["cli"], ["api"], ["launch"], ["fitted"]],
    "Read results": [["predict"], ["report"], ["evaluation"], ["analysis"]],
    "Plan and run": [["resolve"], ["search"], ["run"], ["plan"], ["config"]],
    "Compute": [["stages"], ["phantom", "saliency"], ["drawing"], ["models", "data"]],
    "Basis": [
        ["store"],
        ["progress", "pathologies"],
        ["seeds", "code_version"],
        ["weak_label_kinds", "untrusted"],
        ["file_tree", "parallel"],
        ["errors", "library_search"],
    ],
}
WIDTH, LABEL, GAP, TALL, SHORT = 1000, 120, 10, 96, 106


def layers() -> list[set[str]]:
    """Return the layers of pyproject.toml, from the top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (one for one in settings["contracts"] if one["type"] == "layers")
    return [
        {name.strip().removeprefix("chexseg.") for name in layer.split("|")}
        for layer in contract["layers"]
    ]


def sentence(package: str) -> str:
    """Return the first line of the docstring of a package or module of chexseg."""
    path = ROOT / "chexseg" / package
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[0]


def packages() -> str:
    """Return the picture of the packages."""
    parts, y = [], 34
    parts.append(
        text(
            10,
            20,
            "A package imports only from packages to its right and from the rows below.",
            "note",
        )
    )
    for row, columns in ROWS.items():
        height = TALL if max(map(len, columns)) == 1 else 2 * SHORT + GAP
        width = (WIDTH - LABEL - GAP * len(columns)) // len(columns)
        parts.append(text(10, y + height / 2 + 5, row, "name"))
        for number, column in enumerate(columns):
            x = LABEL + number * (width + GAP)
            each = (height - GAP * (len(column) - 1)) // len(column)
            for place, package in enumerate(column):
                lines = textwrap.wrap(sentence(package).replace("`", ""), width // 7)
                parts.append(box(x, y + place * (each + GAP), width, each, package, lines, "box"))
        y += height + 2 * GAP
    return svg(WIDTH, y, "Packages of chexseg in layers", parts)


# ---- data ----------------------------------------------------------------------------------------


class Box(NamedTuple):
    """A box of the data's way; style "outside" is what no stage computes."""

    x: int
    y: int
    width: int
    height: int
    lines: tuple[str, ...]
    style: str = "box"


BOXES = {
    "CheXpert": Box(10, 60, 130, 56, ("radiographs, labels",), "outside"),
    "CheXlocalize": Box(10, 170, 130, 56, ("expert masks",), "outside"),
    "weights": Box(10, 368, 130, 56, ("a published encoder",), "outside"),
    "ingest": Box(185, 40, 120, 300, ("images, labels and", "expert masks", "as shards")),
    "classify": Box(350, 40, 130, 60, ("DenseNet121",)),
    "saliency": Box(520, 40, 130, 60, ("CAMs, thresholds",)),
    "irnet": Box(710, 40, 130, 60, ("refined CAMs",)),
    "pretrain": Box(350, 222, 130, 50, ("classifier's encoder",)),
    "moco": Box(350, 290, 130, 50, ("encoder, no labels",)),
    "imported": Box(350, 371, 130, 50, ("encoder",)),
    "fit": Box(560, 175, 150, 80, ("segmenter: expert and", "weak masks mixed by p")),
    "distil": Box(560, 320, 150, 50, ("teacher's soft masks",)),
    "score": Box(790, 185, 110, 60, ("pixel counts",)),
    "analysis, report": Box(935, 185, 140, 60, ("tables, figures, page",), "outside"),
}
#: (from, to) -> path and the place and text of a label. Arrows from ingest are drawn in part: every
#: stage but `imported` reads its shards.
ARROWS = {
    ("CheXpert", "ingest"): ("M140 88H184", None),
    ("CheXlocalize", "ingest"): ("M140 198H184", None),
    ("weights", "imported"): ("M140 396H349", None),
    ("ingest", "classify"): ("M305 70H349", None),
    ("ingest", "pretrain"): ("M305 247H349", None),
    ("ingest", "moco"): ("M305 315H349", None),
    ("ingest", "fit"): ("M305 190H559", (430, 184, "expert masks")),
    ("classify", "saliency"): ("M480 70H519", None),
    ("saliency", "irnet"): ("M650 70H709", None),
    ("saliency", "fit"): ("M600 100V174", (595, 135, "cam, cam++")),
    ("irnet", "fit"): ("M730 100V140H680V174", (690, 134, "irnet")),
    ("pretrain", "fit"): ("M480 247H520V215H559", None),
    ("moco", "fit"): ("M480 315H520V215H559", None),
    ("imported", "fit"): ("M480 390H520V215H559", (526, 290, "init")),
    ("imported", "irnet"): ("M480 405H750V101", None),
    ("fit", "distil"): ("M610 255V319", (604, 290, "teacher")),
    ("distil", "fit"): ("M660 320V256", (666, 290, "student")),
    ("fit", "score"): ("M710 215H789", None),
    ("score", "analysis, report"): ("M900 215H934", None),
}
#: Labels that end at their place instead of beginning there.
LEFT = ("cam, cam++", "teacher")


def data_flow() -> str:
    """Return the picture of the data's way through the stages."""
    parts = [
        box(one.x, one.y, one.width, one.height, name, list(one.lines), one.style)
        for name, one in BOXES.items()
    ]
    for path, label in ARROWS.values():
        parts.append(f'<path class="arrow" d="{path}"/>')
        if label:
            x, y, words = label
            anchor = "end" if words in LEFT else "middle" if words == "expert masks" else "start"
            parts.append(text(x, y, words, "note", anchor))
    note = "Every stage but imported also reads the shards of ingest. Dashed: not a stage."
    parts.append(text(10, 20, note, "note"))
    return svg(1080, 440, "The way of the data through the stages", parts)


if __name__ == "__main__":
    main()
