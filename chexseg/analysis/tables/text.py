"""Tables as text: csv with every digit, markdown, LaTeX, and what fits a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.tables import grid
from chexseg.analysis.tables.grid import SHARED, bare, half

#: What LaTeX would take for its own.
TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "\u2212": "$-$", "×": r"$\times$",
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def to_csv(rows: pd.DataFrame) -> str:
    """All columns at full precision."""
    return rows.to_csv(index=False)


def to_markdown(rows: pd.DataFrame) -> str:
    """A pipe table; a grid with its best values in bold."""
    cells, columns = _text(_shown(rows), bold="**{}**")
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in cells]
    lines = ["| " + " | ".join(line) + " |" for line in [columns, ["---"] * len(columns), *escaped]]
    return "\n".join(lines) + "\n" + "".join(f"\n{note}\n" for note in _notes(rows, "bold"))


def to_tex(rows: pd.DataFrame) -> str:
    r"""A ``tabular`` with booktabs' rules, for ``\input``; needs the package booktabs and nothing else.

    A grid's best values are bold, an undefined one is a dash with a letter, and its reason stands with that letter below.
    """
    rows = _shown(rows)
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
    """Aligned plain text; a grid in blocks of as many columns as fit `width` characters."""
    rows = _shown(rows)
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


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Without the way back to the cells, for which csv is there."""
    return rows.drop(columns="cells", errors="ignore")


def _text(
    rows: pd.DataFrame, bold: str = "{}", dashes: dict[str, str] | None = None
) -> tuple[list[list[str]], list[str]]:
    """(cells as text, column names). Intervals join their mean as ±, the paper's value follows in brackets.

    dashes: what stands for a gap of each reason, where not a dash alone.
    """
    if grid.is_grid(rows):
        names, first = grid.columns(rows), grid.keys(rows)
        lines = []
        for position, row in enumerate(rows.to_dict("records")):
            told = [text(row, name) for name in first]
            told[0] = "" if grid.repeated(rows, position) else told[0]
            lines.append(told + [_grid_text(row, name, bold, dashes or {}) for name in names])
        return lines, [name[:1].upper() + name[1:] for name in first] + names
    columns = [name for name in rows.columns if not name.endswith((" low", " high"))]
    return [[text(row, name) for name in columns] for row in rows.to_dict("records")], columns


def _grid_text(row: Mapping[str, Any], name: str, bold: str, dashes: dict[str, str]) -> str:
    if row[f"{name} reason"] == SHARED:
        return "as above"
    if pd.isna(row[name]):
        return dashes.get(row[f"{name} reason"], "-")
    told = f"{row[name]:.3f}"
    told = bold.format(told) if grid.is_best(row, name) else told
    # No zero before the point of what follows: four p values must fit a terminal.
    told += f" ±{bare(half(row, name))}" if not np.isnan(half(row, name)) else ""
    return told + (f" ({bare(row[f'{name} paper'])})" if not pd.isna(row[f"{name} paper"]) else "")


def text(row: Mapping[str, Any], name: str) -> str:
    """One cell of a table that is no grid, or a key of one."""
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
        told = f"{value:+.3f}" if name in ("difference", "gap") else f"{value:.3f}"
        bounded = f"{name} low" in row and not pd.isna(row[f"{name} low"])
        return told + (f" ±{half(row, name):.3f}" if bounded else "")
    return str(value)


def _notes(rows: pd.DataFrame, mark: str, lacking: bool = True) -> list[str]:
    """What the marks mean, and why cells are empty; nothing for tables without marks."""
    if not grid.is_grid(rows):
        return []
    of, source = grid.LAYOUTS[grid.keys(rows)[0]]
    paper = any(rows[f"{name} paper"].notna().any() for name in grid.columns(rows))
    said = f"{mark}: best of the {of}. ±: 95% t-interval over trials."
    said += f" In brackets: the paper ({source})." if paper else ""
    return [said, *(gaps(rows) if lacking else [])]


def gaps(rows: pd.DataFrame) -> list[str]:
    """Why cells of a grid hold a dash, one line a reason."""
    return [f"-: {reason}: {where}." for reason, where in grid.gaps(rows)]
