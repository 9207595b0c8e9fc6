"""Put the CAMs of central crops back into the padded squares of the segmenter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from chexseg.data.images import Strip
from chexseg.data.transfer import to_device

#: Pixels of the padded square per value of a map, as in IRNet's maps. The crop's own 32 would blur
#: a map that is moved by parts of a value.
STRIDE = 4


def in_padded_square(maps_NKhw: Tensor, shapes: Sequence[tuple[int, int]], size: int) -> Tensor:
    """Return maps of central crops as maps_NKHW of the padded squares, size / 4 a side.

    A crop covers a square of the image's short side, in the middle of the padded square. Values
    inside are interpolated bilinearly, as in `weak_masks.upsample`; outside, where the classifier
    has seen nothing, they are 0. shapes: (height, width) of each original image.
    """
    grid_NHW2 = to_device(_grid(windows(shapes, size), size), maps_NKhw.device)
    values_NKHW = F.grid_sample(
        maps_NKhw.float(), grid_NHW2, padding_mode="border", align_corners=False
    )
    return values_NKHW * (grid_NHW2.abs() <= 1).all(dim=-1)[:, None]


def windows(shapes: Sequence[tuple[int, int]], size: int) -> Tensor:
    """Return (top, left, height, width) of the central crops in padded squares of `size` pixels."""
    return torch.tensor([Strip(height, width, size).centre_in_frame() for height, width in shapes])


def inside(windows_N4: Tensor, size: int) -> Tensor:
    """Return inside_NHW, boolean: where the maps of `in_padded_square` are of the crops."""
    return (_grid(windows_N4, size).abs() <= 1).all(dim=-1)


def pixels(height: int, width: int, size: int) -> tuple[slice, slice]:
    """Return the rows and columns of a padded square that lie in the central crop completely."""
    top, left, high, wide = Strip(height, width, size).centre_in_frame()
    return (
        slice(math.ceil(top), math.floor(top + high)),
        slice(math.ceil(left), math.floor(left + wide)),
    )


def _grid(windows_N4: Tensor, size: int) -> Tensor:
    """Return grid_NHW2, where each value of the padded squares lies in the crops: (x, y).

    From -1 to 1 across a crop, as `grid_sample` counts.
    """
    side = size // STRIDE
    centres_W = (torch.arange(side, device=windows_N4.device) + 0.5) * STRIDE
    top_N1, left_N1, height_N1, width_N1 = windows_N4[:, :, None].unbind(1)
    y_NH = 2 * (centres_W - top_N1) / height_N1 - 1
    x_NW = 2 * (centres_W - left_N1) / width_N1 - 1
    return torch.stack(
        [
            x_NW[:, None, :].expand(-1, side, -1),
            y_NH[:, :, None].expand(-1, -1, side),
        ],
        dim=-1,
    )
