"""Tables of values in tidy form: one row per number, with its interval and published value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.statistics.scores import Interval

#: Reasons why a number is absent, or stands in another row.
SHARED = "no weak labels at p = 1: one value for both methods"
UNFINISHED = "no finished cell"
NO_EXPERT = "no expert mask in the test set"

#: The columns beside those that name a number's row and column. paper half: half the width of the
#: published interval. cells: keys of the scores behind the value (`StudyScores.cell_keys`).
VALUE_COLUMNS = (
    "value", "low", "high", "n", "paper", "paper half", "reason", "cells", "best",
)  # fmt: skip


@dataclass(frozen=True)
class ValueTable:
    """A table of values.

    values: one row per number, in the order of the table's rows and columns: `keys`, `column`, then
    `VALUE_COLUMNS`. best: the scope, "row" or "column", in which `values["best"]` marks the highest
    value, or "". source: of the published values, or "". title: format of a column's head. signed:
    the values are differences.
    """

    keys: tuple[str, ...]
    column: str
    values: pd.DataFrame
    best: str = ""
    source: str = ""
    title: str = "{}"
    signed: bool = False

    def __len__(self) -> int:
        return len(self.values)

    @property
    def heads(self) -> list[str]:
        """Return the heads of the columns of values."""
        return [self.title.format(name) for name in dict.fromkeys(self.values[self.column])]

    def rows(self) -> Iterator[tuple[dict[str, Any], dict[str, dict[str, Any]]]]:
        """Yield (keys, head -> the number's row) for each row of the table."""
        cells: dict[str, dict[str, Any]] = {}
        previous: dict[str, Any] = {}
        for row in self.values.to_dict("records"):
            keys = {name: row[name] for name in self.keys}
            head = self.title.format(row[self.column])
            if cells and (head in cells or str(keys) != str(previous)):
                yield previous, cells
                cells = {}
            previous, cells[head] = keys, row
        if cells:
            yield previous, cells

    def gaps(self) -> list[tuple[str, str]]:
        """Return (reason, the affected rows and columns) for each reason for absent values."""
        gaps: dict[str, list[str]] = {}
        for keys, cells in self.rows():
            names = [text for value in keys.values() if (text := str(value)) != "nan"]
            for head, row in cells.items():
                reason = row["reason"]
                if not isinstance(reason, str) or reason == SHARED or not np.isnan(row["value"]):
                    continue
                where = " ".join([*(names[1:] if "task" in keys else names), head])
                if reason == NO_EXPERT:
                    # A pathology lacks masks: a row of some tables, a column of others.
                    where = str(keys.get("task", keys.get("pathology", head)))
                gaps.setdefault(reason, []).append(where)
        return [(reason, ", ".join(dict.fromkeys(places))) for reason, places in gaps.items()]


def number(
    interval: Interval,
    paper: float | None = None,
    paper_half: float | None = None,
    reason: str | None = None,
    cells: str = "",
) -> dict[str, Any]:
    """Return the `VALUE_COLUMNS` of a number. reason: `NO_EXPERT` by default if it is NaN."""
    if reason is None and np.isnan(interval.mean):
        reason = NO_EXPERT
    return interval.columns | {
        "paper": np.nan if paper is None else paper,
        "paper half": np.nan if paper_half is None else paper_half,
        "reason": reason,
        "cells": cells,
        "best": False,
    }


def value_table(
    rows: Sequence[dict[str, Any]],
    keys: Sequence[str],
    column: str,
    best: str = "",
    source: str = "",
    title: str = "{}",
) -> ValueTable:
    """Return the table of rows made of keys, a column and `number`; the highest values are best.

    The best of a row is marked even if it is alone, the best of a column only beside others.
    """
    values = pd.DataFrame(list(rows), columns=[*keys, column, *VALUE_COLUMNS])
    if best and len(values):
        by = list(keys) if best == "row" else [column]
        defined = values[values["value"].notna()].groupby(by, dropna=False, sort=False)["value"]
        compared = defined.size() > (0 if best == "row" else 1)
        values.loc[defined.idxmax()[compared], "best"] = True
    return ValueTable(tuple(keys), column, values, best, source, title)


def stacked(first: ValueTable, second: ValueTable | None, most: int | None = None) -> ValueTable:
    """Return a table with the rows of both, which have the same keys and columns.

    most: the number of rows that are kept of the first.
    """
    kept = first.values if most is None else first.values.head(most * len(first.heads))
    added = [] if second is None else [second.values]
    return replace(first, values=pd.concat([kept, *added], ignore_index=True) if added else kept)


def without_constant_keys(table: ValueTable, names: Sequence[str]) -> ValueTable:
    """Return the table without those of the named keys that have fewer than two values."""
    constant = [name for name in names if table.values[name].dropna().nunique() < 2]
    keys = tuple(name for name in table.keys if name not in constant)
    return replace(table, keys=keys, values=table.values.drop(columns=constant))
