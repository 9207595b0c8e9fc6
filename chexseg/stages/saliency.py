"""Saliency: compute CAMs of the ten pathologies, and thresholds that turn them into weak masks.

Writes ``train/part-*.parquet`` and ``valid/part-*.parquet``: float16 maps at the network's output
resolution, each scaled by its maximum, and the classifier's probabilities. The threshold of a
pathology has the best IoU on the expert training images (paper, appendix A.1); thresholds are in
the metadata of the training shards and in ``thresholds.json``. Pixel counts of the weak masks of
`valid` are in ``counts.parquet`` (`stages.scoring.weak_label_scores`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from chexseg.data import radiographs, ray_data, shards
from chexseg.data.sampling import splits
from chexseg.models import classifier as classifiers
from chexseg.models import encoders
from chexseg.pathologies import PATHOLOGIES, observation_indices
from chexseg.saliency import gradcam, thresholds, weak_masks
from chexseg.stages import api, artifacts, configs
from chexseg.stages.scoring import weak_label_scores


def run(
    config: configs.SaliencyConfig, inputs: Mapping[str, Path], out: Path, context: api.StageContext
) -> dict[str, Any]:
    """Run the stage. `inputs`: ``train`` and ``valid``, both ingested, and ``classifier``."""
    table = radiographs.index(inputs["train"])
    views = table[table["frontal"]] if config.frontal_only else table
    pool = splits.sample(views["image_id"].tolist(), config.images, config.seed, "saliency images")
    masked = radiographs.mask_index(inputs["valid"])
    ids, patients = zip(*masked, strict=True) if masked else ((), ())
    for split in ("train", "valid"):
        (out / split).mkdir(parents=True, exist_ok=True)
    metadata: dict[str, Any] = {"kind": config.kind, "pathologies": PATHOLOGIES}
    arguments: dict[str, Any] = {
        "config": config,
        "classifier": str(inputs["classifier"]),
        "context": context,
    }
    # Map the few expert images first, in this process: they give the thresholds, which are written
    # into the shards of the training images.
    map_expert = CamWriter(
        **arguments,
        wanted=ids,
        out=str(out / "valid"),
        metadata=metadata,
    )
    mapped = sum(map_expert(path)["images"] for path in shards.files(inputs["valid"] / "images"))
    train_ids, _ = splits.expert_split(
        ids, patients, config.expert_train, config.expert_select, config.seed
    )
    chosen = choose_thresholds(config, inputs["valid"], out / "valid", train_ids)
    valid_iou = weak_label_scores.write(
        inputs["valid"], out, chosen["thresholds"], train_ids, config.negatives_empty
    )
    metadata |= {"thresholds": chosen["thresholds"], "negatives_empty": config.negatives_empty}
    answers = ray_data.map_files(
        shards.files(inputs["train"] / "images"),
        CamWriter,
        {
            **arguments,
            "context": context.for_worker(),
            "wanted": pool,
            "out": str(out / "train"),
            "metadata": metadata,
        },
        workers=context.map_workers,
        num_gpus=context.map_gpus,
        single_node=context.single_node,
        progress=lambda files, total: context.progress(
            len(pool) * files // total, len(pool), "images"
        ),
    )
    (out / artifacts.THRESHOLDS).write_text(json.dumps(chosen["thresholds"], indent=1))
    return {
        "images": sum(answer["images"] for answer in answers),
        "expert_images": mapped,
        **chosen,
        "valid_iou": valid_iou,
    }


class CamWriter:
    """Writes the CAMs of the wanted images of one shard, unless the file exists."""

    def __init__(
        self,
        config: configs.SaliencyConfig,
        classifier: str,
        context: api.StageContext,
        wanted: Sequence[str],
        out: str,
        metadata: dict[str, Any],
    ):
        context.prepare()
        self.kind, self.device = config.kind, context.device
        self.wanted, self.out, self.metadata = set(wanted), Path(out), metadata
        self.model = classifiers.build(config.architecture)
        encoders.load(self.model, Path(classifier) / artifacts.CLASSIFIER_WEIGHTS)
        self.model.to(self.device).eval()

    def __call__(self, path: str) -> dict[str, Any]:
        return {"images": shards.complete(self.out / Path(path).name, self.maps(path))}

    def maps(self, path: str) -> Iterator[pa.Table]:
        """Yield tables of maps and probabilities, one batch of wanted images at a time."""
        chosen = observation_indices(PATHOLOGIES)
        weight_KC = self.model.head.weight[chosen]
        for ids, pixels_NHW in radiographs.shard_pixels(path, self.wanted, 32):
            with torch.inference_mode():
                features = self.model.feature_map(
                    encoders.prepare(pixels_NHW.to(self.device), "chexpert")
                )
                logits = self.model.head(features.mean(dim=(2, 3)))[:, chosen]
                maps_NKhw = gradcam.normalise(gradcam.METHODS[self.kind](features, weight_KC))
            arrays = {
                "scores": maps_NKhw.half().cpu().numpy(),
                "probabilities": logits.sigmoid().cpu().numpy(),
            }
            yield shards.table({"image_id": ids}, arrays, **self.metadata)


def choose_thresholds(
    config: configs.SaliencyConfig | configs.IRNetConfig,
    valid: Path,
    maps: Path,
    train: Sequence[str],
) -> dict[str, Any]:
    """Return the thresholds with the best IoU on the expert training images, and these IoUs.

    A pathology without a true pixel gets the default threshold and None.
    """
    histogram = thresholds.Histogram.empty(len(PATHOLOGIES))
    if train:
        size = radiographs.image_size(valid)
        scores_NKhw = radiographs.arrays(maps, "scores", train)
        masks_NB = radiographs.expert_masks(valid, train, PATHOLOGIES, size)
        present_NK = weak_label_scores.present(valid, train, config.negatives_empty)
        for scores, masks, present in zip(
            scores_NKhw.split(16), masks_NB.split(16), present_NK.split(16), strict=True
        ):
            # A score of 0 is above no threshold, so it gives an empty mask.
            scores_NKHW = weak_masks.upsample(scores, size) * present[:, :, None, None]
            histogram = histogram + thresholds.Histogram.of(
                scores_NKHW, radiographs.unpack_bits(masks, (len(PATHOLOGIES), size, size))
            )
    best, iou = histogram.best()
    return {
        "thresholds": dict(zip(PATHOLOGIES, np.round(best.tolist(), 2).tolist(), strict=True)),
        "expert_train_iou": {
            name: None if value != value else value
            for name, value in zip(PATHOLOGIES, iou.tolist(), strict=True)
        },
    }
