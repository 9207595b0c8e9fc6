"""Training curves of networks, and ROC curves of classifiers, as points."""

from __future__ import annotations

import numpy as np
import pandas as pd

from chexseg.analysis.classifiers import classifier_names
from chexseg.analysis.results import StudyResults

ROC_COLUMNS = ("observation", "stage", "name", "auroc", "false", "true")
#: Points of a ROC curve: more can't be told apart in a small panel.
MOST_POINTS = 100


def curves(results: StudyResults) -> pd.DataFrame:
    """Return `StudyResults.curves` with a column method: a fit's kind of weak labels or its method.

    Fits whose cell has no scores yet have the method "baseline". The name of a classifier is that
    of its AUROC.
    """
    cells = results.cells
    methods = dict(zip(cells["name"], cells["weak"].fillna(cells["method"]), strict=True))
    methods["untrained"] = "baseline"
    names = _names(results)
    rows = results.curves
    method = rows["name"].map(methods).fillna("baseline").mask(rows["stage"] == "classify", "cam")
    method = method.mask(rows["stage"] == "irnet", "irnet")
    return rows.assign(
        name=[names.get(row.key, row.name) for row in rows.itertuples(index=False)], method=method
    )


def roc(results: StudyResults) -> pd.DataFrame:
    """Return one row per curve: false and true positive rates, at most `MOST_POINTS` of each."""
    names = _names(results)
    rows = [
        (name, one.stage, names[one.key], one.auroc[name], *map(_thinned, rates))
        for one in results.classifiers
        for name, rates in one.roc.items()
    ]
    return pd.DataFrame(rows, columns=list(ROC_COLUMNS))


def _names(results: StudyResults) -> dict[str, str]:
    names = classifier_names(results.classifiers)
    return {one.key: name for one, name in zip(results.classifiers, names, strict=True)}


def _thinned(values: list[float]) -> list[float]:
    chosen = np.unique(np.linspace(0, len(values) - 1, MOST_POINTS).round().astype(int))
    return [round(values[n], 4) for n in chosen]
