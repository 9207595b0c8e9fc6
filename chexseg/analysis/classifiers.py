"""Tabulate the classifiers of the observations: their AUROC and their checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from chexseg.analysis.results import Classifier
from chexseg.analysis.statistics.scores import Interval
from chexseg.analysis.tables.value_table import ValueTable, number, value_table
from chexseg.pathologies import COMPETITION, OBSERVATIONS

MEAN = "Mean"
ONE_CLASS = "only one class is labelled in valid"
#: The use of each stage's classifier.
PURPOSES = {"classify": "weak labels", "pretrain": "encoder"}


def classifier_names(classifiers: Sequence[Classifier]) -> list[str]:
    """Return purpose and architecture of each, with seed and key as far as needed to be unique.

    By study: its AUROC is over studies, not over images.
    """
    names = [
        f"{PURPOSES[c.stage]}, {c.settings[f'{c.stage}.architecture']}"
        + ", by study" * (c.settings.get(f"{c.stage}.auroc_over") == "studies")
        for c in classifiers
    ]
    seeds = [f"seed {c.settings[f'{c.stage}.seed']}" for c in classifiers]
    for suffixes in (seeds, [c.key[:12] for c in classifiers]):
        names = [
            f"{name}, {suffix}" if names.count(name) > 1 else name
            for name, suffix in zip(names, suffixes, strict=True)
        ]
    return names


def auroc_table(classifiers: Sequence[Classifier]) -> ValueTable:
    """Return AUROC on `valid` by observation and classifier; the last row is the mean."""
    names = classifier_names(classifiers)
    rows = []
    for task in [*OBSERVATIONS, MEAN]:
        keys = {"observation": task, "competition": task in (*COMPETITION, MEAN)}
        for name, classifier in zip(names, classifiers, strict=True):
            value = _mean_auroc(classifier) if task == MEAN else classifier.auroc.get(task)
            interval = Interval(np.nan if value is None else float(value), np.nan, np.nan, 1)
            reason = ONE_CLASS if value is None else None
            rows.append(keys | {"classifier": name} | number(interval, reason=reason))
    return value_table(rows, ("observation", "competition"), "classifier")


def _mean_auroc(classifier: Classifier) -> float | None:
    """Return the mean AUROC; None if no AUROC is defined, where the stage's mean is 0."""
    values = (classifier.auroc.get(name) for name in COMPETITION)
    return None if all(value is None for value in values) else classifier.mean_auroc


def classifiers_rows(classifiers: Sequence[Classifier]) -> pd.DataFrame:
    """Return one row per classifier: name, mean AUROC, checkpoint step, steps, images and key."""
    rows = [
        (name, c.mean_auroc, c.step, c.steps, c.images, c.key)
        for name, c in zip(classifier_names(classifiers), classifiers, strict=True)
    ]
    return pd.DataFrame(
        rows, columns=["classifier", "mean AUROC", "step", "steps", "images", "key"]
    )
