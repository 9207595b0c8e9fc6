"""Load the results of a planned study from its store, without writing to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
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
from chexseg.weak_label_kinds import KINDS

#: Stages that generate weak labels, and stages that train a classifier of the observations.
WEAK = tuple(dict.fromkeys(kind.stage for kind in KINDS.values()))
CLASSIFIERS = ("classify", "pretrain")

#: Columns of the count tables.
COUNTED = ("intersection", "predicted", "true")
#: Image id -> (pixels_HW, expert masks_KHW).
ImageReader = Callable[[str], tuple[np.ndarray, np.ndarray]]


def study_results(plan: Plan, store: Store, data: Location | None = None) -> StudyResults:
    """Return all finished results of a study, and the reasons why others are missing.

    All cells must have the same pathologies. data: the root of the raw data; if it contains the
    radiologists' masks, they are counted at the size of the first cell.
    """
    rows: list[dict[str, Any]] = []
    scores: list[Artifact] = []
    missing = []
    counts_CIK3 = None
    size: int | None = None
    summary = summarise(plan, store, explain_stale=True)
    damage = _damage(plan, summary.artifacts)
    artifacts = {key: artifact for key, artifact in summary.artifacts.items() if key not in damage}
    names = select(plan.study.settings.pathologies)
    image_ids: tuple[str, ...] = ()
    for cell in plan.cells:
        scored, fitted = artifacts.get(cell.score), artifacts.get(cell.fit)
        if scored is None:
            reason = (
                damage.get(cell.score)
                or summary.fault(cell.score)
                or summary.change(cell.score)
                or "not run yet"
            )
            state = "damaged" if cell.score in damage else summary.cell_state(cell.score)
            missing.append((cell.name, state, reason))
            continue
        table = shards.read(scored.path / COUNTS, None if counts_CIK3 is None else COUNTED)
        order = tuple(shards.metadata(table)["pathologies"])
        values = np.stack([table[name].to_numpy() for name in COUNTED], axis=1)
        if counts_CIK3 is None:
            is_native = plan.nodes[cell.score].config["resolution"] == "own"
            size = None if is_native else shards.metadata(table)["size"]
            image_ids = tuple(table["image_id"].to_pylist()[:: len(order)])
            # One 32-bit array for all cells: 10,000 cells of 668 images take 0.8 GB.
            counts_CIK3 = np.empty((len(plan.cells), len(image_ids), len(names), 3), dtype=np.int32)
        counts_CIK3[len(rows)] = values.reshape(-1, len(order), 3)[
            :, [order.index(name) for name in names]
        ]
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
        graph=_graph(
            plan, summary.states, dict(zip(stages["key"], stages["seconds"], strict=True))
        ),
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
            f"{fault}; it is left out (hint: {_repair_hint(store)})" for fault in damage.values()
        ),
    )


def _repair_hint(store: Store) -> str:
    # For object stores, `study run` compares only file sizes.
    before = "" if store.backend.shared else "delete the files beside it; "
    return f"{before}`chexseg study run` recomputes it"


def _damage(plan: Plan, artifacts: Mapping[str, Artifact]) -> dict[str, str]:
    """Return key -> fault for results that differ from their manifests.

    Only the results that reports read are verified: scores, weak labels, and the ingested images of
    `valid` and `test`, without files of training images.
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
    manifests = {key: artifacts[key].manifest for key in plan.nodes if key in artifacts}
    rows = [
        {
            "stage": plan.nodes[key].stage,
            "key": key,
            "seconds": facts["seconds"],
            "host": facts["host"],
            "settings": json.dumps(facts["config"], sort_keys=True),
            "data": facts["data"],
        }
        for key, facts in manifests.items()
    ]
    return pd.DataFrame(rows, columns=["stage", "key", "seconds", "host", "settings", "data"])


def _graph(plan: Plan, states: Mapping[str, str], seconds: Mapping[str, float]) -> pd.DataFrame:
    names = {key: cell.name for cell in plan.cells for key in (cell.fit, cell.score)}
    rows = [
        (
            key,
            node.stage,
            f"{node.label}: {names[key]}" if key in names else node.label,
            states[key],
            seconds.get(key, float("nan")),
            tuple(node.inputs.values()),
        )
        for key, node in plan.nodes.items()
    ]
    return pd.DataFrame(rows, columns=list(GRAPH_COLUMNS))


def _predictions(path: Path, image_id: str, names: tuple[str, ...]) -> np.ndarray:
    """Return masks_KHW predicted for an image."""
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


def _images(
    plan: Plan, artifacts: Mapping[str, Artifact], names: tuple[str, ...]
) -> ImageReader | None:
    """Return the reader of test images and their expert masks; None if the store lacks them."""
    tests = [
        node
        for node in plan.nodes.values()
        if node.stage == "ingest" and node.config["split"] == "test"
    ]
    return _reader(artifacts, tests[0].key, names) if tests else None


def _reader(
    artifacts: Mapping[str, Artifact], ingested: str, names: tuple[str, ...]
) -> ImageReader | None:
    """Return the reader of an ingested split's images and masks; None if the store lacks it."""
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


# ---- weak labels and their classifiers -----------------------------------------------------------


def _weak_labels(
    plan: Plan, artifacts: Mapping[str, Artifact], node: Node, names: tuple[str, ...]
) -> WeakLabels:
    labels = WeakLabels(
        key=node.key,
        kind=node.config.get("kind", node.stage),
        start=node.inputs.get("saliency"),
        settings=_settings(plan, node),
        reason="not finished yet, or damaged",
    )
    artifact = artifacts.get(node.key)
    if artifact is None:
        return labels
    return replace(
        labels,
        reason=None,
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
    metadata = shards.metadata(shards.files(path / "valid")[0])
    chosen = [metadata["pathologies"].index(name) for name in names]
    thresholds = json.loads(manifest.read_bytes(path / THRESHOLDS))
    boundary_hw = (
        _row(path / "valid", "boundary", image_id) if "boundary" in metadata["arrays"] else None
    )
    return WeakMaps(
        scores_Khw=_row(path / "valid", "scores", image_id)[chosen].astype(np.float32),
        thresholds_K=np.array([thresholds[name] for name in names]),
        masks_KHW=_predictions(path, image_id, names),
        boundary_hw=None if boundary_hw is None else boundary_hw.astype(np.float32) / 255,
    )


def _settings(plan: Plan, node: Node) -> dict[str, Any]:
    """Return "stage.field" -> value of all settings that a result depends on, without splits."""
    settings: dict[str, Any] = {}
    for key in node.inputs.values():
        settings |= _settings(plan, plan.nodes[key])
    return settings | {
        f"{node.stage}.{name}": value for name, value in node.config.items() if name != "split"
    }


def _classifiers(plan: Plan, artifacts: Mapping[str, Artifact]) -> tuple[Classifier, ...]:
    return tuple(
        Classifier(
            key=node.key,
            stage=stage,
            settings=_settings(plan, node),
            **{
                name: artifacts[node.key].facts[name]
                for name in ("auroc", "mean_auroc", "step", "steps", "images")
            },
        )
        for stage in CLASSIFIERS
        for node in plan.nodes.values()
        if node.stage == stage and node.key in artifacts
    )


def _row(directory: Path, column: str, image_id: str) -> np.ndarray:
    """Return one image's array; only its row group is read."""
    for path in shards.files(directory):
        for rows in shards.row_groups(path, ["image_id", column], {image_id}):
            arrays = shards.array(rows, column)
            return np.asarray(arrays[rows["image_id"].to_pylist().index(image_id)])
    raise DamagedArtifactError(f"{directory}: found no image {image_id}")
