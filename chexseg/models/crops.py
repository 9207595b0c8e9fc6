"""Square crops of radiographs whose short side is the crop's, stored as strips.

A strip is an image with its long side along the second axis, so a portrait is transposed
(`data.images.Strip`). Axes: N images, S the side of a crop, L the length of the stored strips.
"""

from __future__ import annotations

import torch
from torch import Tensor


def start_draws(count: int, generator: torch.Generator) -> Tensor:
    """Return draws_N, what `random_starts` needs; a seed gives the same crops on every device."""
    return torch.rand(count, generator=generator, dtype=torch.float64)


def random_starts(lengths_N: Tensor, side: int, draws_N: Tensor) -> Tensor:
    """Return the start of a random crop in each strip: uniform on 0 .. length - side.

    lengths_N: pixels of each strip that belong to the image. draws_N: of `start_draws`.
    """
    return (draws_N * (lengths_N - side + 1)).long()


def squares(strips_NSL: Tensor, starts_N: Tensor, portrait_N: Tensor) -> Tensor:
    """Return upright crops_NSS of strips, each from its start on."""
    side = strips_NSL.shape[1]
    columns_NS = starts_N[:, None] + torch.arange(side, device=starts_N.device)
    crops_NSS = strips_NSL.gather(2, columns_NS[:, None].expand(-1, side, -1))
    return torch.where(portrait_N[:, None, None], crops_NSS.mT, crops_NSS)
