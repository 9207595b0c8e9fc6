"""Format tables as text: CSV at full precision, Markdown, LaTeX, and blocks for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.tables import grid
from chexseg.analysis.tables.grid import SHARED, bare, half

#: Special characters of LaTeX and their replacements.
TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "–": "--", "\u2212": "$-$", "×": r"$\times$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def to_csv(rows: pd.DataFrame) -> str:
    """Return all columns at full precision."""
    return str(rows.to_csv(index=False))


def to_markdown(rows: pd.DataFrame) -> str:
    """Return a pipe table; the best values of a grid are bold."""
    cells, columns = _text(rows, bold="**{}**")
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in cells]
    lines = ["| " + " | ".join(line) + " |" for line in [columns, ["---"] * len(columns), *escaped]]
    return "\n".join(lines) + "\n" + "".join(f"\n{note}\n" for note in _notes(rows, "bold"))


def to_tex(rows: pd.DataFrame) -> str:
    r"""Return a ``tabular`` for ``\input``, which needs the package booktabs and no other.

    The best values of a grid are bold. An undefined value is a dash with a letter, which refers to
    its reason below the table.
    """
    reasons = [reason for reason, _ in grid.gaps(rows)] if grid.is_grid(rows) else []
    cells, columns = _text(
        rows,
        bold="\0{}\1",
        dashes={reason: f"–\2{chr(97 + n)}\3" for n, reason in enumerate(reasons)},
    )
    left = len(grid.keys(rows)) if grid.is_grid(rows) else 0
    numeric = [
        pd.api.types.is_numeric_dtype(rows[name]) if name in rows else False for name in columns
    ]
    align = "".join(
        "r" if (j >= left if left else number) else "l" for j, number in enumerate(numeric)
    )
    lines = [
        rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
        r"\toprule",
        _tex_line(columns),
        r"\midrule",
    ]
    for position, line in enumerate(cells):
        if left and position and not grid.repeated(rows, position) and grid.repeated(rows, 1):
            lines.append(r"\addlinespace")
        lines.append(_tex_line(line))
    lines += [r"\bottomrule", r"\end{tabular}"]
    notes = [_tex(note) for note in _notes(rows, "Bold", lacking=False)]
    if reasons:
        notes += [
            rf"--\textsuperscript{{{chr(97 + n)}}}: {_tex(reason)}."
            for n, reason in enumerate(reasons)
        ]
    return (
        "\n".join(lines + [rf"\par\smallskip{{\footnotesize {' '.join(notes)}\par}}"] * bool(notes))
        + "\n"
    )


def _tex_line(cells: list[str]) -> str:
    return " & ".join(_tex(cell) for cell in cells) + r" \\"


def _tex(text: str) -> str:
    marks = {"\0": r"\textbf{", "\1": "}", "\2": r"\textsuperscript{", "\3": "}"}
    return "".join(marks.get(char) or TEX.get(char, char) for char in text)


def to_terminal(rows: pd.DataFrame, width: int = 120) -> str:
    """Return aligned plain text; a grid is split into blocks that fit `width` characters."""
    if not grid.is_grid(rows):
        cells, columns = _text(rows)
        return "\n".join(_aligned([columns, *cells]))
    cells, columns = _text(rows, bold="{}*")
    left = len(grid.keys(rows))
    per_block = max(1, (width - 34) // 21)
    lines: list[str] = []
    for start in range(left, max(left + 1, len(columns)), per_block):
        keep = [*range(left), *range(start, min(start + per_block, len(columns)))]
        lines += ([""] if lines else []) + _aligned(
            [[line[j] for j in keep] for line in [columns, *cells]]
        )
    return "\n".join(lines + [""] + _notes(rows, "*"))


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[j]) for line in lines) for j in range(len(lines[0]))]
    padded = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return [padded[0], "-" * max(map(len, padded)), *padded[1:]]


def _text(
    rows: pd.DataFrame, bold: str = "{}", dashes: dict[str, str] | None = None
) -> tuple[list[list[str]], list[str]]:
    """Return (cells as text, column names): the mean ± its interval (the paper's value).

    The keys of a row's cells are left out: only CSV and HTML contain them.

    dashes: reason for a gap -> text in its place, by default a dash.
    """
    if grid.is_grid(rows):
        names, first = grid.columns(rows), grid.keys(rows)
        lines = []
        for position, row in enumerate(rows.to_dict("records")):
            values = [text(row, name) for name in first]
            values[0] = "" if grid.repeated(rows, position) else values[0]
            lines.append(values + [_grid_text(row, name, bold, dashes or {}) for name in names])
        return lines, [name[:1].upper() + name[1:] for name in first] + names
    columns = [
        name for name in rows.columns if name != "cells" and not name.endswith((" low", " high"))
    ]
    return [[text(row, name) for name in columns] for row in rows.to_dict("records")], columns


def _grid_text(row: Mapping[str, Any], name: str, bold: str, dashes: dict[str, str]) -> str:
    if row[f"{name} reason"] == SHARED:
        return "as above"
    if pd.isna(row[name]):
        return dashes.get(row[f"{name} reason"], "-")
    value = f"{row[name]:.3f}"
    value = bold.format(value) if grid.is_best(row, name) else value
    # No zero before the point of the following numbers: four columns of p must fit a terminal.
    value += f" ±{bare(half(row, name))}" if not np.isnan(half(row, name)) else ""
    paper = row[f"{name} paper"]
    return value if pd.isna(paper) else f"{value} ({bare(paper)})"


def text(row: Mapping[str, Any], name: str) -> str:
    """Return the text of a cell of a plain table, or of a key of a grid."""
    value = row[name]
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return "-" if name != "reason" else ""
    if isinstance(value, float | np.floating):
        if name.endswith(" s") or name == "seconds":
            return f"{value:,.1f}"
        if name in ("p", "fraction", "weak_images", "epochs"):
            return f"{value:g}"
        if name.endswith(" %"):
            return f"{value:+.0f}"
        if name == "weak images":
            return f"{value:,.0f}"
        number = f"{value:+.3f}" if name in ("difference", "gap") else f"{value:.3f}"
        bounded = f"{name} low" in row and not pd.isna(row[f"{name} low"])
        return number + (f" ±{half(row, name):.3f}" if bounded else "")
    return str(value)


def _notes(rows: pd.DataFrame, mark: str, lacking: bool = True) -> list[str]:
    """Return the meaning of a grid's marks and the reasons for its gaps; empty for other tables."""
    if not grid.is_grid(rows):
        return []
    scope, source = grid.LAYOUTS[grid.keys(rows)[0]]
    paper = any(rows[f"{name} paper"].notna().any() for name in grid.columns(rows))
    legend = f"{mark}: best of the {scope}. ±: 95% t-interval over trials."
    legend += f" In brackets: the paper ({source})." if paper else ""
    return [legend, *(gaps(rows) if lacking else [])]


def gaps(rows: pd.DataFrame) -> list[str]:
    """Return one line per reason for which cells of a grid contain a dash."""
    return [f"-: {reason}: {where}." for reason, where in grid.gaps(rows)]
