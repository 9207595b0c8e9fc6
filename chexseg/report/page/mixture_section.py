"""The page's sections on mixing expert and weak labels: Table 1 and Figure 2."""

from __future__ import annotations

from html import escape

from chexseg.analysis.points.figure2 import figure2_panels, figure2_points
from chexseg.analysis.published import AVERAGE
from chexseg.analysis.results import StudyResults
from chexseg.analysis.tables import study_tables
from chexseg.report.figures.figure2 import figure2
from chexseg.report.page.html_tables import dashes, to_html
from chexseg.report.page.markup import PAPER_SWITCH, note, plots, scroll


def table1_html(results: StudyResults, name: str) -> str:
    """Return Table 1 of each variant of the settings, the first one open."""
    parts = [PAPER_SWITCH]
    of_all = (
        "" if len(results.pathologies) == 10 else " (its average here over the same pathologies)"
    )
    variants = study_tables.variants(results)
    for index, variant in enumerate(variants[: study_tables.MOST_VARIANTS]):
        rows = study_tables.table1_rows(results, variant)
        text = (
            f"{escape(str(variant)).capitalize()}. IoU pooled over the test images, mean over "
            "trials. ±: half of the 95% t-interval, if two or more trials have finished. Bold: "
            "best of a method’s row, where p = 1 counts for all methods. In italics: the paper’s "
            f"Table 1{of_all}.{dashes(rows)}"
        )
        block = scroll(to_html(rows)) + note(text)
        parts.append(
            f"<details><summary>{escape(str(variant))}</summary>{block}</details>"
            if index
            else block
        )
    if len(variants) > study_tables.MOST_VARIANTS:
        text = (
            f"Shown: the {study_tables.MOST_VARIANTS} variants with the most arms, out of "
            f"{len(variants):,}. <code>tables/{name}-cells.csv</code> has the cells of all."
        )
        parts.append(note(text))
    return "".join(parts)


def figure2_html(results: StudyResults, name: str) -> str:
    """Return Figure 2 of the first variant, with one legend for all panels."""
    variant = study_tables.variants(results)[0]
    points = dict(iter(figure2_points(results, variant).groupby("task", sort=False)))
    panels = {
        f"{name}--panel-{n}": figure2(points[pathology or AVERAGE], "abcd"[n], legend=False)
        for n, pathology in enumerate(figure2_panels(results))
    }
    text = (
        "IoU by p, the probability that a training sample has expert labels. "
        f"{escape(str(variant)).capitalize()}. Bars: 95% t-intervals over trials, cut at the "
        "frame. If this study’s images aren’t CheXpert’s, compare the shape of the paper’s "
        "curves, not their height. Drag to zoom, double-click to reset."
    )
    return plots(panels) + note(text)
