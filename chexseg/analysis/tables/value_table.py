"""Define tables of values: tidy frames with one number per row."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class ValueTable:
    """A table of values, whose rows and columns keep their order of first appearance.

    keys: the columns of `values` that name a row, e.g. ("task", "method").
    column: the column of `values` that names a table's column, e.g. "p".
    values: one row per number: keys, column, value, low, high, n, paper, paper half, reason,
        cells, best. `reason` says why a value is NaN; `grid.SHARED` means "as above". `cells` are
        the first 12 characters of keys, joined by spaces.
    best: "row", "column" or "": the scope in which bold values are the best.
    source: of published values, e.g. "Table 1", or "".
    """

    keys: tuple[str, ...]
    column: str
    values: pd.DataFrame
    best: str
    source: str
