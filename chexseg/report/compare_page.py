"""Write a comparison of two sides as a table and as a self-contained page with a figure."""

from __future__ import annotations

from pathlib import Path

from chexseg.analysis.comparison import Comparison, sentence, short
from chexseg.analysis.tables.text import to_csv
from chexseg.report import file_manifest
from chexseg.report.figures.comparison_figure import figure, figure_rows
from chexseg.report.page import environment
from chexseg.report.page.table_views import plain


def write(comparison: Comparison, out: Path) -> Path:
    """Write compare.csv and compare.html into `out` and return the path of the page.

    The page needs no network. Raises `UserError` if a file of others, or an edited one, would be
    overwritten; then nothing is written.
    """
    text = environment.render(
        "compare.html",
        title=" against ".join(comparison.titles),
        comparison=comparison,
        sentence=sentence(comparison),
        figure=figure(figure_rows(comparison)),
        rows=plain(short(comparison) if len(comparison.means) == 1 else comparison.rows),
        settings=plain(comparison.settings),
        cells=plain(comparison.cells.rename(columns={"key": "key of its scores"})),
    )
    contents = {"compare.csv": to_csv(comparison.rows).encode(), "compare.html": text.encode()}
    file_manifest.write(out, contents, file_manifest.COMPARE)
    return out / "compare.html"
