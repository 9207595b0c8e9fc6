"""Prepare the sections on weak labels and on the classifiers they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from chexseg.analysis.classifiers import MEAN
from chexseg.analysis.results import Classifier
from chexseg.analysis.tables.value_table import ValueTable
from chexseg.analysis.weak_label_agreement import LabelSet
from chexseg.report.page import weak_label_overlays
from chexseg.report.page.table_views import AVERAGES, grid
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


def classifiers(table: ValueTable, trained: Mapping[str, Classifier]) -> dict[str, Any]:
    """Return AUROC by observation ("competition" if it chose checkpoints) and classifier.

    trained: column -> its classifier.
    """
    values = table.values
    notes = {
        name: f"step {one.step:,} of {one.steps:,}; {one.images:,} images"
        for name, one in trained.items()
    }
    notes |= dict.fromkeys(values.loc[values["competition"], "observation"], "competition")
    notes[MEAN] = "of the five"
    lacking = values[values["reason"].notna() & ~values["observation"].isin(AVERAGES)]
    return {
        "table": grid(dataclasses.replace(table, keys=("observation",)), notes),
        "reason": next(iter(lacking["reason"]), ""),
        "lacking": lacking["observation"].unique().tolist(),
    }
