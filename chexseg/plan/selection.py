"""Select some of a plan's cells to run."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from chexseg.errors import UserError
from chexseg.plan.graph import Plan


def select(plan: Plan, only: Sequence[str], limit: int | None, scored: Collection[str]) -> Plan:
    """Return a plan of the selected cells alone, with all nodes of the plan.

    only: names of cells, in which ``*`` stands for any text; if empty, all cells are selected.
    limit: largest number of cells without scores. scored: keys of the scores in the store.
    Raises `UserError` for a name that no cell has.
    """
    for name in only:
        if not any(_matches(cell.name, name) for cell in plan.cells):
            names = [cell.name for cell in plan.cells]
            close = difflib.get_close_matches(name, names, 3) or names[:3]
            raise UserError(
                f"--only {name!r}: found no such cell in study {plan.study.name};"
                f" expected a name such as {', '.join(map(repr, close))}, or a pattern with *;"
                " hint: `chexseg study plan` lists the cells"
            )
    cells = [
        cell for cell in plan.cells if not only or any(_matches(cell.name, name) for name in only)
    ]
    if limit is not None:
        missing = {cell.score for cell in [c for c in cells if c.score not in scored][:limit]}
        cells = [cell for cell in cells if cell.score in scored or cell.score in missing]
    return replace(plan, cells=cells)


def _matches(cell: str, name: str) -> bool:
    return cell == name or fnmatchcase(cell, name)
