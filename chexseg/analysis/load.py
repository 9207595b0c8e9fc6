"""Load the results of a planned study from its store, without writing to it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis import baselines, radiologists
from chexseg.analysis.baselines import ExpertMasks
from chexseg.analysis.results import (
    CELL_COLUMNS,
    GRAPH_COLUMNS,
    STAGE_COLUMNS,
    StudyResults,
    WeakCounts,
    WeakLabels,
)
from chexseg.analysis.stored import stored_shards, trainings
from chexseg.config.settings import Settings
from chexseg.data.remote_path import Location
from chexseg.errors import DamagedArtifactError, UserError
from chexseg.pathologies import select
from chexseg.plan import procedure
from chexseg.plan.cells import varied_values
from chexseg.plan.graph import Node, Plan
from chexseg.plan.status import Summary, summarise
from chexseg.stages.artifacts import COUNTS
from chexseg.store import links, manifest
from chexseg.store.store import Artifact, Store
from chexseg.weak_label_kinds import KINDS

#: Stages that generate weak labels.
WEAK = tuple(dict.fromkeys(kind.stage for kind in KINDS.values()))

#: Settings of a fit's expert split, which belongs to a draw as the stages before the fit do.
OF_SPLIT = ("expert_train", "expert_select", "expert_split_by", "split_seed")


def study_results(plan: Plan, store: Store, data: Location | None = None) -> StudyResults:
    """Return all finished results of a study, and the reasons why others are missing.

    All cells must have the same pathologies. data: the root of the raw data; if it contains the
    radiologists' masks, they are counted at the size of the first cell.
    """
    summary = summarise(plan, store, explain_stale=True)
    damage = _damage(plan, summary.artifacts)
    # For object stores, `study run` compares only file sizes.
    before = "" if store.backend.shared else "delete the files beside it; "
    hint = f"it is left out (hint: {before}`chexseg study run` recomputes it)"
    artifacts = {key: artifact for key, artifact in summary.artifacts.items() if key not in damage}
    names = select(plan.study.settings.pathologies)

    finished = [cell for cell in plan.cells if cell.score in artifacts]
    paths = [artifacts[cell.score].path for cell in finished]
    image_ids, counts_CIK3 = stored_shards.score_counts([path / COUNTS for path in paths], names)
    readers_IK3, readers_note = (
        radiologists.counts(
            data,
            image_ids,
            names,
            counted_size(finished[0].settings),
            finished[0].settings.ingest.mask_resize,
        )
        if data and finished
        else (None, "")
    )
    masks = cache(lambda key: baselines.read(artifacts[key].path, names))
    baseline_counts, baselines_note = (
        baselines.on_test(plan, artifacts, image_ids, masks) if finished else ({}, "")
    )
    cells = [{**cell.as_record(), **_of_fit(plan, artifacts, cell.fit)} for cell in finished]
    settings = [cell.settings for cell in plan.cells]
    record_notes: list[str] = []
    missing = []
    for cell in plan.cells:
        key = cell.score
        if key in damage:
            missing.append((cell.name, "damaged", damage[key]))
        elif key not in artifacts:
            reason = summary.fault(key) or summary.change(key) or "not run yet"
            missing.append((cell.name, summary.cell_state(key), reason))
    tests = [
        node.key
        for node in plan.nodes.values()
        if node.stage == "ingest" and node.config["split"] == "test"
    ]
    return StudyResults(
        name=plan.study.name,
        title=plan.study.title or plan.study.name,
        pathologies=names,
        image_ids=image_ids,
        cells=pd.DataFrame(cells, columns=list(CELL_COLUMNS)),
        counts_CIK3=counts_CIK3,
        missing=pd.DataFrame(missing, columns=["name", "state", "reason"]),
        stages=_stages(plan, artifacts),
        graph=_graph(plan, artifacts, summary.states),
        predictions=lambda cell, image_id: stored_shards.predictions(paths[cell], image_id, names),
        image=stored_shards.reader(artifacts, tests[0], names) if tests else None,
        weak_labels=tuple(
            _weak_labels(plan, artifacts, node, names, masks)
            for node in plan.nodes.values()
            if node.stage in WEAK
        ),
        classifiers=trainings.classifiers(plan, artifacts, record_notes),
        curves=trainings.curves(plan, artifacts, record_notes),
        axes=pd.DataFrame(varied_values(plan.study.varied, finished), dtype=object),
        draw_of_seed={one.shared_seed: one.draw for one in settings},
        reproduces=plan.study.reproduces,
        deviations=procedure.deviations(settings),
        radiologists_IK3=readers_IK3,
        radiologists_note=readers_note,
        baselines=baseline_counts,
        baselines_note=baselines_note,
        study_file=_study_file(plan),
        overrides=_overrides(plan),
        dashboards=trainings.dashboards(store, plan.study.name),
        notes=(
            *(f"{fault}; {hint}" for fault in damage.values()),
            *_lost(plan, store, summary),
            *record_notes,  # filled by `trainings` above
        ),
    )


def _lost(plan: Plan, store: Store, summary: Summary) -> list[str]:
    """Return a line on the results that finished cells were made from and the store has lost.

    Without a fit, its selection mIoU and number of steps are unknown, and verdicts may change.
    """
    finished = [cell.score for cell in plan.cells if summary.states[cell.score] == "cached"]
    names = [
        f"{plan.nodes[key].stage}/{key[:20]}"
        for key in plan.nodes.keys() & plan.behind(finished)
        if summary.states[key] == "unneeded"
    ]
    if not names:
        return []
    names.sort()
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [
        f"{store}: found no complete {', '.join(names[:3])}{more}, from which finished cells were"
        " made; figures and settings from there are left out (hint: restore it from a copy, or"
        " delete these scores too, and run again)"
    ]


def _of_fit(plan: Plan, artifacts: Mapping[str, Artifact], key: str) -> dict[str, Any]:
    """Return what a cell's record takes from its fit and the stages before it.

    steps: NaN, like selection_miou None, if the store has lost the fit.
    """
    *before, node = trainings.upstream(plan, plan.nodes[key])
    names = sorted(one.key[:12] for one in before if one.stage != "ingest")
    names += [f"{name}={node.config[name]}" for name in OF_SPLIT]
    facts = artifacts[key].facts if key in artifacts else {"selection_miou": None}
    return {
        "selection_miou": facts["selection_miou"],
        "steps": facts.get("samples", math.nan) // node.config["batch_size"],
        "upstream": " ".join(names),
    }


def counted_size(settings: Settings) -> int:
    """Return the side of the squares in which a cell's pixels are counted; 0 for native sizes."""
    return 0 if settings.score.resolution == "own" else settings.size


def _study_file(plan: Plan) -> str:
    """Return the text of the study's file, or "" if it has none or it has become unreadable."""
    source = plan.study.source
    try:
        return "" if source is None else links.read_text(Path(source.document.where))
    except (OSError, UserError):
        return ""


def _overrides(plan: Plan) -> tuple[str, ...]:
    """Return the settings of ``--set``, as KEY=VALUE."""
    source = plan.study.source
    return tuple(f"{name}={value}" for name, value in source.overrides.items()) if source else ()


def _damage(plan: Plan, artifacts: Mapping[str, Artifact]) -> dict[str, str]:
    """Return key -> fault for results that differ from their manifests.

    Only the results that reports read are verified: scores, weak labels, and the ingested images of
    `valid` and `test`, without files of training images.
    """
    damage = {}
    for key, artifact in artifacts.items():
        node = plan.nodes[key]
        if node.stage in ("score", *WEAK) or node.config.get("split") in ("valid", "test"):
            try:
                for name in artifact.manifest["files"]:
                    if not name.startswith("train/"):
                        manifest.verify(artifact.path / name)
            except DamagedArtifactError as error:
                damage[key] = str(error)
    return damage


def _stages(plan: Plan, artifacts: Mapping[str, Artifact]) -> pd.DataFrame:
    rows = [
        (
            node.stage,
            key,
            run["seconds"],
            run["host"],
            json.dumps(run["config"], sort_keys=True),
            run["data"],
            run["finished"],
            f"chexseg {version}" if (version := run.get("packages", {}).get("chexseg")) else None,
            *(run.get(name) for name in ("device", "gpu", "cpu")),
        )
        for key, node in plan.nodes.items()
        if key in artifacts
        for run in [artifacts[key].manifest]
    ]
    return pd.DataFrame(rows, columns=list(STAGE_COLUMNS))


def _graph(
    plan: Plan, artifacts: Mapping[str, Artifact], states: Mapping[str, str]
) -> pd.DataFrame:
    names = {key: f": {cell.name}" for cell in plan.cells for key in (cell.fit, cell.score)}
    rows = [
        (
            key,
            node.stage,
            node.label + names.get(key, ""),
            states[key],
            artifacts[key].manifest["seconds"] if key in artifacts else float("nan"),
            tuple(node.inputs.values()),
        )
        for key, node in plan.nodes.items()
    ]
    return pd.DataFrame(rows, columns=list(GRAPH_COLUMNS))


# ---- weak labels ---------------------------------------------------------------------------------


def _weak_labels(
    plan: Plan,
    artifacts: Mapping[str, Artifact],
    node: Node,
    names: tuple[str, ...],
    masks: Callable[[str], ExpertMasks],
) -> WeakLabels:
    labels = partial(
        WeakLabels,
        key=node.key,
        kind=node.config.get("kind", node.stage),
        start=node.inputs.get("saliency"),
        settings=trainings.settings(plan, node),
    )
    artifact = artifacts.get(node.key)
    if artifact is None:
        return labels(reason="not finished yet, or damaged")
    ids_IK, box_IK, chosen_on_IK, *pixels = stored_shards.count_columns(
        artifact.path / COUNTS, names, "image_id", "box", "chosen_on", *stored_shards.COUNTED
    )
    ids, chosen_on_I = tuple(ids_IK[:, 0].tolist()), chosen_on_IK[:, 0]
    drawn = baselines.on_valid(node.inputs["valid"], masks, ids, chosen_on_I)
    return labels(
        counts=WeakCounts(ids, np.stack(pixels, axis=-1), box_IK, chosen_on_I, drawn),
        maps=lambda image_id: stored_shards.weak_maps(artifact.path, image_id, names),
        image=stored_shards.reader(artifacts, node.inputs["valid"], names),
    )
