"""Two sides compared: which groups of cells stand against which, in what they differ, and by how much. Numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chexseg.errors import UserError
from chexseg.report.compare_sides import Group, Side
from chexseg.report.statistics import (
    Interval,
    bootstrap_iou,
    miou,
    patient_of,
    percentile_interval,
    pooled_iou,
    t_interval,
)
from chexseg.report.weak_labels import FEWEST_PATIENTS

MEAN = "mIoU"
A_HIGHER, B_HIGHER, UNDECIDED = "A higher", "B higher", "undecided"
#: Columns of `rows`.
COLUMNS = (
    "A", "B", "pathology", "IoU A", "IoU B", "difference", "from", "to", "patients", "trials from", "trials to", "trials",
    "verdict",
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


def compare(first: Side, second: Side, replicates: int = 1000, seed: int = 0) -> Comparison:
    """A minus B. One group on one side is compared with each of the other; of several on both sides, those that agree in all
    that varies within either side. Raises `UserError` where no two do, or where both sides are the same cells.
    """
    pairs, matched_by = _pairs(first, second)
    rows = [row for one, other in pairs for row in _pair(one, other, first, replicates, seed)]
    used = [tuple(dict((id(group), group) for group in groups).values()) for groups in zip(*pairs, strict=True)]
    notes = [*first.notes, *second.notes]
    for side, groups in zip((first, second), used, strict=True):
        left = [group.name for group in side.groups if group not in groups]
        notes += [f"{side.title}: left out, as nothing else on the other side matches: {', '.join(left)}"] if left else []
    return Comparison(
        titles=(first.title, second.title),
        size=first.size,
        images=len(first.image_ids),
        patients=len({patient_of(image_id) for image_id in first.image_ids}),
        rows=pd.DataFrame(rows, columns=list(COLUMNS)),
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


def _distinct(pairs: list[tuple[Group, Group]], first: Side, second: Side) -> list[tuple[Group, Group]]:
    kept = [(one, other) for one, other in pairs if not one.keys or one.keys != other.keys]
    if not kept:
        raise UserError(f"{first.title} and {second.title}: found the same cells on both sides; allowed: others")
    return kept


def _varied(groups: Sequence[Group]) -> set[str]:
    return {name for name in groups[0].settings if len(_values(groups, name)) > 1}


def _values(groups: Sequence[Group], name: str) -> list[str]:
    """What the groups have for a setting, each once, as text: what is told of it, and compared."""
    return list(dict.fromkeys(_text(group.settings[name]) for group in groups if group.settings))


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _differing(first: Sequence[Group], second: Sequence[Group], matched_by: set[str]) -> pd.DataFrame:
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
    split = len(one.counts_TIK3)
    both_TIK3 = np.concatenate([one.counts_TIK3, other.counts_TIK3])
    iou_TK = _with_mean(pooled_iou(both_TIK3, require_expert=True))
    sampled_BTK = _with_mean(bootstrap_iou(both_TIK3, side.image_ids, replicates, seed))
    difference_BK = sampled_BTK[:, :split].mean(axis=1) - sampled_BTK[:, split:].mean(axis=1)
    patients_K = _patients(both_TIK3[0, ..., 2] > 0, side.image_ids)
    shared = [(one.trials.index(trial), split + other.trials.index(trial)) for trial in one.trials if trial in other.trials]
    out = []
    for k, name in enumerate((MEAN, *side.pathologies)):
        a, b = float(iou_TK[:split, k].mean()), float(iou_TK[split:, k].mean())
        patients = Interval(a - b, np.nan, np.nan, int(patients_K[k]))
        if patients.n >= FEWEST_PATIENTS:
            patients = percentile_interval(a - b, difference_BK[:, k], patients.n)
        trials = t_interval([iou_TK[i, k] - iou_TK[j, k] for i, j in shared])
        row = (one.name, other.name, name, a, b, a - b, patients.low, patients.high, patients.n, trials.low, trials.high)
        out.append(dict(zip(COLUMNS, (*row, len(shared), _verdict(patients, trials)), strict=True)))
    return out


def _with_mean(iou_LK: np.ndarray) -> np.ndarray:
    """The mean over pathologies first."""
    return np.concatenate([miou(iou_LK)[0][..., None], iou_LK], axis=-1)


def _patients(true_IK: np.ndarray, image_ids: Sequence[str]) -> np.ndarray:
    """How many patients have a pixel of any pathology, and of each."""
    patients = np.asarray([patient_of(image_id) for image_id in image_ids])
    shown_IK = np.concatenate([true_IK.any(axis=1, keepdims=True), true_IK], axis=1)
    return np.array([len(set(patients[shown_I])) for shown_I in shown_IK.T])


def _verdict(patients: Interval, trials: Interval) -> str | None:
    """Which side is higher, where the interval over patients, and that over trials if there is one, exclude 0."""
    if np.isnan(patients.mean):
        return None
    if not patients.excludes_zero or not (np.isnan(trials.low) or trials.excludes_zero):
        return UNDECIDED
    return A_HIGHER if patients.mean > 0 else B_HIGHER


def one_pair(found: Comparison) -> bool:
    return int((found.rows["pathology"] == MEAN).sum()) == 1


def short(found: Comparison) -> pd.DataFrame:
    """What a terminal has room for: of one pair every pathology, of several the mIoU."""
    if one_pair(found):
        return found.rows.drop(columns=["A", "B"])
    return found.rows[found.rows["pathology"] == MEAN].drop(columns="pathology").reset_index(drop=True)


def sentence(found: Comparison) -> str:
    """What the mIoU of all pairs comes to."""
    means = found.rows[found.rows["pathology"] == MEAN]
    if not one_pair(found):
        counts = means["verdict"].value_counts()
        told = ", ".join(f"{name} in {counts.get(name, 0)}" for name in (A_HIGHER, B_HIGHER, UNDECIDED))
        return f"mIoU of {len(means)} pairs: {told}."
    row = means.iloc[0]
    text = f"mIoU {row['IoU A']:.3f} against {row['IoU B']:.3f}: difference {row['difference']:+.3f}"
    if not np.isnan(row["from"]):
        text += f", 95% interval over {row['patients']} patients {row['from']:+.3f} to {row['to']:+.3f}"
    if not np.isnan(row["trials from"]):
        text += f", over {row['trials']} trials {row['trials from']:+.3f} to {row['trials to']:+.3f}"
    return f"{text}: {row['verdict'] or 'not defined'}."
