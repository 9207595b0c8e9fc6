"""Figure 3: students by fraction of training images, beside their teachers, by encoder init."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.report.figures.parts import (
    Canvas,
    bars,
    category_axis,
    interval_texts,
    iou_axis,
    top,
)
from chexseg.report.palette import COLOURS, SYMBOLS

#: Horizontal distance between students of one fraction that differ in other settings.
DODGE = 0.16
STUDENT_SYMBOLS = (SYMBOLS["student"], "triangle-up", "square", "cross", "pentagon")


def figure3(rows: pd.DataFrame, init: str, letter: str = "", legend: bool = True) -> go.Figure:
    """Draw one panel of `figure3_rows`. All panels have equal axes, so they can be compared."""
    fractions = sorted(rows["fraction"].dropna().unique())
    ends = [-0.6, max(0, len(fractions) - 1) + 0.6]
    panel, canvas = rows[rows["init"] == init], Canvas(legend)
    for row in panel[(panel["method"] == "full") & (panel["kind"] == "mean")].to_dict("records"):
        interval = "" if np.isnan(row["low"]) else f"[{row['low']:.3f}, {row['high']:.3f}] "
        label = f"teacher {row['settings']}".strip()
        if interval:
            canvas.add(
                "teacher",
                "teacher, 95%",
                x=[*ends, *ends[::-1]],
                y=[row["low"]] * 2 + [row["high"]] * 2,
                mode="lines",
                fill="toself",
                fillcolor="rgba(0,158,115,0.13)",
                line={"width": 0},
                hoverinfo="skip",
            )
        canvas.add(
            "teacher",
            label,
            "full",
            x=ends,
            y=[row["value"]] * 2,
            mode="lines",
            line={"color": COLOURS["full"], "width": 2, "dash": "dash"},
            hovertemplate=f"{label}: %{{y:.3f}} {interval}n = {row['n']}<extra></extra>",
        )
    for kind, dash in (("paper", "dot"), ("poster", "dashdot")):
        for value in panel.loc[panel["kind"] == kind, "value"]:
            canvas.add(
                "paper",
                f"{kind}, teacher",
                "full",
                x=ends,
                y=[value] * 2,
                mode="lines",
                opacity=0.5,
                line={"color": COLOURS["full"], "width": 1, "dash": dash},
                hovertemplate=f"{kind}, teacher: %{{y:.3f}}<extra></extra>",
            )
    # The order is the same in all panels, so a setting keeps its symbol and its offset.
    settings = list(dict.fromkeys(rows.loc[rows["method"] == "student", "settings"]))
    for number, setting in enumerate(settings):
        shift = DODGE * (number - (len(settings) - 1) / 2)
        symbol = STUDENT_SYMBOLS[number % len(STUDENT_SYMBOLS)]
        of_setting = panel[(panel["method"] == "student") & (panel["settings"] == setting)]
        label = f"student {setting}".strip()
        for kind in ("mean", "trial"):
            chosen = of_setting[of_setting["kind"] == kind]
            if not len(chosen):
                continue
            x = [
                fractions.index(fraction) + shift + 0.07 * (kind == "trial")
                for fraction in chosen["fraction"]
            ]
            share = [f"{100 * fraction:g}%" for fraction in chosen["fraction"]]
            if kind == "mean":
                canvas.add(
                    "student",
                    label,
                    "student",
                    x=x,
                    y=chosen["value"].tolist(),
                    mode="lines+markers",
                    line={"color": COLOURS["student"], "width": 2},
                    marker={"symbol": symbol, "size": 9},
                    error_y=bars(chosen),
                    customdata=[
                        list(pair)
                        for pair in zip(share, interval_texts(chosen), chosen["cells"], strict=True)
                    ],
                    hovertemplate=f"{label}, %{{customdata[0]}} of train: %{{y:.3f}} "
                    "%{customdata[1]}<extra></extra>",
                )
            else:
                canvas.trials(chosen, x, "student")
    axis = category_axis(
        "fraction of the training images", [f"{100 * fraction:g}%" for fraction in fractions]
    )
    return canvas.framed(f"encoder {init}", letter, xaxis=axis, yaxis=iou_axis("mIoU", top(rows)))
