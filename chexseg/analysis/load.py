"""From a plan and a store to what a report shows. Reads the store, never writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis import radiologists
from chexseg.analysis.results import (
    CELL_COLUMNS,
    GRAPH_COLUMNS,
    Classifier,
    StudyResults,
    WeakCounts,
    WeakLabels,
    WeakMaps,
)
from chexseg.data import chexlocalize, shards
from chexseg.data.remote_path import Location
from chexseg.errors import DamagedArtifactError
from chexseg.pathologies import PATHOLOGIES, select
from chexseg.plan.graph import Node, Plan
from chexseg.plan.status import summarise
from chexseg.stages.artifacts import COUNTS, PREDICTIONS, THRESHOLDS
from chexseg.store import manifest
from chexseg.store.store import Artifact, Store

#: Stages that make weak labels, and those that train a classifier of the observations.
WEAK, CLASSIFIERS = ("saliency", "irnet"), ("classify", "pretrain")

#: Columns of counts.
COUNTED = ("intersection", "predicted", "true")


def study_results(plan: Plan, store: Store, data: Location | None = None) -> StudyResults:
    """Everything of a study that has finished, and what hasn't. Cells must study the same pathologies.

    data: the root of the raw data; with it, and where it has their masks, radiologists are counted as the first cell is.
    """
    rows, scores, missing = [], [], []
    counts_CIK3 = None
    size: int | None = None
    found = summarise(plan, store, explain_stale=True)
    damage = _damage(plan, found.artifacts)
    artifacts = {key: artifact for key, artifact in found.artifacts.items() if key not in damage}
    names = select(plan.study.settings.pathologies)
    image_ids: tuple[str, ...] = ()
    for cell in plan.cells:
        scored, fitted = artifacts.get(cell.score), artifacts.get(cell.fit)
        if scored is None:
            state = "damaged" if cell.score in damage else found.cell_state(cell.score)
            reason = (
                damage.get(cell.score)
                or found.fault(cell.score)
                or found.change(cell.score)
                or "not run yet"
            )
            missing.append({"name": cell.name, "state": state, "reason": reason})
            continue
        table = shards.read(scored.path / COUNTS, None if counts_CIK3 is None else COUNTED)
        order = tuple(shards.metadata(table)["pathologies"])
        values = np.stack([table[name].to_numpy() for name in COUNTED], axis=1)
        if counts_CIK3 is None:
            own = plan.nodes[cell.score].config["resolution"] == "own"
            size = None if own else shards.metadata(table)["size"]
            image_ids = tuple(table["image_id"].to_pylist()[:: len(order)])
            # One array for all, of 32 bits: 10,000 cells of 668 images are 0.8 GB.
            counts_CIK3 = np.empty((len(plan.cells), len(image_ids), len(names), 3), dtype=np.int32)
        chosen = [order.index(name) for name in names]
        counts_CIK3[len(rows)] = values.reshape(-1, len(order), 3)[:, chosen]
        rows.append(
            {
                **cell.as_record(),
                "selection_miou": fitted.facts["selection_miou"] if fitted else None,
            }
        )
        scores.append(scored)
    stages = _stages(plan, artifacts)
    readers_IK3, readers_note = (
        radiologists.counts(data, image_ids, names, size) if data and image_ids else (None, "")
    )
    return StudyResults(
        name=plan.study.name,
        title=plan.study.title or plan.study.name,
        pathologies=names,
        image_ids=image_ids,
        cells=pd.DataFrame(rows, columns=list(CELL_COLUMNS)),
        counts_CIK3=np.zeros((0, 0, len(names), 3), dtype=np.int32)
        if counts_CIK3 is None
        else counts_CIK3[: len(rows)],
        missing=pd.DataFrame(missing, columns=["name", "state", "reason"]),
        stages=stages,
        graph=_graph(plan, found.states, dict(zip(stages["key"], stages["seconds"], strict=True))),
        predictions=lambda cell, image_id: _predictions(scores[cell].path, image_id, names),
        image=_images(plan, artifacts, names),
        weak_labels=tuple(
            _weak_labels(plan, artifacts, node, names)
            for node in plan.nodes.values()
            if node.stage in WEAK
        ),
        classifiers=_classifiers(plan, artifacts),
        radiologists_IK3=readers_IK3,
        radiologists_note=readers_note,
        notes=tuple(
            f"{fault}; it is left out (hint: {_how_to_mend(store)})" for fault in damage.values()
        ),
    )


def _how_to_mend(store: Store) -> str:
    # Of object stores, `study run` knows only sizes.
    before = "" if store.backend.shared else "delete what lies beside it; "
    return f"{before}`chexseg study run` makes it again"


def _damage(plan: Plan, artifacts: Mapping[str, Artifact]) -> dict[str, str]:
    """Key -> fault of the results that are not what their manifests say, of those that a report reads.

    These are scores, weak labels, and the ingested images of `valid` and `test`; what is of training images isn't read.
    """
    damage = {}
    for key, artifact in artifacts.items():
        node = plan.nodes[key]
        if node.stage in ("score", *WEAK) or (
            node.stage == "ingest" and node.config["split"] != "train"
        ):
            try:
                for name in artifact.manifest["files"]:
                    if not name.startswith("train/"):
                        manifest.verify(artifact.path / name)
            except DamagedArtifactError as error:
                damage[key] = str(error)
    return damage


def _stages(plan: Plan, artifacts: Mapping[str, Artifact]) -> pd.DataFrame:
    rows = []
    for key, node in plan.nodes.items():
        artifact = artifacts.get(key)
        if artifact:
            about = artifact.manifest
            rows.append(
                {
                    "stage": node.stage,
                    "key": key,
                    "seconds": about["seconds"],
                    "host": about["host"],
                    "settings": json.dumps(about["config"], sort_keys=True),
                    "data": about["data"],
                }
            )
    return pd.DataFrame(rows, columns=["stage", "key", "seconds", "host", "settings", "data"])


def _graph(plan: Plan, states: Mapping[str, str], seconds: Mapping[str, float]) -> pd.DataFrame:
    names = {key: cell.name for cell in plan.cells for key in (cell.fit, cell.score)}
    rows = []
    for key, node in plan.nodes.items():
        label = f"{node.label}: {names[key]}" if key in names else node.label
        rows.append(
            (
                key,
                node.stage,
                label,
                states[key],
                seconds.get(key, float("nan")),
                tuple(node.inputs.values()),
            )
        )
    return pd.DataFrame(rows, columns=list(GRAPH_COLUMNS))


def _predictions(path: Path, image_id: str, names: tuple[str, ...]) -> np.ndarray:
    """masks_KHW that a cell predicted for an image."""
    table = shards.read(path / PREDICTIONS)
    size = shards.metadata(table)["size"]
    chosen = table.filter(np.array(table["image_id"].to_pylist()) == image_id)
    runs = dict(zip(chosen["pathology"].to_pylist(), chosen["counts"].to_pylist(), strict=True))
    return np.stack(
        [
            chexlocalize.decode({"size": [size, size], "counts": runs[name]}, str(path))
            for name in names
        ]
    )


def _images(plan: Plan, artifacts: Mapping[str, Artifact], names: tuple[str, ...]) -> Any:
    """The function that reads test images and their expert masks, or None where they aren't in the store."""
    tests = [
        node
        for node in plan.nodes.values()
        if node.stage == "ingest" and node.config["split"] == "test"
    ]
    return _reader(artifacts, tests[0].key, names) if tests else None


def _reader(artifacts: Mapping[str, Artifact], ingested: str, names: tuple[str, ...]) -> Any:
    """The function that reads images and expert masks of one ingested split, or None where it isn't in the store."""
    artifact = artifacts.get(ingested)
    if artifact is None:
        return None
    chosen = [PATHOLOGIES.index(name) for name in names]

    def read(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        return (
            _row(artifact.path / "images", "pixels", image_id),
            _row(artifact.path / "masks", "masks", image_id)[chosen],
        )

    return read


# ---- weak labels, and the classifiers they come from -------------------------------------------------------------------


def _weak_labels(
    plan: Plan, artifacts: Mapping[str, Artifact], node: Node, names: tuple[str, ...]
) -> WeakLabels:
    kind = node.config["kind"] if node.stage == "saliency" else "irnet"
    about = {
        "key": node.key,
        "kind": kind,
        "start": node.inputs.get("saliency"),
        "settings": _settings(plan, node),
    }
    artifact = artifacts.get(node.key)
    if artifact is None:
        return WeakLabels(**about, reason="not made yet, or damaged")
    return WeakLabels(
        **about,
        counts=_weak_counts(artifact.path / COUNTS, names),
        maps=lambda image_id: _maps(artifact.path, image_id, names),
        image=_reader(artifacts, node.inputs["valid"], names),
    )


def _weak_counts(path: Path, names: tuple[str, ...]) -> WeakCounts:
    table = shards.read(path)
    order = tuple(shards.metadata(table)["pathologies"])
    chosen = [order.index(name) for name in names]
    columns = {
        name: table[name].to_numpy().reshape(-1, len(order))
        for name in (*COUNTED, "box", "chosen_on")
    }
    return WeakCounts(
        image_ids=tuple(table["image_id"].to_pylist()[:: len(order)]),
        counts_IK3=np.stack([columns[name] for name in COUNTED], axis=2)[:, chosen],
        box_IK=columns["box"][:, chosen],
        chosen_on_I=columns["chosen_on"][:, 0],
    )


def _maps(path: Path, image_id: str, names: tuple[str, ...]) -> WeakMaps:
    about = shards.metadata(shards.files(path / "valid")[0])
    chosen = [about["pathologies"].index(name) for name in names]
    thresholds = json.loads(manifest.read_bytes(path / THRESHOLDS))
    boundary_hw = (
        _row(path / "valid", "boundary", image_id) if "boundary" in about["arrays"] else None
    )
    return WeakMaps(
        scores_Khw=_row(path / "valid", "scores", image_id)[chosen].astype(np.float32),
        thresholds_K=np.array([thresholds[name] for name in names]),
        masks_KHW=_predictions(path, image_id, names),
        boundary_hw=None if boundary_hw is None else boundary_hw.astype(np.float32) / 255,
    )


def _settings(plan: Plan, node: Node) -> dict[str, Any]:
    """Every setting that a node's result depends on, as "stage.field"; of ingest what isn't a split's own."""
    found: dict[str, Any] = {}
    for key in node.inputs.values():
        found |= _settings(plan, plan.nodes[key])
    return found | {
        f"{node.stage}.{name}": value for name, value in node.config.items() if name != "split"
    }


def _classifiers(plan: Plan, artifacts: Mapping[str, Artifact]) -> tuple[Classifier, ...]:
    found = []
    for stage in CLASSIFIERS:
        for node in (node for node in plan.nodes.values() if node.stage == stage):
            artifact = artifacts.get(node.key)
            if artifact:
                told = {
                    name: artifact.facts[name]
                    for name in ("auroc", "mean_auroc", "step", "steps", "images")
                }
                found.append(
                    Classifier(key=node.key, stage=stage, settings=_settings(plan, node), **told)
                )
    return tuple(found)


def _row(directory: Path, column: str, image_id: str) -> np.ndarray:
    """One image's array, from whichever shard holds it: only its row group is read."""
    for path in shards.files(directory):
        for rows in shards.row_groups(path, ["image_id", column], {image_id}):
            return shards.array(rows, column)[rows["image_id"].to_pylist().index(image_id)]
    raise DamagedArtifactError(f"{directory}: found no image {image_id}")
