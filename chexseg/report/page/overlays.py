"""Choose test images without looking at scores, and draw masks as layers of a radiograph."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageColor
from scipy import ndimage

from chexseg.analysis.arms import Arm, by_selection
from chexseg.analysis.published import METHODS, PAPERS_METHODS
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.scores import miou, patient_of, pooled_iou
from chexseg.analysis.study_scores import StudyScores
from chexseg.errors import ChexsegError
from chexseg.report.palette import DASHED, PATHOLOGY_COLOURS

FILL_OPACITY, OUTLINE_OPACITY = 64, 255  # of 255
SIDE = 384  # minimum length of a panel's long side, pixels


@dataclass(frozen=True)
class Panel:
    """One column of predictions: its titles and the index of its cell, or why it has no masks."""

    title: str
    subtitle: str
    index: int | None
    why_not: str = ""


def choose_images(results: StudyResults, number: int = 6) -> tuple[str, ...]:
    """Return the ids of the test images with most pathologies in the experts' masks."""
    if not len(results.cells):
        return ()
    return one_per_patient(results, (results.counts_CIK3[0, :, :, 2] > 0).sum(axis=1), number)


def one_per_patient(results: StudyResults, score_I: np.ndarray, number: int) -> tuple[str, ...]:
    """Return the ids of the images with the highest scores above 0, one per patient; ties by id."""
    chosen: dict[str, str] = {}
    for score, image_id in sorted(zip(-score_I, results.image_ids, strict=True)):
        if score < 0 and len(chosen) < number:
            chosen.setdefault(patient_of(image_id), image_id)
    return tuple(chosen.values())


def columns(scores: StudyScores) -> list[Panel]:
    """Return the columns of predictions, each of the best cell of its kind on the selection images.

    CAM++ has a column only if it is studied. A kind without a finished cell keeps its column while
    any cells are missing, because those may be of this kind.
    """
    results = scores.results

    def column(title: str, candidates: list[Arm], lacking: str) -> Panel:
        arm = by_selection(candidates)
        if arm is None:
            return Panel(title, "", None, f"No finished cell: {lacking}.")
        selection_T = results.cells["selection_miou"].to_numpy(dtype=float)[list(arm.indices)]
        best = arm.indices[int(np.argmax(np.nan_to_num(selection_T, nan=-1.0)))]
        why_not = "" if results.predictions is not None else "Predictions weren't kept."
        return Panel(title, str(results.cells["name"].iloc[best]), best, why_not)

    studied = {arm.weak for arm in scores.arms}
    shown = [
        *(
            column(f"Weak, {name}", scores.of("weak", kind), f"p = 0, {name}")
            for kind, name in METHODS.items()
            if kind in PAPERS_METHODS or kind in studied
        ),
        column("Full", scores.of("full"), "p = 1"),
        column("CheXseg", scores.of("mixed"), "0 < p < 1"),
    ]
    return [panel for panel in shown if panel.index is not None or len(results.missing)]


def predicted(results: StudyResults, panel: Panel, image_id: str) -> np.ndarray | str:
    """Return masks_KHW of a column on one image, or the reason why there are none."""
    if panel.index is None or results.predictions is None:
        return panel.why_not
    try:
        return np.asarray(results.predictions(panel.index, image_id), dtype=bool)
    except (OSError, KeyError, ChexsegError) as error:
        return f"The prediction can't be read: {error}"


def image_iou(
    results: StudyResults, index: int, image_id: str, pathologies: Sequence[str]
) -> float:
    """Return a cell's mean IoU over those of the pathologies that experts drew on the image."""
    chosen = [results.pathologies.index(name) for name in pathologies]
    counts_K3 = results.counts_CIK3[index, results.image_ids.index(image_id), chosen]
    return float(miou(pooled_iou(counts_K3[None], require_expert=True))[0])


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
