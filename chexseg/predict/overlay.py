"""One radiograph with what a segmenter found on it, and a legend, as a picture for people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from chexseg.report.page.overlays import FILL_OPACITY, composite, outline
from chexseg.report.palette import DASHED, PATHOLOGY_COLOURS

#: Pixels of the radiograph's long side, at most: outlines two pixels wide are easily seen.
LONG_SIDE = 1024
_FILM = (96, 96, 96)


def picture(
    pixels_HW: np.ndarray, masks_KHW: np.ndarray, pathologies: Sequence[str], title: str
) -> Image.Image:
    """The radiograph (uint8), reduced to `LONG_SIDE` where it is larger, the masks (bool) upon it, the legend beside it."""
    shrink = min(1.0, LONG_SIDE / max(pixels_HW.shape))
    size = max(1, round(pixels_HW.shape[1] * shrink)), max(1, round(pixels_HW.shape[0] * shrink))
    small_HW = np.asarray(Image.fromarray(pixels_HW).resize(size, Image.Resampling.BILINEAR))
    found = [k for k, mask_HW in enumerate(masks_KHW) if mask_HW.any()]
    masks = [
        np.asarray(Image.fromarray(masks_KHW[k]).resize(size, Image.Resampling.NEAREST))
        for k in found
    ]
    film = composite(
        small_HW, np.array(masks).reshape(-1, *small_HW.shape), [pathologies[k] for k in found]
    )
    beside = legend([pathologies[k] for k in found], title)
    sheet = Image.new("RGB", (film.width + beside.width, max(film.height, beside.height)), "white")
    sheet.paste(film, (0, 0))
    sheet.paste(beside, (film.width, 0))
    return sheet


def legend(pathologies: Sequence[str], title: str) -> Image.Image:
    """The title and one line a pathology: its fill and outline as on the film, and its name."""
    font, line, edge = ImageFont.load_default(16), 28, 14
    words = list(pathologies) or ["no pathology found"]
    indent = 40 if pathologies else 0
    width = max(font.getlength(title), *(indent + font.getlength(word) for word in words))
    sheet = Image.new("RGB", (round(width) + 2 * edge, (len(words) + 1) * line + 2 * edge), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((edge, edge), title, fill="black", font=font)
    for row, word in enumerate(words, 1):
        if pathologies:
            sheet.paste(_swatch(word), (edge, edge + row * line))
        draw.text((edge + indent, edge + row * line), word, fill="black", font=font)
    return sheet


def _swatch(pathology: str) -> Image.Image:
    area_HW = np.ones((19, 30), dtype=bool)
    opacity_HW = np.where(outline(area_HW, pathology in DASHED), 255, FILL_OPACITY).astype(np.uint8)
    swatch = Image.new("RGB", area_HW.shape[::-1], _FILM)
    swatch.paste(
        Image.new("RGB", swatch.size, PATHOLOGY_COLOURS[pathology]),
        mask=Image.fromarray(opacity_HW),
    )
    return swatch
