"""Compare two sides: pair their groups of cells, list their settings, test their differences."""

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
    "A", "B", "pathology", "IoU A", "IoU B", "difference", "from", "to", "patients",
    "trials from", "trials to", "trials", "both from", "both to",
    "p-value", "adjusted p-value", "verdict",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    rows: one row per pair and pathology, with `COLUMNS`, mIoU first. settings: setting, A, B; for a
    study, the values of its cells. cells: side, cell, trial, key. notes: everything left out, with
    the reason.
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
        """Return everything as plain JSON; undefined values are None."""
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
    """Return the differences of A minus B.

    If one side has a single group, it is compared with each group of the other. Otherwise groups
    are paired that agree in all settings that vary within either side. Raises `UserError` if no
    groups agree, or if both sides are the same cells.
    """
    pairs, matched_by = _pairs(first, second)
    rows = [row for a, b in pairs for row in _pair_rows(a, b, first, replicates, seed)]
    # Groups compare by identity; dictionaries keep their order.
    used_a, used_b = (list(dict.fromkeys(groups)) for groups in zip(*pairs, strict=True))
    notes = [*first.notes, *second.notes]
    for side, groups in ((first, used_a), (second, used_b)):
        unmatched = [group.name for group in side.groups if group not in groups]
        if unmatched:
            notes.append(
                f"{side.title}: left out, no match on the other side: {', '.join(unmatched)}"
            )
    return Comparison(
        titles=(first.title, second.title),
        size=first.size,
        images=len(first.image_ids),
        patients=len({patient_of(image_id) for image_id in first.image_ids}),
        rows=_with_verdicts(rows),
        settings=_differing_settings(used_a, used_b, matched_by),
        cells=_cells(used_a, used_b),
        notes=tuple(notes),
    )


def _pairs(first: Side, second: Side) -> tuple[list[tuple[Group, Group]], set[str]]:
    """Return the pairs of different cells, and the settings by which they were matched."""
    if 1 in (len(first.groups), len(second.groups)):
        varied: list[str] = []
        pairs = [(a, b) for a in first.groups for b in second.groups]
    else:
        varied = sorted(_varied(first.groups) | _varied(second.groups))

        def point(group: Group) -> tuple[str, ...]:
            return tuple(str(group.settings[name]) for name in varied)

        others = {point(group): group for group in second.groups}
        pairs = [(group, others[point(group)]) for group in first.groups if point(group) in others]
        if not pairs:
            raise UserError(
                f"{first.title} and {second.title}: no cells of both agree in {', '.join(varied)};"
                " expected: studies with common values, or a cell of one: STUDY.yaml#CELL"
            )
    kept = [(a, b) for a, b in pairs if not a.keys or a.keys != b.keys]
    if not kept:
        raise UserError(
            f"{first.title} and {second.title}: found the same cells on both sides;"
            " expected: different cells"
        )
    return kept, set(varied)


def _varied(groups: Sequence[Group]) -> set[str]:
    return {name for name in groups[0].settings if len(_values(groups, name)) > 1}


def _values(groups: Sequence[Group], name: str) -> list[str]:
    """Return the distinct values of a setting as text, for comparison and display."""
    return list(dict.fromkeys(_text(group.settings[name]) for group in groups))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _differing_settings(
    first: Sequence[Group], second: Sequence[Group], matched_by: set[str]
) -> pd.DataFrame:
    """Return setting, A, B; empty if a side is a file, which has no settings."""
    rows = []
    if all(group.settings for group in (*first, *second)):
        for name in first[0].settings:
            a, b = _values(first, name), _values(second, name)
            if set(a) != set(b) and name not in matched_by:
                rows.append((name, ", ".join(a), ", ".join(b)))
    return pd.DataFrame(rows, columns=["setting", "A", "B"])


def _cells(first: Sequence[Group], second: Sequence[Group]) -> pd.DataFrame:
    rows = [
        (side, group.name, trial, key)
        for side, groups in (("A", first), ("B", second))
        for group in groups
        for trial, key in zip(group.trials, group.keys, strict=True)
    ]
    return pd.DataFrame(rows, columns=["side", "cell", "trial", "key"])


def _pair_rows(
    group_a: Group, group_b: Group, side: Side, replicates: int, seed: int
) -> list[dict[str, Any]]:
    """Return a pair's rows, mIoU first, without the columns of `_with_verdicts`."""
    first, second = (
        measured(group.counts_TIK3, side.image_ids, group.trials or None, replicates, seed)
        for group in (group_a, group_b)
    )
    rows = []
    # `measured` appends the mean over pathologies as the last column.
    for k, name in [(-1, MEAN), *enumerate(side.pathologies)]:
        step = difference(first, second, k)
        rows.append(
            {
                "A": group_a.name,
                "B": group_b.name,
                "pathology": name,
                "IoU A": first.mean(k),
                "IoU B": second.mean(k),
                "difference": step.value,
                "from": step.patients.low,
                "to": step.patients.high,
                "patients": step.patients.n,
                "trials from": step.trials.low,
                "trials to": step.trials.high,
                "trials": step.trials.n,
                "both from": step.together.low,
                "both to": step.together.high,
                "p-value": step.patients_p if np.isnan(step.p) else step.p,
            }
        )
    return rows


def _with_verdicts(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows with Holm's adjusted p-values and verdicts.

    The adjustment is over all pairs, separately for the mIoU and for the pathologies. If the sides
    share fewer than two trials, the p-value is over patients alone, and the verdict holds only for
    these models.
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


def one_pair(comparison: Comparison) -> bool:
    """Return whether the comparison has a single pair."""
    return int((comparison.rows["pathology"] == MEAN).sum()) == 1


def short(comparison: Comparison) -> pd.DataFrame:
    """Return the rows that fit a terminal: all pathologies of a single pair, or all pairs' mIoU."""
    rows = comparison.rows
    if one_pair(comparison):
        return rows.drop(columns=["A", "B"])
    return rows[rows["pathology"] == MEAN].drop(columns="pathology").reset_index(drop=True)


def sentence(comparison: Comparison) -> str:
    """Return the result for the mIoU of all pairs as a sentence."""
    means = comparison.rows[comparison.rows["pathology"] == MEAN]
    if not one_pair(comparison):
        counts = means["verdict"].value_counts()
        verdicts = (f"{name} in {counts.get(name, 0)}" for name in (A_HIGHER, B_HIGHER, UNDECIDED))
        return f"mIoU of {len(means)} pairs: {', '.join(verdicts)}."
    row = means.iloc[0]
    text = (
        f"mIoU {row['IoU A']:.3f} against {row['IoU B']:.3f}: difference {row['difference']:+.3f}"
    )
    if not np.isnan(row["from"]):
        text += (
            f", 95% interval over {row['patients']} patients {row['from']:+.3f} to {row['to']:+.3f}"
        )
    if not np.isnan(row["both from"]):
        text += (
            f", over these and {row['trials']} trials"
            f" {row['both from']:+.3f} to {row['both to']:+.3f}"
        )
    return f"{text}: {row['verdict'] or 'not defined'}."
