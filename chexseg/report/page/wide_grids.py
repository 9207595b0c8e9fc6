"""Turn wide grids into tables of values. TEMPORARY: until the analysis makes such tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from chexseg.analysis.tables import grid
from chexseg.analysis.tables.value_table import ValueTable


def value_table(rows: pd.DataFrame) -> ValueTable:
    """Return the rows of a wide grid as a table of values."""
    keys, names = grid.keys(rows), grid.columns(rows)
    column = "p" if names[0].startswith("p=") else "column"
    values = [
        {key: row[key] for key in keys}
        | {column: float(name[2:]) if column == "p" else name, "value": row[name]}
        | {part: row[f"{name} {part}"] for part in ("low", "high", "n", "paper", "reason", "cells")}
        | {"paper half": row.get(f"{name} paper ±", np.nan), "best": grid.is_best(row, name)}
        for row in rows.to_dict("records")
        for name in names
    ]
    return ValueTable(tuple(keys), column, pd.DataFrame(values), *grid.LAYOUTS[keys[0]])


def auroc_table(rows: pd.DataFrame, keys: dict[str, str]) -> ValueTable:
    """Return `classifiers.auroc_rows` as a table of values. keys: column -> its classifier's."""
    undefined = {name: np.nan for name in ("low", "high", "n", "paper", "paper half")}
    values = [
        {"observation": row["observation"], "classifier": name, "value": row[name]}
        | {"reason": row["reason"], "cells": key[:12], "best": False, **undefined}
        for row in rows.to_dict("records")
        for name, key in keys.items()
    ]
    return ValueTable(("observation",), "classifier", pd.DataFrame(values), "", "")
