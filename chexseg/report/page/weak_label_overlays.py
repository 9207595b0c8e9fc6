"""Weak labels on radiographs: the best, median and worst image of each pathology, map to mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
from PIL import Image
from plotly.colors import sample_colorscale, unlabel_rgb
from scipy import ndimage

from chexseg.analysis.published import METHODS
from chexseg.analysis.results import WeakCounts, WeakLabels, WeakMaps
from chexseg.analysis.statistics.scores import pooled_iou
from chexseg.analysis.weak_label_agreement import LabelSet
from chexseg.drawing.masks import encoded, enlarge, layer_png, outline
from chexseg.errors import ChexsegError
from chexseg.report.page.film_grids import Film, FilmGrid, FilmRow

SIDE = 176  # maximum length of a panel's side, pixels
#: Colours of a heat map, lighter for higher scores; perceptually uniform and safe for common types
#: of colour vision.
HEAT = tuple(
    tuple(round(v) for v in unlabel_rgb(c))
    for c in sample_colorscale("Viridis", np.linspace(0, 1, 101))
)
OPACITY = 150  # of 255


def image_iou(counts: WeakCounts, k: int) -> np.ndarray:
    """Return iou_I of one pathology, NaN for images where experts didn't draw it."""
    return pooled_iou(counts.counts_IK3[:, None, [k]], require_expert=True)[:, 0]


def choose(labels: LabelSet, k: int) -> dict[str, int]:
    """Return "best", "median" and "worst" -> index of the image.

    These have the highest, the median (of two, the higher) and the lowest IoU, averaged over the
    kinds of labels, of the images on which experts drew the pathology; ties by id. With fewer than
    three such images: "best" and "worst", or "only image".
    """
    mean_I = np.mean([image_iou(counts, k) for counts in labels.counts], axis=0)
    ids = labels.counts[0].image_ids
    ranked = sorted(np.flatnonzero(~np.isnan(mean_I)).tolist(), key=lambda i: (-mean_I[i], ids[i]))
    if len(ranked) < 2:
        return {"only image": ranked[0]} if ranked else {}
    median = {"median": ranked[(len(ranked) - 1) // 2]} if len(ranked) > 2 else {}
    return {"best": ranked[0], **median, "worst": ranked[-1]}


# ---- images --------------------------------------------------------------------------------------


def upsampled(scores_hw: np.ndarray, size: int) -> np.ndarray:
    """Resize scores (float32) to (size, size): `saliency.weak_masks.upsample` without torch."""
    stored = Image.fromarray(np.ascontiguousarray(scores_hw, dtype=np.float32))
    return np.asarray(stored.resize((size, size), Image.Resampling.BILINEAR))


def heat_png(scores_hw: np.ndarray, side: int = SIDE) -> bytes:
    """Return a CAM in [0, 1] as PNG in the colours of `HEAT`, transparent at 0, faint below 0.2."""
    last = len(HEAT) - 1
    level_HW = np.rint(np.clip(upsampled(scores_hw, side), 0, 1) * last)
    level = Image.fromarray(level_HW.astype(np.uint8))
    level.putpalette([value for colour in HEAT for value in colour])
    ramp = np.minimum(1, np.arange(len(HEAT)) / 20)
    return encoded(level, "png", transparency=bytes(np.rint(OPACITY * ramp).astype(np.uint8)))


def grey_jpeg(values_HW: np.ndarray, side: int = SIDE) -> bytes:
    """Return grey values, uint8, as a JPEG of at most `side` pixels."""
    picture = Image.fromarray(np.asarray(values_HW, dtype=np.uint8))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return encoded(picture, "jpeg", quality=82)


def outline_png(mask_HW: np.ndarray) -> bytes:
    """Return the mask's edge as a transparent PNG: white, with a dark seam for bright areas."""
    edge_HW = outline(enlarge(np.asarray(mask_HW, dtype=bool)), width=3)
    seam_HW = ndimage.binary_dilation(edge_HW, np.ones((5, 5))) & ~edge_HW
    layer = Image.fromarray(edge_HW + 2 * seam_HW.astype(np.uint8))
    layer.putpalette([0, 0, 0, 255, 255, 255, 0, 0, 0])
    return encoded(layer, "png", transparency=bytes([0, 255, 150]))


# ---- grids of panels -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """The panels of one pathology.

    images: number of images with expert masks. thresholds: kind of labels -> threshold of masks,
    NaN for Otsu's, which each image has.
    """

    pathology: str
    images: int
    thresholds: dict[str, float]
    grid: FilmGrid


def blocks(
    labels: LabelSet,
    pathologies: tuple[str, ...],
    image: Callable[[str], tuple[np.ndarray, np.ndarray]],
) -> list[Block]:
    """Return one block per pathology that experts drew.

    image: image id -> (pixels_HW, expert masks_KHW).
    """
    counts = labels.counts[0]

    @lru_cache(maxsize=8)  # an image is often chosen for several pathologies, mostly neighbours
    def read(image_id: str) -> tuple[np.ndarray, np.ndarray, list[WeakMaps | str]]:
        return *image(image_id), [_maps(kind, image_id) for kind in labels.labels]

    heads = [("Radiograph", "")]
    for kind in labels.labels:
        name = METHODS[kind.kind]
        first = ("Boundary map", name) if kind.kind == "irnet" else (f"{name} map", "upsampled")
        heads += [first, (f"{name} mask", "")]
    made = []
    for k, pathology in enumerate(pathologies):
        rows, thresholds = [], {}
        for rank, index in choose(labels, k).items():
            pixels_HW, expert_KHW, maps = read(counts.image_ids[index])
            iou = [float(image_iou(one, k)[index]) for one in labels.counts]
            films = [Film("Radiograph")]
            for kind, of_kind, value in zip(labels.labels, maps, iou, strict=True):
                films += _films(kind.kind, of_kind, k, pathology, value)
                if not isinstance(of_kind, str):
                    thresholds[kind.kind] = float(of_kind.thresholds_K[k])
            films.append(Film("experts' mask", {0: layer_png(expert_KHW[k], pathology)}))
            texts = [counts.image_ids[index]]
            texts += [f"mean IoU {np.mean(iou):.2f}"] if len(iou) > 1 else []
            training = (
                "CAM thresholds were chosen on it" if labels.tuned else "expert training image"
            )
            texts += [training if counts.chosen_on_I[index] else "held out"]
            height, width = pixels_HW.shape
            picture, edge = grey_jpeg(pixels_HW), outline_png(expert_KHW[k])
            row = rank.capitalize(), ", ".join(texts), picture, f"{width}/{height}", films, edge
            rows.append(FilmRow(*row))
        if rows:
            grid = FilmGrid([*heads, ("Experts", "ground truth")], rows)
            number = int((counts.counts_IK3[:, k, 2] > 0).sum())
            made.append(Block(pathology, number, thresholds, grid))
    return made


def _maps(labels: WeakLabels, image_id: str) -> WeakMaps | str:
    """Return the maps of an image, or the reason why they can't be read."""
    try:  # labels with counts have maps too
        return cast(Callable[[str], WeakMaps], labels.maps)(image_id)
    except (OSError, KeyError, ChexsegError) as error:
        return f"{METHODS[labels.kind]} can't be read: {error}"


def _films(
    kind: str, maps: WeakMaps | str, k: int, pathology: str, iou: float
) -> tuple[Film, Film]:
    """Return the panels of what a mask is made from, a CAM or IRNet's boundaries, and the mask."""
    if isinstance(maps, str):
        return Film(reason=maps), Film(reason=maps)
    name, mask_HW = METHODS[kind], maps.masks_KHW[k]
    layers = {0: layer_png(mask_HW, pathology)} if mask_HW.any() else {}
    score = f"{'' if layers else 'empty, '}IoU {iou:.2f}"
    mask = Film(f"{name} mask, IoU {iou:.2f}", layers, score, outlined=True)
    if kind != "irnet":
        return Film(f"{name} map", {0: heat_png(maps.scores_Khw[k])}, outlined=True), mask
    if maps.boundary_hw is None:
        return Film(reason="No boundary map is stored."), mask
    boundary = grey_jpeg(np.rint(255 * maps.boundary_hw))
    return Film("boundary map", {0: boundary}, outlined=True), mask
