"""Saliency: compute CAMs of the ten pathologies, and thresholds that turn them into weak masks.

Writes ``train/part-*.parquet`` and ``valid/part-*.parquet``: float16 maps at the network's output
resolution, each scaled by its maximum, and the classifier's probabilities. By default the threshold
of a pathology has the best IoU on the expert training images (paper, appendix A.1). Thresholds are
in the metadata of the training shards and in ``thresholds.json``, those of single images beside
their scores (`stages.scoring.weak_label_masks`). Pixel counts of the weak masks of `valid` are in
``counts.parquet`` (`stages.scoring.weak_label_scores`).

A classifier of crops sees the central crops of strips. Its maps are put back into the padded
squares, at stride 4 (`saliency.centre_crop`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from chexseg.data import radiographs, ray_data, shards
from chexseg.data.sampling import splits
from chexseg.data.transfer import to_device
from chexseg.models import classifier as classifiers
from chexseg.models import crops, encoders
from chexseg.pathologies import PATHOLOGIES, observation_indices
from chexseg.saliency import centre_crop, gradcam, otsu, thresholds, weak_masks
from chexseg.stages import api, artifacts, configs
from chexseg.stages.scoring import weak_label_masks, weak_label_scores
from chexseg.stages.scoring.weak_label_masks import MaskRule
from chexseg.stages.training import classifier_data


def run(
    config: configs.SaliencyConfig, inputs: Mapping[str, Path], out: Path, context: api.StageContext
) -> dict[str, Any]:
    """Run the stage. `inputs`: ``train`` and ``valid``, both ingested, and ``classifier``.

    Also ``train_strips`` and ``valid_strips``, the same images as strips, if it learned from crops.
    """
    seen = {split: inputs.get(f"{split}_strips", inputs[split]) for split in ("train", "valid")}
    table = radiographs.index(inputs["train"])
    views = table[table["frontal"]] if config.frontal_only else table
    pool = splits.sample(views["image_id"].tolist(), config.images, config.seed, "saliency images")
    masked = radiographs.mask_index(inputs["valid"])
    ids, patients = zip(*masked, strict=True) if masked else ((), ())
    for split in ("train", "valid"):
        (out / split).mkdir(parents=True, exist_ok=True)
    metadata: dict[str, Any] = {"kind": config.kind, "pathologies": PATHOLOGIES}
    metadata |= {"fill_holes": True} if config.fill_holes else {}
    arguments: dict[str, Any] = {
        "config": config,
        "classifier": str(inputs["classifier"]),
        "context": context,
        "size": radiographs.image_size(inputs["valid"]),
    }
    # Map the few expert images first, in this process: they give the thresholds, which are written
    # into the shards of the training images.
    map_expert = CamWriter(
        **arguments,
        wanted=ids,
        out=str(out / "valid"),
        metadata=metadata,
    )
    if map_expert.crops:
        metadata["geometry"] = "crop"
    mapped = sum(map_expert(path)["images"] for path in shards.files(seen["valid"] / "images"))
    train_ids, _ = splits.expert_split(
        ids,
        patients,
        config.expert_train,
        config.expert_select,
        config.seed,
        config.expert_split_by,
    )
    chosen = choose_thresholds(config, inputs["valid"], out / "valid", train_ids)
    valid_iou = weak_label_scores.write(
        inputs["valid"], out, chosen["thresholds"], train_ids, config.negatives_empty
    )
    metadata |= {"thresholds": chosen["thresholds"], "negatives_empty": config.negatives_empty}
    answers = ray_data.map_files(
        shards.files(seen["train"] / "images"),
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
        size: int,
    ):
        context.prepare()
        self.config, self.device, self.size = config, context.device, size
        self.batch_size = context.inference_batch(32)
        self.wanted, self.out, self.metadata = set(wanted), Path(out), metadata
        self.model = classifiers.build(config.architecture)
        weights = Path(classifier) / artifacts.CLASSIFIER_WEIGHTS
        encoders.load(self.model, weights)
        # Classifiers of padded squares with CheXpert's normalisation don't say so.
        description = encoders.describe(weights)
        self.crops = description.get("geometry") == "crop"
        self.normalisation = description.get("normalisation", "chexpert")
        self.model.to(self.device).eval()
        # On the device, because a list of indices would be copied there in each batch.
        self.chosen = torch.tensor(observation_indices(PATHOLOGIES), device=self.device)

    def __call__(self, path: str) -> dict[str, Any]:
        # Reading, the network and writing run in parallel.
        tables = radiographs.prefetch(self.maps(path))
        return {"images": shards.complete(self.out / Path(path).name, tables)}

    def maps(self, path: str) -> Iterator[pa.Table]:
        """Yield tables of maps and probabilities, one batch of wanted images at a time."""
        for ids, arrays in radiographs.to_host(self._batches(path)):
            yield shards.table({"image_id": ids}, arrays, **self.metadata)

    def _batches(self, path: str) -> Iterator[tuple[list[str], dict[str, Tensor]]]:
        shapes = radiographs.shapes(path) if self.crops else {}
        for ids, pixels_NHW in radiographs.shard_pixels(
            path, self.wanted, self.batch_size, self.device
        ):
            size = pixels_NHW.shape[1]
            if self.crops:
                span = classifier_data.spans([shapes[image_id] for image_id in ids], size)
                pixels_NHW = crops.squares(pixels_NHW, span["centres"], span["portrait"])
            with torch.inference_mode():
                maps_NKhw, logits_NK = self.grad_cams(
                    encoders.prepare(to_device(pixels_NHW, self.device), self.normalisation)
                )
                if self.crops:
                    maps_NKhw = centre_crop.in_padded_square(
                        maps_NKhw, [shapes[image_id] for image_id in ids], size
                    )
                scores_NKhw = gradcam.normalise(maps_NKhw).half()
                arrays = {"scores": scores_NKhw, "probabilities": logits_NK.sigmoid()}
                thresholds_NK = self.image_thresholds(maps_NKhw, logits_NK, scores_NKhw)
            if thresholds_NK is not None:
                arrays[weak_label_masks.IMAGE_THRESHOLDS] = thresholds_NK
            yield ids, arrays

    def grad_cams(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps_NKhw >= 0, with the logit as target and not scaled, and logits_NK."""
        weight_KC = self.model.head.weight[self.chosen]
        if self.config.kind == "cam" and self.config.layer == "before-relu":
            before_NChw = self.model.pre_activation(images_NCHW)
            features_NChw = before_NChw.relu()
            maps_NKhw = gradcam.before_relu(before_NChw, weight_KC)
        else:
            features_NChw = self.model.feature_map(images_NCHW)
            maps_NKhw = gradcam.METHODS[self.config.kind](features_NChw, weight_KC)
        return maps_NKhw, self.model.head(features_NChw.mean(dim=(2, 3)))[:, self.chosen]

    def image_thresholds(
        self, maps_NKhw: Tensor, logits_NK: Tensor, scores_NKhw: Tensor
    ) -> Tensor | None:
        """Return the thresholds_NK, float32, of these images, in units of their scores.

        Infinity empties a mask, 0 leaves it to the pathology's threshold. None if all are 0.
        """
        maximum_NK = maps_NKhw.amax((-2, -1))
        if self.config.kind == "cam" and self.config.target == "probability":
            maximum_NK = maximum_NK * gradcam.probability_gradient(logits_NK)
        thresholds_NK = torch.zeros_like(maximum_NK)
        if self.config.threshold in ("otsu", "otsu-scaled"):
            factor_NK = (
                maximum_NK if self.config.threshold == "otsu" else torch.ones_like(maximum_NK)
            )
            thresholds_NK = otsu.thresholds(scores_NKhw, factor_NK, self.size)
        elif not self.config.cutoff:
            return None
        return thresholds_NK.where(maximum_NK >= self.config.cutoff, torch.inf)


def choose_thresholds(
    config: configs.SaliencyConfig | configs.IRNetConfig,
    valid: Path,
    maps: Path,
    train: Sequence[str],
) -> dict[str, Any]:
    """Return the thresholds of the pathologies, and their IoU on the expert training images.

    By default those with the best IoU; a pathology without a true pixel gets the default threshold
    and None. With Otsu's threshold, which is each image's, all are None.
    """
    if isinstance(config.threshold, str) and config.threshold != "training":
        return {"thresholds": dict.fromkeys(PATHOLOGIES)}
    if not isinstance(config.threshold, str):
        return {"thresholds": dict.fromkeys(PATHOLOGIES, config.threshold)}
    histogram = thresholds.Histogram.empty(len(PATHOLOGIES))
    if train:
        rule = MaskRule.of(maps, valid, train, config.negatives_empty, dict.fromkeys(PATHOLOGIES))
        size = rule.size
        scores_NKhw = radiographs.arrays(maps, "scores", train)
        masks_NB = radiographs.expert_masks(valid, train, PATHOLOGIES, size)
        present_NK = rule.present_NK & rule.thresholds_NK.isfinite()
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
