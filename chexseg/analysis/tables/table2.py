"""Compute Table 2 (weak labels, encoders, numbers of weak images) and the tables of all arms."""

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
    further,
    has_table1,
    table1_rows,
    task_values,
    variants,
)
from chexseg.analysis.tables.text import to_terminal

#: Encoders in the order of their training data.
INITS = ("random", "imagenet", "moco", "chexpert")


def all_ten(results: StudyResults) -> bool:
    """Return whether the study has the paper's ten pathologies, so that means are comparable."""
    return len(results.pathologies) == len(TABLE1) - 1


def encoder_texts(chosen: Sequence[Arm]) -> dict[Arm, str]:
    """Return arm -> its encoder's start and the other settings that vary."""
    varied_epochs = len({arm.epochs for arm in chosen if not np.isnan(arm.epochs)}) > 1
    return {
        arm: " ".join(
            [
                arm.init,
                *([f"{arm.epochs:g} epochs"] if varied_epochs else []),
                *further(arm.other),
            ]
        )
        for arm in chosen
    }


def by_init(arm: Arm) -> tuple[int, str, float, str]:
    """Return a sort key: the encoder's start in the order of `INITS`, then the other settings."""
    rank = INITS.index(arm.init) if arm.init in INITS else len(INITS)
    return rank, arm.init, arm.epochs if not np.isnan(arm.epochs) else 0.0, beside(arm)


def has_table2(results: StudyResults) -> bool:
    """Return whether weak arms vary in encoder or images; otherwise Table 1's p = 0 suffices."""
    weak = [arm for arm in arms(results) if arm.method == "weak"]
    return len({(arm.init, arm.weak_images, beside(arm)) for arm in weak}) > 1


@once
def table2_rows(results: StudyResults) -> pd.DataFrame:
    """Return the paper's Table 2: kinds of weak labels and encoders by numbers of weak images.

    Columns: method, encoder, ``best`` (the number of images with the row's highest mean), and for
    each number of images those of `grid.value`. Published values are means over all ten
    pathologies, and are given only for studies of all ten.
    """
    weak = sorted((arm for arm in arms(results) if arm.method == "weak"), key=by_init)
    miou_C, texts = miou(cell_iou(results))[0], encoder_texts(weak)
    sizes = sorted({arm.weak_images for arm in weak})
    rows = []
    for kind, method in METHODS.items():
        for text in dict.fromkeys(texts[arm] for arm in weak if arm.weak == kind):
            by_size = {
                arm.weak_images: arm for arm in weak if arm.weak == kind and texts[arm] == text
            }
            init = next(iter(by_size.values())).init
            row: grid.Row = {"method": method, "encoder": text, "best": None}
            for size in sizes:
                arm = by_size.get(size)
                table2 = published.table2(kind, init, int(size)) if all_ten(results) else None
                paper, paper_half = table2 or (None, None)
                indices = list(arm.indices) if arm else []
                row |= grid.value(
                    f"{size:,.0f} images",
                    t_interval(miou_C[indices]),
                    paper,
                    paper_half,
                    None if arm else UNFINISHED,
                    cell_keys(results, indices),
                )
            row["best"] = grid.best_of_row(row)
            rows.append(row)
    return grid.frame(rows)


@once
def arms_rows(results: StudyResults) -> pd.DataFrame:
    """Return one row per arm: name, mIoU and the IoU of each pathology.

    ``best`` lists the columns that the arm leads. The number of trials is each value's ``n``.
    Encoder (with other settings) and weak images are columns if they vary.
    """
    values, texts = task_values(results), encoder_texts(arms(results))
    rows: list[grid.Row] = []
    for arm, text in texts.items():
        images = np.nan if arm.method == "full" or not arm.weak_images else arm.weak_images
        row = {"arm": _name(arm), "encoder": text, "weak images": images, "best": None}
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
    return f"{METHODS[str(arm.weak)]}, p = {arm.p:g}"


def terminal(results: StudyResults) -> str:
    """Return a study's result for a terminal: the first variant's Table 1, or else all arms."""
    if not has_table1(results):
        return to_terminal(arms_rows(results))
    first, *others = variants(results)
    text = f"Table 1, {first}\n{to_terminal(table1_rows(results, first))}"
    if others:
        text += f"\n{len(others)} other {'Table 1 is' if len(others) == 1 else 'Tables 1 are'}"
        text += " on the page and in tables/."
    return text
