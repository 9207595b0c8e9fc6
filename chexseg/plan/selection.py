"""Select some of a plan's cells by what people call them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from chexseg.errors import UserError, nearest
from chexseg.plan.cells import Cell
from chexseg.plan.graph import Plan

#: Minimum digits of an abbreviated key.
SHORTEST_KEY = 6


def study_and_cell(text: str) -> tuple[str, str]:
    """Return the file and the cell of ``STUDY.yaml#CELL``; the cell of a file alone is empty.

    The path of an existing file may contain ``#`` too.
    """
    parts = text.split("#")
    for count in range(len(parts), 0, -1):
        if Path(path := "#".join(parts[:count])).is_file():
            return path, "#".join(parts[count:])
    if text.endswith((".yaml", ".yml")):  # a file that doesn't exist
        return text, ""
    path, _, cell = text.rpartition("#")
    return (path, cell) if path else (text, "")


def cells_named(cells: Sequence[Cell], wanted: str, source: str) -> list[Cell]:
    """Return the cells with a name.

    wanted: a cell's name, with or without draw and trial, the beginning of the key of its fit or
    scores, or a pattern of names in which ``*`` stands for any text. source: begins the message of
    the `UserError` that is raised if there is none.
    """
    named = [cell for cell in cells if _has_name(cell, wanted)]
    if not named:
        both = (name for cell in cells for name in (arm_name(cell.name), cell.name))
        names = list(dict.fromkeys(both))
        examples = ", ".join([*names[:4], *["..."] * (len(names) > 4)])
        raise UserError(
            f"{source}: no cell {wanted!r}{nearest(wanted, names)};"
            f" expected: a name, such as {examples}, or a key"
        )
    return named


def select(plan: Plan, only: Sequence[str], limit: int | None, scored: Collection[str]) -> Plan:
    """Return a plan of the selected cells alone, with all nodes of the plan.

    only: names as of `cells_named`; if empty, all cells are selected. limit: largest number of
    cells without scores. scored: keys of the scores in the store.
    """
    chosen = {
        cell.score for name in only for cell in cells_named(plan.cells, name, f"--only {name}")
    }
    cells = [cell for cell in plan.cells if not only or cell.score in chosen]
    if limit is not None:
        missing = [cell.score for cell in cells if cell.score not in scored][:limit]
        chosen = set(missing)
        cells = [cell for cell in cells if cell.score in scored or cell.score in chosen]
    return replace(plan, cells=cells)


def arm_name(name: str) -> str:
    """Return a cell's name without draw and trial."""
    return re.sub(r"( draw \d+)? trial \d+$", "", name)


def _has_name(cell: Cell, wanted: str) -> bool:
    if wanted in (cell.name, arm_name(cell.name)) or fnmatchcase(cell.name, wanted):
        return True
    is_key = len(wanted) >= SHORTEST_KEY
    return is_key and any(key.startswith(wanted) for key in (cell.score, cell.fit))
