"""A mistake that is found before a run, and its line with the place of the setting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from chexseg.config.places import place
from chexseg.config.study import Study
from chexseg.plan.cells import Cell
from chexseg.plan.graph import Plan, blocked


class Mistake(NamedTuple):
    """A mistake in a setting, or in a file that `text` names if `setting` is empty.

    node: key of a stage run that the setting is for.
    """

    setting: str
    text: str
    node: str = ""

    @classmethod
    def of(cls, error: Exception, node: str) -> Mistake:
        """Return the mistake of a message that begins with a dotted setting."""
        setting, _, text = str(error).partition(": ")
        return cls(setting, text, node)


def lines(plan: Plan, mistakes: Iterable[Mistake]) -> list[str]:
    """Return a line for each different mistake and each included study that makes it.

    It begins with file and line of the setting, or with the ``--set`` that gives it.
    """
    nodes: dict[tuple[str, str], dict[str, str]] = {}
    for mistake in mistakes:
        nodes.setdefault(mistake[:2], {})[mistake.node] = mistake.text
    out: dict[str, None] = {}
    for (setting, text), keys in nodes.items():
        if not setting:
            out[text] = None
            continue
        affected = blocked(plan.nodes, keys)
        places = [
            place(study, cell.settings, setting)
            for study, cells in _by_member(plan)
            if (cell := next((cell for cell in cells if cell.score in affected), None))
        ]
        for begin in places or [place(plan.study, plan.study.settings, setting)]:
            out[f"{begin}: {text}"] = None
    return list(out)


def _by_member(plan: Plan) -> Iterator[tuple[Study, list[Cell]]]:
    """Yield each included study and its cells, or the study itself and all cells."""
    if not plan.study.members:
        yield plan.study, plan.cells
        return
    cells = {cell.score: cell for cell in plan.cells}
    for member in plan.study.members:
        yield member, [cells[score] for score in plan.members[member.name]]
