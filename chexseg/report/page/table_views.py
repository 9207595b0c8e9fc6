"""Prepare tables for the templates: the texts of their heads and cells, and links to runs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.classifiers import MEAN
from chexseg.analysis.published import AVERAGE
from chexseg.analysis.tables.grid import NO_EXPERT, SHARED, bare
from chexseg.analysis.tables.text import text
from chexseg.analysis.tables.value_table import ValueTable

#: First keys of rows that keep their place when a table is sorted.
AVERAGES = (AVERAGE, MEAN)


@dataclass(frozen=True)
class Head:
    """The head of a column. title: text, or the value of p. small: text below the title."""

    title: str
    numeric: bool = True
    small: str = ""
    is_p: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a plain table. value: the number to sort by. keys: the runs that a click shows."""

    text: str
    kind: str = ""
    value: float | None = None
    keys: str = ""


@dataclass(frozen=True)
class PlainTable:
    """A table with one row per row of its frame."""

    heads: list[Head]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Value:
    """A value of a grid. reason: why it is a dash; rowspan: above 1 if several rows share it."""

    text: str
    number: float
    interval: str
    paper: str
    keys: str
    best: bool
    reason: str
    rowspan: int


@dataclass(frozen=True)
class GridRow:
    """A row of a grid.

    head: the first key, with `small` beside it; "" but in the first row of a group of `rowspan`.
    average: its place is kept when the table is sorted.
    """

    head: str
    small: str
    rowspan: int
    average: bool
    keys: list[str]
    values: list[Value]


@dataclass(frozen=True)
class Grid:
    """A table of values. gaps: reasons for dashes, each with the rows and columns it is true of."""

    heads: list[Head]
    rows: list[GridRow]
    gaps: list[tuple[str, str]]


def plain(frame: pd.DataFrame) -> PlainTable:
    """Return a frame's rows as text; intervals are in the cell of their value.

    A key opens its run, a column "cells" opens the runs of its cells, and "mIoU" its row's key.
    """
    names = [name for name in frame.columns if not name.endswith((" low", " high"))]
    numeric = {name: pd.api.types.is_numeric_dtype(frame[name]) for name in names}
    rows = []
    for row in frame.to_dict("records"):
        cells = []
        for name in names:
            shown, value = text(row, name), row[name]
            if name in ("key", "cells"):
                number = len(shown.split())
                keys = short_keys(shown)
                shown = keys if name == "key" else f"{number} cell{'' if number == 1 else 's'}"
                cells.append(Cell(shown, "key", keys=keys))
            else:
                keys = short_keys(row.get("key", "")) if name == "mIoU" else ""
                sort_by = value if numeric[name] and not pd.isna(value) else None
                cells.append(Cell(shown, "number" if numeric[name] else "", sort_by, keys))
        rows.append(cells)
    return PlainTable([Head(name.replace("_", " "), numeric[name]) for name in names], rows)


def short_keys(keys: str) -> str:
    """Return the first 12 characters of keys that are separated by spaces."""
    return " ".join(key[:12] for key in keys.split())


def grid(table: ValueTable, small: Mapping[Hashable, str] | None = None) -> Grid:
    """Return a table of values; rows with equal first key form a group that shows it once.

    small: column or first key -> text beside it.
    """
    small = small or {}
    columns = list(dict.fromkeys(table.values[table.column]))
    heads = [Head(key[:1].upper() + key[1:], numeric=False) for key in table.keys]
    heads += [_head(table.column, column, small.get(column, "")) for column in columns]
    groups: dict[str, dict[tuple[str, ...], dict[Any, dict[str, Any]]]] = {}
    for value in table.values.to_dict("records"):
        keys = tuple(text(value, key) for key in table.keys)
        groups.setdefault(keys[0], {}).setdefault(keys, {})[value[table.column]] = value
    rows = [row for group in groups.values() for row in _group(list(group.items()), columns, small)]
    return Grid(heads, rows, gaps(table))


def gaps(table: ValueTable) -> list[tuple[str, str]]:
    """Return (reason, the affected rows and columns) for each reason for gaps in a table."""
    names: dict[str, dict[str, None]] = {}
    values = table.values
    lacking = values[values["value"].isna() & values["reason"].notna()]
    for row in lacking[lacking["reason"] != SHARED].to_dict("records"):
        column = _column_text(table.column, row[table.column])
        if row["reason"] == NO_EXPERT:  # a pathology lacks masks: a row's task, or a column
            where = [row["task"]] if "task" in table.keys else [column]
        else:
            where = [*(text(row, key) for key in table.keys if key != "task"), column]
        names.setdefault(row["reason"], {})[" ".join(where)] = None
    return [(reason, ", ".join(where)) for reason, where in names.items()]


def _group(
    rows: list[tuple[tuple[str, ...], dict[Any, dict[str, Any]]]],
    columns: list[Any],
    small: Mapping[Hashable, str],
) -> list[GridRow]:
    shared = {column for _, row in rows for column in row if row[column]["reason"] == SHARED}
    group = []
    for position, (keys, row) in enumerate(rows):
        values = [
            # A value that several rows share is bold if it is the best of any of them.
            _value(
                column,
                row[column],
                [other[column] for _, other in rows] if column in shared else [row[column]],
            )
            for column in columns
            if row[column]["reason"] != SHARED
        ]
        first, *others = keys
        head = "" if position else first
        average = bool(head) and first in AVERAGES
        group.append(GridRow(head, small.get(keys[0], ""), len(rows), average, others, values))
    return group


def _value(column: Any, value: dict[str, Any], sharing: list[dict[str, Any]]) -> Value:
    half, paper = (value["high"] - value["low"]) / 2, value["paper"]
    beside = "" if pd.isna(value["paper half"]) else f" ±{bare(value['paper half'])}"
    return Value(
        text=_value_text(column, value["value"]),
        number=value["value"],
        interval="" if np.isnan(half) else f"±{bare(half)}",
        paper="" if pd.isna(paper) else f"{paper:.3f}{beside}",
        keys="" if pd.isna(value["value"]) else short_keys(value["cells"]),
        best=any(one["best"] for one in sharing),
        reason=value["reason"] if isinstance(value["reason"], str) else "",
        rowspan=len(sharing),
    )


def _value_text(column: Any, value: float) -> str:
    if np.isnan(value):
        return "–"
    signed = column in ("difference", "gap") or str(column).endswith(" %")
    digits = 0 if str(column).endswith(" %") else 3
    return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "\u2212")


def _head(name: str, column: Any, small: str) -> Head:
    if name == "p":
        return Head(f"{column:g}", small={0: "weak", 1: "full"}.get(column, ""), is_p=True)
    return Head(_column_text(name, column), small=small)


def _column_text(name: str, column: Any) -> str:
    return f"p={column:g}" if name == "p" else str(column)
