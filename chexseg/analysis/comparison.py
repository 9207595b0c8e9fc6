"""Compare two sides: pair their groups of cells, list their settings, test their differences."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis.comparison_sides import Group, Side
from chexseg.analysis.statistics.inference import (
    ONE_DRAW,
    Difference,
    difference,
    fault,
    holds_for_one_draw,
    holm,
    measured,
    verdicts,
)
from chexseg.analysis.statistics.scores import patient_of
from chexseg.errors import UserError

MEAN = "mIoU"
A_HIGHER, B_HIGHER, UNDECIDED = "A higher", "B higher", "undecided"


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    rows: one row per pair and pathology, mIoU first, with the columns of `_rows`. settings:
    setting, A, B; for a study, the values of its cells. cells: side, cell, draw, trial, key. notes:
    everything left out, with the reason.
    """

    titles: tuple[str, str]
    size: int
    images: int
    patients: int
    rows: pd.DataFrame
    settings: pd.DataFrame
    cells: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def means(self) -> pd.DataFrame:
        """Return the mIoU's rows, one per pair."""
        return self.rows[self.rows["pathology"] == MEAN]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON; undefined values are None."""
        answer: dict[str, Any] = {"A": self.titles[0], "B": self.titles[1], **vars(self)}
        del answer["titles"]
        for name in ("rows", "settings", "cells"):
            text = answer[name].to_json(orient="records", double_precision=15)
            answer[name] = json.loads(text)
        answer["notes"] = list(self.notes)
        return answer


def compare(first: Side, second: Side, replicates: int = 1000, seed: int = 0) -> Comparison:
    """Return the differences of A minus B.

    If one side has a single group, it is compared with each group of the other. Otherwise groups
    are paired that agree in all settings that vary within either side. Raises `UserError` if no
    groups agree, or if both sides are the same cells.
    """
    pairs, matched_by = _pairs(first, second)
    # Groups compare by identity; dictionaries keep their order.
    used_a, used_b = (list(dict.fromkeys(groups)) for groups in zip(*pairs, strict=True))
    notes = [*first.notes, *second.notes]
    for side, used in ((first, used_a), (second, used_b)):
        unmatched = ", ".join(group.name for group in side.groups if group not in used)
        if unmatched:
            notes.append(f"{side.title}: left out, no match on the other side: {unmatched}")
    # A file has no settings to compare.
    names = used_a[0].settings if all(group.settings for group in (*used_a, *used_b)) else ()
    settings = [
        (name, ", ".join(a), ", ".join(b))
        for name in names
        for a, b in [(_values(used_a, name), _values(used_b, name))]
        if set(a) != set(b) and name not in matched_by
        # A setting that matters to one side alone says nothing about the difference.
        if not any(all(name.startswith(g.idle) for g in used) for used in (used_a, used_b))
    ]
    cells = [
        (side, group.name, draw, trial, key)
        for side, used in (("A", used_a), ("B", used_b))
        for group in used
        for (draw, trial), key in zip(group.trials, group.keys, strict=True)
    ]
    return Comparison(
        titles=(first.title, second.title),
        size=first.size,
        images=len(first.image_ids),
        patients=len({patient_of(image_id) for image_id in first.image_ids}),
        rows=_rows(pairs, first, replicates, seed),
        settings=pd.DataFrame(settings, columns=["setting", "A", "B"]),
        cells=pd.DataFrame(cells, columns=["side", "cell", "draw", "trial", "key"]),
        notes=tuple(notes),
    )


def _pairs(first: Side, second: Side) -> tuple[list[tuple[Group, Group]], list[str]]:
    """Return the pairs of different cells, and the settings by which they were matched."""
    sides = (first.groups, second.groups)
    varied: list[str] = []
    if all(len(groups) > 1 for groups in sides):
        names = first.groups[0].settings
        varied = sorted(n for n in names if any(len(_values(groups, n)) > 1 for groups in sides))
    points = {g: [str(g.settings[n]) for n in varied] for groups in sides for g in groups}
    pairs = [(a, b) for a in first.groups for b in second.groups if points[a] == points[b]]
    if not pairs:
        raise UserError(
            f"{first.title} and {second.title}: no cells of both agree in {', '.join(varied)};"
            " expected: studies with common values, or a cell of one: STUDY.yaml#CELL"
        )
    pairs = [(a, b) for a, b in pairs if not a.keys or a.keys != b.keys]
    if not pairs:
        raise UserError(
            f"{first.title} and {second.title}: found the same cells on both sides;"
            " expected: different cells"
        )
    return pairs, varied


def _values(groups: Sequence[Group], name: str) -> list[str]:
    """Return the distinct values of a setting as text, for comparison and display."""
    values = (group.settings[name] for group in groups)
    return list(dict.fromkeys(f"{v:g}" if isinstance(v, float) else str(v) for v in values))


def _rows(
    pairs: Sequence[tuple[Group, Group]], side: Side, replicates: int, seed: int
) -> pd.DataFrame:
    """Return the differences of all pairs with Holm's adjusted P-values and verdicts.

    The adjustment is over all pairs, separately for the mIoU and for the pathologies. Two files
    have no trials: their P-value is over patients alone, and the verdict holds only for these
    masks. reason: why a difference is undecided whatever its P-value.
    """
    rows = []
    for pair in pairs:
        a, b = (
            measured(group.counts_TIK3, side.image_ids, group.trials or None, replicates, seed)
            for group in pair
        )
        # `measured` appends the mean over pathologies as the last column.
        for k, name in [(-1, MEAN), *enumerate(side.pathologies)]:
            step = difference(a, b, k)
            reason = _reason(pair, step)
            p = step.p if any(group.trials for group in pair) else step.patients_p
            rows.append(
                {
                    "A": pair[0].name,
                    "B": pair[1].name,
                    "pathology": name,
                    "IoU A": a.mean(k),
                    "IoU B": b.mean(k),
                    "difference": step.value,
                    "from": step.patients.low,
                    "to": step.patients.high,
                    "patients": step.patients.n,
                    "trials from": step.trials.low,
                    "trials to": step.trials.high,
                    "draws": step.n_draws,
                    "trials": step.n_trials,
                    "both from": step.together.low,
                    "both to": step.together.high,
                    "P": np.nan if reason else p,
                    "reason": reason,
                }
            )
    table = pd.DataFrame(rows)
    p = table.groupby(table["pathology"] == MEAN)["P"].transform(holm)
    judged = verdicts(table["difference"], p, A_HIGHER, B_HIGHER, UNDECIDED)
    return table.assign(**{"adjusted P": p, "verdict": judged})


def _reason(pair: tuple[Group, Group], step: Difference) -> str | None:
    """Return why a difference is undecided, or None if its P-value decides."""
    if not any(group.trials for group in pair):
        return None  # two fixed masks
    if step.n_trials == 1 and all(group.trials for group in pair):
        return "one trial against one"
    of_draw = holds_for_one_draw(step.n_draws, *(group.upstream for group in pair))
    return fault(step, min(group.steps for group in pair)) or (ONE_DRAW if of_draw else None)


def short(comparison: Comparison) -> pd.DataFrame:
    """Return the rows that fit a terminal: all pathologies of a single pair, or all pairs' mIoU."""
    if len(comparison.means) == 1:
        return comparison.rows.drop(columns=["A", "B"])
    return comparison.means.drop(columns="pathology").reset_index(drop=True)


def sentence(comparison: Comparison) -> str:
    """Return the result for the mIoU of all pairs as a sentence."""
    means = comparison.means
    if len(means) > 1:
        counts = means["verdict"].value_counts()
        verdicts = (f"{name} in {counts.get(name, 0)}" for name in (A_HIGHER, B_HIGHER, UNDECIDED))
        return f"mIoU of {len(means)} pairs: {', '.join(verdicts)}."
    row = means.iloc[0]
    reason = row["reason"] if isinstance(row["reason"], str) else ""
    if np.isnan(row["difference"]):
        return f"mIoU {row['IoU A']:.3f} against {row['IoU B']:.3f}: {reason or 'undefined'}."
    step, low, high = (f"{row[name]:+.3f}" for name in ("difference", "from", "to"))
    text = f"mIoU {row['IoU A']:.3f} against {row['IoU B']:.3f}: difference {step}"
    if not np.isnan(row["from"]):
        text += f", 95% interval over {row['patients']} patients {low} to {high}"
    if not np.isnan(row["both from"]):
        low, high = (f"{row[name]:+.3f}" for name in ("both from", "both to"))
        text += f", over these and {row['trials']} trials {low} to {high}"
    return f"{text}: {row['verdict'] or 'not defined'}{reason and f' ({reason})'}."
