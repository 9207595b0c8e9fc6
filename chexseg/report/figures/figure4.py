"""Figure 4: full (a) and weak supervision (b), by encoder initialization."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.published import METHODS
from chexseg.report.figures.parts import (
    Canvas,
    bars,
    category_axis,
    interval_texts,
    iou_axis,
    top,
)
from chexseg.report.palette import COLOURS, SYMBOLS

#: Horizontal distance between the methods of one encoder.
DODGE = 0.22


def figure4(rows: pd.DataFrame, images: int, letter: str = "", legend: bool = True) -> go.Figure:
    """Draw one panel of `figure4_rows`: the encoders side by side. Weak panels have equal axes."""
    rows = rows[rows["images"] > 0] if images else rows[rows["images"] == 0]
    encoders = list(dict.fromkeys(rows["encoder"]))
    methods = [name for name in [*METHODS, "full"] if (rows["method"] == name).any()]
    panel, canvas = rows[rows["images"] == images], Canvas(legend)
    for number, method in enumerate(methods):
        shift = DODGE * (number - (len(methods) - 1) / 2)
        of_method = panel[panel["method"] == method]
        text = METHODS.get(method, "full")
        positions = [encoders.index(encoder) + shift for encoder in of_method["encoder"]]
        canvas.published(of_method, [x - 0.07 for x in positions], method, text)
        for kind in ("mean", "trial"):
            chosen = (of_method["kind"] == kind).to_numpy()
            ours = of_method[chosen]
            if not len(ours):
                continue
            x = np.asarray(positions)[chosen] + 0.07 * (kind == "trial")
            if kind == "mean":
                canvas.add(
                    method,
                    text,
                    method,
                    x=x.tolist(),
                    y=ours["value"].tolist(),
                    mode="markers",
                    marker={"symbol": SYMBOLS[method], "size": 9, "color": COLOURS[method]},
                    error_y=bars(ours),
                    customdata=[
                        list(pair)
                        for pair in zip(
                            ours["encoder"], interval_texts(ours), ours["cells"], strict=True
                        )
                    ],
                    hovertemplate=f"{text}, encoder %{{customdata[0]}}: %{{y:.3f}} "
                    "%{customdata[1]}<extra></extra>",
                )
            else:
                canvas.trials(ours, x.tolist(), method)
    title = f"weak supervision, {images:,} images" if images else "full supervision"
    axis = category_axis(
        "encoder initialization", [encoder.replace(" ", "<br>") for encoder in encoders]
    )
    return canvas.framed(title, letter, xaxis=axis, yaxis=iou_axis("mIoU", top(rows)))
