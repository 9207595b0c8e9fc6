"""Six test images, and what experts and models drew on them: chosen by a rule that doesn't know how the models do."""

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from chexseg.analysis.published import METHODS, PAPERS_METHODS
from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.scores import Arm, arms, by_selection, miou, patient_of, pooled_iou
from chexseg.errors import ChexsegError
from chexseg.report.palette import DASHED, PATHOLOGY_COLOURS

RULE = (
    "The test images with the most pathologies in the experts' masks, one a patient, ties in the order of their ids. "
    "Of each kind of supervision, the arm with the highest mIoU on the selection images, and of that its highest trial; "
    "test scores play no part."
)
FILL_OPACITY, OUTLINE_OPACITY = 64, 255
SIDE = 384  # pixels of a panel's long side, at least


@dataclass(frozen=True)
class Panel:
    """One column: what is shown, and the position of its cell, or why there is none."""

    title: str
    subtitle: str
    index: int | None
    why_not: str = ""


def choose_images(results: StudyResults, number: int = 6) -> tuple[str, ...]:
    """Ids of the images to show, by `RULE`."""
    if not len(results.cells):
        return ()
    present_I = (results.counts_CIK3[0, :, :, 2] > 0).sum(axis=1)
    chosen: dict[str, str] = {}
    for present, image_id in sorted(zip(-present_I, results.image_ids, strict=True)):
        if present < 0 and len(chosen) < number:
            chosen.setdefault(patient_of(image_id), image_id)
    return tuple(chosen.values())


def columns(results: StudyResults) -> list[Panel]:
    """The columns of predictions, each from the best cell of its kind on the selection images; CAM++ where it's studied.

    A kind without a cell has a column while cells are missing, which may be of it.
    """
    found = arms(results)

    def column(title: str, candidates: list[Arm], lacking: str) -> Panel:
        arm = by_selection(candidates)
        if arm is None:
            return Panel(title, "", None, f"No finished cell: {lacking}.")
        selection_T = results.cells["selection_miou"].to_numpy(dtype=float)[list(arm.indices)]
        best = arm.indices[int(np.argmax(np.nan_to_num(selection_T, nan=-1.0)))]
        why_not = "" if results.predictions is not None else "Predictions weren't kept."
        return Panel(title, str(results.cells["name"].iloc[best]), best, why_not)

    kinds = [
        kind for kind in METHODS if kind in PAPERS_METHODS or any(arm.weak == kind for arm in found)
    ]
    shown = [
        *(
            column(
                f"Weak, {METHODS[k]}",
                [a for a in found if a.method == "weak" and a.weak == k],
                f"p = 0, {METHODS[k]}",
            )
            for k in kinds
        ),
        column("Full", [a for a in found if a.method == "full"], "p = 1"),
        column("CheXseg", [a for a in found if a.method == "mixed"], "0 < p < 1"),
    ]
    return [panel for panel in shown if panel.index is not None or len(results.missing)]


def predicted(results: StudyResults, panel: Panel, image_id: str) -> np.ndarray | str:
    """masks_KHW of a column on one image, or why there are none."""
    if panel.index is None or results.predictions is None:
        return panel.why_not
    try:
        return np.asarray(results.predictions(panel.index, image_id), dtype=bool)
    except (OSError, KeyError, ChexsegError) as error:
        return f"The prediction can't be read: {error}"


def image_iou(results: StudyResults, index: int, image_id: str) -> float:
    """The mean IoU over the pathologies that experts drew on the image, for one cell."""
    counts_K3 = results.counts_CIK3[index, results.image_ids.index(image_id)]
    return float(miou(pooled_iou(counts_K3[None], require_expert=True))[0])


def film_png(pixels_HW: np.ndarray) -> bytes:
    """The radiograph as a grey PNG."""
    return _png(Image.fromarray(np.asarray(pixels_HW, dtype=np.uint8)))


def enlarge(mask_HW: np.ndarray, side: int = SIDE) -> np.ndarray:
    """The mask with each pixel repeated, so that its outline is thin beside it."""
    factor = max(1, -(-side // max(mask_HW.shape)))
    return mask_HW.repeat(factor, axis=0).repeat(factor, axis=1)


def outline(mask_HW: np.ndarray, dashed: bool = False, width: int = 2) -> np.ndarray:
    """The mask's pixels less than `width` from its edge; with gaps along the diagonals where `dashed`."""
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
    return edge_HW


def layer_png(mask_HW: np.ndarray, pathology: str) -> bytes:
    """One pathology's mask as a transparent PNG: translucent area, opaque outline, in its colour."""
    large_HW = enlarge(np.asarray(mask_HW, dtype=bool))
    layer = Image.fromarray(large_HW.astype(np.uint8) + outline(large_HW, pathology in DASHED))
    layer.putpalette([0, 0, 0, *_rgb(pathology), *_rgb(pathology)])
    return _png(layer, transparency=bytes([0, FILL_OPACITY, OUTLINE_OPACITY]))


def composite(
    pixels_HW: np.ndarray, masks_KHW: np.ndarray, pathologies: Sequence[str]
) -> Image.Image:
    """The radiograph with all masks on it, RGB, enlarged to at least `SIDE` pixels."""
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
    """All rows in one PNG for slides and READMEs: film, experts, predictions. None where there is nothing to show."""
    chosen, shown = choose_images(results), columns(results)
    if results.image is None or not chosen:
        return None
    films = {image_id: results.image(image_id) for image_id in chosen}
    panel = 240
    gap, head, foot = 6, 30, 34
    width = (panel + gap) * (2 + len(shown)) + gap
    sheet = Image.new("RGB", (width, head + (panel + gap) * len(chosen) + foot), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for column, title in enumerate(["Radiograph", "Experts", *(entry.title for entry in shown)]):
        draw.text((gap + column * (panel + gap), 7), title, fill="black", font=font)
    present: set[str] = set()
    for row, (image_id, (pixels_HW, expert_KHW)) in enumerate(films.items()):
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


def _png(image: Image.Image, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "png", optimize=True, **options)
    return stream.getvalue()


# ---- as HTML: the film once, each pathology a transparent image upon it, so that the page can switch them ---------------


def grid_html(results: StudyResults) -> tuple[str, set[int]]:
    """(a grid of panels as HTML, the positions of the pathologies drawn); a sentence and no positions without panels."""
    chosen, shown = choose_images(results), columns(results)
    if results.image is None or not chosen:
        why = (
            "the images aren't at hand"
            if results.image is None
            else "no test image has an expert mask"
        )
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
            score = (
                f'<span class="score">IoU {image_iou(results, panel.index, image_id):.2f}</span>'
            )
            row.append(panel_html(panel.title, layers_html(masks_KHW, results.pathologies) + score))
        parts.append(row_html(image_id, ", ".join(drawn), pixels_HW, "".join(row)))
    return films_html(parts, len(heads)), present


def films_html(parts: Sequence[str], number: int) -> str:
    """A grid of so many columns from its heads and rows."""
    return f'<div class="films" style="--columns:{number}">{"".join(parts)}</div>'


def head_html(title: str, text: str) -> str:
    return f'<div class="head">{html.escape(title)}<small>{html.escape(text)}</small></div>'


def row_html(image_id: str, drawn: str, pixels_HW: np.ndarray, panels: str) -> str:
    """A row's title and panels. The film stands once, as a background that the panels share."""
    height, width = pixels_HW.shape
    style = f"--film:url({_data_uri(film_png(pixels_HW))});--aspect:{width}/{height}"
    title = f'<div class="row"><b>{html.escape(image_id)}</b> &nbsp;{html.escape(drawn)}</div>'
    return f'{title}<div class="same" style="{style}">{panels}</div>'


def panel_html(label: str, upon: str) -> str:
    """A film with what stands upon it."""
    return f'<div class="film" role="img" aria-label="{html.escape(label)}">{upon}</div>'


def empty_html(why: str) -> str:
    """The place of a panel that can't be drawn."""
    return f'<div class="empty">{html.escape(why)}</div>'


def layers_html(masks_KHW: np.ndarray, pathologies: Sequence[str]) -> str:
    return "".join(
        f'<img class="layer" data-k="{k}" alt="" src="{_data_uri(layer_png(mask_HW, name))}">'
        for k, (name, mask_HW) in enumerate(zip(pathologies, masks_KHW, strict=True))
        if mask_HW.any()
    )


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
