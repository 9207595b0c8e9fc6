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

#: Columns of differences.
SIGNED = ("difference", "gap")
#: Columns that a narrow window keeps in view; a table's first of them.
SCORES = ("difference", "mIoU", "IoU", "mean AUROC", "A", "total s")
#: Heads of rows that keep their place when a table is sorted.
AVERAGES = (AVERAGE, MEAN)


def plain(frame: pd.DataFrame) -> dict[str, Any]:
    """Return a frame as text: heads (title, numeric) and rows of (text, kind, number, keys).

    score: position of the column that stays in view, or None.

    Intervals are in the text of their value. A cell's keys are the runs that a click shows: a key
    opens its run, a column "cells" opens the runs of its cells, and "mIoU" its row's key.
    """
    names = [name for name in frame.columns if not name.endswith((" low", " high"))]
    heads = [(name.replace("_", " "), pd.api.types.is_numeric_dtype(frame[name])) for name in names]
    rows: list[list[tuple[str, str, float | None, str]]] = []
    for row in frame.to_dict("records"):
        rows.append([])
        for name, (_, numeric) in zip(names, heads, strict=True):
            keys = short_keys(row.get("key" if name == "mIoU" else name, ""))
            if name in ("key", "cells"):
                count = len(keys.split())
                counted = f"{count} cell{'' if count == 1 else 's'}"
                rows[-1].append((keys if name == "key" else counted, "key", None, keys))
            else:
                number = row[name] if numeric and not pd.isna(row[name]) else None
                opened = keys if name == "mIoU" else ""
                rows[-1].append(
                    (plain_text(row, name), "number" if numeric else "", number, opened)
                )
    score = next((names.index(n) for n in SCORES if n in names and heads[names.index(n)][1]), None)
    return {"heads": heads, "rows": rows, "score": score}


def short_keys(keys: object) -> str:
    """Return the first 12 characters of keys that are separated by spaces."""
    return " ".join(key[:12] for key in str(keys).split())


def grid(table: ValueTable, small: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return a table of values; rows with equal first key form a group that shows it once.

    A row has its head (empty but in a group's first row), the group's size, the texts of its other
    keys, and the cells: rows of `ValueTable.values`, each with the number of rows that share it.

    small: text beside a head.
    """
    of_p, heads = table.column == "p", table.heads
    weak_and_full = dict.fromkeys(heads, "\u00a0") | {"p=0": "weak", "p=1": "full"}
    small = weak_and_full if of_p else small or {}
    rows = [
        ([key_text(name, value) for name, value in keys.items()], cells)
        for keys, cells in table.rows()
    ]
    shown = []
    for head, equal in itertools.groupby(rows, key=lambda row: row[0][0]):
        group = list(equal)
        shared = {name for _, cells in group for name in cells if _is_shared(cells[name])}
        for position, (keys, cells) in enumerate(group):
            values = []
            for name, value in cells.items():
                sharing = [other[name] for _, other in group] if name in shared else [value]
                best = any(other["best"] for other in sharing)
                runs = short_keys(value["cells"])
                more = {"series": name, "rows": len(sharing), "best": best, "runs": runs}
                more["signed"] = table.signed or name in SIGNED
                values += [] if _is_shared(value) else [value | more]
            row = {
                "head": "" if position else head,
                "rows": len(group),
                "average": head in AVERAGES,
            }
            shown.append(row | {"small": small.get(head, ""), "texts": keys[1:], "cells": values})
    return {
        "keys": table.keys,
        "of_p": of_p,
        "heads": [(head, small.get(head, "")) for head in heads],
        "rows": shown,
        "gaps": table.gaps(),
    }


def _is_shared(value: Mapping[str, Any]) -> bool:
    return bool(value["reason"] == SHARED)
