"""IRNet's seeds, pixel pairs and training losses (paper, equations 3 to 7)."""

from __future__ import annotations

from functools import cache, reduce

import torch
import torch.nn.functional as F
from torch import Tensor

FOREGROUND, BACKGROUND, IGNORE = 1, 0, 255


def seeds(
    maps_NKhw: Tensor, present_NK: Tensor, foreground: float = 0.3, background: float = 0.05
) -> Tensor:
    """seeds_NKhw, uint8: 1 above `foreground`, 0 below `background`, 255 (ignored) between (paper, appendix B.3).

    Maps are scaled by their own maximum and on the grid of IRNet's outputs (stride 4). A pathology whose image-level
    label isn't present is ignored altogether: its map says nothing about where the pathology ends.
    Raises ValueError unless 0 <= background <= foreground <= 1.
    """
    if not 0 <= background <= foreground <= 1:
        raise ValueError(
            f"seeds: background {background}, foreground {foreground}; allowed: 0 <= background <= foreground <= 1"
        )
    maps_NKhw = maps_NKhw.to(torch.float32)
    out_NKhw = torch.full_like(maps_NKhw, IGNORE, dtype=torch.uint8)
    present_NK11 = present_NK.to(torch.bool)[:, :, None, None]
    out_NKhw[(maps_NKhw > foreground) & present_NK11] = FOREGROUND
    out_NKhw[(maps_NKhw < background) & present_NK11] = BACKGROUND
    return out_NKhw


@cache
def half_disc(radius: float) -> tuple[tuple[int, int], ...]:
    """The offsets (dy, dx) of length below `radius`, one of each pair of opposite ones: dy > 0, or dy = 0 and dx > 0.

    So each unordered pair of pixels nearer than `radius` is met once (Ahn et al. 2019).
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
    """The pixels on the line from (0, 0) to (dy, dx), ends included: the set Pi_ij of equation (5).

    They are the pixels of the two ends' bounding box whose centre is less than one pixel from the straight line through
    the ends, as in Ahn et al.'s published code. The line is thus up to two pixels thick and no diagonal step slips
    between two boundary pixels; it's the same set from either end.
    """
    rows, columns = range(min(dy, 0), max(dy, 0) + 1), range(min(dx, 0), max(dx, 0) + 1)
    return tuple(
        (y, x) for y in rows for x in columns if (dy * x - dx * y) ** 2 < dy * dy + dx * dx
    )


def shifted(values: Tensor, dy: int, dx: int, y: int, x: int) -> Tensor:
    """A view: `values` (..., h, w) at i + (y, x) for every pixel i whose partner i + (dy, dx) is on the map; dy >= 0.

    Its size is (..., h - dy, w - |dx|). So (0, 0) gives the pixels i, (dy, dx) their partners j.
    """
    height, width = values.shape[-2] - dy, values.shape[-1] - abs(dx)
    left = max(-dx, 0) + x
    return values[..., y : y + height, left : left + width]


def pair_losses(
    boundary_Nhw: Tensor, displacement_N2hw: Tensor, seeds_NKhw: Tensor, radius: float = 10
) -> dict[str, Tensor]:
    """IRNet's training losses (paper, equations 3 to 7; Ahn et al. 2019), each a scalar with a gradient.

    `boundary_Nhw` holds logits, `displacement_N2hw` (y, x) in pixels of the same map, `seeds_NKhw` what `seeds` gives.
    Pairs are all unordered pairs of pixels of one image nearer than `radius`. The result's keys:

    - ``displacement_foreground``: (3), the L1 norm of the 2-vector, summed over y and x;
    - ``displacement_background``: (4), likewise;
    - ``boundary_foreground``, ``boundary_background``, ``boundary_negative``: the means of (6), without its factors;
    - ``boundary``: (6); ``all_reduce_sum``: (7).

    Pathologies. Each is on its own: a pair is in P+fg if both pixels are foreground of the same pathology, in P+bg if
    both are background of it, in P- if one is the one and one the other. A pathology without a foreground pixel in an
    image has no pairs there. The sets of all pathologies and images are pooled, a pair counting once for each pathology
    that has it, and each mean is over the pooled set, as the equations' |P| reads for a batch. A mean per pathology
    would let the few pairs of a small seed weigh as much as all of a large one's; at a rate of 0.1 that is noise.
    An empty set contributes 0.

    Signs. (3) prints delta(i, j) = D(x_j) - D(x_i), but with it D points away from the centroid; here it's
    D(x_i) - D(x_j) as in Ahn et al., so that x + D(x) is the centroid, as the paper's appendix A.2 says.

    Numbers. sigmoid is monotonic, so a_ij = 1 - sigmoid(the path's largest logit), and its logarithms are taken from
    that logit without rounding to log 0. Computed in float32 (or float64 if given) whatever the autocast. Of equal
    largest pixels on a path one gets the gradient.

    Cost. One step an offset (152 of them at radius 10), shared by all pathologies, and nothing is kept per pair.
    """
    dtype = torch.promote_types(boundary_Nhw.dtype, torch.float32)
    boundary_Nhw, displacement_N2hw = boundary_Nhw.to(dtype), displacement_N2hw.to(dtype)
    foreground_NKhw = seeds_NKhw == FOREGROUND
    background_NKhw = (seeds_NKhw == BACKGROUND) & foreground_NKhw.flatten(2).any(2)[
        :, :, None, None
    ]
    order = boundary_Nhw.detach().flatten().argsort(stable=True)
    pairs_3R, gradient_2N2hw, sums_2 = _pool(
        order,
        displacement_N2hw.detach(),
        _packed(foreground_NKhw),
        _packed(background_NKhw),
        radius,
    )

    size_3 = pairs_3R.sum(1, dtype=torch.float64).clamp(min=1)
    pairs_3R = (pairs_3R / size_3[:, None]).to(dtype)
    sorted_R = boundary_Nhw.flatten()[order]
    same_R, different_R = F.softplus(sorted_R), F.softplus(-sorted_R)  # -log a_ij, -log(1 - a_ij)
    # (3) and (4) are piecewise linear in D, so their value and their constant gradient are all there is to them.
    change_N2hw = displacement_N2hw - displacement_N2hw.detach()
    values_2 = (sums_2 / size_3[:2]).to(dtype)
    gradient_2N2hw = (gradient_2N2hw / size_3[:2, None, None, None, None]).to(dtype)
    parts = {
        "displacement_foreground": values_2[0] + (gradient_2N2hw[0] * change_N2hw).sum(),
        "displacement_background": values_2[1] + (gradient_2N2hw[1] * change_N2hw).sum(),
        "boundary_foreground": (pairs_3R[0] * same_R).sum(),
        "boundary_background": (pairs_3R[1] * same_R).sum(),
        "boundary_negative": (pairs_3R[2] * different_R).sum(),
    }
    parts["boundary"] = (parts["boundary_foreground"] + parts["boundary_background"]) / 2 + parts[
        "boundary_negative"
    ]
    parts["total"] = (
        parts["displacement_foreground"] + parts["displacement_background"] + parts["boundary"]
    )
    return parts


_WORD = 12  # pathologies a word: a table of 2 ** 12 counts stays in the processor's cache


def _packed(flags_NKhw: Tensor) -> list[Tensor]:
    """The K flags of a pixel as bits of int32 words_Nhw, so that a pair meets all pathologies in one operation."""
    words = []
    for flags in flags_NKhw.split(_WORD, dim=1):
        bits = 2 ** torch.arange(flags.shape[1], dtype=torch.int32, device=flags.device)
        words.append((flags * bits[:, None, None]).sum(1, dtype=torch.int32))
    return words


@torch.no_grad()
def _pool(
    order: Tensor,
    displacement_N2hw: Tensor,
    foreground: list[Tensor],
    background: list[Tensor],
    radius: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """All that the losses need to know of the pairs, on the grid of the pixels.

    `order` sorts the R = N h w boundary values. Only the rank of a path's largest value matters, so the pairs of the
    three sets (fg, bg, negative) are counted at that rank: pairs_3R. With them the gradient of the sums of (3) and (4)
    by the displacement, gradient_2N2hw, and these sums, sums_2. All but the last are whole numbers: exact in any order.
    """
    device, dtype = displacement_N2hw.device, displacement_N2hw.dtype
    images, _, height, width = displacement_N2hw.shape
    ranks = torch.empty_like(order, dtype=torch.int32)
    ranks[order] = torch.arange(len(order), dtype=torch.int32, device=device)
    rank_Nhw = ranks.view(images, height, width)
    bits_set = torch.tensor(
        [word.bit_count() for word in range(2**_WORD)], dtype=dtype, device=device
    )

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
        here_and_there = [
            [(shifted(word, dy, dx, 0, 0), shifted(word, dy, dx, dy, dx)) for word in words]
            for words in (foreground, background)
        ]
        common = [
            [fg_i & fg_j for fg_i, fg_j in here_and_there[0]],
            [bg_i & bg_j for bg_i, bg_j in here_and_there[1]],
            # A pixel is never both, so the two ways round share no bit.
            [
                (fg_i & bg_j) | (bg_i & fg_j)
                for (fg_i, fg_j), (bg_i, bg_j) in zip(*here_and_there, strict=True)
            ],
        ]
        counts = [
            sum(bits_set.index_select(0, word.flatten()) for word in words) for words in common
        ]
        for pairs_R, count in zip(pairs_3R, counts, strict=True):
            pairs_R.scatter_add_(0, path_Nhw, count)

        # D(x_i) - D(x_j), and what it should be: x_j - x_i in the foreground, 0 in the background.
        delta_N2hw = shifted(displacement_N2hw, dy, dx, 0, 0) - shifted(
            displacement_N2hw, dy, dx, dy, dx
        )
        wanted_2hw = torch.tensor([dy, dx], dtype=dtype, device=device)[:, None, None]
        for s, error_N2hw in enumerate((delta_N2hw - wanted_2hw, delta_N2hw)):
            weight_N1hw = counts[s].view(images, 1, *delta_N2hw.shape[-2:])
            sums_2[s] += (error_N2hw.abs() * weight_N1hw).sum(dtype=torch.float64)
            slope_N2hw = error_N2hw.sign_().mul_(weight_N1hw)
            shifted(gradient_2N2hw[s], dy, dx, 0, 0).add_(slope_N2hw)
            shifted(gradient_2N2hw[s], dy, dx, dy, dx).sub_(slope_N2hw)
    return pairs_3R, gradient_2N2hw, sums_2
