"""Training curves of networks, and ROC curves of classifiers."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.classifiers import PURPOSES
from chexseg.analysis.published import METHODS
from chexseg.drawing.palette import COLOURS, GREY, SYMBOLS, css_name
from chexseg.report.figures.theme import themed

#: Kind of a training -> column of the curves -> title of its panel.
TITLES = {
    "fit": {
        "loss": "loss, mean of an epoch",
        "score": "mIoU on the selection images",
        "learning rate": "learning rate, at the end of an epoch",
    },
    "classifier": {
        "loss": "loss, running mean",
        "score": "mean AUROC on valid",
        "learning rate": "learning rate",
    },
    "moco": {
        "loss": "MoCo: loss, running mean",
        "score": "MoCo: accuracy of the pretext task, running mean",
        "learning rate": "MoCo: learning rate",
    },
    "irnet": {
        "loss": "IRNet: loss, mean of a hundredth of the steps",
        "learning rate": "IRNet: learning rate",
    },
}
#: Stage of a classifier -> name of its series' look, and the dash of its curves.
STAGES = {"classify": ("cam", "solid"), "pretrain": ("baseline", "dash")}
#: Stage of another training -> its series' look and name.
PREPARING = {"moco": ("baseline", "encoder: MoCo"), "irnet": ("irnet", "weak labels: IRNet")}
KEPT, OTHERS = 9, 3  # sizes of marks, pixels


def kinds_of(curves: pd.DataFrame) -> pd.Series:
    """Return the kind of training (`TITLES`) of each row."""
    return curves["stage"].replace(dict.fromkeys(STAGES, "classifier"))


def panels(curves: pd.DataFrame, roc: pd.DataFrame, legend: bool = True) -> dict[str, go.Figure]:
    """Return file name -> panel of the rows of `points.training`, as far as there are any."""
    figures = {}
    kinds = kinds_of(curves)
    for kind, titles in TITLES.items():
        rows = curves[kinds == kind]
        for column, title in titles.items():
            # A constant says more in a sentence than as a line.
            if rows[column].nunique() > (column == "learning rate"):
                name = f"training-{kind}-{column.replace(' ', '-')}"
                figures[name] = _curves(rows, column, title, legend)
    for observation, rows in roc.groupby("observation", sort=False):
        name = str(observation).lower().replace(" ", "-")
        figures[f"roc-{name}"] = _roc(rows, str(observation), legend)
    return figures


def _curves(rows: pd.DataFrame, column: str, title: str, legend: bool) -> go.Figure:
    """Draw a line per training; the mark of the weights that were kept is large."""
    drawn = []
    for _, one in rows.dropna(subset=column).groupby("key", sort=False):
        first = one.iloc[0]
        unit = "epoch" if first["stage"] == "fit" else "step"
        values = zip(one["step"], one[column], one["kept"], strict=True)
        look = {
            "mode": "lines+markers",
            "line_width": 1.2,
            "marker_size": one["kept"].map({True: KEPT, False: OTHERS}).tolist(),
            "hovertext": [
                f"{first['name']}, {unit} {step:,}: {value:.4g}{', kept' * kept}"
                for step, value, kept in values
            ],
        }
        drawn.append(
            _trace(first["stage"], first["method"], one["step"], one[column])
            | look
            | {"customdata": [first["key"][:12]] * len(one)}
        )
    of_fits = (rows["stage"] == "fit").all()
    whole = max(1, round(rows["step"].max() / 8))  # epochs and steps have no fractions
    return themed(
        drawn,
        title,
        legend=legend,
        xaxis={"title_text": "epoch" if of_fits else "optimiser step", "dtick": whole},
        yaxis={"rangemode": "normal" if column == "loss" else "tozero"},
    )


def _roc(rows: pd.DataFrame, observation: str, legend: bool) -> go.Figure:
    """Draw an observation's ROC curve of each classifier, and the diagonal of chance."""
    chance = {"mode": "lines", "x": [0, 1], "y": [0, 1], "hoverinfo": "skip", "opacity": 0.6}
    drawn: list[dict[str, Any]] = [
        chance | {"name": None, "line": {"width": 1, "dash": "dot", "color": GREY}}
    ]
    for row in rows.itertuples():
        text = f"{row.name}: AUROC {row.auroc:.3f}"
        drawn.append(
            _trace(row.stage, "", row.false, row.true)
            | {"mode": "lines", "line_width": 1.6, "line_dash": STAGES[row.stage][1]}
            | {"hovertext": [text] * len(row.false)}
        )
    areas = " and ".join(f"{area:.2f}" for area in rows["auroc"].head(3))
    return themed(
        drawn,
        f"{observation}, AUROC {areas}" + " …" * (len(rows) > 3),
        legend=legend,
        xaxis={"title_text": "false positive rate", "range": [0, 1], "tickformat": ".1f"},
        yaxis={"title_text": "true positive rate", "range": [0, 1.02], "tickformat": ".1f"},
    )


def _trace(stage: str, method: str, x: Any, y: Any) -> dict[str, Any]:
    """Return the series of a training: a fit's by method, any other's by its purpose."""
    if stage == "fit":
        names = METHODS | {"full": "full supervision", "baseline": "other"}
        look, name = method, names.get(method, method)
    elif stage in STAGES:
        look, name = STAGES[stage][0], f"classifier: {PURPOSES[stage]}"
    else:
        look, name = PREPARING[stage]
    return {
        "name": name,
        # IRNet's own curve isn't that of a fit with its labels: one switch hides one of them.
        "legendgroup": method if stage == "fit" else f"stage {stage}",
        "meta": css_name(look),
        "marker_color": COLOURS[look],
        "line_color": COLOURS[look],
        "marker_symbol": SYMBOLS[look],
        "x": list(x),
        "y": list(y),
    }
