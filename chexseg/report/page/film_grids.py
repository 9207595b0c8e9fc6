"""Prepare grids of radiographs for the templates, with each mask as a transparent layer."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from chexseg.analysis.results import StudyResults
from chexseg.drawing.masks import encoded, layer_png, stacked
from chexseg.drawing.palette import PATHOLOGY_COLOURS
from chexseg.report.page import image_choice
from chexseg.report.page.image_choice import Panel


@dataclass(frozen=True)
class Film:
    """One panel. layers: index -> PNG or JPEG; reason: why the panel can't be drawn.

    outlined: draw the row's outline on it.
    """

    label: str = ""
    layers: dict[int, bytes] = field(default_factory=dict)
    score: str = ""
    reason: str = ""
    outlined: bool = False


@dataclass(frozen=True)
class FilmRow:
    """Panels that share their radiograph and, if it isn't None, the experts' outline."""

    title: str
    text: str
    radiograph: bytes
    aspect: str  # width/height
    films: list[Film]
    outline: bytes | None = None


@dataclass(frozen=True)
class FilmGrid:
    """Rows below heads, each a title and a text."""

    heads: list[tuple[str, str]]
    rows: list[FilmRow]


def of_images(
    results: StudyResults,
    read: Callable[[str], tuple[np.ndarray, np.ndarray]],
    panels: Sequence[Panel],
    image_ids: Iterable[str],
) -> FilmGrid:
    """Return radiographs, the experts' masks and the predicted ones.

    read: image id -> (pixels_HW, expert masks_KHW).
    """
    names = results.pathologies
    rows = []
    for image_id in image_ids:
        pixels_HW, expert_KHW = read(image_id)
        films = [Film("radiograph"), Film("experts", _layers(expert_KHW, names))]
        for panel in panels:
            masks_KHW = image_choice.predicted(results, panel, image_id)
            if panel.index is None or isinstance(masks_KHW, str):
                films.append(Film(reason=str(masks_KHW)))
                continue
            iou = image_choice.image_iou(results, panel.index, image_id, names)
            films.append(Film(panel.title, _layers(masks_KHW, names), f"IoU {iou:.2f}"))
        text = ", ".join(names[k] for k in films[1].layers)
        height, width = pixels_HW.shape
        radiograph = encoded(Image.fromarray(np.asarray(pixels_HW, dtype=np.uint8)), "png")
        rows.append(FilmRow(image_id, text, radiograph, f"{width}/{height}", films))
    heads = [("Radiograph", "test set"), ("Experts", "ground truth")]
    return FilmGrid([*heads, *((panel.title, panel.subtitle) for panel in panels)], rows)


def _layers(masks_KHW: np.ndarray, pathologies: Sequence[str]) -> dict[int, bytes]:
    drawn = np.flatnonzero(masks_KHW.any(axis=(1, 2))).tolist()
    return {k: layer_png(masks_KHW[k], pathologies[k]) for k in drawn}


def sheet_png(grid: FilmGrid, legend: Mapping[int, str]) -> bytes:
    """Return a grid as one PNG, for slides. legend: index -> pathology of the layers."""
    side, gap, head, foot = 240, 6, 30, 34
    size = (side + gap) * len(grid.heads) + gap, head + (side + gap) * len(grid.rows) + foot
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for column, (title, _) in enumerate(grid.heads):
        draw.text((gap + column * (side + gap), 7), title, fill="black", font=font)
    for number, row in enumerate(grid.rows):
        radiograph = Image.open(io.BytesIO(row.radiograph), formats=("PNG",))
        for column, film in enumerate(row.films):
            left, top = gap + column * (side + gap), head + number * (side + gap)
            if film.reason:
                reason = "\n".join(textwrap.wrap(film.reason, 30))
                draw.multiline_text((left + 8, top + 100), reason, fill="#555", font=font)
                continue
            picture = ImageOps.contain(stacked(radiograph, film.layers.values()), (side, side))
            centred = left + (side - picture.width) // 2, top + (side - picture.height) // 2
            sheet.paste(picture, centred)
    x, font = gap, ImageFont.load_default(13)
    for name in legend.values():
        box = (x, sheet.height - 23, x + 12, sheet.height - 11)
        draw.rectangle(box, fill=PATHOLOGY_COLOURS[name], outline="#444")
        draw.text((x + 17, sheet.height - 25), name, fill="black", font=font)
        x += 30 + int(draw.textlength(name, font=font))
    return encoded(sheet, "png")
