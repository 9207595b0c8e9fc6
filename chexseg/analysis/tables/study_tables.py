"""Compute the rows of Table 1 and of the tables of cells, students, stages and missing results."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from chexseg.analysis import published
from chexseg.analysis.published import AVERAGE, METHODS
from chexseg.analysis.results import StudyResults, once
from chexseg.analysis.statistics.scores import Arm, arms, cell_iou, miou, t_interval
from chexseg.analysis.tables import grid
from chexseg.analysis.tables.grid import NO_EXPERT, SHARED, UNFINISHED
from chexseg.stages.registry import STAGES

#: Maximum variants for which a Table 1 is written: nobody reads hundreds.
MOST_VARIANTS = 20


@dataclass(frozen=True)
class Variant:
    """Settings that Table 1 and Figure 2 hold fixed; a study may have several."""

    init: str
    epochs: float
    weak_images: float  # NaN if only fully supervised cells exist
    other: str = ""  # the study's other varied settings, as in CELL_COLUMNS

    def has(self, arm: Arm) -> bool:
        """Return whether the arm belongs here; settings of weak labels don't apply to full arms."""
        words, settings = set(arm.other.split()), set(self.other.split())
        return (
            arm.method != "student"
            and arm.init == self.init
            and same(arm.epochs, self.epochs)
            and (
                words <= settings
                if arm.method == "full"
                else words == settings and same(arm.weak_images, self.weak_images)
            )
        )

    def __str__(self) -> str:
        images = f"{self.weak_images:,.0f} weak images" if self.weak_images > 0 else ""
        epochs = "" if np.isnan(self.epochs) else f"{self.epochs:g} epochs"
        parts = [f"encoder {self.init}", images, epochs, *further(self.other)]
        return ", ".join(filter(None, parts))


def same(first: float, second: float) -> bool:
    """Return whether two numbers are equal, or both NaN."""
    return first == second or (np.isnan(first) and np.isnan(second))


def variants(results: StudyResults) -> list[Variant]:
    """Return the study's variants, those with most arms first.

    If some variants have mixtures, only these are returned: the others belong to Table 2.
    """
    return [variant for variant, _ in _variant_arms(results).values()]


def variant_arms(results: StudyResults, variant: Variant | None) -> list[Arm]:
    """Return the arms of a variant, in the study's order."""
    return _variant_arms(results)[str(variant)][1] if variant else []


def has_table1(results: StudyResults) -> bool:
    """Return whether a variant has several p; otherwise the table of all arms suffices."""
    return any(len({arm.p for arm in group}) > 1 for _, group in _variant_arms(results).values())


@once
def _variant_arms(results: StudyResults) -> dict[str, tuple[Variant, list[Arm]]]:
    """Return text -> (variant, its arms), sorted by the number of arms.

    The text is the key because a variant may contain NaN, which doesn't equal itself.
    """
    by_method = (
        [arm for arm in arms(results) if arm.method == method]
        for method in ("mixed", "weak", "full")
    )
    trained = next(filter(None, by_method), [])
    unique = {
        str(v): v
        for v in (Variant(arm.init, arm.epochs, arm.weak_images, arm.other) for arm in trained)
    }
    # With 10,000 cells, comparing every variant with every arm is slow: index the arms first.
    others: dict[frozenset[str], list[Arm]] = {}
    full: dict[frozenset[str], list[Arm]] = {}
    for arm in arms(results):
        index = full if arm.method == "full" else others
        index.setdefault(frozenset(arm.other.split()), []).append(arm)
    groups = {}
    for text, variant in unique.items():
        settings = frozenset(variant.other.split())
        candidates = [
            *others.get(settings, ()),
            *(arm for words, group in full.items() if words <= settings for arm in group),
        ]
        groups[text] = (
            variant,
            sorted(filter(variant.has, candidates), key=lambda arm: min(arm.indices)),
        )
    return dict(sorted(groups.items(), key=lambda item: -len(item[1][1])))


@once
def task_values(results: StudyResults) -> dict[str, np.ndarray]:
    """Return task -> values_C: the mIoU of every cell as "Avg. IoU", then each pathology's IoU."""
    iou_CK = cell_iou(results)
    return {
        AVERAGE: miou(iou_CK)[0],
        **{name: iou_CK[:, k] for k, name in enumerate(results.pathologies)},
    }


def table1_rows(results: StudyResults, variant: Variant | None = None) -> pd.DataFrame:
    """Return the paper's Table 1 for this study: a row per task and method, columns for each p.

    Each p has the columns of `grid.value`, named like ``p=0.9``. ``best`` is the p with the row's
    highest mean. At p = 1 both methods share one value; its ``reason`` in the second row is
    `grid.SHARED`.
    """
    values = task_values(results)
    variant = variant or next(iter(variants(results)), None)
    chosen = variant_arms(results, variant)
    columns = sorted({arm.p for arm in chosen})
    # A study without weak labels has one row per task.
    methods = {k: name for k, name in METHODS.items() if any(arm.weak == k for arm in chosen)} or {
        "cam": "Full"
    }
    absent = without_expert(results)
    rows = []
    for task, values_C in values.items():
        for method in methods:
            row: grid.Row = {"task": task, "method": methods[method], "best": None}
            for p in columns:
                shared = p == 1 and method != next(iter(methods))
                arm = next(
                    (a for a in chosen if a.p == p and (a.weak == method or a.method == "full")),
                    None,
                )
                reason = (
                    SHARED
                    if shared
                    else NO_EXPERT
                    if task in absent
                    else UNFINISHED
                    if arm is None
                    else None
                )
                paper = (
                    published.table1_average(results.pathologies, method, p)
                    if task == AVERAGE
                    else published.table1(task, method, p)
                )
                indices = list(arm.indices) if arm else []
                cell, keys = t_interval(values_C[indices]), cell_keys(results, indices)
                row |= grid.value(f"p={p:g}", cell, paper, reason=reason, cells=keys)
            row["best"] = grid.best_of_row(row)
            rows.append(row)
    return grid.frame(rows)


def without_expert(results: StudyResults) -> list[str]:
    """Return the pathologies without an expert pixel in the test set, if any cell is scored."""
    if not len(results.cells):
        return []
    drawn_K = results.counts_CIK3[0, :, :, 2].sum(axis=0) > 0
    return [name for name, drawn in zip(results.pathologies, drawn_K, strict=True) if not drawn]


def cell_keys(results: StudyResults, indices: Iterable[int]) -> str:
    """Return the first 12 characters of the cells' keys, joined by spaces."""
    keys = _short_keys(results)
    return " ".join(keys[index] for index in indices)


@once
def _short_keys(results: StudyResults) -> list[str]:
    return [key[:12] for key in results.cells["cell"]]


@once
def cells_rows(results: StudyResults) -> pd.DataFrame:
    """Return one row per cell: settings, mIoU, selection mIoU, the IoU of each pathology, key."""
    iou_CK = cell_iou(results)
    miou_C, left_out_C = miou(iou_CK)
    cells = results.cells.reset_index(drop=True)
    settings = [
        name
        for name in ("name", "method", "weak", "p", "trial", "init", "weak_images", "fraction")
        if name not in ("weak_images", "fraction") or cells[name].notna().any()
    ]
    scores = {"mIoU": miou_C, "selection mIoU": pd.to_numeric(cells["selection_miou"])}
    scores |= {"left out": left_out_C} if left_out_C.any() else {}
    scores |= dict(zip(results.pathologies, iou_CK.T, strict=True))
    return cells[settings].assign(**scores, key=cells["cell"])


@once
def students_rows(results: StudyResults) -> pd.DataFrame:
    """Return students against their teachers by fraction of the training images (Figure 3).

    Each row has means, intervals and the paired difference. The teacher of a student is the fully
    supervised cell of the same encoder, trial (section 4.2) and other varied settings.
    """
    miou_C = miou(cell_iou(results))[0]
    students = [arm for arm in arms(results) if arm.method == "student"]
    rows = []
    for arm in sorted(students, key=lambda arm: (arm.init, arm.other, arm.fraction)):
        teachers = {
            trial: miou_C[index]
            for teacher in arms(results)
            if is_teacher(teacher, arm)
            for trial, index in zip(teacher.trials, teacher.indices, strict=True)
        }
        paired = [
            (miou_C[index], teachers[trial])
            for trial, index in zip(arm.trials, arm.indices, strict=True)
            if trial in teachers
        ]
        rows.append(
            {
                "init": arm.init,
                "settings": beside(arm),
                "fraction": arm.fraction,
                **_columns("student", miou_C[list(arm.indices)]),
                **_columns("teacher", [teacher for _, teacher in paired]),
                **_columns("difference", [student - teacher for student, teacher in paired]),
                "n": len(arm.indices),
                "cells": cell_keys(results, arm.indices),
                "reason": None
                if paired
                else "no fully supervised cell of the same encoder and trial has finished",
            }
        )
    table = pd.DataFrame(rows)
    return (
        table
        if any(row["settings"] for row in rows)
        else table.drop(columns="settings", errors="ignore")
    )


def beside(arm: Arm) -> str:
    """Return an arm's varied settings that have no column in `CELL_COLUMNS`, joined by spaces."""
    return " ".join(further(arm.other))


def further(other: str) -> list[str]:
    """Return the varied settings, "key=value", that have no column in `CELL_COLUMNS`."""
    columns = ("init", "weak_images", "epochs")
    return [
        word for word in other.split() if word.partition("=")[0].rpartition(".")[2] not in columns
    ]


def is_teacher(arm: Arm, student: Arm) -> bool:
    """Return whether a full arm's cells are a student's teachers: all common settings agree."""
    return (
        arm.method == "full"
        and arm.init == student.init
        and same(arm.epochs, student.epochs)
        and set(arm.other.split()) <= set(student.other.split())
    )


def _columns(name: str, values: Iterable[float]) -> dict[str, float]:
    interval = t_interval(values)
    return {name: interval.mean, f"{name} low": interval.low, f"{name} high": interval.high}


def stages_rows(results: StudyResults) -> pd.DataFrame:
    """Return one row per stage, in the order of the data flow: runs, seconds and hosts."""
    stages = results.stages.assign(seconds=pd.to_numeric(results.stages["seconds"]))
    groups = dict(iter(stages.groupby("stage")))  # sorted by name
    order = [name for name in STAGES if name in groups]
    order += [name for name in groups if name not in STAGES]
    return pd.DataFrame(
        [
            {
                "stage": stage,
                "runs": len(groups[stage]),
                "total s": groups[stage]["seconds"].sum(),
                "median s": groups[stage]["seconds"].median(),
                "longest s": groups[stage]["seconds"].max(),
                "hosts": ", ".join(sorted(set(groups[stage]["host"].astype(str)))),
            }
            for stage in order
        ]
    )


def missing_rows(results: StudyResults) -> pd.DataFrame:
    """Return name, state and reason of missing cells, then pathologies, then radiologists."""
    columns = ["name", "state", "reason"]
    rows = results.missing[columns].to_numpy().tolist()
    rows += [(name, "undefined", NO_EXPERT) for name in without_expert(results)]
    if results.radiologists_note:
        state = "left out" if results.radiologists_IK3 is None else "incomplete"
        rows.append(("radiologists", state, results.radiologists_note))
    return pd.DataFrame(rows, columns=columns)
