"""The page's section on test images: masks of one pathology, as on the poster, then of all."""

from __future__ import annotations

from html import escape

from chexseg.analysis.results import StudyResults
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
    chosen = {name: largest(results, name) for name in order(results.pathologies)}
    lacking = [name for name, image_ids in chosen.items() if not image_ids]
    drawn = [name for name in chosen if name not in lacking]
    blocks = {
        name: overlays.rows_html(results, dict.fromkeys(chosen[name], ""), name, (name,))[0]
        for name in drawn
    }
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
