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
from chexseg.data.resampling import ImageResize
from chexseg.data.sampling import radiograph_samplers, samplers, splits
from chexseg.data.sampling.mixing import effective_probability
from chexseg.data.sampling.mixture import Mixture, PublishedMixture
from chexseg.errors import UserError
from chexseg.seeds import derive
from chexseg.stages import distil
from chexseg.stages.api import StageContext
from chexseg.stages.configs import FitConfig
from chexseg.stages.scoring.weak_label_masks import MaskRule

#: (images (N, H, W) uint8, packed masks (N, bytes) uint8), both on the device.
MaskedImages = tuple[Tensor, Tensor]

#: Images of a batch in evaluation mode.
EVALUATED = 16


@dataclass(frozen=True)
class TrainingSet:
    """The data of one `fit`. Images are uint8 (N, H, W), masks packed bits (N, bytes).

    batches: epoch number -> its batches, on the device; a batch's ``rows`` are positions in `ids`.
    skip: advance past the epoch of this number without loading it.
    samples: samples per epoch.
    select: images and masks that choose the epoch.
    thresholds: yield the images and masks that choose the thresholds, in batches.
    facts: figures for the manifest.
    image_resize: how the images were resized, and new ones must be.
    """

    batches: Callable[[int], Iterator[dict[str, Tensor]]]
    skip: Callable[[int], None]
    ids: Sequence[str]
    samples: int
    select: MaskedImages
    thresholds: Callable[[], Iterator[dict[str, Tensor]]]
    facts: Callable[[], dict[str, Any]]
    image_resize: ImageResize = "antialiased"


def expert_ids(config: FitConfig, valid: Path) -> tuple[list[str], list[str]]:
    """Return (training ids, selection ids) of the expert images."""
    ids, patients = zip(*radiographs.mask_index(valid), strict=True)
    return splits.expert_split(
        ids,
        patients,
        config.expert_train,
        config.expert_select,
        config.split_seed,
        config.expert_split_by,
    )


def in_batches(masked: MaskedImages) -> Iterator[dict[str, Tensor]]:
    """Yield images and masks in batches for evaluation; nothing if there are none."""
    if not len(masked[0]):
        return
    for images, masks in zip(*(values.split(EVALUATED) for values in masked), strict=True):
        yield {"images": images, "masks": masks}


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
        directory, "scores", -(-len(rule.pathologies) * rule.size**2 // 8), masks
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
    """Return expert and weak images mixed with probability p.

    Raises `UserError` for too few images, and if published mixing has too many to hold in memory.
    """
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
    images = len(ids)
    if probability == 0 and config.epoch_size == "expert-and-weak":
        images += len(train_ids)
    mixture = _mixture(config, expert, weak, images)
    samples = config.samples_per_epoch or images
    # A weakly supervised cell uses expert masks only to choose its epoch.
    thresholds = cast(samplers.Source, expert or weak)
    return TrainingSet(
        batches=lambda epoch: mixture.batches(epoch, samples),
        skip=lambda epoch: mixture.skip(epoch, samples),
        ids=ids,
        samples=samples,
        select=expert_set(config, inputs["valid"], select_ids, context.device),
        thresholds=lambda: thresholds.once(EVALUATED),
        facts=lambda: {
            "effective_p": probability,
            # None for an untrained network: JSON has no NaN.
            "expert_share": mixture.expert_share if mixture.drawn else None,
        },
        image_resize=radiographs.image_resize(inputs["valid"]),
    )


def _mixture(
    config: FitConfig, expert: samplers.Source | None, weak: samplers.Source | None, images: int
) -> Mixture | PublishedMixture:
    seed = derive(config.seed, "mixture")
    if config.mixing != "published":
        return Mixture(expert, weak, config.p, config.batch_size, seed, config.mixing)
    for source in (expert, weak):
        if source is not None and not isinstance(source, samplers.Resident):
            raise UserError(
                f"labels.mixing: found published with {len(source):,} images, more than fit in"
                " memory; expected: exact or official"
            )
    return PublishedMixture(
        cast("samplers.Resident | None", expert),
        cast("samplers.Resident | None", weak),
        config.p,
        config.batch_size,
        seed,
        images,
    )


def student(config: FitConfig, inputs: Mapping[str, Path], context: StageContext) -> TrainingSet:
    """Return training images with a teacher's stride-4 logits.

    Fewer images than a batch are repeated within it.
    """
    train_ids, select_ids = expert_ids(config, inputs["valid"])
    directory = inputs["teacher"] / "train"
    ids = distil.images(inputs["teacher"], config.fraction)
    shape = shards.metadata(shards.files(directory)[0])["arrays"]["logits"]["shape"]
    stored = radiograph_samplers.Stored(directory, "logits", 2 * math.prod(shape))
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
        thresholds=lambda: expert.once(EVALUATED),
        facts=dict,
        image_resize=radiographs.image_resize(inputs["valid"]),
    )
