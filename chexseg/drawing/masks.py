"""Draw masks over radiographs: one transparent layer per pathology."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageColor
from scipy import ndimage

from chexseg.drawing.palette import DASHED, PATHOLOGY_COLOURS

FILL_OPACITY, OUTLINE_OPACITY = 64, 255  # of 255
SIDE = 384  # minimum length of a panel's long side, pixels


def enlarge(mask_HW: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Return the mask with each pixel repeated, so that an outline on it looks thin."""
    factor = max(1, -(-side // max(mask_HW.shape)))
    return mask_HW.repeat(factor, axis=0).repeat(factor, axis=1)


def outline(mask_HW: np.ndarray, dashed: bool = False, width: int = 2) -> np.ndarray:
    """Return the mask's pixels less than `width` from its edge; dashed: with diagonal gaps."""
    edge_HW = mask_HW & ~ndimage.binary_erosion(mask_HW, iterations=width)
    if dashed:
        y_HW, x_HW = np.indices(mask_HW.shape)
        edge_HW = edge_HW & ((x_HW + y_HW) % 12 < 7) & ((x_HW - y_HW) % 12 < 9)
    return np.asarray(edge_HW)


def layer_png(mask_HW: np.ndarray, pathology: str) -> bytes:
    """Return a pathology's mask as PNG in its colour: translucent area, opaque outline."""
    large_HW = enlarge(np.asarray(mask_HW, dtype=bool))
    layer = Image.fromarray(large_HW.astype(np.uint8) + outline(large_HW, pathology in DASHED))
    layer.putpalette([0, 0, 0, *2 * ImageColor.getrgb(PATHOLOGY_COLOURS[pathology])])
    return encoded(layer, "png", transparency=bytes([0, FILL_OPACITY, OUTLINE_OPACITY]))


def composite(
    pixels_HW: np.ndarray, masks_KHW: np.ndarray, pathologies: Sequence[str]
) -> Image.Image:
    """Return the radiograph with all masks on it, RGB, enlarged to at least `SIDE` pixels."""
    size = enlarge(pixels_HW).shape[::-1]
    radiograph = Image.fromarray(np.asarray(pixels_HW, dtype=np.uint8))
    masks = zip(masks_KHW, pathologies, strict=True)
    return stacked(
        radiograph.resize(size, Image.Resampling.BICUBIC),
        [layer_png(mask_HW, name) for mask_HW, name in masks if mask_HW.any()],
    )


def stacked(radiograph: Image.Image, layers: Iterable[bytes]) -> Image.Image:
    """Return the radiograph, resized to its layers (PNG), with these on it, RGB."""
    picture = radiograph.convert("RGBA")
    for png in layers:
        layer = Image.open(io.BytesIO(png), formats=("PNG",)).convert("RGBA")
        picture = picture.resize(layer.size, Image.Resampling.BICUBIC)
        picture.alpha_composite(layer)
    return picture.convert("RGB")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as a file of a kind, "png" or "jpeg"."""
    stream = io.BytesIO()
    image.save(stream, kind, optimize=True, **options)
    return stream.getvalue()
