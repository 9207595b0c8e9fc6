"""Expert and predicted masks on six test images, which are chosen without looking at scores."""

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from chexseg.analysis.published import METHODS, PAPERS_METHODS
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.scores import Arm, arms, by_selection, miou, patient_of, pooled_iou
from chexseg.errors import ChexsegError
from chexseg.report.palette import DASHED, PATHOLOGY_COLOURS

RULE = (
    "The test images with the most pathologies in the experts' masks, one per patient, ties by id. "
    "Of each kind of supervision, the best trial of the arm with the highest mIoU, both on the "
    "selection images; test scores are not used."
)
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
    """Return the ids of the images to show, by `RULE`."""
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


def columns(results: StudyResults) -> list[Panel]:
    """Return the columns of predictions, each of the best cell of its kind on the selection images.

    CAM++ has a column only if it is studied. A kind without a finished cell keeps its column while
    any cells are missing, because those may be of this kind.
    """
    all_arms = arms(results)

    def column(title: str, candidates: list[Arm], lacking: str) -> Panel:
        arm = by_selection(candidates)
        if arm is None:
            return Panel(title, "", None, f"No finished cell: {lacking}.")
        selection_T = results.cells["selection_miou"].to_numpy(dtype=float)[list(arm.indices)]
        best = arm.indices[int(np.argmax(np.nan_to_num(selection_T, nan=-1.0)))]
        why_not = "" if results.predictions is not None else "Predictions weren't kept."
        return Panel(title, str(results.cells["name"].iloc[best]), best, why_not)

    kinds = [
        kind
        for kind in METHODS
        if kind in PAPERS_METHODS or any(arm.weak == kind for arm in all_arms)
    ]
    shown = [
        *(
            column(
                f"Weak, {METHODS[kind]}",
                [arm for arm in all_arms if arm.method == "weak" and arm.weak == kind],
                f"p = 0, {METHODS[kind]}",
            )
            for kind in kinds
        ),
        column("Full", [arm for arm in all_arms if arm.method == "full"], "p = 1"),
        column("CheXseg", [arm for arm in all_arms if arm.method == "mixed"], "0 < p < 1"),
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


def image_iou(results: StudyResults, index: int, image_id: str) -> float:
    """Return a cell's mean IoU over the pathologies that experts drew on the image."""
    counts_K3 = results.counts_CIK3[index, results.image_ids.index(image_id)]
    return float(miou(pooled_iou(counts_K3[None], require_expert=True))[0])


def enlarge(mask_HW: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Return the mask with each pixel repeated, so that an outline on it looks thin."""
    factor = max(1, -(-side // max(mask_HW.shape)))
    return mask_HW.repeat(factor, axis=0).repeat(factor, axis=1)


def outline(mask_HW: np.ndarray, dashed: bool = False, width: int = 2) -> np.ndarray:
    """Return the mask's pixels less than `width` from its edge; dashed: with diagonal gaps."""
    inner_HW = mask_HW
    for _ in range(width):
        padded = np.pad(inner_HW, 1)
        inner_HW = (
            padded[1:-1, 1:-1]
            & padded[:-2, 1:-1]
            & padded[2:, 1:-1]
            & padded[1:-1, :-2]
            & padded[1:-1, 2:]
        )
    edge_HW = mask_HW & ~inner_HW
    if dashed:
        y_HW, x_HW = np.indices(mask_HW.shape)
        edge_HW = edge_HW & ((x_HW + y_HW) % 12 < 7) & ((x_HW - y_HW) % 12 < 9)
    return np.asarray(edge_HW)


def layer_png(mask_HW: np.ndarray, pathology: str) -> bytes:
    """Return a pathology's mask as PNG in its colour: translucent area, opaque outline."""
    large_HW = enlarge(np.asarray(mask_HW, dtype=bool))
    layer = Image.fromarray(large_HW.astype(np.uint8) + outline(large_HW, pathology in DASHED))
    layer.putpalette([0, 0, 0, *_rgb(pathology), *_rgb(pathology)])
    return _png(layer, transparency=bytes([0, FILL_OPACITY, OUTLINE_OPACITY]))


def composite(
    pixels_HW: np.ndarray, masks_KHW: np.ndarray, pathologies: Sequence[str]
) -> Image.Image:
    """Return the radiograph with all masks on it, RGB, enlarged to at least `SIDE` pixels."""
    size = enlarge(pixels_HW).shape[::-1]
    panel = (
        Image.fromarray(np.asarray(pixels_HW, dtype=np.uint8))
        .resize(size, Image.Resampling.BICUBIC)
        .convert("RGBA")
    )
    for mask_HW, name in zip(masks_KHW, pathologies, strict=True):
        if mask_HW.any():
            panel.alpha_composite(
                Image.open(io.BytesIO(layer_png(mask_HW, name)), formats=("PNG",)).convert("RGBA")
            )
    return panel.convert("RGB")


def sheet_png(results: StudyResults) -> bytes | None:
    """Return radiographs, experts and predictions as one PNG, for slides; None without images."""
    chosen, shown = choose_images(results), columns(results)
    if results.image is None or not chosen:
        return None
    images = {image_id: results.image(image_id) for image_id in chosen}
    panel = 240
    gap, head, foot = 6, 30, 34
    width = (panel + gap) * (2 + len(shown)) + gap
    sheet = Image.new("RGB", (width, head + (panel + gap) * len(chosen) + foot), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for column, title in enumerate(["Radiograph", "Experts", *(entry.title for entry in shown)]):
        draw.text((gap + column * (panel + gap), 7), title, fill="black", font=font)
    present: set[str] = set()
    for row, (image_id, (pixels_HW, expert_KHW)) in enumerate(images.items()):
        masks = [
            np.zeros_like(expert_KHW),
            expert_KHW,
            *(predicted(results, entry, image_id) for entry in shown),
        ]
        for column, masks_KHW in enumerate(masks):
            left, top = gap + column * (panel + gap), head + row * (panel + gap)
            if isinstance(masks_KHW, str):
                draw.multiline_text(
                    (left + 8, top + 100),
                    "\n".join(textwrap.wrap(masks_KHW, 30)),
                    fill="#555",
                    font=font,
                )
                continue
            picture = composite(pixels_HW, masks_KHW, results.pathologies)
            picture.thumbnail((panel, panel))
            sheet.paste(
                picture, (left + (panel - picture.width) // 2, top + (panel - picture.height) // 2)
            )
            present |= {
                name
                for name, mask_HW in zip(results.pathologies, masks_KHW, strict=True)
                if mask_HW.any()
            }
    x, small = gap, ImageFont.load_default(13)
    for name in (name for name in results.pathologies if name in present):
        draw.rectangle(
            (x, sheet.height - 23, x + 12, sheet.height - 11), fill=_rgb(name), outline="#444"
        )
        draw.text((x + 17, sheet.height - 25), name, fill="black", font=small)
        x += 30 + int(draw.textlength(name, font=small))
    return _png(sheet)


def _rgb(pathology: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(PATHOLOGY_COLOURS[pathology].lstrip("#")))


def _png(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "png", optimize=True, **options)
    return stream.getvalue()


# ---- HTML: each pathology is a transparent layer over the radiograph, so the page can hide it ----


def grid_html(results: StudyResults) -> tuple[str, set[int]]:
    """Return (a grid of panels, indices of the pathologies drawn), or (a reason, no indices)."""
    chosen, shown = choose_images(results), columns(results)
    if results.image is None or not chosen:
        why = "no test image has an expert mask"
        why = "the images aren’t available" if results.image is None else why
        return f'<p class="soft">No overlays: {why}.</p>', set()
    heads = [
        ("Radiograph", "test set"),
        ("Experts", "ground truth"),
        *((panel.title, panel.subtitle) for panel in shown),
    ]
    parts = [head_html(*head) for head in heads]
    present: set[int] = set()
    for image_id in chosen:
        pixels_HW, expert_KHW = results.image(image_id)
        present |= set(np.flatnonzero(expert_KHW.any(axis=(1, 2))).tolist())
        drawn = [
            name
            for name, mask_HW in zip(results.pathologies, expert_KHW, strict=True)
            if mask_HW.any()
        ]
        row = [
            panel_html("radiograph", ""),
            panel_html("experts", layers_html(expert_KHW, results.pathologies)),
        ]
        for panel in shown:
            masks_KHW = predicted(results, panel, image_id)
            if isinstance(masks_KHW, str):
                row.append(empty_html(masks_KHW))
                continue
            present |= set(np.flatnonzero(masks_KHW.any(axis=(1, 2))).tolist())
            iou = image_iou(results, cast(int, panel.index), image_id)  # a cell made the masks
            score = f'<span class="score">IoU {iou:.2f}</span>'
            row.append(panel_html(panel.title, layers_html(masks_KHW, results.pathologies) + score))
        parts.append(row_html(image_id, ", ".join(drawn), pixels_HW, "".join(row)))
    return panels_html(parts, len(heads)), present


def panels_html(parts: Sequence[str], columns: int) -> str:
    """Return a grid of panels from its column heads and rows."""
    return f'<div class="films" style="--columns:{columns}">{"".join(parts)}</div>'


def head_html(title: str, text: str) -> str:
    """Return the head of a column."""
    return f'<div class="head">{html.escape(title)}<small>{html.escape(text)}</small></div>'


def row_html(image_id: str, drawn: str, pixels_HW: np.ndarray, panels: str) -> str:
    """Return a row's title and panels, which share the radiograph as their background."""
    height, width = pixels_HW.shape
    radiograph = _png(Image.fromarray(np.asarray(pixels_HW, dtype=np.uint8)))
    style = f"--film:url({_data_uri(radiograph)});--aspect:{width}/{height}"
    title = f'<div class="row"><b>{html.escape(image_id)}</b> &nbsp;{html.escape(drawn)}</div>'
    return f'{title}<div class="same" style="{style}">{panels}</div>'


def panel_html(label: str, layers: str) -> str:
    """Return the row's radiograph with layers over it."""
    return f'<div class="film" role="img" aria-label="{html.escape(label)}">{layers}</div>'


def empty_html(why: str) -> str:
    """Return a panel with the reason why it can't be drawn."""
    return f'<div class="empty">{html.escape(why)}</div>'


def layers_html(masks_KHW: np.ndarray, pathologies: Sequence[str]) -> str:
    """Return one image per pathology with a mask."""
    return "".join(
        f'<img class="layer" data-k="{k}" alt="" src="{_data_uri(layer_png(mask_HW, name))}">'
        for k, (name, mask_HW) in enumerate(zip(pathologies, masks_KHW, strict=True))
        if mask_HW.any()
    )


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
