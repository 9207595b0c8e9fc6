"""Grids of means: the columns that tables with intervals, published values and reasons for gaps are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.statistics.scores import Interval

SHARED = "no weak labels at p = 1: one value for both methods"
UNFINISHED = "no finished cell"
NO_EXPERT = "no expert mask in the test set"
#: First key of a grid -> of what its bold values are the best, and where its published ones stand.
LAYOUTS = {"task": ("row", "Table 1"), "method": ("row", "Table 2"), "arm": ("column", "")}
#: Names in `best` stand apart by this.
BESTS = "; "


def value(
    name: str,
    cell: Interval,
    paper: float | None = None,
    paper_half: float | None = None,
    reason: str | None = None,
    cells: str = "",
) -> dict[str, object]:
    """The columns of one value: its `name`, and that followed by low, high, n, cells, paper, paper ± and reason.

    cells: keys, as from `tables.cell_keys`. reason: why there is no value; of one that
    isn't defined and has none, `NO_EXPERT`.
    """
    if reason is None and np.isnan(cell.mean):
        reason = NO_EXPERT
    return {
        name: cell.mean,
        f"{name} low": cell.low,
        f"{name} high": cell.high,
        f"{name} n": cell.n,
        f"{name} cells": cells,
        f"{name} paper": np.nan if paper is None else paper,
        f"{name} paper ±": np.nan if paper_half is None else paper_half,
        f"{name} reason": reason,
    }


def frame(rows: Sequence[dict]) -> pd.DataFrame:
    """Rows of key columns, then ``best``, then the columns of `value`; without the paper's widths where it has none."""
    found = pd.DataFrame(list(rows))
    return found.drop(
        columns=[name for name in found if name.endswith(" paper ±") and found[name].isna().all()]
    )


def is_grid(rows: pd.DataFrame) -> bool:
    return "best" in rows.columns


def keys(rows: pd.DataFrame) -> list[str]:
    """The columns that say what a row is; the first is told once for rows that share it."""
    return list(rows.columns[: list(rows.columns).index("best")])


def columns(rows: pd.DataFrame) -> list[str]:
    """The names of the values."""
    return [name.removesuffix(" reason") for name in rows.columns if name.endswith(" reason")]


def best_of_row(row: dict) -> str | None:
    """The name of the highest value among a row's."""
    names = [name.removesuffix(" reason") for name in row if name.endswith(" reason")]
    known = {name: row[name] for name in names if not np.isnan(row[name])}
    return max(known, key=known.__getitem__) if known else None


def best_of_columns(rows: Sequence[dict]) -> None:
    """Set each row's ``best`` to the columns of which it has the highest value; none where only one row has a value."""
    won: list[list[str]] = [[] for _ in rows]
    for name in [
        name.removesuffix(" reason")
        for name in (rows[0] if rows else ())
        if name.endswith(" reason")
    ]:
        known = {index: row[name] for index, row in enumerate(rows) if not np.isnan(row[name])}
        if len(known) > 1:
            won[max(known, key=known.__getitem__)].append(name)
    for row, names in zip(rows, won, strict=True):
        row["best"] = BESTS.join(names) or None


def is_best(row: Mapping[str, Any], name: str) -> bool:
    return isinstance(row["best"], str) and name in row["best"].split(BESTS)


def repeated(rows: pd.DataFrame, position: int) -> bool:
    """Whether a row's first key is that of the row above."""
    first = keys(rows)[0]
    return position > 0 and rows[first].iloc[position - 1] == rows[first].iloc[position]


def half(row: Mapping[str, Any], name: str) -> float:
    """Half the width of a value's interval; NaN without one."""
    return (row[f"{name} high"] - row[f"{name} low"]) / 2


def bare(number: float) -> str:
    """Four characters: .123 or, from 1 on, 1.23."""
    return f"{number:.3f}".removeprefix("0") if number < 0.9995 else f"{number:.2f}"


def gaps(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """(reason, where) of every kind of gap in a grid."""
    found: dict[str, list[str]] = {}
    first = keys(rows)[0]
    for row in rows.to_dict("records"):
        for name in columns(rows):
            reason = row[f"{name} reason"]
            if isinstance(reason, str) and reason != SHARED and pd.isna(row[name]):
                other = " ".join(str(row[key]) for key in keys(rows)[1:])
                if reason == NO_EXPERT:
                    # What has no expert mask is a pathology: a row of Table 1, a column of a table of arms.
                    where = str(row[first]) if first == "task" else name
                elif first == "task":
                    where = f"{other} {name}"
                else:
                    where = " ".join(filter(None, [str(row[first]), other, name]))
                found.setdefault(reason, []).append(where)
    return [(reason, ", ".join(dict.fromkeys(where))) for reason, where in found.items()]
