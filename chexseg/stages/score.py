"""Score: count a segmenter's pixels on the test images, from which all scores are computed later.

Writes ``counts.parquet`` and ``predictions.parquet`` (`stages.scoring.mask_counts`). Predictions
are always at the training size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import torch

from chexseg.data import radiographs
from chexseg.data.transfer import to_device
from chexseg.models import encoders, segmenter
from chexseg.saliency.thresholds import binarise
from chexseg.stages import api, artifacts, configs
from chexseg.stages.scoring import native_resolution
from chexseg.stages.scoring.mask_counts import MaskCounter


def run(
    config: configs.ScoreConfig, inputs: Mapping[str, Path], out: Path, context: api.StageContext
) -> dict[str, Any]:
    """Run the stage. `inputs`: ``test``, ingested, and ``segmenter``.

    For counts at the original size also ``data``, the root of the raw data.
    """
    context.prepare()
    model, description = load_segmenter(inputs["segmenter"], context.device)
    names = description["pathologies"]
    ids = [image_id for image_id, _ in radiographs.mask_index(inputs["test"])]
    images_NHW = radiographs.pixels(inputs["test"], ids)
    masks_NB = radiographs.expert_masks(inputs["test"], ids, names, images_NHW.shape[-1])
    thresholds_K = torch.tensor(description["thresholds"], device=context.device)
    counter = MaskCounter(ids, names, images_NHW.shape[-1])
    experts = (
        native_resolution.ExpertMasks.of_test(inputs["test"], inputs["data"], ids)
        if config.resolution == "own"
        else None
    )
    batch_size = context.inference_batch(16)

    def logits() -> Iterator[torch.Tensor]:
        for images in images_NHW.split(batch_size):
            with torch.inference_mode():  # applies to this thread
                images = to_device(images, context.device)
                logits_NKHW = model(encoders.prepare(images, description["init"]))
            yield logits_NKHW

    with torch.inference_mode():
        # While a batch is counted, the network sees the next one.
        for logits_NKHW, packed in zip(
            radiographs.prefetch(logits()), masks_NB.split(batch_size), strict=True
        ):
            predicted_NKHW = binarise(logits_NKHW.sigmoid(), thresholds_K)
            if experts is None:
                counter.add(
                    predicted_NKHW,
                    radiographs.unpack_bits(
                        to_device(packed, context.device), predicted_NKHW.shape[1:]
                    ),
                )
            else:
                counter.keep(predicted_NKHW)
                for logits_KSS in logits_NKHW:
                    image_id = ids[counter.images]
                    native_KHW = native_resolution.masks(
                        logits_KSS, thresholds_K, experts.frames[image_id]
                    )
                    expert_KHW = torch.from_numpy(experts.mask_file.masks(image_id, names))
                    counter.count(native_KHW[None], expert_KHW.to(context.device)[None])
            context.progress(counter.images, len(ids), "images")
    counter.write(out, "counts")
    return {"images": len(ids), "iou": counter.iou()} | (
        {} if experts is None else {"data": experts.fingerprint}
    )


def load_segmenter(artifact: Path, device: str) -> tuple[smp.DeepLabV3Plus, dict[str, Any]]:
    """Return (model in eval mode on the device, its description as in `segmenter.describe`)."""
    description = segmenter.describe(artifact / artifacts.SEGMENTER_WEIGHTS)
    # Initialising random weights would take longer than loading the file that replaces them.
    with torch.device("meta"):
        model = segmenter.build(description["architecture"], len(description["pathologies"]))
    model.to_empty(device=device)
    encoders.load(model, artifact / artifacts.SEGMENTER_WEIGHTS)
    return model.eval(), description
