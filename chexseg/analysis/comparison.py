"""Two sides compared: which groups of cells stand against which, in what they differ, and by how much. Numbers only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.comparison_sides import Group, Side
from chexseg.analysis.statistics.inference import difference, holm, measured
from chexseg.analysis.statistics.scores import patient_of
from chexseg.errors import UserError

MEAN = "mIoU"
SIGNIFICANT = 0.05
A_HIGHER, B_HIGHER, UNDECIDED = "A higher", "B higher", "undecided"
#: Columns of `rows`.
COLUMNS = (
    "A", "B", "pathology", "IoU A", "IoU B", "difference", "from", "to", "patients", "trials from", "trials to", "trials",
    "both from", "both to", "p-value", "adjusted p-value", "verdict",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """rows: `COLUMNS`, one row a pair and pathology, mIoU first. settings: setting, A, B; of a study the values that its
    cells have. cells: side, name, trial, key. notes: what was left out, and why.
    """

    titles: tuple[str, str]
    size: int
    images: int
    patients: int
    rows: pd.DataFrame
    settings: pd.DataFrame
    cells: pd.DataFrame
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON; a value that isn't defined is None."""
        tables = {"rows": self.rows, "settings": self.settings, "cells": self.cells}
        return {
            "A": self.titles[0],
            "B": self.titles[1],
            "size": self.size,
            "images": self.images,
            "patients": self.patients,
            **{
                name: json.loads(table.to_json(orient="records", double_precision=15))
                for name, table in tables.items()
            },
            "notes": list(self.notes),
        }


def compare(first: Side, second: Side, replicates: int = 1000, seed: int = 0) -> Comparison:
    """A minus B. One group on one side is compared with each of the other; of several on both sides, those that agree in all
    that varies within either side. Raises `UserError` where no two do, or where both sides are the same cells.
    """
    pairs, matched_by = _pairs(first, second)
    rows = [row for one, other in pairs for row in _pair(one, other, first, replicates, seed)]
    used = [
        tuple(dict((id(group), group) for group in groups).values())
        for groups in zip(*pairs, strict=True)
    ]
    notes = [*first.notes, *second.notes]
    for side, groups in zip((first, second), used, strict=True):
        left = [group.name for group in side.groups if group not in groups]
        notes += (
            [
                f"{side.title}: left out, as nothing else on the other side matches: {', '.join(left)}"
            ]
            if left
            else []
        )
    return Comparison(
        titles=(first.title, second.title),
        size=first.size,
        images=len(first.image_ids),
        patients=len({patient_of(image_id) for image_id in first.image_ids}),
        rows=_judged(rows),
        settings=_differing(*used, matched_by),
        cells=_cells(*used),
        notes=tuple(notes),
    )


def _pairs(first: Side, second: Side) -> tuple[list[tuple[Group, Group]], set[str]]:
    """The pairs, and the settings in which the two of each agree because they were found by these. A cell isn't its own."""
    if 1 in (len(first.groups), len(second.groups)):
        every = [(one, other) for one in first.groups for other in second.groups]
        return _distinct(every, first, second), set()
    varied = {name for side in (first, second) for name in _varied(side.groups)}
    point = lambda group: tuple(str(group.settings[name]) for name in sorted(varied))  # noqa: E731
    others = {point(group): group for group in second.groups}
    pairs = [(group, others[point(group)]) for group in first.groups if point(group) in others]
    if not pairs:
        raise UserError(
            f"{first.title} and {second.title}: no cells of both agree in {', '.join(sorted(varied))};"
            " allowed: such studies, or a cell of one: STUDY.yaml#CELL"
        )
    return _distinct(pairs, first, second), varied


def _distinct(
    pairs: list[tuple[Group, Group]], first: Side, second: Side
) -> list[tuple[Group, Group]]:
    kept = [(one, other) for one, other in pairs if not one.keys or one.keys != other.keys]
    if not kept:
        raise UserError(
            f"{first.title} and {second.title}: found the same cells on both sides; allowed: others"
        )
    return kept


def _varied(groups: Sequence[Group]) -> set[str]:
    return {name for name in groups[0].settings if len(_values(groups, name)) > 1}


def _values(groups: Sequence[Group], name: str) -> list[str]:
    """What the groups have for a setting, each once, as text: what is told of it, and compared."""
    return list(dict.fromkeys(_text(group.settings[name]) for group in groups if group.settings))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _differing(
    first: Sequence[Group], second: Sequence[Group], matched_by: set[str]
) -> pd.DataFrame:
    """setting, A, B. Of a file nothing is known."""
    rows = []
    if all(group.settings for group in (*first, *second)):
        for name in first[0].settings:
            one, other = _values(first, name), _values(second, name)
            if set(one) != set(other) and name not in matched_by:
                rows.append((name, ", ".join(one), ", ".join(other)))
    return pd.DataFrame(rows, columns=["setting", "A", "B"])


def _cells(first: Sequence[Group], second: Sequence[Group]) -> pd.DataFrame:
    rows = [
        (side, group.name, trial, key)
        for side, groups in (("A", first), ("B", second))
        for group in groups
        for trial, key in zip(group.trials, group.keys, strict=True)
    ]
    return pd.DataFrame(rows, columns=["side", "cell", "trial", "key"])


def _pair(one: Group, other: Group, side: Side, replicates: int, seed: int) -> list[dict[str, Any]]:
    """Rows without `verdict` and the adjusted p-value, mIoU first."""
    first, second = (
        measured(group.counts_TIK3, side.image_ids, group.trials or None, replicates, seed)
        for group in (one, other)
    )
    out = []
    # The mean over pathologies stands last in what is measured.
    for k, name in [(-1, MEAN), *enumerate(side.pathologies)]:
        found = difference(first, second, k)
        a, b = float(first.values_TK[:, k].mean()), float(second.values_TK[:, k].mean())
        out.append(
            {
                **{
                    "A": one.name,
                    "B": other.name,
                    "pathology": name,
                    "IoU A": a,
                    "IoU B": b,
                    "difference": found.value,
                },
                **{
                    "from": found.patients.low,
                    "to": found.patients.high,
                    "patients": found.patients.n,
                },
                **{
                    "trials from": found.trials.low,
                    "trials to": found.trials.high,
                    "trials": found.trials.n,
                },
                **{"both from": found.together.low, "both to": found.together.high},
                "p-value": found.patients_p if np.isnan(found.p) else found.p,
            }
        )
    return out


def _judged(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """With p-values adjusted by Holm over all pairs, the mIoU's and the pathologies' apart, and a verdict each.

    Where the sides don't share two trials the p-value is over patients alone, and the verdict is of these models.
    """
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for of_mean in (True, False):
        chosen = (table["pathology"] == MEAN) == of_mean
        table.loc[chosen, "adjusted p-value"] = holm(
            table.loc[chosen, "p-value"].to_numpy(dtype=float)
        )
    table["adjusted p-value"] = table["adjusted p-value"].astype(float)
    table["verdict"] = [
        None
        if np.isnan(value)
        else UNDECIDED
        if not p < SIGNIFICANT
        else A_HIGHER
        if value > 0
        else B_HIGHER
        for value, p in zip(table["difference"], table["adjusted p-value"], strict=True)
    ]
    return table


def one_pair(found: Comparison) -> bool:
    return int((found.rows["pathology"] == MEAN).sum()) == 1


def short(found: Comparison) -> pd.DataFrame:
    """What a terminal has room for: of one pair every pathology, of several the mIoU."""
    if one_pair(found):
        return found.rows.drop(columns=["A", "B"])
    return (
        found.rows[found.rows["pathology"] == MEAN].drop(columns="pathology").reset_index(drop=True)
    )


def sentence(found: Comparison) -> str:
    """What the mIoU of all pairs comes to."""
    means = found.rows[found.rows["pathology"] == MEAN]
    if not one_pair(found):
        counts = means["verdict"].value_counts()
        told = ", ".join(
            f"{name} in {counts.get(name, 0)}" for name in (A_HIGHER, B_HIGHER, UNDECIDED)
        )
        return f"mIoU of {len(means)} pairs: {told}."
    row = means.iloc[0]
    text = (
        f"mIoU {row['IoU A']:.3f} against {row['IoU B']:.3f}: difference {row['difference']:+.3f}"
    )
    if not np.isnan(row["from"]):
        text += (
            f", 95% interval over {row['patients']} patients {row['from']:+.3f} to {row['to']:+.3f}"
        )
    if not np.isnan(row["both from"]):
        text += f", over these and {row['trials']} trials {row['both from']:+.3f} to {row['both to']:+.3f}"
    return f"{text}: {row['verdict'] or 'not defined'}."
