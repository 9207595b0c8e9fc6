"""Prepare the section on test images: masks of one pathology, as on the poster, then of all."""

from __future__ import annotations

from typing import Any

from chexseg.analysis.study_scores import StudyScores
from chexseg.report.page import film_grids, image_choice

#: The poster's two pathologies, listed first.
POSTERS = ("Cardiomegaly", "Airspace Opacity")
#: Rows per pathology: few, because all ten are on the page.
ROWS = 2


def test_images(scores: StudyScores) -> dict[str, Any]:
    """Return one grid per pathology and one of all, or the reason why there are none.

    drawn: index -> name of the pathologies with a mask in the grid of all.
    """
    results = scores.results
    image_ids = image_choice.choose_images(results)
    if results.image is None or not image_ids:
        lacking = "the images aren’t available" if results.image is None else ""
        return {"reason": lacking or "no test image has an expert mask", "together": None}
    panels = image_choice.columns(scores)
    together = film_grids.of_images(results, results.image, panels, image_ids)
    drawn = {k for row in together.rows for film in row.films for k in film.layers}
    chosen = {}
    for name in sorted(results.pathologies, key=lambda name: (*POSTERS, name).index(name)):
        true_I = results.counts_CIK3[0, :, results.pathologies.index(name), 2]
        chosen[name] = image_choice.one_per_patient(results, true_I, ROWS)
    return {
        "reason": "",
        "together": together,
        "drawn": {k: results.pathologies[k] for k in sorted(drawn)},
        "grids": {
            name: film_grids.of_images(results, results.image, panels, ids, name)
            for name, ids in chosen.items()
            if ids
        },
        "lacking": [name for name, ids in chosen.items() if not ids],
        "rows": ROWS,
    }
