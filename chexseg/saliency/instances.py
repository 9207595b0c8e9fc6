"""IRNet's instance-wise CAMs: a displacement field -> instances, each of them spread and scaled by itself.

The paper's appendix A.2, after Ahn et al. 2019 (class-agnostic instance maps, instance-wise CAMs). As a whole, a class map
is scaled by its strongest lesion, and a second one at half its height stays below the threshold. Here each has its own scale.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import Tensor

from chexseg.saliency import random_walk
from chexseg.saliency.gradcam import normalise

_STILL = 0.01  # pixels a step: a hundred steps shorter than this come to less than one pixel
_PARTS = 32  # parts of class maps that are spread at once: a few megabytes at 80 x 80


@torch.no_grad()
def centroids(displacement_N2hw: Tensor, iterations: int = 100) -> Tensor:
    """centroids_N2hw (y, x; pixels of the map): where each pixel comes to rest when it follows the field.

    x <- x + D(x), at most `iterations` times, held at the border of the map. A pixel rests where that moves it by less
    than 0.01. Ahn et al. iterate so because one step of a network's field ends near the centroid, seldom on it.

    D is sampled bilinearly: equation (3) asks for a field that falls linearly towards the centroid, which bilinear
    sampling reproduces between the pixels too. The nearest pixel's value would let a pixel swing by up to half a pixel
    around a centroid between pixels, and never rest. Without displacement (a field of zeros) every pixel rests where it
    is. In float32 or better; an image's result doesn't depend on the others of the batch.
    """
    dtype = torch.promote_types(displacement_N2hw.dtype, torch.float32)
    field_N2hw = displacement_N2hw.to(dtype)
    height, width = field_N2hw.shape[-2:]
    y, x = (torch.arange(size, dtype=dtype, device=field_N2hw.device) for size in (height, width))
    here_N2hw = torch.stack(torch.meshgrid(y, x, indexing="ij")).expand_as(field_N2hw)
    border_211 = torch.tensor([height - 1, width - 1], dtype=dtype, device=field_N2hw.device)[
        :, None, None
    ]
    for _ in range(iterations):
        # grid_sample wants (x, y), from -1 at the first pixel's centre to 1 at the last one's.
        grid_Nhw2 = (here_N2hw * 2 / border_211.clamp(min=1) - 1).flip(1).permute(0, 2, 3, 1)
        step_N2hw = F.grid_sample(
            field_N2hw, grid_Nhw2, mode="bilinear", padding_mode="border", align_corners=True
        )
        there_N2hw = torch.minimum((here_N2hw + step_N2hw).clamp(min=0), border_211)
        moving_N1hw = torch.hypot(*(there_N2hw - here_N2hw).split(1, dim=1)) >= _STILL
        if not moving_N1hw.any():
            break
        here_N2hw = torch.where(moving_N1hw, there_N2hw, here_N2hw)
    return here_N2hw


@torch.no_grad()
def instance_map(
    displacement_N2hw: Tensor, still: float = 2.5, smallest: int = 20, iterations: int = 100
) -> Tensor:
    """instances_Nhw, int64: the pixels of an image that share a centroid share a number from 1 on; 0 is no instance.

    Around its true centroid an instance's displacements are nearly zero, so the connected components (by edges) of
    |D| < `still` are the centroids, and a pixel belongs to the one that it comes to rest in (Ahn et al. 2019). Pixels
    that come to rest in none, or in one of fewer than `smallest` pixels altogether, get 0. Numbers may have gaps.

    still: pixels of the map; 2.5 as in Ahn et al.'s published code. An instance that reaches no further than that from its
        centroid has no larger displacement anywhere, so it can't be told from resting background around it: hence
        `smallest`, the pixels of a disc of this radius.

    The map knows no classes and no background: background that rests is an instance like any other, in as many numbers
    as it has components, and a field of zeros is one instance. Labelled on the CPU; the result is on the field's device.
    """
    near_Nhw = (torch.hypot(*displacement_N2hw.unbind(1)) < still).cpu().numpy()
    components_Nhw = np.stack([scipy.ndimage.label(near_hw)[0] for near_hw in near_Nhw])
    components_Np = (
        torch.from_numpy(components_Nhw).to(displacement_N2hw.device, torch.int64).flatten(1)
    )
    y_Nhw, x_Nhw = centroids(displacement_N2hw, iterations).round().long().unbind(1)
    instances_Np = components_Np.gather(1, (y_Nhw * displacement_N2hw.shape[-1] + x_Nhw).flatten(1))
    sizes_NI = torch.zeros(
        len(instances_Np),
        int(components_Np.max()) + 1,
        dtype=torch.int64,
        device=instances_Np.device,
    )
    sizes_NI.scatter_add_(1, instances_Np, torch.ones_like(instances_Np))
    instances_Np = instances_Np.where(sizes_NI.gather(1, instances_Np) >= smallest, 0)
    return instances_Np.view_as(y_Nhw)


@torch.no_grad()
def instance_wise_cams(
    maps_NKhw: Tensor,
    boundary_Nhw: Tensor,
    instances_Nhw: Tensor,
    foreground: float = 0.3,
    radius: float = 3,
    power: float = 5,
    steps_log2: int = 3,
) -> Tensor:
    """scores_NKhw in [0, 1]: each instance's part of a class map spread by itself, scaled by its own maximum.

    The part of instance i in the map of pathology k is the map where `instances_Nhw` is i, and 0 elsewhere (Ahn et al.
    2019); `random_walk.propagate` spreads it (radius, power, steps_log2) and the parts of a pathology are merged by the
    maximum. For the arguments see there; the maps are class maps >= 0.

    A part has a scale of its own only if the pathology peaks in it: where a pixel no lower than its eight neighbours is
    above `foreground` times the map's maximum, the threshold of the seeds. All the rest, pixels of no instance too, is
    scaled as without instances, by the maximum of the whole map's walk: otherwise the foot of a lesion's map, which
    reaches beyond its instance, would rise to 1 all around. So a single instance gives the class-wise scores, and a map
    of zeros stays one.

    Memory beyond the result and the walk of the whole maps: that of the walk of 32 parts of one image, however many
    instances there are.
    """
    walk = {"radius": radius, "power": power, "steps_log2": steps_log2}
    rest_NKhw = random_walk.propagate(maps_NKhw, boundary_Nhw, **walk)
    scale_NK11 = rest_NKhw.amax((-2, -1), keepdim=True)
    scores_NKhw = torch.zeros_like(rest_NKhw)
    maps_NKhw = maps_NKhw.to(rest_NKhw.dtype)
    sure_NKhw = maps_NKhw > foreground * maps_NKhw.amax((-2, -1), keepdim=True)
    peaks_NKhw = (
        sure_NKhw
        & (maps_NKhw == F.max_pool2d(maps_NKhw, 3, stride=1, padding=1))
        & (instances_Nhw > 0)[:, None]
    )
    for n, peaks_Khw in enumerate(peaks_NKhw):
        k_P, y_P, x_P = peaks_Khw.nonzero(as_tuple=True)
        for chunk_P2 in (
            torch.stack([k_P, instances_Nhw[n, y_P, x_P]], dim=1).unique(dim=0).split(_PARTS)
        ):
            k_P, instance_P = chunk_P2.unbind(1)
            parts_Phw = maps_NKhw[n, k_P] * (instances_Nhw[n] == instance_P[:, None, None])
            spread_1Phw = random_walk.propagate(parts_Phw[None], boundary_Nhw[n : n + 1], **walk)
            for k, spread_hw, scaled_hw in zip(
                k_P.tolist(), spread_1Phw[0], normalise(spread_1Phw)[0], strict=True
            ):
                # The walk is linear: what is left of the whole map's walk is the walk of what is left of the map.
                rest_NKhw[n, k] -= spread_hw
                scores_NKhw[n, k] = torch.maximum(scores_NKhw[n, k], scaled_hw)
    rest_NKhw = rest_NKhw.clamp_(min=0) / scale_NK11.where(scale_NK11 > 0, 1)
    return torch.maximum(scores_NKhw, rest_NKhw)
