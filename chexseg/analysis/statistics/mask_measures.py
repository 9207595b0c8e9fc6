"""Measure predicted masks by more than IoU: overlap, surfaces, lesions, images and areas.

The definitions are those of Metrics Reloaded (Maier-Hein et al., Nature Methods 2024). Distances
are in pixels, between the centres of border pixels: pixels of a mask with a neighbour to the left,
right, above or below that isn't in the mask or not in the image.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from scipy import ndimage, optimize, spatial

#: Tolerances of the normalised surface distance, in pixels.
TOLERANCES = (2, 5)
#: The IoU from which a predicted lesion may match an expert's. Expert masks of radiographs are
#: coarse, and their lesions small: at 0.5 a correct place with a rough outline would be a miss.
LESION_IOU = 0.1
#: The bits of predicted_KHW and of expert_KHW, and their shape.
Packed: TypeAlias = tuple[np.ndarray, np.ndarray, tuple[int, ...]]

#: What `of_image` returns for each pathology.
FIELDS = (
    "dice", *(f"nsd {t}" for t in TOLERANCES), "hd95", "predicted pixels", "expert pixels",
    "predicted lesions", "expert lesions", "matched lesions",
)  # fmt: skip
#: The measures of a study, as `over_images` returns them.
MEASURES = (
    "Dice", *(f"NSD {t} px" for t in TOLERANCES), "HD95 px", "lesion F1", "sensitivity",
    "specificity", "area ratio",
)  # fmt: skip


def of_packed(packed: Packed) -> np.ndarray:
    """Return values_KF of masks that were packed to bits, as `of_image` does."""
    *bits, shape = packed
    count = int(np.prod(shape))
    masks = (np.unpackbits(one, count=count).astype(bool).reshape(shape) for one in bits)
    return of_image(*masks)


def of_image(predicted_KHW: np.ndarray, expert_KHW: np.ndarray) -> np.ndarray:
    """Return values_KF, the `FIELDS` of an image's boolean masks.

    Dice, NSD and HD95 are NaN without an expert pixel. With an expert pixel but no predicted one
    they are at their worst: 0, 0 and the image's diagonal.
    """
    return np.array([_of_masks(*masks) for masks in zip(predicted_KHW, expert_KHW, strict=True)])


def _of_masks(predicted_HW: np.ndarray, expert_HW: np.ndarray) -> list[float]:
    if not (predicted_HW.any() or expert_HW.any()):  # most masks of a test set
        return [np.nan] * (len(TOLERANCES) + 2) + [0.0] * 5
    return [
        dice(predicted_HW, expert_HW),
        *surface_measures(predicted_HW, expert_HW),
        int(np.count_nonzero(predicted_HW)),
        int(np.count_nonzero(expert_HW)),
        *lesions(predicted_HW, expert_HW),
    ]


def dice(predicted_HW: np.ndarray, expert_HW: np.ndarray) -> float:
    """Return the Dice similarity coefficient; NaN without an expert pixel."""
    expert = np.count_nonzero(expert_HW)
    common = np.count_nonzero(predicted_HW & expert_HW)
    return 2 * common / (np.count_nonzero(predicted_HW) + expert) if expert else np.nan


def surface_measures(predicted_HW: np.ndarray, expert_HW: np.ndarray) -> tuple[float, ...]:
    """Return the NSD at each of `TOLERANCES`, then the HD95; NaN without an expert pixel.

    NSD: the share of both masks' border pixels that are no further than the tolerance from the
    other's border (Nikolov et al. 2021). HD95: the larger of the 95th percentiles of the distances
    from the predicted to the expert border and back (Huttenlocher et al. 1993).
    """
    if not expert_HW.any():
        return (np.nan,) * (len(TOLERANCES) + 1)
    if not predicted_HW.any():
        return *(0.0 for _ in TOLERANCES), float(np.hypot(*expert_HW.shape))
    predicted_N2, expert_N2 = _border(predicted_HW), _border(expert_HW)
    # Trees of border pixels give the same as distance transforms in less than half of the time.
    to_expert_N, _ = spatial.KDTree(expert_N2).query(predicted_N2)
    to_predicted_N, _ = spatial.KDTree(predicted_N2).query(expert_N2)
    both = np.concatenate([to_expert_N, to_predicted_N])
    percentiles = (float(np.percentile(one, 95)) for one in (to_expert_N, to_predicted_N))
    return *(float(np.mean(both <= t)) for t in TOLERANCES), max(percentiles)


def _border(mask_HW: np.ndarray) -> np.ndarray:
    """Return the (row, column) of each border pixel."""
    return np.argwhere(mask_HW & ~ndimage.binary_erosion(mask_HW))


def lesions(predicted_HW: np.ndarray, expert_HW: np.ndarray) -> tuple[int, int, int]:
    """Return the numbers of predicted, expert and matched lesions.

    Lesions are connected components, also by corners. A lesion matches at most one other, with an
    IoU of at least `LESION_IOU`; of all such assignments the one with the largest sum of IoU counts
    (Hungarian matching).
    """
    predicted, expert = (ndimage.label(m, np.ones((3, 3)))[0] for m in (predicted_HW, expert_HW))
    shape = int(predicted.max()) + 1, int(expert.max()) + 1
    pairs = np.bincount(
        predicted.ravel() * shape[1] + expert.ravel(), minlength=shape[0] * shape[1]
    )
    common = pairs.reshape(shape)  # the first row and column are the background
    areas = common.sum(axis=1)[1:, None] + common.sum(axis=0)[None, 1:]
    iou = common[1:, 1:] / (areas - common[1:, 1:])
    iou[iou < LESION_IOU] = 0
    matched = iou[optimize.linear_sum_assignment(iou, maximize=True)] > 0
    return shape[0] - 1, shape[1] - 1, int(matched.sum())


def over_images(values_LIKF: np.ndarray) -> dict[str, np.ndarray]:
    """Return measure -> values_LK from the `FIELDS` of images; L is any leading axes.

    Dice, NSD and HD95: mean over the images with an expert pixel. Lesion F1: of the lesions of all
    images together. Sensitivity and specificity: of images, positive if their mask isn't empty.
    Area ratio: predicted by expert pixels of all images together. NaN for a pathology without an
    expert pixel in any image, and specificity also if each image has one.
    """
    fields = dict(zip(FIELDS, np.moveaxis(values_LIKF, -1, 0), strict=True))
    sums = {name: np.nansum(values_LIK, axis=-2) for name, values_LIK in fields.items()}
    predicted_LIK, expert_LIK = fields["predicted pixels"] > 0, fields["expert pixels"] > 0
    positive_LK, negative_LK = expert_LIK.sum(axis=-2), (~expert_LIK).sum(axis=-2)
    found_LK = (predicted_LIK & expert_LIK).sum(axis=-2)
    clear_LK = (~predicted_LIK & ~expert_LIK).sum(axis=-2)
    parts = (
        *((sums[name], positive_LK) for name in FIELDS[: len(TOLERANCES) + 2]),
        (2 * sums["matched lesions"], sums["predicted lesions"] + sums["expert lesions"]),
        (found_LK, positive_LK),
        (clear_LK, negative_LK),
        (sums["predicted pixels"], sums["expert pixels"]),
    )
    return {
        measure: ratio(above_LK, np.where(positive_LK > 0, below_LK, 0))
        for measure, (above_LK, below_LK) in zip(MEASURES, parts, strict=True)
    }


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return a quotient, NaN where the divisor is 0."""
    out = np.full(below.shape, np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out
