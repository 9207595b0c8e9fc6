"""Weak labels on radiographs: for each pathology the best, median and worst image, from CAM to mask beside the experts'."""

from __future__ import annotations

import base64
import html
import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageFilter
from plotly.colors import sample_colorscale, unlabel_rgb

from chexseg.analysis.published import METHODS
from chexseg.analysis.results import WeakLabels, WeakMaps
from chexseg.analysis.weak_label_agreement import LabelSet
from chexseg.errors import ChexsegError
from chexseg.report.page.overlays import enlarge, layer_png, outline

RULE = (
    "Of the images on which experts drew the pathology, those with the highest, the median (of two, the higher) and the lowest "
    "mean of the kinds’ IoU for it; ties in the order of their ids."
)
SIDE = 176  # pixels of a panel's side, at most
#: Even steps to the eye, told apart with every common colour vision, and lighter where there is more.
HEAT = tuple(
    tuple(round(v) for v in unlabel_rgb(c))
    for c in sample_colorscale("Viridis", np.linspace(0, 1, 101))
)
OPACITY = 150  # of 255


def image_iou(labels: WeakLabels, k: int) -> np.ndarray:
    """iou_I of one pathology, NaN in images where experts didn't draw it."""
    intersection_I, predicted_I, true_I = labels.counts.counts_IK3[:, k].T.astype(np.float64)
    out_I = np.full(true_I.shape, np.nan)
    return np.divide(
        intersection_I, predicted_I + true_I - intersection_I, out=out_I, where=true_I > 0
    )


def choose(labels: LabelSet, k: int) -> dict[str, int]:
    """ "best", "median" and "worst" -> position of the image, by `RULE`; fewer where fewer images have the pathology."""
    mean_I = np.mean([image_iou(found, k) for found in labels.labels], axis=0)
    ids = labels.labels[0].counts.image_ids
    ranked = sorted(np.flatnonzero(~np.isnan(mean_I)).tolist(), key=lambda i: (-mean_I[i], ids[i]))
    if len(ranked) < 3:
        return dict(
            zip(("best", "worst") if len(ranked) > 1 else ("only image",), ranked, strict=False)
        )
    return {"best": ranked[0], "median": ranked[(len(ranked) - 1) // 2], "worst": ranked[-1]}


# ---- pictures ----------------------------------------------------------------------------------------------------------


def upsampled(scores_hw: np.ndarray, size: int) -> np.ndarray:
    """Scores (float32) at their native resolution -> (size, size), as `saliency.weak_masks.upsampled` does, without torch."""
    stored = Image.fromarray(np.ascontiguousarray(scores_hw, dtype=np.float32))
    return np.asarray(stored.resize((size, size), Image.Resampling.BILINEAR))


def heat_png(scores_hw: np.ndarray, side: int = SIDE) -> bytes:
    """A CAM in [0, 1] as a translucent PNG of `HEAT`; clear where it is 0, and less and less so up to 0.2."""
    last = len(HEAT) - 1
    level = Image.fromarray(
        np.rint(np.clip(upsampled(scores_hw, side), 0, 1) * last).astype(np.uint8)
    )
    level.putpalette([value for colour in HEAT for value in colour])
    ramp = np.minimum(1, np.arange(len(HEAT)) / 20)
    return _encoded(
        level, "png", transparency=bytes(np.rint(OPACITY * ramp).astype(np.uint8)), optimize=True
    )


def grey_jpeg(values_HW: np.ndarray, side: int = SIDE) -> bytes:
    """Grey values, uint8, as a JPEG of at most `side` pixels."""
    picture = Image.fromarray(np.asarray(values_HW, dtype=np.uint8))
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _encoded(picture, "jpeg", quality=82, optimize=True)


def outline_png(mask_HW: np.ndarray) -> bytes:
    """The mask's edge in white, with a dark seam that shows it on a bright film, on nothing."""
    edge_HW = outline(enlarge(np.asarray(mask_HW, dtype=bool)), width=3)
    seam_HW = (
        np.asarray(
            Image.fromarray(edge_HW.astype(np.uint8)).filter(ImageFilter.MaxFilter(5)), dtype=bool
        )
        & ~edge_HW
    )
    layer = Image.fromarray(edge_HW + 2 * seam_HW.astype(np.uint8))
    layer.putpalette([0, 0, 0, 255, 255, 255, 0, 0, 0])
    return _encoded(layer, "png", transparency=bytes([0, 255, 150]), optimize=True)


def _encoded(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def _uri(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


# ---- as HTML -----------------------------------------------------------------------------------------------------------


def blocks_html(labels: LabelSet, pathologies: tuple[str, ...]) -> tuple[str, list[str]]:
    """(a block to open for each pathology that experts drew, the first one open; the pathologies that they didn't)."""

    @lru_cache(maxsize=8)  # an image often stands for several pathologies, mostly neighbours
    def read(image_id: str) -> tuple[np.ndarray, np.ndarray, tuple[WeakMaps | str, ...]]:
        return (
            *labels.labels[0].image(image_id),
            tuple(_maps(found, image_id) for found in labels.labels),
        )

    parts, without = [], []
    for k, pathology in enumerate(pathologies):
        chosen = choose(labels, k)
        if not chosen:
            without.append(pathology)
            continue
        number = int((labels.labels[0].counts.counts_IK3[:, k, 2] > 0).sum())
        images = f"{number} {'image' if number == 1 else 'images'} with expert masks"
        rows = [
            _row_html(labels, k, pathology, rank, i, *read(labels.labels[0].counts.image_ids[i]))
            for rank, i in chosen.items()
        ]
        heads = [
            ("Radiograph", ""),
            *(head for found in labels.labels for head in _heads(found)),
            ("Experts", "ground truth"),
        ]
        titles = "".join(
            f'<div class="head">{title}<small>{text}</small></div>' for title, text in heads
        )
        scale = _scale_html(
            labels, k, read(labels.labels[0].counts.image_ids[chosen[next(iter(chosen))]])[2]
        )
        grid = f'<div class="scroll"><div class="films" style="--columns:{len(heads)}">{titles}{"".join(rows)}</div></div>'
        is_open = "" if parts else " open"
        parts.append(
            f"<details{is_open}><summary>{pathology}<small>{images}</small></summary>{scale}{grid}</details>"
        )
    return "".join(parts), without


def _maps(labels: WeakLabels, image_id: str) -> WeakMaps | str:
    try:
        return labels.maps(image_id)
    except (OSError, KeyError, ChexsegError) as error:
        return f"{METHODS[labels.kind]} can't be read: {error}"


def _heads(labels: WeakLabels) -> list[tuple[str, str]]:
    name = METHODS[labels.kind]
    if labels.kind == "irnet":
        return [("Boundary map", "IRNet"), (f"{name} mask", "")]
    return [(f"{name} map", "upsampled"), (f"{name} mask", "")]


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
    """One image: what it is, then its panels. Film and expert outline stand once, as backgrounds that the panels share."""
    iou = [image_iou(found, k)[index] for found in labels.labels]
    counts = labels.labels[0].counts
    role = "CAM thresholds were chosen on it" if counts.chosen_on_I[index] else "held out"
    mean = f"mean IoU {np.mean(iou):.2f}" if len(iou) > 1 else ""
    told = ", ".join(filter(None, [html.escape(counts.image_ids[index]), mean, role]))
    height, width = pixels_HW.shape
    panels = [_film("Radiograph", "")]
    for found, its, value in zip(labels.labels, maps, iou, strict=True):
        if isinstance(its, str):
            panels += [f'<div class="empty">{html.escape(its)}</div>'] * 2
            continue
        name, mask_HW = METHODS[found.kind], its.masks_KHW[k]
        if found.kind != "irnet":
            panels.append(_film(f"{name} map", _layer(heat_png(its.scores_Khw[k])), "truth"))
        elif its.boundary_hw is None:
            panels.append('<div class="empty">No boundary map is stored.</div>')
        else:
            boundary = _layer(grey_jpeg(np.rint(255 * its.boundary_hw)))
            panels.append(_film("boundary map", boundary, "truth"))
        drawn = _layer(layer_png(mask_HW, pathology)) if mask_HW.any() else ""
        score = f'<span class="score">{"" if mask_HW.any() else "empty, "}IoU {value:.2f}</span>'
        panels.append(_film(f"{name} mask, IoU {value:.2f}", drawn + score, "truth"))
    panels.append(_film("experts' mask", _layer(layer_png(expert_KHW[k], pathology))))
    style = f"--film:url({_uri(grey_jpeg(pixels_HW))});--truth:url({_uri(outline_png(expert_KHW[k]))});--aspect:{width}/{height}"
    title = f'<div class="row"><b>{rank.capitalize()}</b> &nbsp;{told}</div>'
    return f'{title}<div class="same" style="{style}">{"".join(panels)}</div>'


def _film(label: str, upon: str, kind: str = "") -> str:
    return f'<div class="film {kind}" role="img" aria-label="{html.escape(label)}">{upon}</div>'


def _layer(picture: bytes) -> str:
    return f'<img class="layer" alt="" src="{_uri(picture)}">'


def _scale_html(labels: LabelSet, k: int, maps: tuple[WeakMaps | str, ...]) -> str:
    """The heat map's colours, with the thresholds of the masks marked."""
    stops = ", ".join(f"rgb{colour}" for colour in HEAT[::10])
    known = [
        (METHODS[f.kind], f.kind, float(m.thresholds_K[k]))
        for f, m in zip(labels.labels, maps, strict=True)
        if not isinstance(m, str)
    ]
    marks = "".join(
        f'<i style="left:{100 * at:.0f}%"></i>' for _, kind, at in known if kind != "irnet"
    )
    told = ", ".join(f"{name} mask above {at:.2f}" for name, _, at in known)
    ramp = (
        f'<span class="ramp" style="background:linear-gradient(to right, {stops})">{marks}</span>'
    )
    return f'<p class="scale"><span>0</span>{ramp}<span>1</span><span>of the map’s maximum; {told}</span></p>'
