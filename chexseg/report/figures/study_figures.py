"""All of the paper's figures of a study, by file name, and their export to files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import plotly.graph_objects as go
import plotly.io

from chexseg.analysis.points.figure2 import figure2_others, figure2_panels, figure2_points
from chexseg.analysis.points.figure3 import figure3_panels, figure3_rows
from chexseg.analysis.points.figure4 import figure4_panels, figure4_rows
from chexseg.analysis.points.figure5 import figure5_rows, has_figure5
from chexseg.analysis.published import AVERAGE
from chexseg.analysis.results import StudyResults
from chexseg.analysis.tables.study_tables import has_table1
from chexseg.report.figures.figure2 import figure2
from chexseg.report.figures.figure3 import figure3
from chexseg.report.figures.figure4 import figure4
from chexseg.report.figures.figure5 import figure5


def paper_figures(results: StudyResults) -> dict[str, go.Figure]:
    """Return file name -> figure of the paper's figures that the study has data for.

    Each panel is a figure with a legend. Panels of Figure 2 beyond the paper's four are named after
    their pathology.
    """
    figures: dict[str, go.Figure] = {}
    if has_table1(results):
        points = dict(iter(figure2_points(results).groupby("task", sort=False)))
        for letter, name in zip("abcd", figure2_panels(results), strict=False):
            figures[f"figure2-{letter}"] = figure2(points[name or AVERAGE], letter)
        for name in figure2_others(results):
            figures[f"figure2-{name.lower().replace(' ', '-')}"] = figure2(points[name])
    rows = figure3_rows(results)
    figures |= {f"figure3-{init}": figure3(rows, init) for init in figure3_panels(rows)}
    rows = figure4_rows(results)
    figures |= {
        f"figure4b-{images}" if images else "figure4a": figure4(
            rows, images, "b" if images else "a"
        )
        for images in figure4_panels(rows)
    }
    rows = figure5_rows(results)
    if has_figure5(rows):
        figures["figure5"] = figure5(rows)
    return figures


#: Width of image files, pixels: one and a half columns of a paper at 96 per inch.
WIDTH = 640


def write_images(figures: Mapping[Path, go.Figure]) -> str | None:
    """Write figures to paths that end in .png or .svg. Return a note if that failed, or None."""
    try:
        import kaleido  # noqa: F401 - the extra "images"
    except ImportError:
        return "no .png and .svg figures: kaleido isn't installed (extra: images)"
    white = {"paper_bgcolor": "white", "plot_bgcolor": "white"}
    drawn = [go.Figure(figure).update_layout(white) for figure in figures.values()]
    # When plotly writes several images, it ignores the sizes in their layouts.
    heights = [figure.layout.height for figure in drawn]
    try:
        plotly.io.write_images(drawn, list(figures), scale=2, width=WIDTH, height=heights)
    except Exception as error:  # kaleido raises many kinds if Chrome is missing, stuck or crashes
        for path in figures:
            path.unlink(missing_ok=True)
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        return f"no .png and .svg figures: {type(error).__name__}: {reason}"
    return None
