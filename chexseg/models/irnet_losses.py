"""IRNet's seeds and training losses (paper, equations 3 to 7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from chexseg.models.distributed import all_reduce_sum
from chexseg.models.irnet_pairs import half_disc, packed, pair_counts, pool

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
    out_NKhw.masked_fill_((maps_NKhw > foreground) & present_NK11, FOREGROUND)
    out_NKhw.masked_fill_((maps_NKhw < background) & present_NK11, BACKGROUND)
    return out_NKhw


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

    Several workers: the sets are those of all workers' images, and so are the values. Gradients are
    such that their mean over workers is one worker's gradient.

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
    flags = packed(foreground_NKhw), packed(background_NKhw)
    ones_3K = torch.ones(3, seeds_NKhw.shape[1], dtype=dtype, device=seeds_NKhw.device)
    pairs_3R, gradient_2N2hw, sums_2 = pool(
        order, displacement_N2hw.detach(), flags, flags, ones_3K, radius
    )

    size_3 = all_reduce_sum(pairs_3R.sum(1, dtype=torch.float64)).clamp(min=1)
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
      one in a row. A pair counts if all offsets of `irnet_pairs.half_disc` lead from i to a pixel
      of the map.
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

    Cost: a convolution more, which counts the pairs of each class.
    """
    dtype = torch.promote_types(boundary_Nhw.dtype, torch.float32)
    boundary_Nhw, displacement_N2hw = boundary_Nhw.to(dtype), displacement_N2hw.to(dtype)
    classes, height, width = seeds_NKhw.shape[1:]
    order = boundary_Nhw.detach().flatten().argsort(stable=True)
    reach = max(dy for dy, _ in half_disc(radius))
    inside_hw = torch.zeros(height, width, dtype=torch.bool, device=seeds_NKhw.device)
    inside_hw[: max(height - reach, 0), reach : max(width - reach, reach)] = True
    second = seeds_NKhw == FOREGROUND, seeds_NKhw == BACKGROUND
    first = second[0] & inside_hw, second[1] & inside_hw

    counts_3K = all_reduce_sum(pair_counts(first, second, radius))
    times_K = torch.arange(classes, 0, -1, dtype=torch.float64, device=seeds_NKhw.device)
    weights_3K = (times_K / counts_3K.clamp(min=1)).to(dtype)
    firsts, seconds = (tuple(map(packed, flags)) for flags in (first, second))
    pairs_3R, gradient_2N2hw, sums_2 = pool(
        order, displacement_N2hw.detach(), firsts, seconds, weights_3K, radius
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
    """Return the five losses over pairs, differentiable, as sums over all workers.

    pairs_3R, gradient_2N2hw, values_2: the weighted results of `irnet_pairs.pool`.
    """
    sorted_R = boundary_Nhw.flatten()[order]
    same_R, different_R = F.softplus(sorted_R), F.softplus(-sorted_R)  # -log a_ij, -log(1 - a_ij)
    change_N2hw = displacement_N2hw - displacement_N2hw.detach()
    displacement = {
        "displacement_foreground": values_2[0] + (gradient_2N2hw[0] * change_N2hw).sum(),
        "displacement_background": values_2[1] + (gradient_2N2hw[1] * change_N2hw).sum(),
    }
    boundary = {
        "boundary_foreground": (pairs_3R[0] * same_R).sum(),
        "boundary_background": (pairs_3R[1] * same_R).sum(),
        "boundary_negative": (pairs_3R[2] * different_R).sum(),
    }
    return {
        name: value
        for parts in (displacement, boundary)
        for name, value in zip(
            parts, all_reduce_sum(torch.stack(list(parts.values()))), strict=True
        )
    }
