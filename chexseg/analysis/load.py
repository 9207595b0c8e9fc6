"""Load the results of a planned study from its store, without writing to it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from chexseg.analysis import baselines, radiologists, trainings
from chexseg.analysis.baselines import ExpertMasks
from chexseg.analysis.results import (
    CELL_COLUMNS,
    GRAPH_COLUMNS,
    STAGE_COLUMNS,
    ImageReader,
    StudyResults,
    WeakCounts,
    WeakLabels,
    WeakMaps,
)
from chexseg.config.settings import Settings
from chexseg.data import chexlocalize, shards
from chexseg.data.remote_path import Location
from chexseg.errors import DamagedArtifactError, UserError
from chexseg.pathologies import PATHOLOGIES, select
from chexseg.plan import procedure
from chexseg.plan.cells import varied_values
from chexseg.plan.graph import Node, Plan
from chexseg.plan.status import summarise
from chexseg.stages.artifacts import COUNTS, PREDICTIONS, THRESHOLDS
from chexseg.store import links, manifest
from chexseg.store.store import Artifact, Store
from chexseg.weak_label_kinds import KINDS

#: Stages that generate weak labels.
WEAK = tuple(dict.fromkeys(kind.stage for kind in KINDS.values()))

#: Settings of a fit's expert split, which belongs to a draw as the stages before the fit do.
OF_SPLIT = ("expert_train", "expert_select", "expert_split_by", "split_seed")

#: Columns of the count tables.
COUNTED = ("intersection", "predicted", "true")


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
    image_ids, counts_CIK3 = _score_counts([path / COUNTS for path in paths], names)
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
        predictions=lambda cell, image_id: _predictions(paths[cell], image_id, names),
        image=_reader(artifacts, tests[0], names) if tests else None,
        weak_labels=tuple(
            _weak_labels(plan, artifacts, node, names, masks)
            for node in plan.nodes.values()
            if node.stage in WEAK
        ),
        classifiers=trainings.classifiers(plan, artifacts),
        curves=trainings.curves(plan, artifacts),
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
        notes=tuple(f"{fault}; {hint}" for fault in damage.values()),
    )


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


def _score_counts(
    paths: Sequence[Path], names: tuple[str, ...]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return (image ids, counts_CIK3) of the cells with these tables, which have equal images."""
    if not paths:
        return (), np.zeros((0, 0, len(names), 3), dtype=np.int32)
    (ids_IK,) = _count_columns(paths[0], names, "image_id")
    # One 32-bit array for all cells: 10,000 cells of 668 images take 0.8 GB.
    counts_CIK3 = np.empty((len(paths), *ids_IK.shape, 3), dtype=np.int32)
    for c, path in enumerate(paths):
        counts_CIK3[c] = np.stack(_count_columns(path, names, *COUNTED), axis=-1)
    return tuple(ids_IK[:, 0].tolist()), counts_CIK3


def _count_columns(path: Path, names: tuple[str, ...], *columns: str) -> list[np.ndarray]:
    """Return columns of a count table, each with the shape (images, these pathologies)."""
    table = shards.read(path, columns)
    order = shards.metadata(table)["pathologies"]
    chosen = [order.index(name) for name in names]
    return [table[name].to_numpy().reshape(-1, len(order))[:, chosen] for name in columns]


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
            f"chexseg {run['packages']['chexseg']}" if "packages" in run else None,
            run.get("device"),
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


def _predictions(path: Path, image_id: str, names: tuple[str, ...]) -> np.ndarray:
    """Return masks_KHW predicted for an image."""
    side, runs = _run_lengths(path)
    entries = ({"size": [side] * 2, "counts": runs[image_id, name]} for name in names)
    return np.stack([chexlocalize.decode(entry, str(path)) for entry in entries])


@lru_cache(maxsize=16)  # measures read a cell's images in turn, the browser each image's ten cells
def _run_lengths(path: Path) -> tuple[int, dict[tuple[str, str], str]]:
    """Return (side, (image id, pathology) -> run lengths) of a cell's predicted masks."""
    table = shards.read(path / PREDICTIONS)
    rows = zip(table["image_id"].to_pylist(), table["pathology"].to_pylist(), strict=True)
    return shards.metadata(table)["size"], dict(zip(rows, table["counts"].to_pylist(), strict=True))


def _reader(
    artifacts: Mapping[str, Artifact], ingested: str, names: tuple[str, ...]
) -> ImageReader | None:
    """Return the reader of an ingested split's images and masks; None if the store lacks it."""
    artifact = artifacts.get(ingested)
    if artifact is None:
        return None
    chosen = [PATHOLOGIES.index(name) for name in names]
    # The browser reads images in their order, so most are in the row group of the one before.
    last: dict[str, tuple[list[str], np.ndarray]] = {}

    def row(directory: str, column: str, image_id: str) -> np.ndarray:
        if column not in last or image_id not in last[column][0]:
            last[column] = _row_group(artifact.path / directory, column, image_id)
        ids, arrays = last[column]
        return np.asarray(arrays[ids.index(image_id)])

    return lambda image_id: (
        row("images", "pixels", image_id),
        row("masks", "masks", image_id)[chosen],
    )


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
    ids_IK, box_IK, chosen_on_IK, *pixels = _count_columns(
        artifact.path / COUNTS, names, "image_id", "box", "chosen_on", *COUNTED
    )
    ids, chosen_on_I = tuple(ids_IK[:, 0].tolist()), chosen_on_IK[:, 0]
    drawn = baselines.on_valid(node.inputs["valid"], masks, ids, chosen_on_I)
    return labels(
        counts=WeakCounts(ids, np.stack(pixels, axis=-1), box_IK, chosen_on_I, drawn),
        maps=lambda image_id: _maps(artifact.path, image_id, names),
        image=_reader(artifacts, node.inputs["valid"], names),
    )


def _maps(path: Path, image_id: str, names: tuple[str, ...]) -> WeakMaps:
    metadata = shards.metadata(shards.files(path / "valid")[0])
    chosen = [metadata["pathologies"].index(name) for name in names]
    thresholds = json.loads(manifest.read_bytes(path / THRESHOLDS))
    boundary_hw = None
    if "boundary" in metadata["arrays"]:
        boundary_hw = _row(path / "valid", "boundary", image_id).astype(np.float32) / 255
    return WeakMaps(
        scores_Khw=_row(path / "valid", "scores", image_id)[chosen].astype(np.float32),
        thresholds_K=np.array([thresholds[name] for name in names], dtype=np.float64),
        masks_KHW=_predictions(path, image_id, names),
        boundary_hw=boundary_hw,
    )


def _row(directory: Path, column: str, image_id: str) -> np.ndarray:
    """Return one image's array; only its row group is read."""
    ids, arrays = _row_group(directory, column, image_id)
    return np.asarray(arrays[ids.index(image_id)])


def _row_group(directory: Path, column: str, image_id: str) -> tuple[list[str], np.ndarray]:
    """Return (image ids, arrays) of the row group with an image."""
    for path in shards.files(directory):
        for rows in shards.row_groups(path, ["image_id", column], {image_id}):
            return rows["image_id"].to_pylist(), shards.array(rows, column)
    raise DamagedArtifactError(f"{directory}: found no image {image_id}")
