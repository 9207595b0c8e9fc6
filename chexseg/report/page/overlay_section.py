"""The page's section on test images: masks of one pathology, as on the poster, then of all."""

from __future__ import annotations

from html import escape

import numpy as np

from chexseg.analysis.results import StudyResults
from chexseg.analysis.statistics.scores import pooled_iou
from chexseg.report.page import overlays
from chexseg.report.page.markup import note, scroll, switch
from chexseg.report.palette import DASHED, PATHOLOGY_COLOURS

#: The poster's two pathologies, listed first.
POSTERS = ("Cardiomegaly", "Airspace Opacity")
#: Rows per pathology: few, because all ten are on the page.
ROWS = 2
RULE = (
    f"The {ROWS} test images with the largest expert mask of the pathology, one per patient. The "
    "cell of each kind of supervision is the same as below."
)


def order(pathologies: tuple[str, ...]) -> list[str]:
    """Return the study's pathologies, the poster's two first."""
    return [
        *(name for name in POSTERS if name in pathologies),
        *(name for name in pathologies if name not in POSTERS),
    ]


def largest(results: StudyResults, pathology: str, number: int = ROWS) -> tuple[str, ...]:
    """Return ids of the images with the most expert pixels, one per patient; ties by id."""
    true_I = results.counts_CIK3[0, :, results.pathologies.index(pathology), 2]
    return overlays.one_per_patient(results, true_I, number)


def overlays_html(results: StudyResults) -> str:
    """Return both grids, or a sentence with the reason why there are none."""
    grid, present = overlays.grid_html(results)
    if not present:
        return grid
    switches = "".join(
        switch(f'data-layer="{k}"', name, "dash" if name in DASHED else "", PATHOLOGY_COLOURS[name])
        for k, name in enumerate(results.pathologies)
        if k in present
    )
    text = (
        f"{escape(overlays.RULE)} IoU: mean over the pathologies that the experts drew on the "
        'image. <span class="screen">Point at a panel, or hold it, to hide the masks. Click a '
        "pathology in the legend to show or hide it.</span>"
    )
    together = f'<fieldset class="switches">{switches}</fieldset>{scroll(grid)}{note(text)}'
    return f"{_by_pathology(results)}<h3>All pathologies together</h3>{together}"


def _by_pathology(results: StudyResults) -> str:
    """Return one grid per pathology; the page shows the selected one."""
    shown = overlays.columns(results)
    blocks = {name: _block(results, name, shown) for name in order(results.pathologies)}
    lacking = [name for name, block in blocks.items() if not block]
    drawn = [name for name in blocks if name not in lacking]
    options = "".join(f"<option>{escape(name)}</option>" for name in drawn)
    grids = "".join(
        f'<div data-pathology="{escape(name)}"{" hidden" if number else ""}>'
        f"{scroll(blocks[name])}</div>"
        for number, name in enumerate(drawn)
    )
    without = f" Without an expert mask in the test set: {', '.join(lacking)}." if lacking else ""
    choice = (
        f'<label class="choice screen">Pathology <select data-choice>{options}</select></label>'
    )
    return f"{choice}{grids}{note(escape(RULE + without))}"


def _block(results: StudyResults, pathology: str, shown: list[overlays.Panel]) -> str:
    """Return the grid of a pathology; empty if no image has an expert mask of it."""
    chosen = largest(results, pathology)
    if not chosen or results.image is None:
        return ""
    k = results.pathologies.index(pathology)
    heads = [
        ("Radiograph", pathology),
        ("Experts", "ground truth"),
        *((panel.title, panel.subtitle) for panel in shown),
    ]
    parts = [overlays.head_html(*head) for head in heads]
    for image_id in chosen:
        pixels_HW, expert_KHW = results.image(image_id)
        row = [
            overlays.panel_html("radiograph", ""),
            overlays.panel_html("experts", _layer(expert_KHW[k], pathology)),
        ]
        for panel in shown:
            masks_KHW = overlays.predicted(results, panel, image_id)
            if isinstance(masks_KHW, str):
                row.append(overlays.empty_html(masks_KHW))
                continue
            counts_K3 = results.counts_CIK3[panel.index, results.image_ids.index(image_id)]
            iou = float(pooled_iou(counts_K3[None])[k])
            score = "" if np.isnan(iou) else f'<span class="score">IoU {iou:.2f}</span>'
            row.append(overlays.panel_html(panel.title, _layer(masks_KHW[k], pathology) + score))
        parts.append(overlays.row_html(image_id, "", pixels_HW, "".join(row)))
    return overlays.panels_html(parts, len(heads))


def _layer(mask_HW: np.ndarray, pathology: str) -> str:
    return overlays.layers_html(mask_HW[None], (pathology,))
