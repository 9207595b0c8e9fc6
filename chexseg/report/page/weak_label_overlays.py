"""Weak labels on radiographs: the best, median and worst image of each pathology, map to mask."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import lru_cache
from typing import cast

import numpy as np
from PIL import Image, ImageFilter
from plotly.colors import sample_colorscale, unlabel_rgb

from chexseg.analysis.published import METHODS
from chexseg.analysis.results import WeakCounts, WeakLabels, WeakMaps
from chexseg.analysis.statistics.scores import pooled_iou
from chexseg.analysis.weak_label_agreement import LabelSet
from chexseg.errors import ChexsegError
from chexseg.report.page.markup import scroll
from chexseg.report.page.overlays import (
    data_uri,
    empty_html,
    encoded,
    enlarge,
    head_html,
    layer_png,
    outline,
    panels_html,
)

RULE = (
    "Of the images on which experts drew the pathology: those with the highest, the median (of "
    "two, the higher) and the lowest IoU for it, averaged over the kinds of labels; ties by id."
)
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
    """Return "best", "median" and "worst" -> index of the image, by `RULE`.

    With fewer than three images of the pathology: "best" and "worst", or "only image".
    """
    mean_I = np.mean([image_iou(counts, k) for counts in labels.counts], axis=0)
    ids = labels.counts[0].image_ids
    ranked = sorted(np.flatnonzero(~np.isnan(mean_I)).tolist(), key=lambda i: (-mean_I[i], ids[i]))
    if len(ranked) < 3:
        return dict(
            zip(("best", "worst") if len(ranked) > 1 else ("only image",), ranked, strict=False)
        )
    return {"best": ranked[0], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[-1]}


# ---- images --------------------------------------------------------------------------------------


def upsampled(scores_hw: np.ndarray, size: int) -> np.ndarray:
    """Resize scores (float32) to (size, size): `saliency.weak_masks.upsampled` without torch."""
    stored = Image.fromarray(np.ascontiguousarray(scores_hw, dtype=np.float32))
    return np.asarray(stored.resize((size, size), Image.Resampling.BILINEAR))


def heat_png(scores_hw: np.ndarray, side: int = SIDE) -> bytes:
    """Return a CAM in [0, 1] as PNG in the colours of `HEAT`, transparent at 0, faint below 0.2."""
    last = len(HEAT) - 1
    level = Image.fromarray(
        np.rint(np.clip(upsampled(scores_hw, side), 0, 1) * last).astype(np.uint8)
    )
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
    seam_HW = (
        np.asarray(
            Image.fromarray(edge_HW.astype(np.uint8)).filter(ImageFilter.MaxFilter(5)), dtype=bool
        )
        & ~edge_HW
    )
    layer = Image.fromarray(edge_HW + 2 * seam_HW.astype(np.uint8))
    layer.putpalette([0, 0, 0, 255, 255, 255, 0, 0, 0])
    return encoded(layer, "png", transparency=bytes([0, 255, 150]))


# ---- HTML ----------------------------------------------------------------------------------------


def blocks_html(
    labels: LabelSet,
    pathologies: tuple[str, ...],
    image: Callable[[str], tuple[np.ndarray, np.ndarray]],
) -> tuple[str, list[str]]:
    """Return (one block per pathology that experts drew, the other pathologies).

    image: image id -> (pixels_HW, expert masks_KHW).
    """
    counts = labels.counts[0]

    @lru_cache(maxsize=8)  # an image is often chosen for several pathologies, mostly neighbours
    def read(image_id: str) -> tuple[np.ndarray, np.ndarray, tuple[WeakMaps | str, ...]]:
        return *image(image_id), tuple(_maps(kind, image_id) for kind in labels.labels)

    parts: list[str] = []
    without: list[str] = []
    for k, pathology in enumerate(pathologies):
        chosen = choose(labels, k)
        if not chosen:
            without.append(pathology)
            continue
        number = int((counts.counts_IK3[:, k, 2] > 0).sum())
        images = f"{number} {'image' if number == 1 else 'images'} with expert masks"
        rows = [
            _row_html(labels, k, pathology, rank, i, *read(counts.image_ids[i]))
            for rank, i in chosen.items()
        ]
        heads = [
            ("Radiograph", ""),
            *(head for kind in labels.labels for head in _heads(kind)),
            ("Experts", "ground truth"),
        ]
        scale = _scale_html(labels, k, read(counts.image_ids[next(iter(chosen.values()))])[2])
        grid = scroll(panels_html([*(head_html(*head) for head in heads), *rows], len(heads)))
        is_open = "" if parts else " open"
        parts.append(
            f"<details{is_open}><summary>{pathology}<small>{images}</small></summary>"
            f"{scale}{grid}</details>"
        )
    return "".join(parts), without


def _maps(labels: WeakLabels, image_id: str) -> WeakMaps | str:
    """Return the maps of an image, or the reason why they can't be read."""
    try:  # labels with counts have maps too
        return cast(Callable[[str], WeakMaps], labels.maps)(image_id)
    except (OSError, KeyError, ChexsegError) as error:
        return f"{METHODS[labels.kind]} can't be read: {error}"


def _heads(labels: WeakLabels) -> list[tuple[str, str]]:
    name = METHODS[labels.kind]
    first = ("Boundary map", name) if labels.kind == "irnet" else (f"{name} map", "upsampled")
    return [first, (f"{name} mask", "")]


def _row_html(
    labels: LabelSet,
    k: int,
    pathology: str,
    rank: str,
    index: int,
    pixels_HW: np.ndarray,
    expert_KHW: np.ndarray,
    maps: tuple[WeakMaps | str, ...],
) -> str:
    """Return one image's title and panels, which share radiograph and expert outline."""
    iou = [image_iou(counts, k)[index] for counts in labels.counts]
    counts = labels.counts[0]
    role = "CAM thresholds were chosen on it" if counts.chosen_on_I[index] else "held out"
    mean = f"mean IoU {np.mean(iou):.2f}" if len(iou) > 1 else ""
    text = ", ".join(filter(None, [html.escape(counts.image_ids[index]), mean, role]))
    height, width = pixels_HW.shape
    panels = [_panel("Radiograph", "")]
    for kind, image_maps, value in zip(labels.labels, maps, iou, strict=True):
        if isinstance(image_maps, str):
            panels += [empty_html(image_maps)] * 2
            continue
        name, mask_HW = METHODS[kind.kind], image_maps.masks_KHW[k]
        if kind.kind != "irnet":
            panels.append(
                _panel(f"{name} map", _layer(heat_png(image_maps.scores_Khw[k])), "truth")
            )
        elif image_maps.boundary_hw is None:
            panels.append(empty_html("No boundary map is stored."))
        else:
            boundary = grey_jpeg(np.rint(255 * image_maps.boundary_hw))
            panels.append(_panel("boundary map", _layer(boundary), "truth"))
        drawn = _layer(layer_png(mask_HW, pathology)) if mask_HW.any() else ""
        score = f'<span class="score">{"" if mask_HW.any() else "empty, "}IoU {value:.2f}</span>'
        panels.append(_panel(f"{name} mask, IoU {value:.2f}", drawn + score, "truth"))
    panels.append(_panel("experts' mask", _layer(layer_png(expert_KHW[k], pathology))))
    style = (
        f"--film:url({data_uri(grey_jpeg(pixels_HW))});"
        f"--truth:url({data_uri(outline_png(expert_KHW[k]))});--aspect:{width}/{height}"
    )
    title = f'<div class="row"><b>{rank.capitalize()}</b> &nbsp;{text}</div>'
    return f'{title}<div class="same" style="{style}">{"".join(panels)}</div>'


def _panel(label: str, layers: str, kind: str = "") -> str:
    return f'<div class="film {kind}" role="img" aria-label="{html.escape(label)}">{layers}</div>'


def _layer(picture: bytes) -> str:
    return f'<img class="layer" alt="" src="{data_uri(picture)}">'


def _scale_html(labels: LabelSet, k: int, maps: tuple[WeakMaps | str, ...]) -> str:
    """Return the heat map's colour scale, with marks at the masks' thresholds."""
    stops = ", ".join(f"rgb{colour}" for colour in HEAT[::10])
    thresholds = {
        kind.kind: float(image_maps.thresholds_K[k])
        for kind, image_maps in zip(labels.labels, maps, strict=True)
        if not isinstance(image_maps, str)
    }
    marks = "".join(
        f'<i style="left:{100 * threshold:.0f}%"></i>'
        for kind, threshold in thresholds.items()
        if kind != "irnet"
    )
    text = ", ".join(
        f"{METHODS[kind]} mask above {threshold:.2f}" for kind, threshold in thresholds.items()
    )
    ramp = (
        f'<span class="ramp" style="background:linear-gradient(to right, {stops})">{marks}</span>'
    )
    return (
        f'<p class="scale"><span>0</span>{ramp}<span>1</span>'
        f"<span>of the map’s maximum; {text}</span></p>"
    )
