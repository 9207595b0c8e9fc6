"""The page's sections on mixing expert and weak labels: Table 1 and Figure 2."""

from __future__ import annotations

from html import escape

from chexseg.analysis.published import AVERAGE
from chexseg.analysis.results import StudyResults
from chexseg.analysis.tables import study_tables
from chexseg.analysis.tables.text import gaps
from chexseg.report.figures.figure2 import figure2, figure2_panels, figure2_points
from chexseg.report.page.html_tables import to_html
from chexseg.report.page.markup import PAPER_SWITCH, note, plot, scroll, switch


def table1_html(results: StudyResults, name: str) -> str:
    """Table 1 of each variant of the settings, the first open."""
    parts = [f'<fieldset class="switches screen">{PAPER_SWITCH}</fieldset>']
    of_all = (
        "" if len(results.pathologies) == 10 else " (its average here over the same pathologies)"
    )
    variants = study_tables.variants(results)
    for index, variant in enumerate(variants[: study_tables.MOST_VARIANTS]):
        rows = study_tables.table1_rows(results, variant)
        dashes = "".join(f" {escape(gap.replace('-: ', 'Dash: ', 1))}" for gap in gaps(rows))
        told = (
            f"{escape(str(variant)).capitalize()}. IoU pooled over the test images, mean over trials; ±, half of the 95% "
            "t-interval where two or more trials have finished; bold, best of a method's row, p = 1 counting in both; in "
            f"italics, the paper’s Table 1{of_all}.{dashes}"
        )
        block = scroll(to_html(rows)) + note(told)
        parts.append(
            f"<details><summary>{escape(str(variant))}</summary>{block}</details>"
            if index
            else block
        )
    if len(variants) > study_tables.MOST_VARIANTS:
        told = f"Of {len(variants):,} variants of the settings the {study_tables.MOST_VARIANTS} with the most arms stand here. "
        parts.append(note(f"{told}<code>tables/{name}-cells.csv</code> has the cells of all."))
    return "".join(parts)


def figure2_html(results: StudyResults, name: str) -> str:
    """Figure 2 of the first variant, with one legend for all panels."""
    variant = study_tables.variants(results)[0]
    every = dict(iter(figure2_points(results, variant).groupby("task", sort=False)))
    plots, groups = [], set()
    for n, pathology in enumerate(figure2_panels(results)):
        figure = figure2(every[pathology or AVERAGE], "abcd"[n], legend=False)
        groups |= {trace.legendgroup for trace in figure.data}
        plots.append(plot(figure, f"{name}--panel-{n}"))
    entries = {
        "cam": ("CAM", "round", "var(--cam)"),
        "cam++": ("CAM++", "triangle", "var(--cam-plus-plus)"),
        "irnet": ("IRNet", "", "var(--irnet)"),
        "full": ("full, p = 1", "diamond", "var(--full)"),
        "trials": ("single trials", "small", "var(--paper-mark)"),
    }
    switches = "".join(
        switch(f'data-group="{key}"', *entry) for key, entry in entries.items() if key in groups
    )
    switches += PAPER_SWITCH if "paper" in groups else ""
    told = (
        f"IoU by p, the probability that a training sample is an expert’s. {escape(str(variant)).capitalize()}. Bars: 95% "
        "t-intervals over trials, cut where they leave the frame. Where this study’s images aren’t CheXpert’s, compare the "
        "shape of the paper’s curves, not their height. Drag to zoom, double-click to return."
    )
    return f'<fieldset class="switches">{switches}</fieldset><div class="plots">{"".join(plots)}</div>{note(told)}'
