"""The rows of Table 2 (weak labels, encoders, numbers of weak images) and of the tables of all arms by pathology."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from chexseg.analysis import published
from chexseg.analysis.published import METHODS, TABLE1
from chexseg.analysis.results import StudyResults, once
from chexseg.analysis.statistics.scores import Arm, arms, cell_iou, miou, t_interval
from chexseg.analysis.tables import grid
from chexseg.analysis.tables.grid import UNFINISHED
from chexseg.analysis.tables.study_tables import (
    beside,
    cell_keys,
    has_table1,
    table1_rows,
    task_values,
    variants,
)
from chexseg.analysis.tables.text import to_terminal

#: Encoders from what has seen least to what has seen most.
INITS = ("random", "imagenet", "moco", "chexpert")


def all_ten(results: StudyResults) -> bool:
    """Whether the study's mean is over the paper's ten pathologies, so that published means may stand beside it."""
    return len(results.pathologies) == len(TABLE1) - 1


def encoder_texts(found: Sequence[Arm]) -> dict[Arm, str]:
    """What each arm's encoder started from, and beside it whatever else differs among arms of the same start."""
    epochs = {arm.epochs for arm in found if not np.isnan(arm.epochs)}
    texts = {}
    for arm in found:
        parts = [
            arm.init,
            *([f"{arm.epochs:g} epochs"] if len(epochs) > 1 else []),
            *beside(arm).split(),
        ]
        texts[arm] = " ".join(parts)
    return texts


def by_init(arm: Arm) -> tuple:
    """Sorts arms by their encoder's start, in the order of `INITS`."""
    rank = INITS.index(arm.init) if arm.init in INITS else len(INITS)
    return rank, arm.init, arm.epochs if not np.isnan(arm.epochs) else 0.0, beside(arm)


def has_table2(results: StudyResults) -> bool:
    """Whether weak arms differ in their encoder or their number of images; if not, Table 1's p = 0 is all there is."""
    return (
        len(
            {
                (arm.init, arm.weak_images, beside(arm))
                for arm in arms(results)
                if arm.method == "weak"
            }
        )
        > 1
    )


@once
def table2_rows(results: StudyResults) -> pd.DataFrame:
    """The paper's Table 2: a row for each kind of weak labels and encoder, a column for each number of weak images.

    Columns: method, encoder, ``best`` (the number with the row's highest mean), and of each number of images those of
    `grid.value`. The published values are means over all ten pathologies, and stand only beside such.
    """
    weak = sorted((arm for arm in arms(results) if arm.method == "weak"), key=by_init)
    miou_C, texts = miou(cell_iou(results))[0], encoder_texts(weak)
    sizes = sorted({arm.weak_images for arm in weak})
    rows = []
    for kind, method in METHODS.items():
        for text in dict.fromkeys(texts[arm] for arm in weak if arm.weak == kind):
            mine = {arm.weak_images: arm for arm in weak if arm.weak == kind and texts[arm] == text}
            init = next(iter(mine.values())).init
            row: dict[str, object] = {"method": method, "encoder": text, "best": None}
            for size in sizes:
                arm = mine.get(size)
                paper = (published.table2(kind, init, int(size)) if all_ten(results) else None) or (
                    None,
                    None,
                )
                cell = t_interval(miou_C[list(arm.indices)] if arm else [])
                keys = cell_keys(results, arm.indices if arm else ())
                row |= grid.value(
                    f"{size:,.0f} images",
                    cell,
                    *paper,
                    reason=None if arm else UNFINISHED,
                    cells=keys,
                )
            row["best"] = grid.best_of_row(row)
            rows.append(row)
    return grid.frame(rows)


@once
def arms_rows(results: StudyResults) -> pd.DataFrame:
    """One row an arm: what it is, its mIoU and the IoU of each pathology; ``best`` names the columns that it leads.

    The number of trials stands in each value's ``n``. Encoder, weak images and settings have a column where they differ.
    """
    found, values = arms(results), task_values(results)
    texts = encoder_texts(found)
    rows = []
    for arm in found:
        images = np.nan if arm.method == "full" or not arm.weak_images else arm.weak_images
        row = {"arm": _name(arm), "encoder": texts[arm], "weak images": images, "best": None}
        for task, values_C in values.items():
            row |= grid.value(
                task, t_interval(values_C[list(arm.indices)]), cells=cell_keys(results, arm.indices)
            )
        rows.append(row)
    grid.best_of_columns(rows)
    table = grid.frame(rows)
    constant = [
        name
        for name in ("encoder", "weak images")
        if len(table) and table[name].dropna().nunique() < 2
    ]
    return table.drop(columns=constant)


def _name(arm: Arm) -> str:
    if arm.method == "full":
        return "full"
    if arm.method == "student":
        return f"student, {100 * arm.fraction:g}% of train"
    return f"{METHODS[arm.weak]}, p = {arm.p:g}"


def terminal(results: StudyResults) -> str:
    """What a study came to, for a terminal: the first variant's Table 1, and how many others there are; all arms where it has
    none."""
    if not has_table1(results):
        return to_terminal(arms_rows(results))
    found = variants(results)
    others = len(found) - 1
    also = (
        f"\n{others} other {'Table 1 is' if others == 1 else 'Tables 1 are'} on the page and in tables/."
        if others
        else ""
    )
    return f"Table 1, {found[0]}\n{to_terminal(table1_rows(results, found[0]))}{also}"
