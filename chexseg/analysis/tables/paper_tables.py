"""Compute the paper's tables for a study: Table 1, Table 2, all arms, students, radiologists.

Also the rows of the baselines, which stand below those of the arms.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis import published
from chexseg.analysis.arms import Arm, Variant, by_init, encoder_texts, teachers
from chexseg.analysis.published import METHODS
from chexseg.analysis.statistics.crossed import by_draw
from chexseg.analysis.statistics.scores import (
    NO_INTERVAL,
    Interval,
    miou,
    pooled_iou,
    t_interval,
)
from chexseg.analysis.study_scores import StudyScores
from chexseg.analysis.tables.value_table import (
    NO_EXPERT,
    SHARED,
    UNFINISHED,
    ValueTable,
    number,
    value_table,
    without_constant_keys,
)

NO_TEACHER = "no fully supervised cell of the same encoder and trial has finished"


def table1(scores: StudyScores, variant: Variant) -> ValueTable:
    """Return the paper's Table 1 of a variant: a row per task and method, a column per p.

    At p = 1 both methods share one value; its reason in the second row is `SHARED`.
    """
    arms, pathologies = variant.arms, scores.results.pathologies
    # A study without weak labels has one row per task.
    methods = {k: name for k, name in METHODS.items() if any(arm.weak == k for arm in arms)} or {
        "cam": "Full"
    }
    rows = []
    for task, values_C in scores.values.items():
        for position, method in enumerate(methods):
            for p in sorted({arm.p for arm in arms}):
                at_p = [arm for arm in arms if arm.p == p]
                arm = next((a for a in at_p if a.weak == method or a.method == "full"), None)
                reason = UNFINISHED if arm is None else None
                reason = NO_EXPERT if task in scores.without_expert else reason
                reason = SHARED if p == 1 and position else reason
                paper = None
                if scores.beside_paper:
                    paper = published.table1(task, method, p, pathologies)
                row = {"task": task, "method": methods[method], "p": p}
                rows.append(row | _number(scores, values_C, arm, paper, reason=reason))
    return value_table(rows, ("task", "method"), "p", "row", "Table 1", "p={:g}")


def _number(
    scores: StudyScores,
    values_C: np.ndarray,
    arm: Arm | None,
    paper: float | None = None,
    paper_half: float | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """Return an arm's mean over trials with its t-interval, as columns of a value table."""
    interval = arm.over_trials(values_C) if arm else NO_INTERVAL
    keys = scores.cell_keys(arm.indices) if arm else ""
    return number(interval, paper, paper_half, reason, keys)


def has_table2(scores: StudyScores) -> bool:
    """Return whether weak arms vary in encoder or images; otherwise Table 1's p = 0 suffices."""
    return len({(arm.init, arm.weak_images, *arm.further) for arm in scores.of("weak")}) > 1


def table2(scores: StudyScores) -> ValueTable:
    """Return the paper's Table 2: mIoU by weak labels, encoder and number of weak images.

    Published values are means over all ten pathologies, and are given only for studies of all ten.
    """
    weak = sorted(scores.of("weak"), key=by_init)
    texts = encoder_texts(weak)
    sizes = sorted({arm.weak_images for arm in weak})
    rows = []
    for kind, method in METHODS.items():
        by_text: dict[str, dict[float, Arm]] = {}
        for arm in [arm for arm in weak if arm.weak == kind]:
            by_text.setdefault(texts[arm], {})[arm.weak_images] = arm
        for text, by_size in by_text.items():
            init = next(iter(by_size.values())).init
            for size in sizes:
                of_size = by_size.get(size)
                printed = published.table2(kind, init, int(size)) if scores.all_ten else None
                paper, half = printed or (None, None)
                reason = None if of_size else UNFINISHED
                row = {"method": method, "encoder": text, "weak images": size}
                rows.append(row | _number(scores, scores.miou_C, of_size, paper, half, reason))
    keys = ("method", "encoder")
    return value_table(rows, keys, "weak images", "row", "Table 2", "{:,.0f} images")


def arms_table(scores: StudyScores) -> ValueTable:
    """Return mIoU and the IoU of each pathology of every arm.

    Encoder and weak images are keys if they vary. With other settings that vary, the first key is
    "settings", and has an encoder's start only if that varies too.
    """
    inits = {arm.init for arm in scores.arms}
    settings = "settings" if any(arm.further for arm in scores.arms) else "encoder"
    rows = []
    for arm, text in encoder_texts(scores.arms).items():
        if settings == "settings" and len(inits) == 1:
            text = text.removeprefix(arm.init).lstrip() or "-"
        images = np.nan if arm.method == "full" or not arm.weak_images else arm.weak_images
        keys = {"arm": arm.name, settings: text, "weak images": images}
        for task, values_C in scores.values.items():
            rows.append(keys | {"pathology": task} | _number(scores, values_C, arm))
    table = value_table(rows, ("arm", settings, "weak images"), "pathology", "column")
    return without_constant_keys(table, (settings, "weak images"))


def baselines_table(scores: StudyScores, arms: ValueTable) -> ValueTable | None:
    """Return mIoU and the IoU of each pathology of every baseline, with the keys of `arms`.

    arms: from `arms_table`. Baselines have no trials, so no intervals, and are never marked best.
    """
    rows = []
    for name, counts_IK3 in scores.results.baselines.items():
        iou_K = pooled_iou(counts_IK3, require_expert=True)
        keys = {"arm": name, "encoder": "-", "settings": "-", "weak images": np.nan}
        keys = {key: keys[key] for key in arms.keys}
        for task, value in zip(scores.values, [miou(iou_K)[0], *iou_K], strict=True):
            rows.append(keys | {"pathology": task} | number(t_interval([value])))
    return value_table(rows, arms.keys, "pathology") if rows else None


def students_table(scores: StudyScores) -> ValueTable:
    """Return students against their teachers by fraction of the training images (Figure 3).

    The teacher of a student is the fully supervised cell of the same encoder, trial (section 4.2)
    and other varied settings; the difference is paired by trial.
    """
    miou_C = scores.miou_C
    students = sorted(scores.of("student"), key=lambda a: (a.init, a.other, a.fraction))
    rows = []
    for arm, full in teachers(students, scores.of("full")).items():
        taught = {
            trial: index
            for teacher in full
            for trial, index in zip(teacher.trials, teacher.indices, strict=True)
        }
        indices = dict(zip(arm.trials, arm.indices, strict=True))
        paired = [trial for trial in arm.trials if trial in taught]
        students_P = [indices[trial] for trial in paired]
        teachers_P = [taught[trial] for trial in paired]
        keys = {"init": arm.init, "settings": " ".join(arm.further), "fraction": arm.fraction}
        reason = None if paired else NO_TEACHER
        difference = t_interval(by_draw(miou_C[students_P] - miou_C[teachers_P], paired))
        of_teachers = t_interval(by_draw(miou_C[teachers_P], paired), lowest=0)
        rows += [
            keys | {"series": series} | columns
            for series, columns in (
                ("student", _number(scores, miou_C, arm)),
                ("teacher", number(of_teachers, None, None, reason, scores.cell_keys(teachers_P))),
                ("difference", number(difference, reason=reason)),
            )
        ]
    table = value_table(rows, ("init", "settings", "fraction"), "series")
    vary = any(row["settings"] for row in rows)
    return table if vary else without_constant_keys(table, ["settings"])


def radiologists_table(points: pd.DataFrame) -> ValueTable:
    """Return the means of `figure5.points` as a table of tasks by role.

    Intervals are over patients, trials averaged; n is the number of patients with an expert pixel.
    "gap" is CheXseg minus radiologists, "relative %" the gap relative to the radiologists.
    """
    rows = []
    for task, group in points[points["kind"] == "mean"].groupby("task", sort=False):
        means = {row.role: row for row in group.itertuples()}
        rows += [
            {"task": task, "series": row.name}
            | number(Interval(row.value, row.low, row.high, row.n), cells=row.cells)
            for role, row in means.items()
        ]
        if "gap" in means:
            gap, readers = means["gap"].value, means["radiologists"].value
            relative = 100 * gap / readers if readers > 0 else np.nan
            interval = Interval(relative, np.nan, np.nan, means["gap"].n)
            rows.append({"task": task, "series": "relative %"} | number(interval))
    return value_table(rows, ("task",), "series")
