"""Where a number comes from: every run behind a study with its key, settings, inputs, data fingerprint, host and time."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from chexseg.analysis.results import StudyResults, once

COLUMNS = ("stage", "key", "label", "state", "seconds", "host", "data", "inputs", "settings")


@once
def rows(results: StudyResults) -> pd.DataFrame:
    """One row a run of the plan, run or not, with `COLUMNS`; inputs are keys with spaces between, settings are JSON."""
    ran = results.stages.set_index("key").to_dict("index")
    names = dict(zip(results.cells["cell"], results.cells["name"], strict=True))
    known = {run.key: run for run in results.graph.itertuples()}
    out = []
    for key in [*known, *(key for key in ran if key not in known)]:
        run, made = known.get(key), ran.get(key, {})
        stage = run.stage if run else made["stage"]
        label = run.label if run else f"{stage}: {names[key]}" if key in names else stage
        inputs = " ".join(run.inputs) if run else ""
        told = {name: made.get(name) for name in ("seconds", "host", "data", "settings")}
        out.append(
            {
                "stage": stage,
                "key": key,
                "label": label,
                "state": run.state if run else "cached",
                "inputs": inputs,
            }
            | told
        )
    return pd.DataFrame(out, columns=list(COLUMNS))


def embedded(rows: pd.DataFrame) -> dict[str, Any]:
    """Those runs that have run, for the page's script: what all runs of a stage share is written once.

    {"common": stage -> settings, "runs": [[stage, key, label, positions of inputs, other settings, seconds, host, data]]}
    """
    made = rows[rows["settings"].notna()]
    settings = [json.loads(text) for text in made["settings"]]
    common: dict[str, dict[str, Any]] = {}
    for stage, mine in zip(made["stage"], settings, strict=True):
        shared = common.setdefault(stage, dict(mine))
        for name in [
            name for name, value in shared.items() if name not in mine or mine[name] != value
        ]:
            del shared[name]
    position = {key: place for place, key in enumerate(made["key"])}
    runs = []
    for run, mine in zip(made.to_dict("records"), settings, strict=True):
        inputs = [position[key] for key in run["inputs"].split() if key in position]
        own = {name: value for name, value in mine.items() if name not in common[run["stage"]]}
        data = None if pd.isna(run["data"]) else run["data"]
        runs.append(
            [run["stage"], run["key"], run["label"], inputs, own, run["seconds"], run["host"], data]
        )
    return {"common": common, "runs": runs}
