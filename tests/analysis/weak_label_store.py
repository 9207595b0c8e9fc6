"""Build stores with small weak labels of two pathologies on three images."""

from __future__ import annotations

import json

import numpy as np

from chexseg.analysis import weak_label_agreement
from chexseg.analysis.baselines import PRIOR
from chexseg.analysis.results import WeakCounts, WeakLabels
from chexseg.config import study_file
from chexseg.data import chexlocalize, shards
from chexseg.pathologies import OBSERVATIONS, PATHOLOGIES
from chexseg.plan import planner
from chexseg.plan.graph import Node, Plan
from chexseg.store.store import Store

SETTINGS = """
settings:
  pathologies: [Consolidation, Edema]
  size: 64
  encoder: {architecture: resnet18, init: chexpert}
  labels: {expert_split: {train: 1, select: 1}}
"""
IDS = tuple(f"patient{n}_study1_view1_frontal" for n in (1, 2, 3))
SIZE = 64
#: (intersection, predicted, true, expected intersection of the box) on the three images. Thresholds
#: were chosen on the first.
COUNTS = {
    "saliency": {
        "Edema": [(4, 8, 6, 2.0), (2, 4, 4, 1.0), (0, 2, 0, 0.0)],
        "Consolidation": [(1, 1, 2, 0.25), (0, 0, 0, 0.0), (0, 0, 0, 0.0)],
    },
    "irnet": {
        "Edema": [(3, 3, 6, 0.5), (3, 3, 4, 0.5), (0, 0, 0, 0.0)],
        "Consolidation": [(0, 0, 2, 0.0), (0, 0, 0, 0.0), (0, 0, 0, 0.0)],
    },
}


def a_plan(text: str = "axes: {labels.weak: [cam, irnet], labels.p: [0]}") -> Plan:
    study = study_file.parse(f"name: weak\n{text}\n{SETTINGS}", "weak.yaml")
    return planner.plan(study, {"train": "a", "valid": "b", "test": "c"})


def nodes(planned: Plan, stage: str) -> list[Node]:
    return [node for node in planned.nodes.values() if node.stage == stage]


def masks_NKHW(shift: int) -> np.ndarray:
    """Return masks with one square each for Consolidation and Edema; the others are empty."""
    out = np.zeros((len(IDS), len(PATHOLOGIES), SIZE, SIZE), dtype=bool)
    for n in range(len(IDS)):
        out[n, PATHOLOGIES.index("Edema"), 10 + n : 30, 5 + shift : 25] = True
    out[0, PATHOLOGIES.index("Consolidation"), 40:50, 30 + shift : 50] = True
    return out


def write(store: Store, node: Node) -> None:
    """Write an artifact as its stage does."""
    generator = np.random.default_rng(1)
    facts: dict = {}
    with store.working_on(node) as out:
        out.mkdir(parents=True)
        if node.stage == "ingest":
            for folder in ("images", "masks"):
                (out / folder).mkdir()
            pixels = generator.integers(0, 255, (len(IDS), SIZE, SIZE), dtype=np.uint8)
            shards.write(
                out / "images" / "part-00000.parquet",
                shards.table({"image_id": IDS}, {"pixels": pixels}),
            )
            patients = [image_id.partition("_")[0] for image_id in IDS]
            rows = shards.table({"image_id": IDS, "patient": patients}, {"masks": masks_NKHW(0)})
            shards.write(out / "masks" / "part-00000.parquet", rows)
        elif node.stage in ("classify", "pretrain"):
            auroc = {
                name: None if name == "Fracture" else 0.5 + n / 100
                for n, name in enumerate(OBSERVATIONS)
            }
            facts = {
                "auroc": auroc,
                "mean_auroc": 0.56,
                "step": 40,
                "steps": 80,
                "images": 320,
                "loss": 0.1,
            }
        else:
            (out / "valid").mkdir()
            arrays = {"scores": generator.random((len(IDS), 10, 2, 2)).astype(np.float16)}
            if node.stage == "irnet":
                arrays["scores"] = generator.random((len(IDS), 10, 16, 16)).astype(np.float16)
                arrays["boundary"] = generator.integers(0, 255, (len(IDS), 16, 16), dtype=np.uint8)
            threshold = None if node.config.get("threshold") == "otsu" else 0.6
            (out / "thresholds.json").write_text(json.dumps(dict.fromkeys(PATHOLOGIES, threshold)))
            rows = shards.table({"image_id": IDS}, arrays, pathologies=PATHOLOGIES)
            shards.write(out / "valid" / "part-00000.parquet", rows)
            write_counts(node.stage, out)
        store.commit(node, out, facts, 1.0)


def write_counts(stage: str, out) -> None:
    named = {
        "image_id": np.repeat(IDS, len(PATHOLOGIES)),
        "pathology": np.tile(PATHOLOGIES, len(IDS)),
    }
    empty = [(0, 0, 0, 0.0)] * len(IDS)
    values = (
        np.array([COUNTS[stage].get(name, empty) for name in PATHOLOGIES])
        .swapaxes(0, 1)
        .reshape(-1, 4)
    )
    pixels = {
        name: values[:, n].astype(np.int64)
        for n, name in enumerate(("intersection", "predicted", "true"))
    }
    columns = (
        named
        | pixels
        | {"box": values[:, 3], "chosen_on": np.repeat([True, False, False], len(PATHOLOGIES))}
    )
    metadata = {"kind": "weak counts", "pathologies": PATHOLOGIES, "size": SIZE}
    shards.write(out / "counts.parquet", shards.table(columns, {}, **metadata))
    runs = [chexlocalize.encode(mask)["counts"] for masks in masks_NKHW(4) for mask in masks]
    shards.write(
        out / "predictions.parquet",
        shards.table({**named, "counts": runs}, {}, kind="predictions", size=SIZE),
    )


STAGES = ("ingest", "classify", "pretrain", "saliency", "irnet")


def a_store(root, planned: Plan, stages=STAGES) -> Store:
    store = Store(root)
    for stage in stages:
        for node in nodes(planned, stage):
            write(store, node)
    return store


def in_memory(
    intersections: dict[str, list[int]],
    chosen_on: int = 0,
    size: int = 20,
    prior: list[int] | None = None,
) -> weak_label_agreement.LabelSet:
    """Return label sets of one pathology with 20 pixels per image; weak labels also have `size`.

    `intersections` gives the pixels that each kind hits; boxes hit 2. prior: what the location
    prior hits, also of `size` pixels; None: there is no prior.
    """
    made = []
    drawn = {} if prior is None else {PRIOR: np.array([[[hit, size, size]] for hit in prior])}
    for kind, hits in intersections.items():
        ids = tuple(f"patient{n}_study1_view1_frontal" for n in range(len(hits)))
        counts_IK3 = np.array([[[hit, size, size]] for hit in hits])
        counts = WeakCounts(
            ids, counts_IK3, np.full((len(ids), 1), 2.0), np.arange(len(ids)) < chosen_on, drawn
        )
        made.append(WeakLabels(kind, kind, "cam" if kind == "irnet" else None, {}, counts))
    return weak_label_agreement.LabelSet(tuple(made))
