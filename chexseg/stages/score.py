"""Score: a segmenter on the test images, as counts of pixels from which every figure is computed later.

Writes ``counts.parquet`` (image_id, pathology, intersection, predicted, true; pixels at the training size) and
``predictions.parquet``, the predicted masks as COCO run lengths, for overlays and comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chexseg.stages.base import Execution, StageConfig

VERSION = 1
COUNTS = "counts.parquet"
PREDICTIONS = "predictions.parquet"


class Config(StageConfig):
    pass


def run(config: Config, inputs: Mapping[str, Path], out: Path, execution: Execution) -> dict[str, Any]:
    """`inputs`: ``test``, ingested, and ``segmenter``."""
    import torch

    from chexseg.data import chexlocalize, labelled, shards
    from chexseg.models import encoders
    from chexseg.saliency.thresholds import binarise

    execution.prepare()
    model, about = load_segmenter(inputs["segmenter"], execution.device)
    names = about["pathologies"]
    ids = [image_id for image_id, _ in labelled.mask_index(inputs["test"])]
    images_NHW = labelled.pixels(inputs["test"], ids)
    masks_NB = labelled.expert_masks(inputs["test"], ids, names, images_NHW.shape[-1])
    thresholds_K = torch.tensor(about["thresholds"])
    counts_NK3, runs = [], []
    with torch.inference_mode():
        for images, packed in zip(images_NHW.split(16), masks_NB.split(16), strict=True):
            logits_NKHW = model(encoders.prepare(images.to(execution.device), about["init"]))
            predicted_NKHW = binarise(logits_NKHW.sigmoid(), thresholds_K)
            true_NKHW = labelled.unpack_bits(packed.to(execution.device), predicted_NKHW.shape[1:])
            parts = (predicted_NKHW & true_NKHW, predicted_NKHW, true_NKHW)
            counts_NK3.append(torch.stack([part.sum(dim=(2, 3)) for part in parts], dim=2).cpu().numpy())
            runs += [chexlocalize.encode(mask)["counts"] for masks in predicted_NKHW.cpu().numpy() for mask in masks]
            execution.progress(sum(map(len, counts_NK3)), len(ids), "images")
    counts = np.concatenate(counts_NK3).reshape(-1, 3)
    rows = {"image_id": np.repeat(ids, len(names)), "pathology": np.tile(names, len(ids))}
    columns = dict(zip(("intersection", "predicted", "true"), counts.T, strict=True))
    size = images_NHW.shape[-1]
    shards.write(out / COUNTS, shards.table({**rows, **columns}, {}, kind="counts", pathologies=names, size=size))
    shards.write(out / PREDICTIONS, shards.table({**rows, "counts": runs}, {}, kind="predictions", size=size))
    intersection, predicted, true = counts.reshape(len(ids), len(names), 3).sum(axis=0).T
    union = predicted + true - intersection
    iou = [float(i / u) if u else None for i, u in zip(intersection, union, strict=True)]
    return {"images": len(ids), "iou": dict(zip(names, iou, strict=True))}


def load_segmenter(artifact: Path, device: str) -> tuple[Any, dict[str, Any]]:
    """(model in eval mode on the device, what is known of it: architecture, init, pathologies, thresholds, size)."""
    from chexseg.models import encoders, segmenter
    from chexseg.stages.fit import WEIGHTS

    about = encoders.describe(artifact / WEIGHTS)
    model = segmenter.build(about["architecture"], len(about["pathologies"]))
    encoders.load(model, artifact / WEIGHTS)
    return model.to(device).eval(), about
