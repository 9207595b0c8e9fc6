"""Tabulate the classifiers of the observations: their AUROC and their checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from chexseg.analysis.results import Classifier, StudyResults
from chexseg.pathologies import COMPETITION, OBSERVATIONS

MEAN = "Mean"
ONE_CLASS = "only one class is labelled in valid"
#: The use of each stage's classifier.
PURPOSES = {"classify": "weak labels", "pretrain": "encoder"}


def classifier_names(classifiers: Sequence[Classifier]) -> list[str]:
    """Return purpose and architecture of each, with seed and key as far as needed to be unique."""
    names = [f"{PURPOSES[c.stage]}, {c.settings[f'{c.stage}.architecture']}" for c in classifiers]
    seeds = [f"seed {c.settings[f'{c.stage}.seed']}" for c in classifiers]
    for suffixes in (seeds, [c.key[:12] for c in classifiers]):
        names = [
            f"{name}, {suffix}" if names.count(name) > 1 else name
            for name, suffix in zip(names, suffixes, strict=True)
        ]
    return names


def auroc_rows(results: StudyResults) -> pd.DataFrame:
    """Return AUROC on `valid` per observation and classifier; the last row is the mean."""
    names = classifier_names(results.classifiers)
    rows = []
    for task in [*OBSERVATIONS, MEAN]:
        values = [
            _mean_auroc(c) if task == MEAN else c.auroc.get(task) for c in results.classifiers
        ]
        rows.append(
            {
                "observation": task,
                "competition": "yes" if task in (*COMPETITION, MEAN) else "no",
                **{
                    name: np.nan if value is None else float(value)
                    for name, value in zip(names, values, strict=True)
                },
                "reason": ONE_CLASS if None in values else None,
            }
        )
    return pd.DataFrame(rows)


def _mean_auroc(classifier: Classifier) -> float | None:
    """Return the mean AUROC; None if no AUROC is defined, where the stage's mean is 0."""
    values = (classifier.auroc.get(name) for name in COMPETITION)
    return None if all(value is None for value in values) else classifier.mean_auroc


def classifiers_rows(results: StudyResults) -> pd.DataFrame:
    """Return one row per classifier: name, mean AUROC, checkpoint step, steps, images and key."""
    names = classifier_names(results.classifiers)
    return pd.DataFrame(
        [
            {
                "classifier": name,
                "mean AUROC": c.mean_auroc,
                "step": c.step,
                "steps": c.steps,
                "images": c.images,
                "key": c.key,
            }
            for name, c in zip(names, results.classifiers, strict=True)
        ]
    )
