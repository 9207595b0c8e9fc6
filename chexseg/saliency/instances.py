"""IRNet's instance-wise CAMs: find instances in a displacement field, spread and scale each one.

The paper's appendix A.2, after Ahn et al. 2019 (class-agnostic instance maps, instance-wise CAMs).
If a class map is scaled as a whole, by its strongest lesion, a second lesion at half its height
stays below the threshold. Here each lesion has its own scale.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import scipy.ndimage
import torch
import torch.nn.functional as F
from torch import Tensor

from chexseg.saliency import random_walk
from chexseg.saliency.gradcam import normalise

_STILL = 0.01  # pixels per step: a hundred shorter steps add up to less than one pixel
_PARTS = 32  # parts of class maps to spread at once: a few megabytes at 80 x 80


@torch.no_grad()
def centroids(displacement_N2hw: Tensor, iterations: int = 100) -> Tensor:
    """Return centroids_N2hw (y, x; pixels of the map), the end of each pixel's path.

    Iterates x <- x + D(x) at most `iterations` times, clamped to the map. A pixel is at rest when
    it moves by less than 0.01. Ahn et al. iterate because one step of a network's field ends near
    the centroid, but seldom on it.

    D is sampled bilinearly. Equation (3) asks for a field that falls linearly towards the centroid,
    which bilinear sampling reproduces between pixels too. With the nearest pixel's value a pixel
    could swing around a centroid by up to half a pixel and never rest. In a field of zeros every
    pixel is at rest. Computed in float32 or better; images of a batch don't affect each other.
    """
    dtype = torch.promote_types(displacement_N2hw.dtype, torch.float32)
    field_N2hw = displacement_N2hw.to(dtype)
    height, width = field_N2hw.shape[-2:]
    y, x = (torch.arange(size, dtype=dtype, device=field_N2hw.device) for size in (height, width))
    position_N2hw = torch.stack(torch.meshgrid(y, x, indexing="ij")).expand_as(field_N2hw)
    border_211 = torch.tensor([height - 1, width - 1], dtype=dtype, device=field_N2hw.device)[
        :, None, None
    ]
    for iteration in range(iterations):
        # grid_sample expects (x, y), from -1 at the first pixel's centre to 1 at the last one's.
        grid_Nhw2 = (position_N2hw * 2 / border_211.clamp(min=1) - 1).flip(1).permute(0, 2, 3, 1)
        step_N2hw = F.grid_sample(
            field_N2hw, grid_Nhw2, mode="bilinear", padding_mode="border", align_corners=True
        )
        next_N2hw = torch.minimum((position_N2hw + step_N2hw).clamp(min=0), border_211)
        moving_N1hw = torch.hypot(*torch.split(next_N2hw - position_N2hw, 1, dim=1)) >= _STILL
        # Further iterations don't change pixels at rest. Each look waits for a GPU.
        if (iteration % 10 == 9 or not field_N2hw.is_cuda) and not moving_N1hw.any():
            break
        position_N2hw = torch.where(moving_N1hw, next_N2hw, position_N2hw)
    return position_N2hw


@torch.no_grad()
def instance_map(
    displacement_N2hw: Tensor, still: float = 2.5, smallest: int = 20, iterations: int = 100
) -> Tensor:
    """Return instances_Nhw, int64: pixels of an image with the same centroid share a number >= 1.

    Displacements near an instance's centroid are nearly zero. So the connected components (by
    edges) of |D| < `still` are the centroids, and a pixel belongs to the one in which it comes to
    rest (Ahn et al. 2019). 0 means no instance: the pixel rests in no component, or its instance
    has fewer than `smallest` pixels. Numbers may have gaps.

    still: pixels of the map; 2.5 as in Ahn et al.'s published code. An instance within this
        distance of its centroid has no larger displacement anywhere, so it can't be distinguished
        from resting background around it. `smallest` is therefore the area of a disc of this
        radius.

    The map has no classes and no background. Resting background forms one instance per component,
    and a field of zeros is one instance. Components are labelled on the CPU; the result is on the
    field's device.
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
    steps: int = 8,
) -> Tensor:
    """Return scores_NKhw in [0, 1]: each instance's part of a class map, spread and scaled alone.

    The part of instance i in the map of pathology k is the map where `instances_Nhw` is i, and 0
    elsewhere (Ahn et al. 2019). `random_walk.propagate` spreads it with radius, power and
    steps; the parts of a pathology are merged by their maximum. The maps are class maps >= 0.

    A part is scaled by its own maximum only if the pathology peaks in it: if a pixel that is no
    lower than its eight neighbours is above `foreground` times the map's maximum, the threshold of
    the seeds. The rest, including pixels of no instance, is scaled by the maximum of the whole
    map's walk, as without instances. Otherwise the foot of a lesion's map, which extends beyond its
    instance, would rise to 1 all around. A single instance therefore gives the class-wise scores,
    and a map of zeros is unchanged.

    Memory beyond the result and the walk of the whole maps: that of the walk of 32 parts of one
    image, for any number of instances.
    """
    propagate = partial(random_walk.propagate, radius=radius, power=power, steps=steps)
    rest_NKhw = propagate(maps_NKhw, boundary_Nhw)
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
        parts_P2 = torch.unique(torch.stack([k_P, instances_Nhw[n, y_P, x_P]], dim=1), dim=0)
        for chunk_P2 in torch.split(parts_P2, _PARTS):
            k_P, instance_P = chunk_P2.unbind(1)
            parts_Phw = maps_NKhw[n, k_P] * (instances_Nhw[n] == instance_P[:, None, None])
            spread_1Phw = propagate(parts_Phw[None], boundary_Nhw[n : n + 1])
            for k, spread_hw, scaled_hw in zip(
                k_P.tolist(), spread_1Phw[0], normalise(spread_1Phw)[0], strict=True
            ):
                # The walk is linear: subtracting a part's walk leaves the walk of the other parts.
                rest_NKhw[n, k] -= spread_hw
                scores_NKhw[n, k] = torch.maximum(scores_NKhw[n, k], scaled_hw)
    rest_NKhw = rest_NKhw.clamp_(min=0) / scale_NK11.where(scale_NK11 > 0, 1)
    return torch.maximum(scores_NKhw, rest_NKhw)
