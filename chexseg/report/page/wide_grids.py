"""Turn wide grids into tables of values. TEMPORARY: until the analysis makes such tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from chexseg.analysis.tables import grid
from chexseg.analysis.tables.value_table import VALUE_COLUMNS, ValueTable


def value_table(rows: pd.DataFrame) -> ValueTable:
    """Return the rows of a wide grid as a table of values."""
    keys, names = grid.keys(rows), grid.columns(rows)
    of_p = names[0].startswith("p=")
    values = [
        {key: row[key] for key in keys}
        | ({"p": float(name[2:])} if of_p else {"series": name})
        | {"value": row[name], "paper half": row.get(f"{name} paper ±", np.nan)}
        | {part: row[f"{name} {part}"] for part in ("low", "high", "n", "paper", "reason", "cells")}
        | {"best": grid.is_best(row, name)}
        for row in rows.to_dict("records")
        for name in names
    ]
    column, title = ("p", "p={:g}") if of_p else ("series", "{}")
    best, source = grid.LAYOUTS[keys[0]]
    frame = pd.DataFrame(values, columns=[*keys, column, *VALUE_COLUMNS])
    return ValueTable(tuple(keys), column, frame, best, source, title)


def auroc_table(rows: pd.DataFrame) -> ValueTable:
    """Return `classifiers.auroc_rows` as a table of values."""
    keys = ["observation", "competition"]
    frame = rows.melt([*keys, "reason"], var_name="classifier", value_name="value")
    frame = frame.assign(competition=frame["competition"] == "yes", cells="", best=False)
    order = {name: position for position, name in enumerate(rows["observation"])}
    frame = frame.sort_values("observation", key=lambda names: names.map(order), kind="stable")
    frame = frame.reindex(columns=[*keys, "classifier", *VALUE_COLUMNS])
    return ValueTable(tuple(keys), "classifier", frame)
