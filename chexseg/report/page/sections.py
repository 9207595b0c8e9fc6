"""Prepare what the templates of most sections show, from rows, sentences and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis.claims.headline import ROLES, Headline, verdict
from chexseg.analysis.claims.verdicts import (
    NO_DATA,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    Claim,
)
from chexseg.report.page.table_views import plain, short_keys

#: Verdict -> (mark, CSS class).
MARKS = {REPRODUCED: ("▲", "better"), NOT_REPRODUCED: ("▼", "worse"), UNDECIDED: ("", "")}
#: Columns of the table of comparisons.
COMPARISON_COLUMNS = [
    "claim", "comparison", "claimed", "first", "second", "difference", "difference low",
    "difference high", "relative", "trials", "patients", "p-value", "adjusted p-value",
]  # fmt: skip
#: Longer tables are cut and refer to their CSV file: a browser needs seconds to lay them out.
MOST_ROWS = 500


def claims(all_claims: Sequence[Claim], rows: pd.DataFrame) -> dict[str, Any]:
    """Return the claims with a verdict, their comparisons, and the claims without data.

    rows: `verdicts.claims_rows` of all claims.
    """
    judged = rows.loc[rows["verdict"] != NO_DATA, COMPARISON_COLUMNS]
    relative = [
        "-" if pd.isna(value) else f"{100 * value:+.1f}%".replace("-", "\u2212")
        for value in judged["relative"]
    ]
    return {
        "summary": summary(all_claims),
        "judged": [claim for claim in all_claims if claim.verdict != NO_DATA],
        "lacking": [claim for claim in all_claims if claim.verdict == NO_DATA],
        "comparisons": plain(judged.assign(relative=relative)),
        "marks": MARKS,
    }


def summary(all_claims: Sequence[Claim]) -> str:
    """Return a sentence with the number of claims of each verdict."""
    texts = dict(zip(MARKS, MARKS, strict=True)) | {NO_DATA: "without data here"}
    numbers = Counter(claim.verdict for claim in all_claims)
    parts = [f"{numbers[verdict]} {text}" for verdict, text in texts.items() if numbers[verdict]]
    return f"Of {len(all_claims)} claims of the paper: {', '.join(parts)}."


def result(headline: Headline, rows: pd.DataFrame, keys: Sequence[str]) -> dict[str, Any]:
    """Return the verdict on the paper's order, and the rows of its arms.

    rows: `headline.headline_rows`. keys: those of each row's cells; fewer for the radiologists,
    who have no runs.
    """
    values = rows[["mIoU", "patients high", "paper"]].to_numpy(dtype=float)
    cells = [short_keys(key) for key in keys] + [""] * (len(rows) - len(keys))
    return {
        "sentences": verdict(headline),
        "rows": rows.assign(cells=cells).to_dict("records"),
        "top": 1.08 * float(np.nanmax(values, initial=0.1)),
    }


def figure5(
    figure: go.Figure, points: pd.DataFrame, table: pd.DataFrame, note: str, study: str
) -> dict[str, Any]:
    """Return Figure 5, its table, and the arms that it compares. note: on the radiologists."""
    means = points[points["kind"] == "mean"]
    arms = means[~means["role"].isin(["gap", "radiologists"])].drop_duplicates("role")
    return {
        "panels": {f"{study}--arms": figure},
        "table": plain(table),
        "arms": [(ROLES[row.role], row.description) for row in arms.itertuples()],
        "has_radiologists": bool((means["role"] == "radiologists").any()),
        "note": note,
    }


def cells(rows: pd.DataFrame) -> dict[str, Any]:
    """Return one row per cell; a large study's best cells by mIoU on the selection images."""
    optional = [name for name in ("init", "weak_images", "fraction") if name in rows]
    shown = rows.drop(columns=[name for name in optional if rows[name].nunique() < 2])
    if len(rows) > MOST_ROWS:
        by_selection = shown["selection mIoU"].sort_values(ascending=False, kind="stable")
        shown = shown.loc[by_selection.index[:MOST_ROWS]].sort_index()
    return {"table": plain(shown), "number": len(rows)}


def stages(graph: pd.DataFrame, figure: go.Figure | None) -> dict[str, Any]:
    """Return the graph of all runs, or their counts if they are too many to draw."""
    counts = graph.groupby(["stage", "state"], sort=False).size().rename("runs").reset_index()
    return {"figure": figure, "counts": plain(counts), "runs": len(graph)}


def time(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the run time by stage, and their total."""
    minutes, seconds = divmod(round(float(rows["total s"].sum())), 60)
    total = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    return {"table": plain(rows), "total": total}
