"""The runs behind a study's numbers: key, settings, inputs, data fingerprint, host and time."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from chexseg.analysis.results import StudyResults
from chexseg.report.page.table_views import plain

#: With more runs, the page has no settings: they would take more than a megabyte.
MOST_EMBEDDED = 5000
COLUMNS = ("stage", "key", "label", "state", "seconds", "host", "data", "inputs", "settings")


def rows(results: StudyResults) -> pd.DataFrame:
    """Return one row per run of the plan, finished or not, with `COLUMNS`.

    inputs: keys separated by spaces. settings: JSON.
    """
    finished = results.stages.set_index("key").to_dict("index")
    names = dict(zip(results.cells["cell"], results.cells["name"], strict=True))
    planned = {run.key: run for run in results.graph.itertuples()}
    table = []
    for key in dict.fromkeys([*planned, *finished]):
        run, record = planned.get(key), finished.get(key, {})
        stage = run.stage if run else record["stage"]
        label = run.label if run else f"{stage}: {names[key]}" if key in names else stage
        table.append(
            {
                "stage": stage,
                "key": key,
                "label": label,
                "state": run.state if run else "cached",
                "inputs": " ".join(run.inputs) if run else "",
                **{name: record.get(name) for name in ("seconds", "host", "data", "settings")},
            }
        )
    return pd.DataFrame(table, columns=list(COLUMNS))


def embedded(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the finished runs for the page's script; settings shared by a stage are stored once.

    {"common": stage -> settings, "runs": [[stage, key, label, indices of inputs, other settings,
    seconds, host, data]]}
    """
    finished = rows[rows["settings"].notna()]
    settings_list = [json.loads(text) for text in finished["settings"]]
    common: dict[str, dict[str, Any]] = {}
    for stage, settings in zip(finished["stage"], settings_list, strict=True):
        shared = common.get(stage, settings).items()
        common[stage] = {
            name: value for name, value in shared if name in settings and settings[name] == value
        }
    position = {key: index for index, key in enumerate(finished["key"])}
    runs = []
    for run, settings in zip(finished.to_dict("records"), settings_list, strict=True):
        inputs = [position[key] for key in run["inputs"].split() if key in position]
        shared_names = common[run["stage"]]
        distinct = {name: value for name, value in settings.items() if name not in shared_names}
        data = None if pd.isna(run["data"]) else run["data"]
        head = [run["stage"], run["key"], run["label"], inputs]
        runs.append([*head, distinct, run["seconds"], run["host"], data])
    return {"common": common, "runs": runs}


def provenance(rows: pd.DataFrame) -> dict[str, Any]:
    """Return the data's fingerprints, and all runs as JSON for the page's script."""
    fingerprints = (
        rows.loc[rows["data"].notna(), ["label", "data"]]
        .drop_duplicates()
        .rename(columns={"label": "read by", "data": "fingerprint of the data"})
    )
    fits = len(rows) <= MOST_EMBEDDED
    return {
        "fingerprints": plain(fingerprints),
        "embedded": json.dumps(embedded(rows), separators=(",", ":")) if fits else "",
        "runs": len(rows),
        "finished": int(rows["settings"].notna().sum()),
    }
