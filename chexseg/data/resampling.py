"""Resizing of images and masks to fewer or more pixels, by the methods that a study may select.

All methods map the centre of pixel i of n to position (i + 1/2) m / n of m pixels, as OpenCV and
Pillow do, so none shifts an image.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

#: antialiased: the mean over all pixels that a new pixel covers, weighted by a triangle (Pillow's
#: BILINEAR). bilinear: of the four nearest pixels only, as OpenCV's INTER_LINEAR.
ImageResize = Literal["antialiased", "bilinear"]
#: nearest: the pixel at the new pixel's centre. bilinear: the four nearest pixels' mean, then
#: rounded. area: `area`.
MaskResize = Literal["nearest", "bilinear", "area"]


def image(pixels_HW: np.ndarray, height: int, width: int, method: ImageResize) -> np.ndarray:
    """Return uint8 pixels_HW resized to height x width.

    OpenCV computes ``bilinear`` with weights of 11 bits, so its pixels may differ by 1.
    """
    if method == "antialiased":
        picture = Image.fromarray(pixels_HW)
        return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    return np.asarray(np.rint(_bilinear(pixels_HW, height, width)), dtype=np.uint8)


def image_part(
    pixels_HW: np.ndarray,
    height: int,
    width: int,
    columns: tuple[float, float],
    method: ImageResize,
) -> np.ndarray:
    """Return the part of uint8 pixels_HW between two positions on its second axis, resized.

    columns: positions in pixels, from the left edge. Pixels beyond them count as for `image`.
    """
    if method == "antialiased":
        box = (columns[0], 0, columns[1], len(pixels_HW))
        picture = Image.fromarray(np.ascontiguousarray(pixels_HW))
        return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box))
    part = _interpolate(_interpolate(pixels_HW, height).T, width, columns).T
    return np.asarray(np.rint(part), dtype=np.uint8)


def masks(masks_KHW: np.ndarray, height: int, width: int, method: MaskResize) -> np.ndarray:
    """Return boolean masks_KHW resized to height x width."""
    if method == "nearest":
        rows, columns = (
            np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
            for new, old in zip((height, width), masks_KHW.shape[1:], strict=True)
        )
        return masks_KHW[:, rows[:, None], columns[None, :]]
    out_KHW = np.zeros((len(masks_KHW), height, width), dtype=bool)
    for k in np.flatnonzero(masks_KHW.any(axis=(1, 2))):
        out_KHW[k] = (
            area(masks_KHW[k], height, width)
            if method == "area"
            # A half is rounded to the even number, 0.
            else np.rint(_bilinear(masks_KHW[k], height, width)) == 1
        )
    return out_KHW


def area(mask_HW: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a mask with pixels resized to height x width so that it fits the original best.

    Pixels join in the order of their `coverage` as long as the IoU of the result, enlarged again,
    with the original grows. So thick masks are cut at a coverage of about one half, thin ones
    lower, and no mask becomes empty.
    """
    covered_HW = coverage(mask_HW, height, width).round(9)
    falling = np.sort(covered_HW[covered_HW > 0])[::-1]
    unions = covered_HW.sum() + np.arange(1, len(falling) + 1) - (shared := np.cumsum(falling))
    return np.asarray(covered_HW >= falling[np.argmax(shared / unions)])


def coverage(mask_HW: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the share of each of height x width new pixels that a mask covers, coverage_HW."""
    return _means(_means(mask_HW, height).T, width).T


def _means(values_HW: np.ndarray, rows: int) -> np.ndarray:
    """Return the means over `rows` equal parts of the first axis, which may cut a row in two."""
    edges = np.arange(rows + 1) * (len(values_HW) / rows)
    whole = np.minimum(edges.astype(int), len(values_HW) - 1)
    sums_HW = np.zeros((len(values_HW) + 1, values_HW.shape[1]))
    np.cumsum(values_HW, axis=0, out=sums_HW[1:])
    at_edges = sums_HW[whole] + (edges - whole)[:, None] * values_HW[whole]
    return np.asarray(np.diff(at_edges, axis=0) * (rows / len(values_HW)))


def _bilinear(values_HW: np.ndarray, height: int, width: int) -> np.ndarray:
    return _interpolate(_interpolate(values_HW, height).T, width).T


def _interpolate(
    values_HW: np.ndarray, rows: int, part: tuple[float, float] | None = None
) -> np.ndarray:
    """Return `rows` rows, each between the two nearest to its centre; edges are repeated.

    part: the positions between which the new rows lie; by default all of the first axis.
    """
    last = len(values_HW) - 1
    start, end = part or (0.0, float(len(values_HW)))
    centres = np.clip(start + (np.arange(rows) + 0.5) * ((end - start) / rows) - 0.5, 0, last)
    above = centres.astype(int)
    share = (centres - above)[:, None]
    return np.asarray(
        values_HW[above] * (1 - share) + values_HW[np.minimum(above + 1, last)] * share
    )
