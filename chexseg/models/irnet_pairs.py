"""Pixel pairs of IRNet's losses: which there are, the pixels between, and sums over all of them."""

from __future__ import annotations

from functools import cache, reduce
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor


@cache
def half_disc(radius: float) -> tuple[tuple[int, int], ...]:
    """Return the offsets (dy, dx) shorter than `radius` with dy > 0, or dy = 0 and dx > 0.

    Of two opposite offsets only one is included, so every unordered pair of pixels nearer than
    `radius` occurs once (Ahn et al. 2019).
    """
    reach = range(-int(radius), int(radius) + 1)
    return tuple(
        (dy, dx)
        for dy in reach
        for dx in reach
        if (dy, dx) > (0, 0) and dy * dy + dx * dx < radius * radius
    )


@cache
def line(dy: int, dx: int) -> tuple[tuple[int, int], ...]:
    """Return the pixels on the line from (0, 0) to (dy, dx), ends included: Pi_ij of equation (5).

    These are the pixels in the bounding box of the two ends whose centre is less than one pixel
    from the straight line through the ends, as in Ahn et al.'s published code. The line is up to
    two pixels thick, so no diagonal step slips between two boundary pixels. Both directions give
    the same set.
    """
    rows, columns = range(min(dy, 0), max(dy, 0) + 1), range(min(dx, 0), max(dx, 0) + 1)
    return tuple(
        (y, x) for y in rows for x in columns if (dy * x - dx * y) ** 2 < dy * dy + dx * dx
    )


def shifted(values: Tensor, dy: int, dx: int, y: int, x: int) -> Tensor:
    """Return a view of `values` (..., h, w) at i + (y, x), for all i with i + (dy, dx) on the map.

    Its shape is (..., h - dy, w - |dx|); dy >= 0. The shift (0, 0) gives the pixels i, and (dy, dx)
    gives their partners j.
    """
    height, width = values.shape[-2] - dy, values.shape[-1] - abs(dx)
    left = max(-dx, 0) + x
    return values[..., y : y + height, left : left + width]


_WORD = 12  # pathologies per word; a table of 2 ** 12 counts fits in the processor's cache


def packed(flags_NKhw: Tensor) -> list[Tensor]:
    """Return the K flags of each pixel as bits of int32 words_Nhw.

    One operation on words then compares a pair of pixels for all pathologies.
    """
    words = []
    for flags in torch.split(flags_NKhw, _WORD, dim=1):
        bits = 2 ** torch.arange(flags.shape[1], dtype=torch.int32, device=flags.device)
        words.append((flags * bits[:, None, None]).sum(1, dtype=torch.int32))
    return words


#: Words of foreground and of background.
Flags = tuple[list[Tensor], ...]


def _common(first: Flags, second: Flags, dy: int, dx: int) -> list[list[Tensor]]:
    """Return the words of P+fg, P+bg and P-, for the pairs of one offset.

    first: the flags of the pixels that a pair may start from. second: of those where it ends.
    """
    (fg_i, bg_i), (fg_j, bg_j) = (
        [[shifted(word, dy, dx, *place) for word in words] for words in flags]
        for flags, place in ((first, (0, 0)), (second, (dy, dx)))
    )
    return [
        [i & j for i, j in zip(fg_i, fg_j, strict=True)],
        [i & j for i, j in zip(bg_i, bg_j, strict=True)],
        # A pixel is never both foreground and background, so the two cases share no bit.
        [(i & v) | (u & j) for i, j, u, v in zip(fg_i, fg_j, bg_i, bg_j, strict=True)],
    ]


def _bits(weights_K: Tensor) -> list[Tensor]:
    """Return the sums of the weights of the bits set, for each value of each word."""
    values_V = torch.arange(2**_WORD, device=weights_K.device)
    tables = []
    for weights_k in torch.split(weights_K, _WORD):
        bits_Vk = (values_V[:, None] >> torch.arange(len(weights_k), device=weights_K.device)) & 1
        tables.append((bits_Vk * weights_k).sum(1))
    return tables


@torch.no_grad()
def pair_counts(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], radius: float
) -> Tensor:
    """Return the number of pairs of each class in P+fg, P+bg and P-, float64 counts_3K.

    first: foreground and background, bool (N, K, h, w), of the pixels that a pair may start from.
    second: of those where it ends.
    """
    fg_i, bg_i = first
    fg_j, bg_j = (_partners(flags_NKhw, radius) for flags_NKhw in second)
    counts = (fg_i * fg_j, bg_i * bg_j, fg_i * bg_j + bg_i * fg_j)
    return torch.stack([count_NKhw.sum((0, 2, 3), dtype=torch.float64) for count_NKhw in counts])


def _partners(flags_NKhw: Tensor, radius: float) -> Tensor:
    """Return how many of the offsets of `half_disc` lead from each pixel to one with its flag.

    A convolution with the half disc counts them, in float32.
    """
    reach = int(radius)
    y_Y1 = torch.arange(reach + 1, device=flags_NKhw.device)[:, None]
    x_X = torch.arange(-reach, reach + 1, device=flags_NKhw.device)
    half_YX = (y_Y1**2 + x_X**2 < radius**2) & ((y_Y1 > 0) | (x_X > 0))
    padded_M1yx = F.pad(flags_NKhw.flatten(0, 1)[:, None].float(), (reach, reach, 0, reach))
    with torch.autocast(flags_NKhw.device.type, enabled=False):
        counts_M1hw = F.conv2d(padded_M1yx, half_YX.float()[None, None])
    return counts_M1hw.round().view(flags_NKhw.shape)  # cuDNN may use Fourier transforms


@torch.no_grad()
def pool(
    order: Tensor,
    displacement_N2hw: Tensor,
    first: Flags,
    second: Flags,
    weights_3K: Tensor,
    radius: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (pairs_3R, gradient_2N2hw, sums_2), which summarise all pairs for the losses.

    `order` sorts the R = N h w boundary values. Only the rank of the largest value on a path
    matters, so pairs_3R counts the pairs of the three sets (fg, bg, negative) by this rank. sums_2
    are the sums of (3) and (4), and gradient_2N2hw their gradients by the displacement. A pair of
    class k counts weights_3K[:, k] times. With weights of 1 all but sums_2 are whole numbers and so
    exact in any order of summation.
    """
    device, dtype = displacement_N2hw.device, displacement_N2hw.dtype
    images, _, height, width = displacement_N2hw.shape
    ranks = torch.empty_like(order, dtype=torch.int32)
    ranks[order] = torch.arange(len(order), dtype=torch.int32, device=device)
    rank_Nhw = ranks.view(images, height, width)
    tables = [_bits(weights_K) for weights_K in weights_3K]
    reach = int(radius)
    y_Y = torch.arange(reach + 1, dtype=dtype, device=device)
    x_X = torch.arange(-reach, reach + 1, dtype=dtype, device=device)
    offsets_2YX = torch.stack(torch.meshgrid(y_Y, x_X, indexing="ij"))

    pairs_3R = torch.zeros(3, len(order), dtype=dtype, device=device)
    gradient_2N2hw = torch.zeros(2, *displacement_N2hw.shape, dtype=dtype, device=device)
    sums_2 = torch.zeros(2, dtype=torch.float64, device=device)
    for dy, dx in half_disc(radius):
        if dy >= height or abs(dx) >= width:
            continue
        path_Nhw = (
            reduce(torch.maximum, [shifted(rank_Nhw, dy, dx, y, x) for y, x in line(dy, dx)])
            .flatten()
            .long()
        )
        counts = [
            cast(
                Tensor,
                sum(
                    table_V.index_select(0, word.flatten())
                    for table_V, word in zip(tables_V, words, strict=True)
                ),
            )
            for tables_V, words in zip(tables, _common(first, second, dy, dx), strict=True)
        ]
        for pairs_R, count in zip(pairs_3R, counts, strict=True):
            pairs_R.scatter_add_(0, path_Nhw, count)

        # D(x_i) - D(x_j), and its target: x_j - x_i in the foreground, 0 in the background.
        delta_N2hw = shifted(displacement_N2hw, dy, dx, 0, 0) - shifted(
            displacement_N2hw, dy, dx, dy, dx
        )
        target_2hw = offsets_2YX[:, dy, reach + dx, None, None]
        for s, error_N2hw in enumerate((delta_N2hw - target_2hw, delta_N2hw)):
            weight_N1hw = counts[s].view(images, 1, *delta_N2hw.shape[-2:])
            sums_2[s] += (error_N2hw.abs() * weight_N1hw).sum(dtype=torch.float64)
            slope_N2hw = error_N2hw.sign_().mul_(weight_N1hw)
            shifted(gradient_2N2hw[s], dy, dx, 0, 0).add_(slope_N2hw)
            shifted(gradient_2N2hw[s], dy, dx, dy, dx).sub_(slope_N2hw)
    return pairs_3R, gradient_2N2hw, sums_2
