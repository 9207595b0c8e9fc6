"""Random changes of a whole batch on its device: those of MoCo, and IRNet's scales and crops.

The random numbers are drawn on the host, so that a seed gives the same changes on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

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


def view_draws(count: int, generator: torch.Generator) -> torch.Tensor:
    """Return draws_N7, what `views` needs for one view of each of N images."""
    return torch.rand(7, count, generator=generator).T


def views(images_NHW: torch.Tensor, strength: Augmentation, draws_N7: torch.Tensor) -> torch.Tensor:
    """Return one random view of each grey uint8 image, with the same shape, type and device.

    Pixels outside an image are black. draws_N7: of `view_draws`, on the images' device.
    """
    count, height, width = images_NHW.shape
    draws = draws_N7.T
    signed = 2 * draws - 1
    side_N = (1 - (1 - strength.crop) * draws[0]).sqrt()
    angle_N = math.radians(strength.rotation) * signed[1]
    mirror_N = 1.0 - 2.0 * (draws[2] < strength.flip)  # torch.where would copy its constants
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


def crop_draws(count: int, generator: torch.Generator) -> torch.Tensor:
    """Return draws_N3, what `scaled_crops` needs for N images."""
    return torch.rand(3, count, generator=generator).T


def scaled_crops(
    images_NHW: torch.Tensor,
    maps_NKhw: torch.Tensor,
    scales: tuple[float, float],
    size: tuple[int, int],
    draws_N3: torch.Tensor,
    maps_mode: Literal["bilinear", "nearest"] = "bilinear",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return one randomly resized and cropped view of each grey uint8 image and of its maps.

    An image is resized by a random factor, uniform between the two `scales`. A view is a crop of
    the image's former size, with all positions equally likely; a smaller image lies anywhere within
    the view. Pixels outside an image are black.

    size: (h, w) of the views of the maps, which show the same part as the images' views. draws_N3:
    of `crop_draws`, on the images' device. Returns views_NHW, views_NKhw, float32, and inside_Nhw:
    False where a pixel's centre lies outside the image. Images are interpolated bilinearly, without
    anti-aliasing, and maps as `maps_mode` says.
    """
    count, draws_3N = len(images_NHW), draws_N3.T
    # In coordinates from -1 to 1, a view is 1 / scale as wide as the image.
    width_N = 1 / (scales[0] + (scales[1] - scales[0]) * draws_3N[0])
    shift_2N = (1 - width_N) * (2 * draws_3N[1:] - 1)
    zero_N = torch.zeros_like(width_N)
    rows = [[width_N, zero_N, shift_2N[0]], [zero_N, width_N, shift_2N[1]]]
    change_N23 = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    grid_NHW2, grid_Nhw2 = (
        F.affine_grid(change_N23, [count, 1, *sides], align_corners=False)
        for sides in (images_NHW.shape[1:], size)
    )
    views_NHW = F.grid_sample(images_NHW[:, None].float(), grid_NHW2, align_corners=False)[:, 0]
    views_NKhw = F.grid_sample(
        maps_NKhw.float(), grid_Nhw2, maps_mode, padding_mode="border", align_corners=False
    )
    return views_NHW.round().to(torch.uint8), views_NKhw, (grid_Nhw2.abs() <= 1).all(-1)
