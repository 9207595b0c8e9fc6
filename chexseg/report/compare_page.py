"""Write a comparison of two sides, or of an axis' values, as a table and a self-contained page."""

from __future__ import annotations

from pathlib import Path

from chexseg.analysis.axis_comparison import AxisComparison
from chexseg.analysis.comparison import Comparison, sentence, short
from chexseg.analysis.tables.text import to_csv
from chexseg.report import file_manifest
from chexseg.report.figures.comparison_figure import figure, figure_rows
from chexseg.report.page import environment
from chexseg.report.page.overview import effects_sentences
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
    return _write(out, to_csv(comparison.rows), text)


def write_axis(comparison: AxisComparison, out: Path) -> Path:
    """Write the effects of an axis as `write` does, and return the path of the page."""
    # Without the runs behind them, which only a report has.
    tables = {
        name: rows.drop(columns="cells", errors="ignore")
        for name, rows in comparison.answer.tables.items()
    }
    text = environment.render(
        "compare_axis.html",
        title=f"{comparison.axis} of {comparison.title}",
        comparison=comparison,
        sentences=effects_sentences(comparison.answer),
        view={name: plain(rows) for name, rows in tables.items()},
    )
    return _write(out, to_csv(comparison.answer.effects), text)


def _write(out: Path, table: str, page: str) -> Path:
    contents = {"compare.csv": table.encode(), "compare.html": page.encode()}
    file_manifest.write(out, contents, file_manifest.COMPARE)
    return out / "compare.html"
