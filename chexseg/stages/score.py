"""Score: a segmenter on the test images, as counts of pixels from which every figure is computed later.

Writes ``counts.parquet`` and ``predictions.parquet`` (`stages.scoring.mask_counts`), the latter always at the training size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from chexseg.data import radiographs
from chexseg.models import encoders, segmenter
from chexseg.saliency.thresholds import binarise
from chexseg.stages.api import StageContext
from chexseg.stages.artifacts import SEGMENTER_WEIGHTS
from chexseg.stages.configs import ScoreConfig
from chexseg.stages.scoring import native_resolution
from chexseg.stages.scoring.mask_counts import Counting


def run(
    config: ScoreConfig, inputs: Mapping[str, Path], out: Path, context: StageContext
) -> dict[str, Any]:
    """`inputs`: ``test``, ingested, and ``segmenter``; for the images' own size also the data root, ``data``."""
    context.prepare()
    model, about = load_segmenter(inputs["segmenter"], context.device)
    names = about["pathologies"]
    ids = [image_id for image_id, _ in radiographs.mask_index(inputs["test"])]
    images_NHW = radiographs.pixels(inputs["test"], ids)
    masks_NB = radiographs.expert_masks(inputs["test"], ids, names, images_NHW.shape[-1])
    thresholds_K = torch.tensor(about["thresholds"])
    counting = Counting(ids, names, images_NHW.shape[-1])
    truth = native_resolution.Truth.of_test(inputs, ids) if config.resolution == "own" else None
    with torch.inference_mode():
        for images, packed in zip(images_NHW.split(16), masks_NB.split(16), strict=True):
            logits_NKHW = model(encoders.prepare(images.to(context.device), about["init"]))
            predicted_NKHW = binarise(logits_NKHW.sigmoid(), thresholds_K)
            if truth is None:
                counting.add(
                    predicted_NKHW,
                    radiographs.unpack_bits(packed.to(context.device), predicted_NKHW.shape[1:]),
                )
            else:
                counting.keep(predicted_NKHW)
                for logits_KSS in logits_NKHW:
                    image_id = ids[counting.images]
                    own_KHW = native_resolution.masks(
                        logits_KSS, thresholds_K, truth.frames[image_id]
                    )
                    counting.count(
                        own_KHW[None], truth.masks(image_id, names).to(context.device)[None]
                    )
            context.progress(counting.images, len(ids), "images")
    counting.write(out, "counts")
    return {"images": len(ids), "iou": counting.iou()} | (
        {} if truth is None else {"data": truth.fingerprint}
    )


def load_segmenter(artifact: Path, device: str) -> tuple[Any, dict[str, Any]]:
    """Return (model in eval mode on the device, its description: architecture, init, pathologies, thresholds, size)."""
    about = segmenter.describe(artifact / SEGMENTER_WEIGHTS)
    # Random weights that the file's replace at once would take longer than loading it.
    with torch.device("meta"):
        model = segmenter.build(about["architecture"], len(about["pathologies"]))
    model.to_empty(device=device)
    encoders.load(model, artifact / SEGMENTER_WEIGHTS)
    return model.eval(), about
