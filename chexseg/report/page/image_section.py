"""Prepare the section on test images: a browser of all, and the same few with all masks at once."""

from __future__ import annotations

from typing import Any

from chexseg.analysis.study_scores import StudyScores
from chexseg.progress import QUIET, Reporter
from chexseg.report.page import film_grids, image_choice
from chexseg.report.page.image_browser import browser


def test_images(
    anchor: str, scores: StudyScores, browse: bool = True, progress: Reporter = QUIET
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the section's view, with the reason if there are no images, and the browser's files.

    together: a grid of all pathologies. drawn: index -> name of the pathologies with a mask in it.
    browse: make the browser of all images, whose files are reported to `progress`.
    """
    results = scores.results
    image_ids = image_choice.choose_images(results)
    if results.image is None or not image_ids:
        lacking = "the images aren’t available" if results.image is None else ""
        return {"reason": lacking or "no test image has an expert mask", "together": None}, {}
    panels = image_choice.columns(scores)
    together = film_grids.of_images(results, results.image, panels, image_ids)
    drawn = {k for row in together.rows for film in row.films for k in film.layers}
    view, files = browser(anchor, scores, progress) if browse else (None, {})
    return {
        "reason": "",
        "later": not browse,
        "browser": view,
        "together": together,
        "drawn": {k: results.pathologies[k] for k in sorted(drawn)},
    }, files
