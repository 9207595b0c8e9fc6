"""From a plan and a store to what a report shows. Reads the store, never writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from chexseg.data import chexlocalize, shards
from chexseg.pathologies import PATHOLOGIES, select
from chexseg.report.results import CELL_COLUMNS, StudyResults
from chexseg.stages.counting import COUNTS, PREDICTIONS
from chexseg.study.plan import Plan
from chexseg.study.store import Store
from chexseg.study.summary import summarise


def study_results(plan: Plan, store: Store) -> StudyResults:
    """Everything of a study that has finished, and what hasn't. Cells must study the same pathologies."""
    rows, counts, paths, missing = [], [], [], []
    found = summarise(plan, store)
    names = select(plan.study.settings.pathologies)
    image_ids: tuple[str, ...] = ()
    for cell in plan.cells:
        scored, fitted = store.find("score", cell.score), store.find("fit", cell.fit)
        if scored is None:
            fault = found.fault(cell.score)
            missing.append({"name": cell.name, "state": found.cell_state(cell.score), "reason": fault or "not run yet"})
            continue
        table = shards.read(scored.path / COUNTS)
        order = tuple(shards.metadata(table)["pathologies"])
        values = np.stack([table[name].to_numpy() for name in ("intersection", "predicted", "true")], axis=1)
        counts_IK3 = values.reshape(-1, len(order), 3)
        image_ids = tuple(table["image_id"].to_pylist()[:: len(order)])
        counts.append(counts_IK3[:, [order.index(name) for name in names]])
        rows.append({**cell.row(), "selection_miou": fitted.facts["selection_miou"] if fitted else None})
        paths.append(scored.path)
    shape = (0, len(image_ids), len(names), 3)
    return StudyResults(
        name=plan.study.name,
        title=plan.study.title or plan.study.name,
        pathologies=names,
        image_ids=image_ids,
        cells=pd.DataFrame(rows, columns=list(CELL_COLUMNS)),
        counts_CIK3=np.stack(counts).astype(np.int64) if counts else np.zeros(shape, dtype=np.int64),
        missing=pd.DataFrame(missing, columns=["name", "state", "reason"]),
        stages=_stages(plan, store),
        predictions=lambda cell, image_id: _predictions(paths[cell], image_id, names),
        image=_images(plan, store, names),
    )


def _stages(plan: Plan, store: Store) -> pd.DataFrame:
    rows = []
    for key, node in plan.nodes.items():
        artifact = store.find(node.stage, key)
        if artifact:
            about = artifact.manifest
            rows.append(
                {
                    "stage": node.stage,
                    "key": key,
                    "seconds": about["seconds"],
                    "host": about["host"],
                    "settings": json.dumps(about["config"], sort_keys=True),
                }
            )
    return pd.DataFrame(rows, columns=["stage", "key", "seconds", "host", "settings"])


def _predictions(path: Path, image_id: str, names: tuple[str, ...]) -> np.ndarray:
    """masks_KHW that a cell predicted for an image."""
    table = shards.read(path / PREDICTIONS)
    size = shards.metadata(table)["size"]
    chosen = table.filter(np.array(table["image_id"].to_pylist()) == image_id)
    runs = dict(zip(chosen["pathology"].to_pylist(), chosen["counts"].to_pylist(), strict=True))
    return np.stack([chexlocalize.decode({"size": [size, size], "counts": runs[name]}, str(path)) for name in names])


def _images(plan: Plan, store: Store, names: tuple[str, ...]) -> Any:
    """The function that reads test images and their expert masks, or None where they aren't in the store."""
    tests = [node for node in plan.nodes.values() if node.stage == "ingest" and node.config["split"] == "test"]
    artifact = store.find("ingest", tests[0].key) if tests else None
    if artifact is None:
        return None
    chosen = [PATHOLOGIES.index(name) for name in names]

    def read(image_id: str) -> tuple[np.ndarray, np.ndarray]:
        return (
            _row(artifact.path / "images", "pixels", image_id),
            _row(artifact.path / "masks", "masks", image_id)[chosen],
        )

    return read


def _row(directory: Path, column: str, image_id: str) -> np.ndarray:
    """One image's array, from whichever shard holds it."""
    for path in shards.files(directory):
        table = shards.read(path, ["image_id", column])
        ids = table["image_id"].to_pylist()
        if image_id in ids:
            return shards.array(table.slice(ids.index(image_id), 1), column, shards.metadata(path)["arrays"][column])[0]
    raise KeyError(f"{directory}: {image_id}")
