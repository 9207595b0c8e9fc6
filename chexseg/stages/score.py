"""Score: a segmenter on the test images, as counts of pixels from which every figure is computed later.

Writes ``counts.parquet`` and ``predictions.parquet`` (`stages.counting`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chexseg.stages.base import Execution, StageConfig
from chexseg.stages.counting import Counting

VERSION = 1


class Config(StageConfig):
    pass


def run(config: Config, inputs: Mapping[str, Path], out: Path, execution: Execution) -> dict[str, Any]:
    """`inputs`: ``test``, ingested, and ``segmenter``."""
    import torch

    from chexseg.data import labelled
    from chexseg.models import encoders
    from chexseg.saliency.thresholds import binarise

    execution.prepare()
    model, about = load_segmenter(inputs["segmenter"], execution.device)
    names = about["pathologies"]
    ids = [image_id for image_id, _ in labelled.mask_index(inputs["test"])]
    images_NHW = labelled.pixels(inputs["test"], ids)
    masks_NB = labelled.expert_masks(inputs["test"], ids, names, images_NHW.shape[-1])
    thresholds_K = torch.tensor(about["thresholds"])
    counting = Counting(ids, names, images_NHW.shape[-1])
    with torch.inference_mode():
        for images, packed in zip(images_NHW.split(16), masks_NB.split(16), strict=True):
            logits_NKHW = model(encoders.prepare(images.to(execution.device), about["init"]))
            predicted_NKHW = binarise(logits_NKHW.sigmoid(), thresholds_K)
            counting.add(predicted_NKHW, labelled.unpack_bits(packed.to(execution.device), predicted_NKHW.shape[1:]))
            execution.progress(counting.images, len(ids), "images")
    counting.write(out, "counts")
    return {"images": len(ids), "iou": counting.iou()}


def load_segmenter(artifact: Path, device: str) -> tuple[Any, dict[str, Any]]:
    """(model in eval mode on the device, what is known of it: architecture, init, pathologies, thresholds, size)."""
    from chexseg.models import encoders, segmenter
    from chexseg.stages.fit import WEIGHTS

    about = encoders.describe(artifact / WEIGHTS)
    model = segmenter.build(about["architecture"], len(about["pathologies"]))
    encoders.load(model, artifact / WEIGHTS)
    return model.to(device).eval(), about
