"""Compute the tables that list a study's records: cells, missing cells, stages and runs."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from chexseg.analysis.results import StudyResults
from chexseg.analysis.study_scores import StudyScores
from chexseg.analysis.tables.value_table import NO_EXPERT
from chexseg.stages.registry import STAGES

#: Columns of `runs`.
RUN_COLUMNS = (
    "stage", "key", "label", "state", "seconds", "host", "data", "inputs", "settings",
)  # fmt: skip


#: Setting of a cell -> whether its values are worth a column.
OPTIONAL: dict[str, Callable[[pd.Series], bool]] = {
    "draw": lambda values: values.nunique() > 1,
    "weak_images": lambda values: values.notna().any(),
    "fraction": lambda values: values.notna().any(),
}
#: Settings that a column of `cells` has under a shorter name.
WITH_COLUMN = ("labels.weak", "labels.p", "encoder.init", "labels.weak_images", "distil.fraction")


def cells(scores: StudyScores) -> pd.DataFrame:
    """Return one row per cell: settings, mIoU, selection mIoU, the IoU of each pathology, key.

    A setting that the study varies and that has no other column is named as in the study file.
    """
    results = scores.results
    table = results.cells.reset_index(drop=True)
    settings = [
        name
        for name in (
            "name",
            "method",
            "weak",
            "p",
            "draw",
            "trial",
            "init",
            "weak_images",
            "fraction",
        )
        if name not in OPTIONAL or OPTIONAL[name](table[name])
    ]
    columns = {"mIoU": scores.miou_C, "selection mIoU": pd.to_numeric(table["selection_miou"])}
    columns |= {"left out": scores.left_out_C} if scores.left_out_C.any() else {}
    columns |= dict(zip(results.pathologies, scores.iou_CK.T, strict=True))
    axes = {} if results.axes is None else results.axes.to_dict("list")
    varied = {name: values for name, values in axes.items() if name not in WITH_COLUMN}
    return table[settings].assign(**varied, **columns, key=table["cell"])


def missing(scores: StudyScores) -> pd.DataFrame:
    """Return name, state and reason of what is missing: cells, pathologies, readers, baselines."""
    results, columns = scores.results, ["name", "state", "reason"]
    rows = results.missing[columns].to_numpy().tolist()
    rows += [(name, "undefined", NO_EXPERT) for name in scores.without_expert]
    if results.radiologists_note:
        state = "left out" if results.radiologists_IK3 is None else "incomplete"
        rows.append(("radiologists", state, results.radiologists_note))
    if results.baselines_note and not results.baselines:
        rows.append(("baselines", "left out", results.baselines_note))
    return pd.DataFrame(rows, columns=columns)


def stages(results: StudyResults) -> pd.DataFrame:
    """Return one row per stage, in the order of the data flow: runs, seconds and hosts."""
    finished = results.stages.assign(seconds=pd.to_numeric(results.stages["seconds"]))
    columns = {
        "runs": ("seconds", "size"),
        "total s": ("seconds", "sum"),
        "median s": ("seconds", "median"),
        "longest s": ("seconds", "max"),
        "hosts": ("host", lambda names: ", ".join(sorted(set(names)))),
    }
    table = finished.groupby("stage").agg(**columns)
    order = [name for name in STAGES if name in table.index]
    order += [name for name in table.index if name not in STAGES]
    return table.loc[order].reset_index()


def origin(results: StudyResults) -> dict[str, str]:
    """Return fact -> text: the versions, dates, hardware and hosts of a study's finished runs.

    Facts that no run has recorded are left out. The hardware is the models of the GPUs, or of the
    processors if no run used a GPU; runs of earlier versions recorded "cpu" and "cuda" only.
    """

    def distinct(name: str) -> list[str]:
        return sorted(set(results.stages[name].dropna())) if name in results.stages else []

    days = [time[:10] for time in distinct("finished")]
    devices = {device.partition(":")[0] for device in distinct("device")}
    hosts = distinct("host")
    models = distinct("gpu") or (distinct("cpu") if devices <= {"cpu"} else [])
    models = models or sorted(map(str.upper, devices))
    computed = f"{' and '.join(models)}, " if models else ""
    if len(hosts) > 1:
        hosts = [f"{len(hosts)} hosts"]
    facts = {
        "Version": ", ".join(distinct("version")),
        "Date": " to ".join(dict.fromkeys([*days[:1], *days[-1:]])),
        "Hardware": computed + hosts[0] if hosts else "",
    }
    return {name: text for name, text in facts.items() if text}


def runs(results: StudyResults) -> pd.DataFrame:
    """Return one row per run of the plan, finished or not, with `RUN_COLUMNS`.

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
    return pd.DataFrame(table, columns=list(RUN_COLUMNS))
