"""Build the graph of a small study's runs: a weak, a full and a student's fit, with scores."""

from __future__ import annotations

import pandas as pd

from chexseg.analysis.results import GRAPH_COLUMNS

RUNS = [
    ("train", "ingest", ()),
    ("valid", "ingest", ()),
    ("test", "ingest", ()),
    ("classifier", "classify", ("train", "valid")),
    ("maps", "saliency", ("train", "valid", "classifier")),
    ("weak", "fit", ("valid", "train", "maps")),
    ("full", "fit", ("valid",)),
    ("logits", "distil", ("train", "full")),
    ("student", "fit", ("valid", "train", "logits")),
    *((f"{fit} scores", "score", ("test", fit)) for fit in ("weak", "full", "student")),
]


def graph(states: dict[str, str] | None = None) -> pd.DataFrame:
    rows = [
        (key, stage, key, (states or {}).get(key, "cached"), 60.0, inputs)
        for key, stage, inputs in RUNS
    ]
    return pd.DataFrame(rows, columns=list(GRAPH_COLUMNS))
