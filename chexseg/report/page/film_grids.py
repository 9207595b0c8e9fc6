"""Prepare grids of radiographs for the templates, with each mask as a transparent layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from chexseg.analysis.results import StudyResults
from chexseg.report.page import overlays
from chexseg.report.page.overlays import Panel, encoded, layer_png


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
    """Panels that share their radiograph and, if it isn't None, their outline of the truth."""

    title: str
    text: str
    radiograph: bytes
    aspect: str
    films: list[Film]
    outline: bytes | None = None


@dataclass(frozen=True)
class FilmGrid:
    """Rows below heads, each a title and a text."""

    heads: list[tuple[str, str]]
    rows: list[FilmRow]


def layers(masks_KHW: np.ndarray, pathologies: Sequence[str]) -> dict[int, bytes]:
    """Return index -> PNG of each pathology that has a mask."""
    return {k: layer_png(masks_KHW[k], pathologies[k]) for k in overlays.drawn(masks_KHW)}


def of_images(
    results: StudyResults,
    read: Callable[[str], tuple[np.ndarray, np.ndarray]],
    panels: Sequence[Panel],
    image_ids: Iterable[str],
    pathology: str | None = None,
) -> FilmGrid:
    """Return radiographs, the experts' masks and the predicted ones of a pathology, or of all.

    read: image id -> (pixels_HW, expert masks_KHW).
    """
    names = results.pathologies if pathology is None else (pathology,)
    chosen = [results.pathologies.index(name) for name in names]
    rows = []
    for image_id in image_ids:
        pixels_HW, expert_KHW = read(image_id)
        listed = [results.pathologies[k] for k in overlays.drawn(expert_KHW)]
        films = [Film("radiograph"), Film("experts", layers(expert_KHW[chosen], names))]
        for panel in panels:
            masks_KHW = overlays.predicted(results, panel, image_id)
            if panel.index is None or isinstance(masks_KHW, str):
                films.append(Film(reason=str(masks_KHW)))
                continue
            iou = overlays.image_iou(results, panel.index, image_id, names)
            films.append(Film(panel.title, layers(masks_KHW[chosen], names), f"IoU {iou:.2f}"))
        height, width = pixels_HW.shape
        radiograph = encoded(Image.fromarray(np.asarray(pixels_HW, dtype=np.uint8)), "png")
        text = ", ".join(listed) if pathology is None else ""
        rows.append(FilmRow(image_id, text, radiograph, f"{width}/{height}", films))
    heads = [("Radiograph", pathology or "test set"), ("Experts", "ground truth")]
    return FilmGrid([*heads, *((panel.title, panel.subtitle) for panel in panels)], rows)
