"""The rows of Table 1 and of what every study has: cells, students, stages, what is missing. Others write them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from chexseg.analysis import published
from chexseg.analysis.published import AVERAGE, METHODS
from chexseg.analysis.results import StudyResults, once
from chexseg.analysis.statistics.scores import Arm, Interval, arms, cell_iou, miou, t_interval
from chexseg.analysis.tables import grid
from chexseg.analysis.tables.grid import NO_EXPERT, SHARED, UNFINISHED

#: The stages in the order of the data's way.
STAGES = (
    "ingest",
    "classify",
    "pretrain",
    "moco",
    "imported",
    "saliency",
    "irnet",
    "fit",
    "distil",
    "score",
)
#: Of more variants a study's Table 1 isn't written: nobody reads hundreds.
MOST_VARIANTS = 20


@dataclass(frozen=True)
class Variant:
    """Settings that Table 1 and Figure 2 hold fixed; a study may have several."""

    init: str
    epochs: float
    weak_images: float  # NaN where only fully supervised cells exist
    other: str = ""  # what else the study varies, as in CELL_COLUMNS

    def has(self, arm: Arm) -> bool:
        """Whether the arm belongs here; one without weak labels does, whatever is said of weak labels."""
        words, mine = set(arm.other.split()), set(self.other.split())
        return (
            arm.method != "student"
            and arm.init == self.init
            and same(arm.epochs, self.epochs)
            and (
                words <= mine
                if arm.method == "full"
                else words == mine and same(arm.weak_images, self.weak_images)
            )
        )

    def __str__(self) -> str:
        parts = [f"encoder {self.init}"]
        parts += [f"{self.weak_images:,.0f} weak images"] if self.weak_images > 0 else []
        parts += [f"{self.epochs:g} epochs"] if not np.isnan(self.epochs) else []
        return ", ".join([*parts, *further(self.other)])


def same(first: float, second: float) -> bool:
    return first == second or (np.isnan(first) and np.isnan(second))


def variants(results: StudyResults) -> list[Variant]:
    """The study's variants, those with most arms first; where some have mixtures, only those: others are Table 2's."""
    return [variant for variant, _ in _variant_arms(results).values()]


def variant_arms(results: StudyResults, variant: Variant | None) -> list[Arm]:
    """The arms of a variant, in the study's order."""
    found = _variant_arms(results).get(str(variant))
    return (
        found[1]
        if found
        else [arm for arm in arms(results) if variant is not None and variant.has(arm)]
    )


def has_table1(results: StudyResults) -> bool:
    """Whether a variant has two p; of one p the table of all arms by pathology says as much."""
    return any(len({arm.p for arm in mine}) > 1 for _, mine in _variant_arms(results).values())


@once
def _variant_arms(results: StudyResults) -> dict[str, tuple[Variant, list[Arm]]]:
    """Text -> variant and its arms, those with most first. The text stands for NaN, which equals nothing."""
    found = arms(results)
    for methods in (("mixed",), ("weak",), ("full",)):
        trained = [arm for arm in found if arm.method in methods]
        if trained:
            break
    unique = {
        str(v): v
        for v in (Variant(arm.init, arm.epochs, arm.weak_images, arm.other) for arm in trained)
    }
    # Of 10,000 cells every variant would ask every arm: so only those are asked whose further settings fit.
    others: dict[frozenset[str], list[Arm]] = {}
    full: dict[frozenset[str], list[Arm]] = {}
    for arm in found:
        (full if arm.method == "full" else others).setdefault(
            frozenset(arm.other.split()), []
        ).append(arm)
    own = {}
    for text, variant in unique.items():
        mine = frozenset(variant.other.split())
        asked = [
            *others.get(mine, ()),
            *(arm for words, group in full.items() if words <= mine for arm in group),
        ]
        own[text] = variant, sorted(filter(variant.has, asked), key=lambda arm: min(arm.indices))
    return dict(sorted(own.items(), key=lambda item: -len(item[1][1])))


@once
def task_values(results: StudyResults) -> dict[str, np.ndarray]:
    """Task -> values_C of every cell: mIoU under "Avg. IoU", then each pathology's IoU."""
    iou_CK = cell_iou(results)
    return {
        AVERAGE: miou(iou_CK)[0],
        **{name: iou_CK[:, k] for k, name in enumerate(results.pathologies)},
    }


def table1_rows(results: StudyResults, variant: Variant | None = None) -> pd.DataFrame:
    """The paper's Table 1 for this study: task, method, for each p the mean, its 95% interval, n and the paper's value.

    Columns of one p: ``p=0.9``, and the same followed by `` low``, `` high``, `` cells`` (as from `cell_keys`), `` n``,
    `` paper`` and `` reason`` (why there is no value). ``best`` names the p with the row's highest mean. At p = 1 both methods
    have one value, and the reason says so.
    """
    values = task_values(results)
    variant = variant or next(iter(variants(results)), None)
    chosen = variant_arms(results, variant)
    columns = sorted({arm.p for arm in chosen})
    # A study without weak labels has one row a task, called by what it has.
    methods = {k: name for k, name in METHODS.items() if any(arm.weak == k for arm in chosen)} or {
        "cam": "Full"
    }
    absent = without_expert(results)
    rows = []
    for task, values_C in values.items():
        for method in methods:
            row: dict[str, object] = {"task": task, "method": methods[method], "best": None}
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
                if task == AVERAGE:
                    paper = published.table1_average(results.pathologies, method, p)
                else:
                    paper = published.table1(task, method, p)
                indices = list(arm.indices) if arm else []
                cell, keys = t_interval(values_C[indices]), cell_keys(results, indices)
                row |= grid.value(label(p), cell, paper, reason=reason, cells=keys)
            row["best"] = grid.best_of_row(row)
            rows.append(row)
    return grid.frame(rows)


def without_expert(results: StudyResults) -> list[str]:
    """The pathologies that no expert drew on a test image; none where nothing has been scored."""
    if not len(results.cells):
        return []
    drawn_K = results.counts_CIK3[0, :, :, 2].sum(axis=0) > 0
    return [name for name, drawn in zip(results.pathologies, drawn_K, strict=True) if not drawn]


def cell_keys(results: StudyResults, indices: Iterable[int]) -> str:
    """The way back from a number: the first 12 characters of its cells' keys, with spaces between."""
    keys = _short_keys(results)
    return " ".join(keys[index] for index in indices)


@once
def _short_keys(results: StudyResults) -> list[str]:
    return [key[:12] for key in results.cells["cell"]]


def label(p: float) -> str:
    return f"p={p:g}"


@once
def cells_rows(results: StudyResults) -> pd.DataFrame:
    """One row a cell: its settings, mIoU, mIoU on the selection images, the IoU of each pathology, its key."""
    iou_CK = cell_iou(results)
    miou_C, left_out_C = miou(iou_CK)
    cells = results.cells.reset_index(drop=True)
    frame = cells[
        ["name", "method", "weak", "p", "trial", "init", "weak_images", "fraction"]
    ].copy()
    frame = frame.drop(
        columns=[name for name in ("weak_images", "fraction") if frame[name].isna().all()]
    )
    frame["mIoU"], frame["selection mIoU"] = miou_C, pd.to_numeric(cells["selection_miou"])
    if left_out_C.any():
        frame["left out"] = left_out_C
    for k, name in enumerate(results.pathologies):
        frame[name] = iou_CK[:, k]
    frame["key"] = cells["cell"]
    return frame


@once
def students_rows(results: StudyResults) -> pd.DataFrame:
    """Students against their teacher by fraction of the training images (Figure 3): means, intervals, paired difference.

    The teacher of a student is the fully supervised cell of the same encoder and trial (section 4.2), and of the same of
    whatever else the study varies.
    """
    found, miou_C = arms(results), miou(cell_iou(results))[0]
    full = [arm for arm in found if arm.method == "full"]
    rows = []
    for arm in sorted(
        (a for a in found if a.method == "student"), key=lambda a: (a.init, a.other, a.fraction)
    ):
        teachers = dict(
            pair
            for one in full
            if is_teacher(one, arm)
            for pair in zip(one.trials, miou_C[list(one.indices)], strict=True)
        )
        paired = [
            (miou_C[i], teachers[t])
            for t, i in zip(arm.trials, arm.indices, strict=True)
            if t in teachers
        ]
        row: dict[str, object] = {
            "init": arm.init,
            "settings": beside(arm),
            "fraction": arm.fraction,
        }
        row |= _columns("student", t_interval(miou_C[list(arm.indices)]))
        row |= _columns("teacher", t_interval([teacher for _, teacher in paired]))
        row |= _columns(
            "difference", t_interval([student - teacher for student, teacher in paired])
        )
        row |= {"n": len(arm.indices), "cells": cell_keys(results, arm.indices)}
        row["reason"] = (
            None
            if paired
            else "no fully supervised cell of the same encoder and trial has finished"
        )
        rows.append(row)
    table = pd.DataFrame(rows)
    return (
        table
        if any(row["settings"] for row in rows)
        else table.drop(columns="settings", errors="ignore")
    )


def beside(arm: Arm) -> str:
    """What an arm's study varies beside the settings that have a column of their own."""
    return " ".join(further(arm.other))


def further(other: str) -> list[str]:
    """Of what a study varies, "key=value", that which has no column of its own in `CELL_COLUMNS`."""
    told = ("init", "weak_images", "epochs")
    return [word for word in other.split() if word.partition("=")[0].rpartition(".")[2] not in told]


def is_teacher(arm: Arm, student: Arm) -> bool:
    """Whether a student's teachers are this arm's cells: fully supervised, with all of its settings that both have."""
    alike = arm.init == student.init and same(arm.epochs, student.epochs)
    return arm.method == "full" and alike and set(arm.other.split()) <= set(student.other.split())


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name} low": interval.low, f"{name} high": interval.high}


def stages_rows(results: StudyResults) -> pd.DataFrame:
    """Time by stage, in the order of the data's way: runs, total, median and longest seconds, hosts."""
    rows = []
    rank = {name: index for index, name in enumerate(STAGES)}
    for stage, group in results.stages.groupby("stage"):
        seconds = pd.to_numeric(group["seconds"])
        row = {
            "stage": stage,
            "runs": len(group),
            "total s": seconds.sum(),
            "median s": seconds.median(),
        }
        rows.append(
            row
            | {
                "longest s": seconds.max(),
                "hosts": ", ".join(sorted(set(group["host"].astype(str)))),
            }
        )
    return pd.DataFrame(
        sorted(rows, key=lambda row: (rank.get(row["stage"], len(rank)), row["stage"]))
    )


def missing_rows(results: StudyResults) -> pd.DataFrame:
    """One row for whatever lacks figures: name, state, reason. Cells first, then pathologies, then the radiologists."""
    undefined = [
        {"name": name, "state": "undefined", "reason": NO_EXPERT}
        for name in without_expert(results)
    ]
    if results.radiologists_note:
        state = "left out" if results.radiologists_IK3 is None else "incomplete"
        undefined.append(
            {"name": "radiologists", "state": state, "reason": results.radiologists_note}
        )
    rows = [
        results.missing[["name", "state", "reason"]],
        pd.DataFrame(undefined, columns=["name", "state", "reason"]),
    ]
    return pd.concat([part for part in rows if len(part)] or rows[:1], ignore_index=True)
