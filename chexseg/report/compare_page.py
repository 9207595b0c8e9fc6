"""A comparison of two sides as a table, a figure and a self-contained page."""

from __future__ import annotations

from html import escape
from pathlib import Path

from chexseg.analysis.comparison import Comparison, one_pair, sentence, short
from chexseg.analysis.tables.text import to_csv
from chexseg.report.figures.comparison_figure import figure, figure_rows
from chexseg.report.page.html_tables import to_html
from chexseg.report.page.markup import document, note, plot, scroll

METHOD = (
    "Pooled IoU: intersections and unions are summed over the test images, then divided. mIoU is "
    "the mean over the pathologies that an expert drew. A side’s value is the mean over its "
    "trials. from, to: 95% interval of the difference A − B over patients, with the trials fixed "
    "(paired bootstrap). trials from, trials to: over the trials of both sides, paired by number, "
    "with the patients fixed. both from, both to: over trials and patients together, as is the "
    "p-value. If the sides share fewer than two trials, the p-value is over patients only: it then "
    "compares these models, not the ways they were trained. It is adjusted by Holm over all mIoU "
    "and, separately, over all pathologies. A verdict needs p < 0.05 and at least six patients "
    "with the pathology."
)


def write(comparison: Comparison, out: Path) -> Path:
    """Write compare.csv and compare.html into `out` and return the path of the page."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.csv").write_text(to_csv(comparison.rows))
    page = out / "compare.html"
    page.write_text(render(comparison), encoding="utf-8")
    return page


def render(comparison: Comparison) -> str:
    """Return the page as text; it needs no network."""
    names = [
        f"<b>{letter}</b>: {escape(title)}"
        for letter, title in zip("AB", comparison.titles, strict=True)
    ]
    size = f"{comparison.size} × {comparison.size}" if comparison.size else "each image’s own size"
    facts = (
        f"{comparison.images:,} test images",
        f"{comparison.patients:,} patients",
        f"pixels counted at {size}",
    )
    listed = "".join(f"<li>{fact}</li>" for fact in facts)
    notes = "".join(f'<p class="alert">{escape(text)}</p>' for text in comparison.notes)
    rows = short(comparison) if one_pair(comparison) else comparison.rows
    sections = {
        "Difference": f'<p class="lead">{escape(sentence(comparison))}</p>{notes}'
        + plot(figure(figure_rows(comparison)), "difference", "wide"),
        "Table": scroll(to_html(rows)) + note(escape(METHOD)),
        "Settings that differ": scroll(to_html(comparison.settings))
        if len(comparison.settings)
        else note("None, or unknown: a mask file has no settings."),
    }
    if len(comparison.cells):
        sections["Cells"] = scroll(
            to_html(comparison.cells.rename(columns={"key": "key of its scores"}))
        )
    content = "".join(
        f"<section><h2>{title}</h2>{text}</section>" for title, text in sections.items()
    )
    body = (
        '<header><p class="eyebrow">chexseg compare</p><h1>A against B</h1>'
        f"<p>{'<br>'.join(names)}</p>"
        f'<ul class="facts">{listed}</ul></header><main>{content}</main>'
    )
    return document(" against ".join(comparison.titles), body)
