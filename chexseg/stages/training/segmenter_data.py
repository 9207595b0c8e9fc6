"""Data for a segmenter: training batches, and the images that choose its epoch and thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from chexseg.data import radiographs, shards
from chexseg.data.sampling import radiograph_samplers, samplers, splits
from chexseg.data.sampling.mixing import effective_probability
from chexseg.data.sampling.mixture import Mixture
from chexseg.seeds import derive
from chexseg.stages import distil
from chexseg.stages.api import StageContext
from chexseg.stages.configs import FitConfig
from chexseg.stages.scoring.weak_label_masks import MaskRule

#: (images (N, H, W) uint8, packed masks (N, bytes) uint8), both on the device.
MaskedImages = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TrainingSet:
    """The data of one `fit`. Images are uint8 (N, H, W), masks packed bits (N, bytes).

    batches: epoch number -> its batches, on the device; a batch's ``rows`` are positions in `ids`.
    skip: advance past the epoch of this number without loading it.
    samples: samples per epoch.
    select: images and masks that choose the epoch.
    thresholds: yield the images and masks that choose the thresholds, in batches.
    facts: figures for the manifest.
    """

    batches: Callable[[int], Iterator[dict[str, Tensor]]]
    skip: Callable[[int], None]
    ids: Sequence[str]
    samples: int
    select: MaskedImages
    thresholds: Callable[[], Iterator[dict[str, Tensor]]]
    facts: Callable[[], dict[str, Any]]


def expert_ids(config: FitConfig, valid: Path) -> tuple[list[str], list[str]]:
    """Return (training ids, selection ids) of the expert images."""
    ids, patients = zip(*radiographs.mask_index(valid), strict=True)
    return splits.expert_split(
        ids, patients, config.expert_train, config.expert_select, config.split_seed
    )


def expert_set(config: FitConfig, valid: Path, image_ids: list[str], device: str) -> MaskedImages:
    """Return (images, packed masks) of expert images."""
    images = radiographs.pixels(valid, image_ids)
    return images.to(device), radiographs.expert_masks(
        valid, image_ids, config.pathologies, images.shape[-1]
    ).to(device)


def expert_source(
    config: FitConfig, valid: Path, image_ids: list[str], device: str
) -> samplers.Source:
    """Return a source of expert images and masks, which are few enough to fit on any device."""
    images, masks = expert_set(config, valid, image_ids, device)
    rows = torch.arange(len(image_ids), device=device)
    return samplers.Resident(
        {"images": images, "masks": masks, "rows": rows}, derive(config.seed, "expert samples")
    )


def weak_source(
    config: FitConfig, inputs: Mapping[str, Path], context: StageContext, first: int
) -> tuple[samplers.Source, list[str]]:
    """Return (source, ids) of this trial's weakly labelled images; ``rows`` start at `first`."""
    directory = inputs["weak"] / "train"
    pool = radiographs.ids(directory)
    positive = np.zeros(len(pool), dtype=bool)
    if config.prefer_positives:  # reads the labels of the whole pool, up to 191,000 images
        table = radiographs.index(inputs["train"], set(pool)).set_index("image_id")
        positive = (radiographs.labels(table.loc[pool], config.pathologies) == 1).any(axis=1)
    ids = splits.weak_images(
        pool, positive, config.weak_images, config.seed, config.prefer_positives
    )
    rule = MaskRule.of(
        directory, inputs["train"], ids, config.negatives_empty, pathologies=config.pathologies
    )

    def masks(rows: np.ndarray, scores_NKhw: Tensor) -> Tensor:
        return radiographs.pack_bits(rule.masks(rows, scores_NKhw))

    stored = radiograph_samplers.Stored(
        directory, "scores", masks, -(-len(rule.pathologies) * rule.size**2 // 8)
    )
    source = radiograph_samplers.source(
        inputs["train"],
        ids,
        {"rows": torch.arange(first, first + len(ids))},
        derive(config.seed, "weak samples"),
        context.device,
        context.resident_budget(),
        {"masks": stored},
    )
    return source, ids


def mixed(config: FitConfig, inputs: Mapping[str, Path], context: StageContext) -> TrainingSet:
    """Return expert and weak images mixed with probability p. Raises `UserError` for too few."""
    probability = effective_probability(config.p, config.mixing)
    train_ids, select_ids = expert_ids(config, inputs["valid"])
    expert = weak = None
    ids: list[str] = []
    if probability > 0:
        expert = expert_source(config, inputs["valid"], train_ids, context.device)
        ids += train_ids
    if probability < 1:
        weak, weak_ids = weak_source(config, inputs, context, len(ids))
        ids += weak_ids
    mixture = Mixture(
        expert, weak, config.p, config.batch_size, derive(config.seed, "mixture"), config.mixing
    )
    samples = config.samples_per_epoch or len(ids)
    # A weakly supervised cell uses expert masks only to choose its epoch.
    thresholds = cast(samplers.Source, expert or weak)
    return TrainingSet(
        batches=lambda epoch: mixture.batches(epoch, samples),
        skip=lambda epoch: mixture.skip(epoch, samples),
        ids=ids,
        samples=samples,
        select=expert_set(config, inputs["valid"], select_ids, context.device),
        thresholds=lambda: thresholds.once(16),
        facts=lambda: {"effective_p": probability, "expert_share": mixture.expert_share},
    )


def student(config: FitConfig, inputs: Mapping[str, Path], context: StageContext) -> TrainingSet:
    """Return training images with a teacher's stride-4 logits.

    Fewer images than a batch are repeated within it.
    """
    train_ids, select_ids = expert_ids(config, inputs["valid"])
    directory = inputs["teacher"] / "train"
    ids = distil.images(inputs["teacher"], config.fraction)
    shape = shards.metadata(shards.files(directory)[0])["arrays"]["logits"]["shape"]
    stored = radiograph_samplers.Stored(
        directory, "logits", lambda _, logits_NKhw: logits_NKhw, 2 * math.prod(shape)
    )
    source = radiograph_samplers.source(
        inputs["train"],
        ids,
        {"rows": torch.arange(len(ids))},
        derive(config.seed, "student samples"),
        context.device,
        context.resident_budget(),
        {"teacher": stored},
    )
    samples = config.samples_per_epoch or len(ids)
    steps = max(1, samples // config.batch_size)
    expert = expert_source(config, inputs["valid"], train_ids, context.device)
    return TrainingSet(
        batches=lambda epoch: (source.take(config.batch_size) for _ in range(steps)),
        skip=lambda epoch: source.skip(steps * config.batch_size),
        ids=ids,
        samples=samples,
        select=expert_set(config, inputs["valid"], select_ids, context.device),
        thresholds=lambda: expert.once(16),
        facts=dict,
    )
