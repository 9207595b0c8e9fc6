"""Build and read grids: tables of means with intervals, published values and reasons for gaps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.statistics.scores import Interval

SHARED = "no weak labels at p = 1: one value for both methods"
UNFINISHED = "no finished cell"
NO_EXPERT = "no expert mask in the test set"
#: First key of a grid -> (scope in which bold values are the best, source of published values).
LAYOUTS = {"task": ("row", "Table 1"), "method": ("row", "Table 2"), "arm": ("column", "")}
#: Separator of the names in `best`.
BESTS = "; "
#: A row of a grid: column -> value.
Row = dict[str, Any]


def value(
    name: str,
    cell: Interval,
    paper: float | None = None,
    paper_half: float | None = None,
    reason: str | None = None,
    cells: str = "",
) -> Row:
    """Return the columns of one value: ``NAME`` and ``NAME low``, ``high``, ``n``, ``cells`` ...

    The others are ``paper``, ``paper ±`` and ``reason``. cells: keys, as from
    `study_tables.cell_keys`. reason: why there is no value; `NO_EXPERT` by default if it is NaN.
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


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows of key columns, then ``best``, then the columns of `value`.

    Columns ``paper ±`` without a value are dropped.
    """
    table = pd.DataFrame(list(rows))
    return table.drop(
        columns=[name for name in table if name.endswith(" paper ±") and table[name].isna().all()]
    )


def is_grid(rows: pd.DataFrame) -> bool:
    """Return whether a table is a grid."""
    return "best" in rows.columns


def keys(rows: pd.DataFrame) -> list[str]:
    """Return the key columns; rows that share the first key show it once."""
    return list(rows.columns[: list(rows.columns).index("best")])


def columns(rows: Iterable[str]) -> list[str]:
    """Return the names of the values of a grid or a row."""
    return [name.removesuffix(" reason") for name in rows if name.endswith(" reason")]


def best_of_row(row: Row) -> str | None:
    """Return the name of the row's highest value."""
    defined = {name: row[name] for name in columns(row) if not np.isnan(row[name])}
    return max(defined, key=defined.__getitem__) if defined else None


def best_of_columns(rows: Sequence[Row]) -> None:
    """Set each row's ``best`` to the columns in which it leads at least one other value."""
    leading: list[list[str]] = [[] for _ in rows]
    for name in columns(rows[0] if rows else ()):
        defined = {index: row[name] for index, row in enumerate(rows) if not np.isnan(row[name])}
        if len(defined) > 1:
            leading[max(defined, key=defined.__getitem__)].append(name)
    for row, names in zip(rows, leading, strict=True):
        row["best"] = BESTS.join(names) or None


def is_best(row: Mapping[str, Any], name: str) -> bool:
    """Return whether a row's value is the best."""
    return isinstance(row["best"], str) and name in row["best"].split(BESTS)


def repeated(rows: pd.DataFrame, position: int) -> bool:
    """Return whether a row has the same first key as the row above."""
    first = keys(rows)[0]
    return position > 0 and bool(rows[first].iloc[position - 1] == rows[first].iloc[position])


def half(row: Mapping[str, Any], name: str) -> float:
    """Return half the width of a value's interval; NaN without one."""
    return float(row[f"{name} high"] - row[f"{name} low"]) / 2


def bare(number: float) -> str:
    """Return a number in four characters: .123 or, from 1 on, 1.23."""
    return f"{number:.3f}".removeprefix("0") if number < 0.9995 else f"{number:.2f}"


def gaps(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Return (reason, the affected rows and columns) for each reason for gaps in a grid."""
    cells: dict[str, list[str]] = {}
    first = keys(rows)[0]
    for row in rows.to_dict("records"):
        for name in columns(rows):
            reason = row[f"{name} reason"]
            if isinstance(reason, str) and reason != SHARED and pd.isna(row[name]):
                other = " ".join(str(row[key]) for key in keys(rows)[1:])
                if reason == NO_EXPERT:
                    # A pathology lacks masks: a row of Table 1, but a column of the table of arms.
                    where = str(row[first]) if first == "task" else name
                elif first == "task":
                    where = f"{other} {name}"
                else:
                    where = " ".join(filter(None, [str(row[first]), other, name]))
                cells.setdefault(reason, []).append(where)
    return [(reason, ", ".join(dict.fromkeys(names))) for reason, names in cells.items()]
