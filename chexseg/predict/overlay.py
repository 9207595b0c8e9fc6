"""Draw a radiograph with its predicted masks and a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from chexseg.drawing.masks import FILL_OPACITY, composite, outline
from chexseg.drawing.palette import DASHED, PATHOLOGY_COLOURS

#: Maximum pixels of the radiograph's long side: outlines two pixels wide are easy to see.
LONG_SIDE = 1024
_SWATCH_GREY = (96, 96, 96)


def picture(
    pixels_HW: np.ndarray, masks_KHW: np.ndarray, pathologies: Sequence[str], title: str
) -> Image.Image:
    """Return the radiograph (uint8) with its masks (bool) drawn on it and the legend beside it.

    A radiograph larger than `LONG_SIDE` is reduced to it.
    """
    scale = min(1.0, LONG_SIDE / max(pixels_HW.shape))
    size = max(1, round(pixels_HW.shape[1] * scale)), max(1, round(pixels_HW.shape[0] * scale))
    small_HW = np.asarray(Image.fromarray(pixels_HW).resize(size, Image.Resampling.BILINEAR))
    present = [k for k, mask_HW in enumerate(masks_KHW) if mask_HW.any()]
    names = [pathologies[k] for k in present]
    masks = [
        np.asarray(Image.fromarray(masks_KHW[k]).resize(size, Image.Resampling.NEAREST))
        for k in present
    ]
    radiograph = composite(small_HW, np.array(masks).reshape(-1, *small_HW.shape), names)
    key = legend(names, title)
    height = max(radiograph.height, key.height)
    sheet = Image.new("RGB", (radiograph.width + key.width, height), "white")
    sheet.paste(radiograph, (0, 0))
    sheet.paste(key, (radiograph.width, 0))
    return sheet


def legend(pathologies: Sequence[str], title: str) -> Image.Image:
    """Return the title above one line per pathology: its name after its fill and outline."""
    font, line, margin = ImageFont.load_default(16), 28, 14
    entries = list(pathologies) or ["no pathology found"]
    indent = 40 if pathologies else 0
    width = max(font.getlength(title), *(indent + font.getlength(entry) for entry in entries))
    height = (len(entries) + 1) * line + 2 * margin
    sheet = Image.new("RGB", (round(width) + 2 * margin, height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, margin), title, fill="black", font=font)
    for row, entry in enumerate(entries, 1):
        if pathologies:
            sheet.paste(_swatch(entry), (margin, margin + row * line))
        draw.text((margin + indent, margin + row * line), entry, fill="black", font=font)
    return sheet


def _swatch(pathology: str) -> Image.Image:
    area_HW = np.ones((19, 30), dtype=bool)
    opacity_HW = np.where(outline(area_HW, pathology in DASHED), 255, FILL_OPACITY).astype(np.uint8)
    swatch = Image.new("RGB", area_HW.shape[::-1], _SWATCH_GREY)
    swatch.paste(
        Image.new("RGB", swatch.size, PATHOLOGY_COLOURS[pathology]),
        mask=Image.fromarray(opacity_HW),
    )
    return swatch
