"""Build stores with synthetic scores: each cell predicts the experts' masks, shifted by rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from chexseg import resolve
from chexseg.data import chexlocalize, shards
from chexseg.data.images import Frame
from chexseg.plan.cells import Cell
from chexseg.plan.graph import Plan
from chexseg.stages.scoring.mask_counts import MaskCounter
from chexseg.store.store import Store

STUDY = """
name: small
axes:
  labels.p: [0.5, 1]
  trial: [0, 1]
settings:
  size: 64
  pathologies: [Edema, Cardiomegaly, Support Devices]
  encoder: {init: random}
  labels: {expert_split: {train: 8, select: 4}}
  fit: {epochs: 3}
"""


def write_study(path: Path, text: str = STUDY) -> Path:
    path.write_text(text)
    return path


def plan_of(path: Path, data: Path, store: Store, *overrides: str) -> Plan:
    return resolve.read([path], data, store, overrides)[0]


def score(store: Store, plan: Plan, data: Path, cells: list[Cell], shift: int = 2) -> None:
    """Score cells as `stages.score` does.

    Trial t at p is shifted by shift + t rows, and by one row less at p = 1.
    """
    import torch

    truth = chexlocalize.read(data / chexlocalize.FILES["test"])
    for cell in cells:
        s, node = cell.settings, plan.nodes[cell.score]
        rows = shift + s.trial - (s.labels.p == 1)
        counter = MaskCounter(sorted(truth), s.pathologies, s.size)
        for image_id in sorted(truth):
            own_KHW = truth.masks(image_id, s.pathologies)
            square_KSS = Frame(*truth.size(image_id), s.size).masks(own_KHW)
            guess_KSS = np.roll(square_KSS, rows, axis=1)
            guess_NKSS, square_NKSS = (
                torch.from_numpy(guess_KSS[None]),
                torch.from_numpy(square_KSS[None]),
            )
            if s.score.resolution == "own":
                counter.count(
                    torch.from_numpy(np.roll(own_KHW, rows, axis=1)[None]),
                    torch.from_numpy(own_KHW[None]),
                )
                counter.keep(guess_NKSS)
            else:
                counter.add(guess_NKSS, square_NKSS)
        with store.working_on(node) as partial:
            partial.mkdir(parents=True)
            counter.write(partial, kind="counts")
            store.commit(node, partial, {"images": len(truth)}, 1.0)


def ingest_masks(store: Store, plan: Plan, data: Path, split: str) -> None:
    """Write the masks of a split as `stages.ingest` does, without its images."""
    masks = chexlocalize.read(data / chexlocalize.FILES[split])
    (node,) = (n for n in plan.nodes.values() if n.config.get("split") == split)
    ids = sorted(masks)
    squares = [
        Frame(*masks.size(image_id), node.config["size"]).masks(masks.masks(image_id))
        for image_id in ids
    ]
    patients = [image_id.partition("_")[0] for image_id in ids]
    with store.working_on(node) as out:
        (out / "masks").mkdir(parents=True)
        table = shards.table({"image_id": ids, "patient": patients}, {"masks": np.stack(squares)})
        shards.write(out / "masks" / "part-00000.parquet", table)
        store.commit(node, out, {"images": len(ids)}, 1.0)
