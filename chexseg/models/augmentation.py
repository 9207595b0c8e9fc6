"""Random crop, rotation, flip, brightness and contrast of a whole batch, on its device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Augmentation:
    """Strength of the random changes; the defaults change nothing.

    crop: smallest share of the image's area in a view. The aspect ratio is kept, because the shape
        of organs is informative.
    rotation: largest angle in degrees.
    flip: probability of a horizontal flip.
    brightness, contrast: largest relative change.
    """

    crop: float = 1.0
    rotation: float = 0.0
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0


def views(
    images_NHW: torch.Tensor, strength: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Return one random view of each grey uint8 image, with the same shape, type and device.

    Pixels outside an image are black. The generator must be on the CPU, so that its seed gives the
    same views on every device.
    """
    count, height, width = images_NHW.shape
    draws = torch.rand(7, count, generator=generator).to(images_NHW.device)
    signed = 2 * draws - 1
    side_N = (1 - (1 - strength.crop) * draws[0]).sqrt()
    angle_N = math.radians(strength.rotation) * signed[1]
    mirror_N = torch.where(draws[2] < strength.flip, -1.0, 1.0)
    cosine_N, sine_N = side_N * angle_N.cos(), side_N * angle_N.sin()
    # Crop, rotation and flip form one affine map from view to image coordinates, so pixels are
    # interpolated once. Coordinates go from -1 to 1 along both sides, so a rotation needs the ratio
    # of the sides.
    rows = [
        [cosine_N * mirror_N, -sine_N * height / width, (1 - side_N) * signed[3]],
        [sine_N * mirror_N * width / height, cosine_N, (1 - side_N) * signed[4]],
    ]
    maps_N23 = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    grid_NHW2 = F.affine_grid(maps_N23, [count, 1, height, width], align_corners=False)
    views_NHW = F.grid_sample(images_NHW[:, None].float(), grid_NHW2, align_corners=False)[:, 0]
    views_NHW = views_NHW * (1 + strength.brightness * signed[5])[:, None, None]
    mean_N11 = views_NHW.mean(dim=(1, 2), keepdim=True)
    views_NHW = (
        mean_N11 + (views_NHW - mean_N11) * (1 + strength.contrast * signed[6])[:, None, None]
    )
    return views_NHW.round().clamp(0, 255).to(torch.uint8)
