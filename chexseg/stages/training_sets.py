"""What a segmenter trains on, chooses its epoch on and its thresholds on: images and masks, loaded onto the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from chexseg.data import draws, labelled, shards, sources
from chexseg.data.mixture import Mixture
from chexseg.data.mixture_rules import effective_probability
from chexseg.errors import UserError
from chexseg.pathologies import PATHOLOGIES
from chexseg.randomness import derive
from chexseg.saliency.weak_masks import weak_masks
from chexseg.stages import distil, weak_counts
from chexseg.stages.base import Execution

if TYPE_CHECKING:
    from chexseg.stages.fit import Config

#: (images (N, H, W) uint8, packed masks (N, bytes) uint8), both on the device.
Masked = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class TrainingSet:
    """What a cell trains on: `batches(epoch)`; what its epoch is chosen on; what its thresholds are chosen on.

    Images are uint8 (N, H, W), masks packed bits (N, bytes), all on the device.
    """

    batches: Callable[[int], Iterator[dict[str, torch.Tensor]]]
    skip: Callable[[int], None]
    images: int
    samples: int
    select: Masked
    thresholds: Masked
    facts: Callable[[], dict[str, Any]]


def expert_ids(config: Config, valid: Path) -> tuple[list[str], list[str]]:
    """(training, selection) ids of the expert images."""
    ids, patients = zip(*labelled.mask_index(valid), strict=True)
    return draws.expert_split(ids, patients, config.expert_train, config.expert_select, config.split_seed)


def expert_set(config: Config, valid: Path, image_ids: list[str], device: str) -> Masked:
    """(images, packed masks) of expert images."""
    images = labelled.pixels(valid, image_ids)
    return images.to(device), labelled.expert_masks(valid, image_ids, config.pathologies, images.shape[-1]).to(device)


def weak_set(config: Config, inputs: Mapping[str, Path], device: str) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """(images, packed masks, ids) of this trial's draw of weakly labelled images."""
    shard_files = shards.files(inputs["weak"] / "train")
    pool = labelled.ids(inputs["weak"] / "train")
    table = labelled.index(inputs["train"]).set_index("image_id")
    positive = (labelled.labels(table.loc[pool], config.pathologies) == 1).any(axis=1)
    ids = draws.weak_images(pool, positive, config.weak_images, config.seed, config.prefer_positives)
    thresholds = shards.metadata(shard_files[0])["thresholds"]
    chosen = [PATHOLOGIES.index(name) for name in config.pathologies]
    scores_NKhw = labelled.gather(inputs["weak"] / "train", "scores", ids)[:, chosen]
    present_NK = weak_counts.present(inputs["train"], ids, config.negatives_empty)[:, chosen]
    images = labelled.pixels(inputs["train"], ids)
    thresholds_K = torch.tensor([thresholds[name] for name in config.pathologies])
    packed = [
        labelled.pack_bits(weak_masks(scores, thresholds_K, present, images.shape[-1]))
        for scores, present in zip(scores_NKhw.split(32), present_NK.split(32), strict=True)
    ]
    return images.to(device), torch.cat(packed).to(device), ids


def mixed(config: Config, inputs: Mapping[str, Path], execution: Execution) -> TrainingSet:
    """Expert and weak images, mixed by p. Raises `UserError` where there are fewer images than asked for."""
    probability = effective_probability(config.p, config.mixing)
    train_ids, select_ids = expert_ids(config, inputs["valid"])
    expert = weak = None
    images = 0
    if probability > 0:
        pixels, masks = expert_set(config, inputs["valid"], train_ids, execution.device)
        expert = sources.Resident({"images": pixels, "masks": masks}, derive(config.seed, "expert samples"))
        images, thresholds = images + len(train_ids), (pixels, masks)
    if probability < 1:
        pixels, masks, weak_ids = weak_set(config, inputs, execution.device)
        weak = sources.Resident({"images": pixels, "masks": masks}, derive(config.seed, "weak samples"))
        images += len(weak_ids)
        if probability == 0:  # no expert mask reaches a weakly supervised cell, but by the choice of its epoch
            thresholds = (pixels, masks)
    mixture = Mixture(expert, weak, config.p, config.batch_size, derive(config.seed, "mixture"), config.mixing)
    samples = config.samples_per_epoch or images
    return TrainingSet(
        batches=lambda epoch: mixture.batches(epoch, samples),
        skip=lambda epoch: mixture.skip(epoch, samples),
        images=images,
        samples=samples,
        select=expert_set(config, inputs["valid"], select_ids, execution.device),
        thresholds=thresholds,
        facts=lambda: {"effective_p": probability, "expert_share": mixture.expert_share},
    )


def student(config: Config, inputs: Mapping[str, Path], execution: Execution) -> TrainingSet:
    """Training images with a teacher's stride-4 logits. Fewer than a batch fill it by standing in it several times."""

    train_ids, select_ids = expert_ids(config, inputs["valid"])
    ids = distil.images(inputs["teacher"], config.fraction)
    side = labelled.image_size(inputs["train"])
    needs = len(ids) * side**2 * (1 + len(config.pathologies) * 2 // 16)  # pixels, and float16 logits at stride 4
    if needs > execution.resident_bytes:
        raise UserError(f"distil.fraction: {len(ids)} images need {needs} bytes; allowed: {execution.resident_bytes}")
    columns = {
        "images": labelled.pixels(inputs["train"], ids),
        "teacher": labelled.gather(inputs["teacher"] / "train", "logits", ids),
    }
    source = sources.Resident(
        {name: values.to(execution.device) for name, values in columns.items()}, derive(config.seed, "student samples")
    )
    samples = config.samples_per_epoch or len(ids)
    steps = max(1, samples // config.batch_size)
    return TrainingSet(
        batches=lambda epoch: (source.take(config.batch_size) for _ in range(steps)),
        skip=lambda epoch: source.skip(steps * config.batch_size),
        images=len(ids),
        samples=samples,
        select=expert_set(config, inputs["valid"], select_ids, execution.device),
        thresholds=expert_set(config, inputs["valid"], train_ids, execution.device),
        facts=dict,
    )
