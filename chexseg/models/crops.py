"""Square crops of radiographs whose short side is the crop's, stored as strips.

A strip is an image with its long side along the second axis, so a portrait is transposed
(`data.images.Strip`). Axes: N images, S the side of a crop, L the length of the stored strips.
"""

from __future__ import annotations

import torch
from torch import Tensor


def random_starts(lengths_N: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Return the start of a random crop in each strip: uniform on 0 .. length - side.

    lengths_N: pixels of each strip that belong to the image. The generator must be on the CPU, so
    that its seed gives the same crops on every device.
    """
    draws_N = torch.rand(len(lengths_N), generator=generator, dtype=torch.float64)
    return (draws_N * (lengths_N.cpu() - side + 1)).long()


def squares(strips_NSL: Tensor, starts_N: Tensor, portrait_N: Tensor) -> Tensor:
    """Return upright crops_NSS of strips, each from its start on."""
    side = strips_NSL.shape[1]
    crops = [
        strip_SL[:, start : start + side].T if portrait else strip_SL[:, start : start + side]
        for strip_SL, start, portrait in zip(
            strips_NSL, starts_N.tolist(), portrait_N.tolist(), strict=True
        )
    ]
    return torch.stack(crops)
