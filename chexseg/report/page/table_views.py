"""Prepare tables for the templates: the texts of their heads and cells, and links to runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pandas as pd

from chexseg.analysis.classifiers import MEAN
from chexseg.analysis.published import AVERAGE
from chexseg.analysis.tables.text import key_text, plain_text
from chexseg.analysis.tables.value_table import SHARED, ValueTable

#: Heads of rows that keep their place when a table is sorted.
AVERAGES = (AVERAGE, MEAN)


def plain(frame: pd.DataFrame) -> dict[str, Any]:
    """Return a frame as text: heads (title, numeric) and rows of (text, kind, number, keys).

    Intervals are in the text of their value. A cell's keys are the runs that a click shows: a key
    opens its run, a column "cells" opens the runs of its cells, and "mIoU" its row's key.
    """
    names = [name for name in frame.columns if not name.endswith((" low", " high"))]
    numeric = {name: pd.api.types.is_numeric_dtype(frame[name]) for name in names}
    rows = []
    for row in frame.to_dict("records"):
        cells = []
        for name in names:
            shown, number = plain_text(row, name), row[name] if numeric[name] else None
            keys = short_keys(row.get({"mIoU": "key"}.get(name, name), ""))
            if name == "key":
                cells.append((keys, "key", None, keys))
            elif name == "cells":
                count = len(keys.split())
                cells.append((f"{count} cell{'' if count == 1 else 's'}", "key", None, keys))
            else:
                kind = "number" if numeric[name] else ""
                number = None if pd.isna(number) else number
                cells.append((shown, kind, number, keys if name == "mIoU" else ""))
        rows.append(cells)
    return {"heads": [(name.replace("_", " "), numeric[name]) for name in names], "rows": rows}


def short_keys(keys: object) -> str:
    """Return the first 12 characters of keys that are separated by spaces."""
    return " ".join(key[:12] for key in str(keys).split())


def grid(
    table: ValueTable, small: Mapping[str, str] | None = None, most: int | None = None
) -> dict[str, Any]:
    """Return a table of values; rows with equal first key form a group that shows it once.

    A row has its head (empty but in a group's first row), the group's size, the texts of its other
    keys, and the cells: rows of `ValueTable.values`, each with the number of rows that share it.

    small: text beside a head. most: the number of rows that are kept.
    """
    rows = [
        ([key_text(name, value) for name, value in keys.items()], cells)
        for keys, cells in itertools.islice(table.rows(), most)
    ]
    shown = []
    for head, equal in itertools.groupby(rows, key=lambda row: row[0][0]):
        group = list(equal)
        for position, (keys, cells) in enumerate(group):
            values = []
            for name, value in cells.items():
                if value["reason"] != SHARED:
                    sharing = [other[name] for _, other in group]
                    if all(other["reason"] != SHARED for other in sharing):
                        sharing = [value]
                    best = any(other["best"] for other in sharing)
                    keys_of = short_keys(value["cells"])
                    values.append(
                        value
                        | {"series": name, "rows": len(sharing), "best": best, "runs": keys_of}
                    )
            shown.append(
                {
                    "head": "" if position else head,
                    "small": (small or {}).get(head, ""),
                    "rows": len(group),
                    "average": head in AVERAGES,
                    "texts": keys[1:],
                    "cells": values,
                }
            )
    return {
        "keys": table.keys,
        "of_p": table.column == "p",
        "heads": [(head, (small or {}).get(head, "")) for head in table.heads],
        "rows": shown,
        "gaps": table.gaps(),
    }
