"""Prepare a study for its template: the facts of its header, and what each section shows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from chexseg.analysis import published
from chexseg.analysis.axis_effects import Answer
from chexseg.analysis.claims.headline import ROLES, role_names
from chexseg.analysis.claims.verdicts import CONTRADICTED, NO_DATA, REPRODUCED, UNDECIDED
from chexseg.analysis.classifiers import MEAN, classifier_names
from chexseg.analysis.results import Classifier
from chexseg.analysis.study_analysis import StudyAnalysis
from chexseg.analysis.tables.value_table import ValueTable, stacked, without_constant_keys
from chexseg.report.figures import training
from chexseg.report.page import weak_label_overlays
from chexseg.report.page.overview import overview, summary
from chexseg.report.page.table_views import AVERAGES, grid, plain
from chexseg.report.page.weak_label_overlays import HEAT

#: Number of arms on the page; further ones are in the file.
MOST_ARMS = 100
#: Longer tables are cut and refer to their CSV file: a browser needs seconds to lay them out.
MOST_ROWS = 500
#: With more runs, the page has no settings: they would take more than a megabyte.
MOST_EMBEDDED = 5000
#: Verdict -> (mark, CSS class).
MARKS = {REPRODUCED: ("▲", "better"), CONTRADICTED: ("▼", "worse"), UNDECIDED: ("", "")}


def study_view(
    anchor: str,
    analysis: StudyAnalysis,
    figures: Mapping[str, go.Figure],
    test_images: Mapping[str, Any],
    files: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the arguments of the template of a study.

    anchor: prefix of anchors and files, unique among the studies of a page. figures: as from
    `study_figures.draw`. test_images: as from `image_section.test_images`. files: paths of the
    study's files beside the page.
    """
    results = analysis.results
    sections: dict[str, Any] = {}
    if analysis.scores.arms:
        sections = {
            "answer": _answer(analysis.answer) if analysis.answer else None,
            "claims": _claims(analysis) if analysis.claims else None,
            "result": {
                "top": 1.08 * max(0.1, analysis.headline[["mIoU", "patients high"]].max(axis=None))
            },
            **_paper(anchor, analysis, figures),
            "measures": analysis.measures and _measures(analysis.measures),
            "test_images": test_images,
            "students": analysis.students and grid(analysis.students),
            "cells": _cells(analysis.cells, () if results.axes is None else list(results.axes)),
        }
    if results.weak_labels:
        sections["weak_labels"] = _weak_labels(analysis)
    if analysis.auroc is not None:
        sections["classifiers"] = _classifiers(analysis.auroc, results.classifiers)
        sections["classifiers"]["roc"] = _panels(anchor, figures, "roc")
    sections["training"] = _training(anchor, analysis.curves, figures)
    if len(results.graph):
        counts = results.graph.groupby(["stage", "state"], sort=False).size()
        sections["stages"] = {
            "figure": figures.get("stages"),
            "counts": plain(counts.reset_index(name="runs")),
        }
    if len(analysis.stages):
        minutes, seconds = divmod(round(float(analysis.stages["total s"].sum())), 60)
        total = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
        sections["time"] = {"table": plain(analysis.stages), "total": total}
    missing = analysis.missing
    if len(missing):
        sections["missing_cells"] = {
            "table": plain(missing.head(MOST_ROWS)),
            "number": len(missing),
        }
    sections["provenance"] = _provenance(analysis.runs)
    return {
        "anchor": anchor,
        "analysis": analysis,
        "finished": len(results.cells),
        "deviations": plain(pd.DataFrame(results.deviations)) if results.deviations else None,
        "overview": overview(anchor, analysis, figures, files),
        "sections": {name: view for name, view in sections.items() if view},
    }


def _answer(answer: Answer) -> dict[str, Any]:
    """Return the tables of an answer, cut."""
    return {name: plain(rows.head(MOST_ROWS)) for name, rows in answer.tables.items()}


def _claims(analysis: StudyAnalysis) -> dict[str, Any]:
    """Return the number of claims of each verdict, and the comparisons of the judged ones."""
    rows = analysis.tables["claims"]
    columns = ["claim", *rows.loc[:, "comparison":"P against"]]
    judged = rows.loc[rows["verdict"] != NO_DATA, columns]
    relative = [
        "-" if pd.isna(value) else f"{100 * value:+.1f}%".replace("-", "\u2212")
        for value in judged["relative"]
    ]
    return {
        "summary": summary(analysis.claims),
        "comparisons": plain(judged.assign(relative=relative)),
        "marks": MARKS,
        "noise": published.noise(),
        "contributions": _contributions(analysis),
    }


def _contributions(analysis: StudyAnalysis) -> dict[str, Any] | None:
    """Return the split differences, with the number of patients of each pathology."""
    table = analysis.contributions
    if table is None:
        return None
    of_pathology = table.values[table.values["pathology"].isin(analysis.results.pathologies)]
    patients = of_pathology.groupby("pathology", sort=False)["n"].max()
    return grid(table, {name: f"{number} patients" for name, number in patients.items()})


def _panels(anchor: str, figures: Mapping[str, go.Figure], prefix: str) -> dict[str, go.Figure]:
    """Return anchor -> figure of the names that begin with a prefix."""
    chosen = {name: figure for name, figure in figures.items() if name.startswith(prefix)}
    return {f"{anchor}--{name}": figure for name, figure in chosen.items()}


def _training(
    anchor: str, curves: pd.DataFrame, figures: Mapping[str, go.Figure]
) -> dict[str, Any] | None:
    """Return kind -> the panels and the constant rate of its trainings, or None without panels.

    None if no kind has panels.
    """
    kinds = training.kinds_of(curves)
    view: dict[str, Any] = dict.fromkeys(training.TITLES)
    for kind in training.TITLES:
        if panels := _panels(anchor, figures, f"training-{kind}"):
            rates = curves.loc[kinds == kind, "learning rate"].unique()
            rate = float(rates[0]) if len(rates) == 1 else None
            view[kind] = {"panels": panels, "rate": rate}
    return view if any(view.values()) else None


def _paper(
    anchor: str, analysis: StudyAnalysis, figures: Mapping[str, go.Figure]
) -> dict[str, Any]:
    """Return the sections on the paper's tables and figures that the study has data for."""
    panels = partial(_panels, anchor, figures)
    shown: dict[str, Any] = {"figure3": panels("figure3"), "figure4": panels("figure4")}
    shown["label_efficiency"] = panels("label-efficiency")
    of_p = list(panels("figure2").items())  # the paper's four panels, then the other pathologies
    if analysis.table1:
        shown["table1"] = {
            "tables": [(variant.text, grid(table)) for variant, table in analysis.table1],
            "baselines": analysis.baselines and grid(_named_alone(analysis.baselines)),
        }
        shown["figure2"] = dict(of_p[:4])
    if analysis.table2 is not None:
        shown["table2"] = grid(analysis.table2) | {"twice": published.printed_twice()}
    if analysis.radiologists is not None:
        points = analysis.figure5
        names = role_names(analysis.scores)
        means = points[(points["kind"] == "mean") & points["role"].isin(list(ROLES))]
        shown["figure5"] = {
            "panels": panels("figure5"),
            "table": grid(analysis.radiologists),
            "arms": [
                (names[r.role], r.description) for r in means.drop_duplicates("role").itertuples()
            ],
        }
    arms = grid(stacked(analysis.arms, analysis.baselines, MOST_ARMS))
    panels_of_p = dict(of_p[4:])
    return shown | {"pathologies": {"table": arms, "most": MOST_ARMS, "panels": panels_of_p}}


def _named_alone(baselines: ValueTable) -> ValueTable:
    """Return the baselines without the keys that only arms have."""
    return without_constant_keys(baselines, baselines.keys[1:])


def _measures(table: ValueTable) -> dict[str, Any]:
    """Return the means over pathologies, and the values of each pathology."""
    is_mean = table.values["pathology"] == MEAN
    means = dataclasses.replace(table, keys=("arm",), values=table.values[is_mean])
    of_each = dataclasses.replace(table, values=table.values[~is_mean])
    return {"means": grid(means), "pathologies": grid(of_each)}


def _cells(rows: pd.DataFrame, axes: Collection[str]) -> dict[str, Any]:
    """Return one row per cell; a large study's best cells by mIoU on the selection images.

    axes: columns that are left out, because the cells' names have their values.
    """
    optional = [name for name in ("init", "weak_images", "fraction") if name in rows]
    dropped = [name for name in optional if rows[name].nunique() < 2]
    shown = rows.drop(columns=[*dropped, *(name for name in axes if name in rows)])
    if len(rows) > MOST_ROWS:
        by_selection = shown["selection mIoU"].sort_values(ascending=False, kind="stable")
        shown = shown.loc[by_selection.index[:MOST_ROWS]].sort_index()
    return {"table": plain(shown), "number": len(rows)}


def _weak_labels(analysis: StudyAnalysis) -> dict[str, Any]:
    """Return the overlays of the first set of weak labels."""
    sets, pathologies = analysis.agreements, analysis.results.pathologies
    image = sets[0].labels.labels[0].image if sets else None
    blocks = weak_label_overlays.blocks(sets[0].labels, pathologies, image) if image else []
    drawn = [block.pathology for block in blocks]
    return {
        "has_images": image is not None,
        "blocks": blocks,
        "undrawn": [name for name in pathologies if name not in drawn],
        "heat": [f"rgb{colour}" for colour in HEAT[::10]],
    }


def _classifiers(table: ValueTable, classifiers: Sequence[Classifier]) -> dict[str, Any]:
    """Return AUROC by observation and classifier; "competition": it chose the checkpoints."""
    values = table.values
    notes = {
        name: f"step {one.step:,} of {one.steps:,}; {one.images:,} images"
        for name, one in zip(classifier_names(classifiers), classifiers, strict=True)
    }
    notes |= dict.fromkeys(values.loc[values["competition"], "observation"], "competition")
    notes[MEAN] = "of the five"
    lacking = values[values["reason"].notna() & ~values["observation"].isin(AVERAGES)]
    return {
        "table": grid(dataclasses.replace(table, keys=("observation",)), notes),
        "reason": next(iter(lacking["reason"]), ""),
        "lacking": lacking["observation"].unique().tolist(),
    }


def _provenance(runs: pd.DataFrame) -> dict[str, Any]:
    """Return the data's fingerprints, and all runs as JSON for the page's script."""
    fingerprints = (
        runs.loc[runs["data"].notna(), ["label", "data"]]
        .drop_duplicates()
        .rename(columns={"label": "read by", "data": "fingerprint of the data"})
    )
    fits = len(runs) <= MOST_EMBEDDED
    return {
        "fingerprints": plain(fingerprints),
        "embedded": json.dumps(embedded(runs), separators=(",", ":")) if fits else "",
        "finished": int(runs["settings"].notna().sum()),
    }


def embedded(runs: pd.DataFrame) -> dict[str, Any]:
    """Return the finished runs for the page's script; settings shared by a stage are stored once.

    {"common": stage -> settings, "runs": [[stage, key, label, indices of inputs, other settings,
    seconds, host, data]]}
    """
    finished = runs[runs["settings"].notna()].assign(
        settings=lambda r: r["settings"].map(json.loads)
    )
    common = {
        stage: {
            name: value
            for name, value in group.iloc[0].items()
            if all(name in settings and settings[name] == value for settings in group)
        }
        for stage, group in finished.groupby("stage")["settings"]
    }
    position = {key: index for index, key in enumerate(finished["key"])}
    listed = []
    for run in finished.to_dict("records"):
        inputs = [position[key] for key in run["inputs"].split() if key in position]
        shared = common[run["stage"]]
        distinct = {name: value for name, value in run["settings"].items() if name not in shared}
        data = None if pd.isna(run["data"]) else run["data"]
        head = [run["stage"], run["key"], run["label"], inputs]
        listed.append([*head, distinct, run["seconds"], run["host"], data])
    return {"common": common, "runs": listed}
