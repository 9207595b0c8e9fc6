"""IRNet's inference: spread class maps by a random walk that stops at boundaries."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from chexseg.models.irnet_pairs import half_disc, line, shifted
from chexseg.saliency.weak_masks import upsample


@torch.no_grad()
def propagate(
    maps_NKhw: Tensor,
    boundary_Nhw: Tensor,
    radius: float = 3,
    power: float = 5,
    steps: int = 8,
) -> Tensor:
    """Return maps_NKhw after some steps of the random walk (Ahn et al. 2019; there 2 ** 3).

    `maps_NKhw` are class maps >= 0 on the grid of `boundary_Nhw`, which is in [0, 1] (not logits).
    The affinities are computed once for all K maps. Let

    - a_ij = 1 - max of the boundary over the pixels on the line from i to j, ends included (paper,
      equation 5; `chexseg.models.irnet_pairs.line`), for all pairs nearer than `radius`; 0 for
      other pairs; a_ii = 1 for any boundary;
    - T = a ** power, with every column divided by its sum.

    The result is the row vector (map * (1 - boundary)) times T ** steps: in a step, a pixel's value
    becomes the mean over its neighbourhood weighted by affinity. Pixels beyond the border
    contribute nothing; the map does not wrap. A boundary of zeros gives the walk without
    boundaries, in which all pixels of a neighbourhood count the same.

    T is never built: a step is one multiplication of the shifted maps for each of the 2 x 12
    offsets of radius 3. Works on any device, in float32 or better, without a gradient. The result
    is not scaled.
    """
    dtype = torch.promote_types(maps_NKhw.dtype, torch.float32)
    boundary_Nhw = boundary_Nhw.to(dtype)
    height, width = boundary_Nhw.shape[-2:]
    offsets = [(dy, dx) for dy, dx in half_disc(radius) if dy < height and abs(dx) < width]

    # a is symmetric, so opposite offsets share affinities. Only their column sums differ.
    column_sums_Nhw = torch.ones_like(boundary_Nhw)
    affinities = []
    for dy, dx in offsets:
        path_Nhw = reduce(
            torch.maximum, [shifted(boundary_Nhw, dy, dx, y, x) for y, x in line(dy, dx)]
        )
        affinity_Nhw = (1 - path_Nhw).pow_(power)
        shifted(column_sums_Nhw, dy, dx, 0, 0).add_(affinity_Nhw)
        shifted(column_sums_Nhw, dy, dx, dy, dx).add_(affinity_Nhw)
        affinities.append(affinity_Nhw)
    scale_N1hw = column_sums_Nhw.reciprocal()[:, None]
    weights = [
        (
            affinity_Nhw[:, None] * shifted(scale_N1hw, dy, dx, 0, 0),
            affinity_Nhw[:, None] * shifted(scale_N1hw, dy, dx, dy, dx),
        )
        for (dy, dx), affinity_Nhw in zip(offsets, affinities, strict=True)
    ]

    maps_NKhw = maps_NKhw.to(dtype) * (1 - boundary_Nhw[:, None])
    for _ in range(steps):
        spread_NKhw = maps_NKhw * scale_N1hw
        for (dy, dx), (to_first, to_second) in zip(offsets, weights, strict=True):
            shifted(spread_NKhw, dy, dx, 0, 0).addcmul_(
                to_first, shifted(maps_NKhw, dy, dx, dy, dx)
            )
            shifted(spread_NKhw, dy, dx, dy, dx).addcmul_(
                to_second, shifted(maps_NKhw, dy, dx, 0, 0)
            )
        maps_NKhw = spread_NKhw
    return maps_NKhw


def relative_walk(
    scale: float, radius: float, steps: int, least: float = 1.01
) -> tuple[float, int]:
    """Return (radius, steps) of the walk that spreads over the same share of another map.

    scale: the other map's side divided by the side that `radius` and `steps` are for. The radius is
    multiplied by it, but is at least `least`, which reaches a pixel's neighbours by edges. The
    steps then give the walk without boundaries the variance of the original one times scale ** 2,
    as nearly as a whole number of steps can; at least one step. A scale of 1 changes nothing.
    """
    scaled = max(radius * scale, least)
    wanted = steps * scale**2 * step_variance(radius)
    return scaled, max(1, round(wanted / step_variance(scaled)))


def step_variance(radius: float) -> float:
    """Return the variance by axis, in pixels ** 2, of a step of the walk without boundaries.

    A step leads with equal probability to each pixel nearer than `radius`, including where it
    starts.
    """
    offsets = half_disc(radius)
    return sum(2 * dy * dy for dy, _ in offsets) / (2 * len(offsets) + 1)


def scaled_by_upsampled_maximum(scores_NKhw: Tensor, size: int) -> Tensor:
    """Return scores >= 0 divided by the maximum that they have once upsampled to size x size.

    So upsampling the result gives maps with a maximum of 1, as if they were scaled after it
    (published code); at their lower resolution they may exceed 1. A map of zeros is unchanged.
    """
    maximum_NK11 = upsample(scores_NKhw, size).amax((-2, -1), keepdim=True)
    return scores_NKhw / torch.where(maximum_NK11 > 0, maximum_NK11, 1)
