"""A dense CRF of two labels on a grey image: moves the borders of masks to edges of the image.

Mean-field inference of Krähenbühl and Koltun (2011, arXiv 1210.5644), with a smoothness and an
appearance kernel that are normalised symmetrically, and the constants that Ahn et al. (2019) and
CheXseg's published code use for IRNet's seeds.

On a grey image the appearance kernel has three dimensions, not five. So it is evaluated on a grid
of positions and grey levels (a bilateral grid, Chen et al. 2007), which is closer to the exact sum
than the permutohedral lattice of pydensecrf (docs/explanation/log.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

#: Steps of the mean-field inference.
STEPS = 10
#: Probability of the label that the mask gives a pixel, before the inference.
CERTAINTY = 0.7
#: Weight of a kernel and its standard deviation in pixels, for an image of 320 pixels.
SMOOTHNESS = (3.0, 3.0)
APPEARANCE = (10.0, 50.0)
#: The appearance kernel's standard deviation in grey levels: 5 in each of three equal colours.
APPEARANCE_LEVELS = 5 / math.sqrt(3)
LEVELS = 256
#: Grid cells per standard deviation of the appearance kernel.
CELLS = 3

#: Smallest value of a kernel, below float32's precision beside a pixel's own value, 1.
SMALLEST = 1e-8

#: Maps values_MHW to the values' sums, weighted by a kernel around each pixel.
Kernel = Callable[[Tensor], Tensor]


def refine(image_HW: Tensor, masks_MHW: Tensor, scale: float = 1.0) -> Tensor:
    """Return masks_MHW, bool: each of the given masks after the CRF, independently of the others.

    image_HW: uint8. scale: factor of both kernels' lengths, 1 for an image of 320 pixels. Images
    and masks are on one device.
    """
    kernels = [
        (weight, _normalised(kernel(image_HW, pixels * scale), image_HW))
        for kernel, (weight, pixels) in ((_smoothness, SMOOTHNESS), (_appearance, APPEARANCE))
    ]
    unary_MHW = (2 * masks_MHW.float() - 1) * math.log(CERTAINTY / (1 - CERTAINTY))
    # Of two labels only the difference of their probabilities is needed, tanh of half the logit.
    difference_MHW = torch.tanh(unary_MHW / 2)
    for _ in range(STEPS):
        logit_MHW = unary_MHW.clone()
        for weight, kernel in kernels:
            logit_MHW += weight * kernel(difference_MHW)
        difference_MHW = torch.tanh(logit_MHW / 2)
    return difference_MHW > 0


def _normalised(kernel: Kernel, image_HW: Tensor) -> Kernel:
    """Return the kernel divided by the square roots of both its row sums and its column sums."""
    root_1HW = kernel(torch.ones_like(image_HW, dtype=torch.float32)[None]).rsqrt()
    return lambda values_MHW: root_1HW * kernel(root_1HW * values_MHW)


def _smoothness(image_HW: Tensor, pixels: float) -> Kernel:
    height, width = image_HW.shape
    rows_HH, columns_WW = (_gaussian(side, pixels, image_HW.device) for side in (height, width))
    return lambda values_MHW: rows_HH @ values_MHW @ columns_WW


def _appearance(image_HW: Tensor, pixels: float) -> Kernel:
    device = image_HW.device
    height, width = image_HW.shape
    step = max(1.0, pixels / CELLS)
    y_H, x_W = (torch.arange(side, device=device) / step for side in (height, width))
    rows, columns = int(y_H[-1]) + 2, int(x_W[-1]) + 2
    corners = []  # per corner: each pixel's cell, and its share in it by bilinear interpolation
    for below, right in product((0, 1), repeat=2):
        row_H, column_W = y_H.long() + below, x_W.long() + right
        share_HW = (1 - (y_H - row_H).abs())[:, None] * (1 - (x_W - column_W).abs())
        cell_HW = (row_H[:, None] * columns + column_W) * LEVELS + image_HW
        corners.append((cell_HW.flatten(), share_HW.reshape(-1, 1)))
    # Interpolating to the cells and back widens the kernel by the variance of both.
    cells = math.sqrt(pixels**2 - (step**2 - 1) / 3) / step
    rows_yy, columns_xx = (_gaussian(side, cells, device) for side in (rows, columns))
    levels_ll = _gaussian(LEVELS, APPEARANCE_LEVELS, device)

    def kernel(values_MHW: Tensor) -> Tensor:
        values_PM = values_MHW.flatten(1).T
        grid = values_PM.new_zeros(rows * columns * LEVELS, len(values_MHW))
        for cell_P, share_P1 in corners:
            grid.index_add_(0, cell_P, share_P1 * values_PM)
        grid = (rows_yy @ grid.view(rows, -1)).view(rows, columns, -1)
        grid = (columns_xx @ grid).view(rows * columns, LEVELS, -1)
        grid = (levels_ll @ grid).flatten(0, 1)
        sums_PM = torch.zeros_like(values_PM)
        for cell_P, share_P1 in corners:
            sums_PM += share_P1 * grid[cell_P]
        return sums_PM.T.reshape(values_MHW.shape)

    return kernel


def _gaussian(number: int, deviation: float, device: torch.device) -> Tensor:
    """Return the matrix exp(-d² / 2) of the distances d of equidistant points, in deviations."""
    points = torch.arange(number, dtype=torch.float32, device=device) / deviation
    values = (-0.5 * (points[:, None] - points) ** 2).exp()
    # Products of smaller values would be denormal numbers, which take a CPU ten times as long.
    return values.where(values > SMALLEST, 0)
