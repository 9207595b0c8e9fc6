"""Prepare the section on test images: masks of one pathology, as on the poster, then of all."""

from __future__ import annotations

from typing import Any

from chexseg.analysis.results import StudyResults
from chexseg.report.page import film_grids, overlays

#: The poster's two pathologies, listed first.
POSTERS = ("Cardiomegaly", "Airspace Opacity")
#: Rows per pathology: few, because all ten are on the page.
ROWS = 2


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


def test_images(results: StudyResults) -> dict[str, Any]:
    """Return one grid per pathology and one of all, or the reason why there are none.

    drawn: index -> name of the pathologies with a mask in the grid of all.
    """
    image_ids = overlays.choose_images(results)
    if results.image is None or not image_ids:
        why = "the images aren’t available" if results.image is None else ""
        return {"reason": why or "no test image has an expert mask"}
    panels = overlays.columns(results)
    chosen = {name: largest(results, name) for name in order(results.pathologies)}
    together = film_grids.of_images(results, results.image, panels, image_ids)
    drawn = {k for row in together.rows for film in row.films for k in film.layers}
    return {
        "reason": "",
        "grids": {
            name: film_grids.of_images(results, results.image, panels, ids, name)
            for name, ids in chosen.items()
            if ids
        },
        "lacking": [name for name, ids in chosen.items() if not ids],
        "rows": ROWS,
        "together": together,
        "drawn": {k: results.pathologies[k] for k in sorted(drawn)},
    }
