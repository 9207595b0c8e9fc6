"""Format tables as text: CSV at full precision, Markdown, LaTeX, and blocks for a terminal."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from chexseg.analysis.published import AVERAGE
from chexseg.analysis.study_analysis import StudyAnalysis
from chexseg.analysis.tables.value_table import SHARED, ValueTable, stacked
from chexseg.errors import printable

#: An interval whose middle is at least this far from its value is written with both ends.
SYMMETRIC = 0.001
#: Start of a cell that a spreadsheet takes for a formula; numbers and a lone dash are none.
_FORMULA = re.compile(r"[=@\t]|[+-](?=.)(?![\d.]+(e[+-]?\d+)?$)", re.DOTALL)
#: Width of a terminal, characters, and what is between two columns.
WIDTH, GAP = 120, "  "


def to_csv(rows: pd.DataFrame) -> str:
    """Return all columns at full precision, with an apostrophe before text that is a formula.

    A spreadsheet would execute it; hosts and errors come from a store, image ids from file names.
    """
    rows = rows.copy()
    for name in rows.columns:
        if not pd.api.types.is_numeric_dtype(rows[name]):
            rows[name] = rows[name].map(_without_formula)
    return str(rows.to_csv(index=False))


def _without_formula(value: object) -> object:
    if not isinstance(value, str):
        return value
    value = printable(value, "\n\t")  # readers take a carriage return for the end of a row
    return f"'{value}" if _FORMULA.match(value) else value


def to_markdown(table: ValueTable) -> str:
    """Return a pipe table with the best values in bold, and a legend below it."""
    legend = "\n".join(f"\n{_markdown(line)}" for line in notes(table, "Bold"))
    wide = _wide(table, "**{}**").map(_markdown).rename(columns=_markdown)
    return f"{wide.to_markdown(index=False, disable_numparse=True)}\n{legend}\n"


def _markdown(text: str) -> str:
    """Return a text on one line, without HTML and without the end of a cell."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "\\|")


def to_latex(table: ValueTable) -> str:
    r"""Return a ``tabular`` for ``\input``, with its legend as comments; it needs booktabs.

    The best values are bold.
    """
    wide = _wide(table, r"\textbf{{{}}}", plus_minus=r"$\pm$")
    keys = list(wide.columns[: len(table.keys)])
    styled = (
        wide.style.hide(axis="index")
        .format(escape="latex", subset=keys)
        .format_index(escape="latex", axis=1)
    )
    column_format = "l" * len(keys) + "r" * (wide.shape[1] - len(keys))
    # A comment ends with its line.
    legend = "".join(f"% {' '.join(line.split())}\n" for line in notes(table, "Bold"))
    return legend + str(styled.to_latex(hrules=True, column_format=column_format))


def to_terminal(table: ValueTable | pd.DataFrame) -> str:
    """Return aligned plain text; a table of values is split into blocks that fit `WIDTH`."""
    if isinstance(table, pd.DataFrame):
        names = [n for n in table.columns if n != "cells" and not n.endswith((" low", " high"))]
        cells = [[plain_text(row, name) for name in names] for row in table.to_dict("records")]
        return _aligned(pd.DataFrame(cells, columns=names))
    wide, left = _wide(table, "{}*"), len(table.keys)
    widths = [max(map(len, [name, *wide[name]])) + len(GAP) for name in wide.columns]
    blocks: list[list[int]] = [[]]
    for column in range(left, len(widths)):
        if sum(widths[:left]) + sum(widths[j] for j in [*blocks[-1], column]) > WIDTH:
            blocks.append([])
        blocks[-1].append(column)
    parts = [_aligned(wide.iloc[:, [*range(left), *block]]) for block in blocks]
    return "\n\n".join([*parts, "\n".join(notes(table, "*"))])


def _aligned(texts: pd.DataFrame) -> str:
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for name in texts.columns:
        drawn.add_column(name, no_wrap=True)
    for row in texts.itertuples(index=False):
        drawn.add_row(*row)
    console = Console(file=io.StringIO(), width=10_000, color_system=None, markup=False)
    with console.capture() as capture:
        console.print(drawn, highlight=False)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _wide(table: ValueTable, bold: str, plus_minus: str = "±") -> pd.DataFrame:
    """Return a text per row and column of the table: mean ± half interval (published value)."""
    lines = []
    previous = None
    for keys, cells in table.rows():
        texts = [key_text(name, value) for name, value in keys.items()]
        shown = ["", *texts[1:]] if texts[0] == previous else texts
        values = [_value_text(cells[head], bold, plus_minus) for head in table.heads]
        lines.append([*shown, *values])
        previous = texts[0]
    heads = [name[:1].upper() + name[1:] for name in table.keys]
    return pd.DataFrame(lines, columns=[*heads, *table.heads])


def _value_text(row: Mapping[str, Any], bold: str, plus_minus: str) -> str:
    if row["reason"] == SHARED:
        return "as above"
    if np.isnan(row["value"]):
        return "-"
    text = f"{row['value']:.3f}"
    text = bold.format(text) if row["best"] else text
    half, middle = (row["high"] - row["low"]) / 2, (row["high"] + row["low"]) / 2
    # No zero before the point of the following numbers: four columns of p must fit a terminal.
    if abs(middle - row["value"]) < SYMMETRIC:
        text += f" {plus_minus}{bare(half)}"
    elif not np.isnan(half):
        text += f" [{bare(row['low'])}, {bare(row['high'])}]"
    return text if np.isnan(row["paper"]) else f"{text} ({bare(row['paper'])})"


def bare(number: float) -> str:
    """Return a number in four characters: .123 or, from 1 on, 1.23."""
    return f"{number:.3f}".removeprefix("0") if number < 0.9995 else f"{number:.2f}"


def key_text(name: str, value: object) -> str:
    """Return the text of a row's key."""
    if not isinstance(value, float):
        return str(value)
    if np.isnan(value):
        return "-"
    return f"{value:,.0f}" if name == "weak images" else f"{value:g}"


def plain_text(row: Mapping[str, Any], name: str) -> str:
    """Return the text of a cell of a table of records; bounds of an interval become its half."""
    value = row[name]
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return "-" if name != "reason" else ""
    if isinstance(value, float | np.floating):
        if name.endswith(" s") or name == "seconds":
            return f"{value:,.1f}"
        if name in ("p", "fraction", "weak_images", "epochs"):
            return f"{value:g}"
        if name.rpartition(" ")[2] in ("P", "against") and value < 0.001:
            return "< 0.001"
        number = f"{value:+.3f}" if name == "difference" else f"{value:.3f}"
        high = row.get(f"{name} high", np.nan)
        return number if np.isnan(high) else f"{number} ±{high - value:.3f}"
    return str(value)


def notes(table: ValueTable, mark: str) -> list[str]:
    """Return the meaning of a table's marks, and the reasons for its dashes."""
    legend = f"{mark}: best of the {table.best}. " if table.best else ""
    legend += "±: half of the 95% t-interval over trials (or draws)."
    if table.source and table.values["paper"].notna().any():
        legend += f" In brackets: the paper ({table.source})."
    return [legend, *(f"-: {reason}: {where}." for reason, where in table.gaps())]


def study_result(analysis: StudyAnalysis) -> str:
    """Return a study's result for a terminal: the first variant's Table 1, or else all arms."""
    if not analysis.table1:
        return to_terminal(stacked(analysis.arms, analysis.baselines))
    variant, table = analysis.table1[0]
    text = f"Table 1, {variant.text}\n{to_terminal(table)}"
    if analysis.baselines:
        rows = analysis.baselines.values
        averages = rows[rows["pathology"] == AVERAGE]
        values = zip(averages["arm"], averages["value"], strict=True)
        text += "\nWithout a network: " + ", ".join(f"{name} {value:.3f}" for name, value in values)
    others = len(analysis.scores.variants) - 1
    if others:
        tables = "Table 1 is" if others == 1 else "Tables 1 are"
        text += f"\n{others} other {tables} on the page and in tables/."
    return text
