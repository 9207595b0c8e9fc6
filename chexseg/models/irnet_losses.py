"""IRNet's seeds, pixel pairs and training losses (paper, equations 3 to 7)."""

from __future__ import annotations

from functools import cache, reduce
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

FOREGROUND, BACKGROUND, IGNORE = 1, 0, 255


def seeds(
    maps_NKhw: Tensor, present_NK: Tensor, foreground: float = 0.3, background: float = 0.05
) -> Tensor:
    """Return seeds_NKhw, uint8: 1 above `foreground`, 0 below `background`, 255 (ignored) between.

    Maps are scaled by their own maximum, on the grid of IRNet's outputs (stride 4). The maps of
    pathologies absent by the image-level label are ignored completely, because they carry no
    information on where the pathology ends. Raises ValueError unless
    0 <= background <= foreground <= 1. Source: paper, appendix B.3.
    """
    if not 0 <= background <= foreground <= 1:
        raise ValueError(
            f"seeds: found background {background}, foreground {foreground};"
            " expected 0 <= background <= foreground <= 1"
        )
    maps_NKhw = maps_NKhw.to(torch.float32)
    out_NKhw = torch.full_like(maps_NKhw, IGNORE, dtype=torch.uint8)
    present_NK11 = present_NK.to(torch.bool)[:, :, None, None]
    out_NKhw[(maps_NKhw > foreground) & present_NK11] = FOREGROUND
    out_NKhw[(maps_NKhw < background) & present_NK11] = BACKGROUND
    return out_NKhw


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


def pair_losses(
    boundary_Nhw: Tensor, displacement_N2hw: Tensor, seeds_NKhw: Tensor, radius: float = 10
) -> dict[str, Tensor]:
    """Return IRNet's training losses as differentiable scalars (paper, equations 3 to 7).

    After Ahn et al. 2019.
    `boundary_Nhw` holds logits, `displacement_N2hw` (y, x) in pixels of the same map, `seeds_NKhw`
    the result of `seeds`. Pairs are all unordered pairs of pixels of one image that are nearer than
    `radius`. The keys of the result:

    - ``displacement_foreground``: (3), the L1 norm of the 2-vector, summed over y and x;
    - ``displacement_background``: (4), likewise;
    - ``boundary_foreground``, ``boundary_background``, ``boundary_negative``: the means in (6),
      without its factors;
    - ``boundary``: (6);
    - ``total``: (7).

    Pathologies are independent. A pair is in P+fg if both pixels are foreground of the same
    pathology, in P+bg if both are background of it, and in P- if one is foreground and the other
    background. A pathology without a foreground pixel in an image has no pairs there. The sets of
    all pathologies and images are pooled; a pair counts once for each pathology. Each mean is over
    the pooled set, which is the equations' |P| for a batch. With a mean per pathology, the few
    pairs of a small seed would weigh as much as all pairs of a large one; at a learning rate of 0.1
    that is noise. An empty set contributes 0.

    Signs: the printed (3) has delta(i, j) = D(x_j) - D(x_i), which makes D point away from the
    centroid. Here it is D(x_i) - D(x_j), as in Ahn et al., so that x + D(x) is the centroid, as in
    the paper's appendix A.2.

    Precision: the sigmoid is monotonic, so a_ij = 1 - sigmoid(largest logit on the path). Its
    logarithms are computed from that logit, which avoids log 0. Computed in float32 (float64 if
    given) regardless of autocast. If several pixels of a path share the largest value, one of them
    gets the gradient.

    Cost: one step per offset (152 at radius 10), shared by all pathologies; nothing is stored per
    pair.
    """
    dtype = torch.promote_types(boundary_Nhw.dtype, torch.float32)
    boundary_Nhw, displacement_N2hw = boundary_Nhw.to(dtype), displacement_N2hw.to(dtype)
    foreground_NKhw = seeds_NKhw == FOREGROUND
    background_NKhw = (seeds_NKhw == BACKGROUND) & foreground_NKhw.flatten(2).any(2)[
        :, :, None, None
    ]
    order = boundary_Nhw.detach().flatten().argsort(stable=True)
    flags = _packed(foreground_NKhw), _packed(background_NKhw)
    ones_3K = torch.ones(3, seeds_NKhw.shape[1], dtype=dtype, device=seeds_NKhw.device)
    pairs_3R, gradient_2N2hw, sums_2 = _pool(
        order, displacement_N2hw.detach(), flags, flags, ones_3K, radius
    )

    size_3 = pairs_3R.sum(1, dtype=torch.float64).clamp(min=1)
    pairs_3R = (pairs_3R / size_3[:, None]).to(dtype)
    # (3) and (4) are piecewise linear in D, so a value and a constant gradient define them here.
    values_2 = (sums_2 / size_3[:2]).to(dtype)
    gradient_2N2hw = (gradient_2N2hw / size_3[:2, None, None, None, None]).to(dtype)
    parts = _parts(boundary_Nhw, displacement_N2hw, order, pairs_3R, gradient_2N2hw, values_2)
    parts["boundary"] = (parts["boundary_foreground"] + parts["boundary_background"]) / 2 + parts[
        "boundary_negative"
    ]
    parts["total"] = (
        parts["displacement_foreground"] + parts["displacement_background"] + parts["boundary"]
    )
    return parts


def published_losses(
    boundary_Nhw: Tensor, displacement_N2hw: Tensor, seeds_NKhw: Tensor, radius: float = 10
) -> dict[str, Tensor]:
    """Return IRNet's training losses as the published code of CheXseg computes them.

    Inputs, result, signs and precision are those of `pair_losses`; this is what differs
    (../shared/paper/README.md, "IRNet losses"):

    - Border pairs are left out. Of the two pixels of a pair, let i be the upper one, or the left
      one in a row. A pair counts if all offsets of `half_disc` lead from i to a pixel of the map.
    - Means are over the pairs of one class in the batch. A class without foreground has background
      pairs all the same.
    - The displacement's means are over pairs, y and x: half of the L1 norm's mean.
    - A class has the loss (positive + negative) / 2 + (foreground + background) / 2. positive is
      half the sum of the boundary's means over P+fg and P+bg, negative its mean over P-, and
      foreground and background are the displacement's means.
    - The sum over classes accumulates, which is a fault: after each class the running sum is added
      to the total, so class k of K (from 0) counts K - k times. The description doesn't say more
      than "an accumulating sum"; this is our reading of it.

    The parts hold these factors: ``boundary`` and the two displacement losses add up to ``total``,
    where ``boundary`` is the weighted sum of (positive + negative) / 2. The three means of the
    boundary are sums with the classes' counts alone.

    Cost: a second pass over the offsets, which counts the pairs of each class.
    """
    dtype = torch.promote_types(boundary_Nhw.dtype, torch.float32)
    boundary_Nhw, displacement_N2hw = boundary_Nhw.to(dtype), displacement_N2hw.to(dtype)
    classes, height, width = seeds_NKhw.shape[1:]
    order = boundary_Nhw.detach().flatten().argsort(stable=True)
    reach = max(dy for dy, _ in half_disc(radius))
    inside_hw = torch.zeros(height, width, dtype=torch.int32, device=seeds_NKhw.device)
    inside_hw[: max(height - reach, 0), reach : max(width - reach, reach)] = 1
    flags = _packed(seeds_NKhw == FOREGROUND), _packed(seeds_NKhw == BACKGROUND)
    first = tuple([word_Nhw * inside_hw for word_Nhw in words] for words in flags)

    times_K = torch.arange(classes, 0, -1, dtype=torch.float64, device=seeds_NKhw.device)
    weights_3K = times_K / _pair_counts(first, flags, classes, radius).clamp(min=1)
    pairs_3R, gradient_2N2hw, sums_2 = _pool(
        order, displacement_N2hw.detach(), first, flags, weights_3K.to(dtype), radius
    )
    # A half makes the displacement's sums over y and x means; another one is the class's factor.
    values_2, slopes_2N2hw = (sums_2 / 4).to(dtype), gradient_2N2hw / 4
    parts = _parts(boundary_Nhw, displacement_N2hw, order, pairs_3R, slopes_2N2hw, values_2)
    positive = (parts["boundary_foreground"] + parts["boundary_background"]) / 2
    parts["boundary"] = (positive + parts["boundary_negative"]) / 2
    parts["total"] = (
        parts["displacement_foreground"] + parts["displacement_background"] + parts["boundary"]
    )
    return parts


def _parts(
    boundary_Nhw: Tensor,
    displacement_N2hw: Tensor,
    order: Tensor,
    pairs_3R: Tensor,
    gradient_2N2hw: Tensor,
    values_2: Tensor,
) -> dict[str, Tensor]:
    """Return the five losses over pairs, differentiable, from the weighted sums of `_pool`."""
    sorted_R = boundary_Nhw.flatten()[order]
    same_R, different_R = F.softplus(sorted_R), F.softplus(-sorted_R)  # -log a_ij, -log(1 - a_ij)
    change_N2hw = displacement_N2hw - displacement_N2hw.detach()
    return {
        "displacement_foreground": values_2[0] + (gradient_2N2hw[0] * change_N2hw).sum(),
        "displacement_background": values_2[1] + (gradient_2N2hw[1] * change_N2hw).sum(),
        "boundary_foreground": (pairs_3R[0] * same_R).sum(),
        "boundary_background": (pairs_3R[1] * same_R).sum(),
        "boundary_negative": (pairs_3R[2] * different_R).sum(),
    }


_WORD = 12  # pathologies per word; a table of 2 ** 12 counts fits in the processor's cache


def _packed(flags_NKhw: Tensor) -> list[Tensor]:
    """Return the K flags of each pixel as bits of int32 words_Nhw.

    One operation on words then compares a pair of pixels for all pathologies.
    """
    words = []
    for flags in torch.split(flags_NKhw, _WORD, dim=1):
        bits = 2 ** torch.arange(flags.shape[1], dtype=torch.int32, device=flags.device)
        words.append((flags * bits[:, None, None]).sum(1, dtype=torch.int32))
    return words


#: Words of foreground and of background.
_Flags = tuple[list[Tensor], ...]


def _common(first: _Flags, second: _Flags, dy: int, dx: int) -> list[list[Tensor]]:
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
def _pair_counts(first: _Flags, second: _Flags, classes: int, radius: float) -> Tensor:
    """Return the number of pairs of each class in P+fg, P+bg and P-, float64 counts_3K."""
    device, (height, width) = second[0][0].device, second[0][0].shape[-2:]
    seen_3WV = torch.zeros(3, len(second[0]), 2**_WORD, dtype=torch.int64, device=device)
    for dy, dx in half_disc(radius):
        if dy < height and abs(dx) < width:
            for seen_WV, words in zip(seen_3WV, _common(first, second, dy, dx), strict=True):
                for seen_V, word in zip(seen_WV, words, strict=True):
                    seen_V += torch.bincount(word.flatten(), minlength=2**_WORD)
    bits_VB = (
        torch.arange(2**_WORD, device=device)[:, None] >> torch.arange(_WORD, device=device)
    ) & 1
    return (seen_3WV.double() @ bits_VB.double()).flatten(1)[:, :classes]


@torch.no_grad()
def _pool(
    order: Tensor,
    displacement_N2hw: Tensor,
    first: _Flags,
    second: _Flags,
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
        target_2hw = torch.tensor([dy, dx], dtype=dtype, device=device)[:, None, None]
        for s, error_N2hw in enumerate((delta_N2hw - target_2hw, delta_N2hw)):
            weight_N1hw = counts[s].view(images, 1, *delta_N2hw.shape[-2:])
            sums_2[s] += (error_N2hw.abs() * weight_N1hw).sum(dtype=torch.float64)
            slope_N2hw = error_N2hw.sign_().mul_(weight_N1hw)
            shifted(gradient_2N2hw[s], dy, dx, 0, 0).add_(slope_N2hw)
            shifted(gradient_2N2hw[s], dy, dx, dy, dx).sub_(slope_N2hw)
    return pairs_3R, gradient_2N2hw, sums_2
