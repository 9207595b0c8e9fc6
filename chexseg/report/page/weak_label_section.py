"""Prepare the sections on weak labels and on the classifiers they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from chexseg.analysis.results import Classifier
from chexseg.analysis.tables.value_table import ValueTable
from chexseg.analysis.weak_label_agreement import LabelSet
from chexseg.report.page import table_views, weak_label_overlays
from chexseg.report.page.weak_label_overlays import HEAT


def weak_labels(
    sets: Sequence[tuple[LabelSet, pd.DataFrame, list[str]]],
    absent: Sequence[tuple[str, str]],
    pathologies: tuple[str, ...],
) -> dict[str, Any]:
    """Return tables and sentences of all label sets, and the overlays of the first.

    sets: labels, their rows and their sentences (`weak_label_agreement.rows` and `sentences`).
    absent: kinds without results, with the reason.
    """
    image = sets[0][0].labels[0].image if sets else None
    blocks = weak_label_overlays.blocks(sets[0][0], pathologies, image) if image else []
    drawn = [block.pathology for block in blocks]
    return {
        "sets": [
            {
                "text": labels.text,
                "sentences": sentences,
                "groups": [
                    group.to_dict("records") for _, group in rows.groupby("pathology", sort=False)
                ],
                "partly": bool((rows["images"] > rows["held-out images"]).any()),
            }
            for labels, rows, sentences in sets
        ],
        "absent": absent,
        "has_images": image is not None,
        "blocks": blocks,
        "undrawn": [name for name in pathologies if name not in drawn],
        "heat": [f"rgb{colour}" for colour in HEAT[::10]],
    }


def classifiers(
    table: ValueTable, trained: dict[str, Classifier], competition: Sequence[str]
) -> dict[str, Any]:
    """Return the AUROC of each observation, one column per classifier.

    trained: column -> its classifier. competition: the five observations that chose checkpoints.
    """
    notes = {
        name: f"step {one.step:,} of {one.steps:,}; {one.images:,} images"
        for name, one in trained.items()
    }
    lacking = table.values[table.values["reason"].notna()]
    return {
        "table": table_views.grid(table, notes | dict.fromkeys(competition, "competition")),
        "reason": next(iter(lacking["reason"]), ""),
        "lacking": [
            name
            for name in dict.fromkeys(lacking[table.keys[0]])
            if name not in table_views.AVERAGES
        ],
    }
