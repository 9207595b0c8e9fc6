"""Names of a plan's stage runs for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from chexseg.plan.cells import Cell, relevant_settings
from chexseg.plan.graph import Node

#: Settings that a name shows at most.
SETTINGS = 2


def stage_names(nodes: Mapping[str, Node], cells: Iterable[Cell]) -> dict[str, str]:
    """Return key -> name of each node: no two are the same.

    A cell's fit and scores have the cell's name and their stage; of a fit that several cells use,
    the first one's. Other stages are named by their stage, and if a plan has several runs of it,
    also by the settings that differ, or by the first digits of their key.
    """
    names: dict[str, str] = {}
    for cell in cells:
        names.setdefault(cell.fit, f"{cell.name}, fit")
        names.setdefault(cell.score, f"{cell.name}, score")
    groups: dict[str, list[Node]] = defaultdict(list)
    for key, node in nodes.items():
        if key not in names:
            groups[node.label].append(node)
    for label, group in groups.items():
        names |= {
            node.key: f"{label}{distinction}"
            for node, distinction in zip(group, _distinctions(group), strict=True)
        }
    return {key: names[key] for key in nodes}


def settings_of_names(
    nodes: Mapping[str, Node], cells: Iterable[Cell]
) -> Callable[[str], dict[str, Any]]:
    """Return a function from a stage run's name to its settings, by dotted name.

    Of a fit, the settings that affect its cell; of a stage before the fits, that stage's own. A
    name that isn't of `stage_names` has none.
    """
    of_fits = {f"{cell.name}, fit": cell for cell in cells}
    keys = {name: key for key, name in stage_names(nodes, of_fits.values()).items()}

    def settings_of(name: str) -> dict[str, Any]:
        if name in of_fits:
            return relevant_settings(of_fits[name].settings)
        node = nodes.get(keys.get(name, ""))
        return {f"{node.stage}.{key}": value for key, value in node.config.items()} if node else {}

    return settings_of


def _distinctions(nodes: Sequence[Node]) -> list[str]:
    """Return what distinguishes each node of a stage from the others, as words to append."""
    if len(nodes) == 1:
        return [""]
    settings = sorted({setting for node in nodes for setting in node.config})
    differing = [
        setting
        for setting in settings
        if len({str(node.config.get(setting)) for node in nodes}) > 1
    ]
    words = [
        "".join(f" {setting}={node.config.get(setting)}" for setting in differing) for node in nodes
    ]
    distinct = len(set(words)) == len(nodes) and len(differing) <= SETTINGS
    return words if distinct else [f" {node.key[:8]}" for node in nodes]


def without_common_words(name: str, cells: Sequence[str]) -> str:
    """Return a stage run's name without the words that the names of all cells have.

    cells: names of the study's cells. "trial 0" and "draw 0" count as one word each.
    """
    if len(cells) < 2:
        return name
    cell, comma, stage = name.rpartition(", ")
    common = set.intersection(*(set(_words(cell)) for cell in cells))
    kept = [word for word in _words(cell) if word not in common]
    return f"{' '.join(kept)}{comma}{stage}" if kept else name


def _words(name: str) -> list[str]:
    words: list[str] = []
    for word in name.split(" "):
        if words and words[-1] in ("trial", "draw"):
            words[-1] += f" {word}"
        else:
            words.append(word)
    return words
