"""The images of a classifier: padded squares, or crops of strips (`ClassifyConfig.geometry`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from pandas import DataFrame
from torch import Tensor

from chexseg.data import radiographs
from chexseg.data.images import Strip
from chexseg.models import crops
from chexseg.stages.configs import ClassifyConfig


def spans(shapes: Iterable[tuple[int, int]], side: int) -> dict[str, Tensor]:
    """Return ``lengths`` of strips, ``centres`` (starts of central crops) and ``portrait``.

    shapes: (height, width) of the original images. side: of the crops, in pixels.
    """
    strips = [Strip(int(height), int(width), side) for height, width in shapes]
    return {
        "lengths": torch.tensor([strip.length for strip in strips]),
        "centres": torch.tensor([strip.centre for strip in strips]),
        "portrait": torch.tensor([strip.is_portrait for strip in strips]),
    }


def columns(config: ClassifyConfig, artifact: Path, table: DataFrame) -> dict[str, Tensor]:
    """Return what `training_images` needs of each image besides its pixels: `spans`, or nothing."""
    if config.geometry == "pad":
        return {}
    return spans(
        zip(table["height"], table["width"], strict=True), radiographs.image_size(artifact)
    )


def draws(config: ClassifyConfig, seed: int) -> dict[str, Tensor]:
    """Return what `training_images` needs of a batch besides its samples: ``draws``, or nothing."""
    if config.geometry == "pad":
        return {}
    generator = torch.Generator().manual_seed(seed)
    return {"draws": crops.start_draws(config.batch_size, generator)}


def training_images(batch: Mapping[str, Tensor]) -> Tensor:
    """Return the images_NHW of a batch: as they are, or random crops of strips."""
    if "lengths" not in batch:
        return batch["images"]
    starts_N = crops.random_starts(batch["lengths"], batch["images"].shape[1], batch["draws"])
    return crops.squares(batch["images"], starts_N, batch["portrait"])


def evaluation_images(config: ClassifyConfig, artifact: Path, table: DataFrame) -> Tensor:
    """Return the pixels_NHW of all images of a table: as they are, or central crops of strips."""
    pixels_NHW = radiographs.pixels(artifact, table["image_id"].tolist())
    span = columns(config, artifact, table)
    return crops.squares(pixels_NHW, span["centres"], span["portrait"]) if span else pixels_NHW
