"""Figure 4: full (a) and weak supervision (b), by encoder initialization."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis import published
from chexseg.analysis.published import METHODS
from chexseg.analysis.results import StudyResults, once
from chexseg.analysis.statistics.scores import arms, cell_iou, miou
from chexseg.analysis.tables.table2 import all_ten, by_init, encoder_texts
from chexseg.report.figures.parts import (
    POINT_COLUMNS,
    Canvas,
    bars,
    category_axis,
    interval_texts,
    iou_axis,
    points,
    published_full,
    published_point,
    top,
)
from chexseg.report.palette import COLOURS, SYMBOLS

#: Horizontal distance between the methods of one encoder.
DODGE = 0.22
MOST_ENCODERS = 24


@once
def figure4_rows(results: StudyResults) -> pd.DataFrame:
    """Return mIoU of fully and weakly supervised arms, one row per point.

    Columns: encoder, method ("full" or a kind of weak labels), images (the number of weak images;
    0 for "full"), then `parts.POINT_COLUMNS`. Published values are means over all ten pathologies,
    so they are added only to studies of all ten.
    """
    shown = sorted((arm for arm in arms(results) if arm.method in ("weak", "full")), key=by_init)
    miou_C = miou(cell_iou(results))[0]
    texts = encoder_texts([arm for arm in shown if arm.method == "full"])
    texts |= encoder_texts([arm for arm in shown if arm.method == "weak"])
    rows: list[dict[str, Any]] = []
    for arm in shown:
        images = 0 if arm.method == "full" else int(arm.weak_images)
        fields = {"encoder": texts[arm], "method": arm.weak or "full", "images": images}
        rows += points(results, miou_C, arm, fields)
        if not all_ten(results):
            continue
        if arm.weak and (entry := published.table2(arm.weak, arm.init, images)):
            rows.append(published_point("paper", entry[0], fields, entry[1]))
        if arm.method == "full" and arm.init == "chexpert":
            rows += published_full(fields)
    return pd.DataFrame(rows, columns=["encoder", "method", "images", *POINT_COLUMNS])


def figure4_panels(rows: pd.DataFrame) -> tuple[int, ...]:
    """Return the numbers of weak images, one panel each; 0 is full supervision.

    Only those with 2 to `MOST_ENCODERS` encoders.
    """
    number = rows[rows["kind"] == "mean"].groupby("images")["encoder"].nunique()
    return tuple(
        int(images) for images in sorted(number.index) if 1 < number[images] <= MOST_ENCODERS
    )


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
