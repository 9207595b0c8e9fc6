"""Every figure of a study by the name of its file, and how figures are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import plotly.graph_objects as go
import plotly.io

from chexseg.analysis.published import AVERAGE
from chexseg.analysis.results import StudyResults
from chexseg.analysis.tables.study_tables import has_table1
from chexseg.report.figures.figure2 import figure2, figure2_others, figure2_panels, figure2_points
from chexseg.report.figures.figure3 import figure3, figure3_panels, figure3_rows
from chexseg.report.figures.figure4 import figure4, figure4_panels, figure4_rows
from chexseg.report.figures.figure5 import figure5, figure5_rows, has_figure5
from chexseg.report.palette import CONFIG


def paper_figures(results: StudyResults) -> dict[str, go.Figure]:
    """File name -> figure, of those of the paper's that the study has something for: a panel each, with its own legend.

    Figure 2 has a panel for each pathology; those beyond the paper's four are called after theirs.
    """
    found: dict[str, go.Figure] = {}
    if has_table1(results):
        every = dict(iter(figure2_points(results).groupby("task", sort=False)))
        for letter, name in zip("abcd", figure2_panels(results), strict=False):
            found[f"figure2-{letter}"] = figure2(every[name or AVERAGE], letter)
        for name in figure2_others(results):
            found[f"figure2-{name.lower().replace(' ', '-')}"] = figure2(every[name])
    rows = figure3_rows(results)
    found |= {f"figure3-{init}": figure3(rows, init) for init in figure3_panels(rows)}
    rows = figure4_rows(results)
    for images in figure4_panels(rows):
        found["figure4a" if images == 0 else f"figure4b-{images}"] = figure4(
            rows, images, "b" if images else "a"
        )
    rows = figure5_rows(results)
    if has_figure5(rows):
        found["figure5"] = figure5(rows)
    return found


#: Pixels of figures on paper: at 96 to the inch a column and a half.
WIDTH = 640


def write_html(figure: go.Figure, path: Path) -> None:
    """One figure, on white, for print; plotly.js stands once beside all of them, so that none needs a network."""
    figure = go.Figure(figure).update_layout(paper_bgcolor="white", plot_bgcolor="white")
    figure.write_html(path, include_plotlyjs="directory", config=CONFIG)


def write_images(figures: Mapping[Path, go.Figure]) -> str | None:
    """Write figures to paths that end in .png or .svg. Returns why it couldn't, or None."""
    try:
        import kaleido  # noqa: F401 - the extra "images"
    except ImportError:
        return "no .png and .svg figures: kaleido isn't installed (extra: images)"
    drawn = [
        go.Figure(figure).update_layout(paper_bgcolor="white", plot_bgcolor="white")
        for figure in figures.values()
    ]
    # plotly takes the size from here alone when it writes several.
    heights = [figure.layout.height for figure in drawn]
    try:
        plotly.io.write_images(drawn, list(figures), scale=2, width=WIDTH, height=heights)
    except (
        Exception
    ) as error:  # kaleido's faults are many: no Chrome, one that doesn't start, one that hangs up
        for path in figures:
            path.unlink(missing_ok=True)
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        return f"no .png and .svg figures: {type(error).__name__}: {reason}"
    return None
