"""`chexseg report`, `compare` and `evaluate`: read results, run nothing."""

from __future__ import annotations

import json
from functools import partial
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from chexseg.cli.options import (
    DEFAULT_STORE,
    AsJson,
    DataRoot,
    Overrides,
    QuietFlag,
    StoreRoot,
    read_studies,
)
from chexseg.cli.streams import echo
from chexseg.errors import UserError, naming

if TYPE_CHECKING:
    from chexseg.analysis.axis_comparison import AxisComparison
    from chexseg.analysis.comparison import Comparison
    from chexseg.analysis.study_analysis import StudyAnalysis
    from chexseg.report.write import WrittenReport


def report(
    studies: Annotated[list[Path], typer.Argument(metavar="STUDY.yaml ...", help="Study files.")],
    data: DataRoot,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Directory for index.html, tables/ and figures/."
        ),
    ],
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
    measures: Annotated[
        bool,
        typer.Option(
            "--measures",
            help="Also measure the masks by Dice, surface distances, lesions, images and areas;"
            " this takes minutes.",
        ),
    ] = False,
    as_json: AsJson = False,
    quiet: QuietFlag = False,
) -> None:
    """Write the tables, figures and page of studies from the results in a store."""
    from chexseg.analysis.tables import measures_table
    from chexseg.analysis.tables.text import study_result
    from chexseg.report.page.overview import answer_sentences

    analyses, written = write_report(studies, data, store, out, overrides, measures, quiet)
    if as_json:
        echo(json.dumps(_as_dict(analyses, written), indent=1))
        return
    for analysis in analyses:
        result = analysis.results
        echo(
            f"{result.name}: {len(result.cells)} of {len(result.cells) + len(result.missing)}"
            " cells finished"
        )
        if result.radiologists_note:
            echo(f"note: {result.radiologists_note}", err=True)
        if result.baselines_note:
            echo(f"note: baselines: {result.baselines_note}", err=True)
        if len(result.cells):
            echo("\n".join([study_result(analysis), *answer_sentences(analysis)]))
        if measures and (reason := measures_table.lacking(result)):
            echo(f"note: {result.name}: masks not measured: {reason}", err=True)
        for note in result.notes:
            echo(f"note: {note}", err=True)
    for note in written.notes:
        echo(note, err=True)
    echo(str(written.page))


def _as_dict(analyses: list[StudyAnalysis], written: WrittenReport) -> dict[str, Any]:
    """Return the object of ``report --json``. iou: None for a pathology without expert pixels."""
    from chexseg.report.page.overview import answer_sentences

    studies = []
    for analysis in analyses:
        results, scores = analysis.results, analysis.scores
        cells = []
        for number, cell in enumerate(results.cells.itertuples()):
            iou_K = [None if isnan(value) else float(value) for value in scores.iou_CK[number]]
            iou = dict(zip(results.pathologies, iou_K, strict=True))
            miou = float(scores.miou_C[number])
            cells.append({"name": cell.name, "key": cell.cell, "miou": miou, "iou": iou})
        missing = results.missing.to_dict("records")
        notes = [note for note in (results.radiologists_note, *results.notes) if note]
        one = {"name": results.name, "answer": answer_sentences(analysis), "cells": cells}
        studies.append(one | {"missing": missing, "notes": notes})
    files = [str(path) for path in written.files]
    notes = list(written.notes)
    return {"studies": studies, "page": str(written.page), "files": files, "notes": notes}


def compare(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="STUDY.yaml, a cell or arm of it (STUDY.yaml#CELL), or a CheXlocalize MASKS.json.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Directory for compare.csv and compare.html."),
    ],
    second: Annotated[
        str | None,
        typer.Argument(metavar="B", help="Like A. Differences are A minus B. Not with --axis."),
    ] = None,
    axis: Annotated[
        str | None,
        typer.Option(
            "--axis",
            metavar="SETTING",
            help="Compare the values of an axis of the study A, over all its other axes: the"
            " effects on mIoU that its report has. A name such as fit.loss, or its end.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="ROOT",
            envvar="CHEXSEG_DATA",
            help="CheXpert and CheXlocalize, a directory or a URI. Needed for studies.",
        ),
    ] = None,
    gt: Annotated[
        str | None,
        typer.Option(
            "--gt",
            metavar="GT.json",
            help="Ground truth of MASKS.json. Default: the test masks in ROOT.",
        ),
    ] = None,
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Compare two studies, cells or mask files, or the values of one axis of a study.

    Shows paired differences with intervals, and the settings that differ.
    """
    if (second is None) == (axis is None):
        count = "neither B nor" if axis is None else "both B and"
        raise UserError(f"compare: found {count} --axis; expected: one of them")
    if axis is not None and gt is not None:
        raise UserError("--gt: found beside --axis; expected: a MASKS.json as A or B")
    from chexseg.analysis import axis_comparison, comparison, comparison_sides
    from chexseg.analysis.tables.text import to_terminal
    from chexseg.data import remote_path
    from chexseg.report import compare_page
    from chexseg.report.page.overview import effects_sentences
    from chexseg.store.store import Store

    root, truth = (None if uri is None else remote_path.at(uri) for uri in (data, gt))
    opened, replaced = Store(store), overrides or ()
    compared: Comparison | AxisComparison
    if second is None:
        compared = of_axis = axis_comparison.read(first, str(axis), root, opened, replaced)
        write = partial(compare_page.write_axis, of_axis)
        effects, interactions = of_axis.answer.effects, of_axis.answer.interactions
        lines = [to_terminal(rows) for rows in (effects, interactions) if len(rows)]
        sentence = " ".join(effects_sentences(of_axis.answer))
    else:
        sides = comparison_sides.read((first, second), root, opened, replaced, truth)
        compared = of_sides = comparison.compare(*sides)
        write = partial(compare_page.write, of_sides)
        lines = [f"{row.setting}: A {row.A}, B {row.B}" for row in of_sides.settings.itertuples()]
        lines.append(to_terminal(comparison.short(of_sides)))
        sentence = comparison.sentence(of_sides)
    for note in compared.notes:
        echo(f"note: {note}", err=True)
    with naming(out):
        page = write(out)
    if as_json:
        echo(json.dumps(compared.as_dict() | {"sentence": sentence, "page": str(page)}, indent=1))
        return
    echo("\n".join([*lines, sentence, str(page)]))


def evaluate(
    gt: Annotated[
        str,
        typer.Option(
            "--gt", metavar="GT.json", help="Ground truth: a CheXlocalize mask file or its URI."
        ),
    ],
    pred: Annotated[
        Path,
        typer.Option(
            "--pred",
            metavar="PRED",
            help="Predictions in the same format. For hit-rate: a JSON file of points, or a"
            " directory of heat maps.",
        ),
    ],
    metric: Annotated[
        str,
        typer.Option(help="pooled (the paper's IoU), or CheXlocalize's per-image IoU or hit-rate."),
    ] = "pooled",
    true_pos_only: Annotated[
        bool,
        typer.Option(
            "--true-pos-only/--all",
            help="per-image: use images where both files have pixels, or where either has.",
        ),
    ] = True,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of CheXlocalize's bootstrap samples.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Directory for the table and CheXlocalize's three CSV files.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare predictions with the ground truth, both CheXlocalize files; print a CSV table."""
    from chexseg.analysis.tables.text import to_csv
    from chexseg.data import remote_path
    from chexseg.evaluation import evaluate

    scores = evaluate.evaluate(remote_path.at(gt), pred, metric, true_pos_only, seed)
    for note in scores.notes:
        echo(f"note: {note}", err=True)
    if out is not None:
        from chexseg.report import file_manifest

        tables = {f"{scores.table.columns[2]}.csv": scores.table, **scores.published}
        contents = {name: to_csv(table).encode() for name, table in tables.items()}
        with naming(out):
            file_manifest.write(out, contents, file_manifest.EVALUATE)
    echo(json.dumps(scores.as_dict(), indent=1) if as_json else to_csv(scores.table).rstrip())


def write_report(
    studies: list[Path],
    data: str | Path,
    store: str,
    out: Path,
    overrides: list[str] | None,
    measures: bool = False,
    quiet: bool = False,
) -> tuple[list[StudyAnalysis], WrittenReport]:
    """Write the report of studies; return the analysis of each and `WrittenReport`."""
    from chexseg import resolve
    from chexseg.analysis import load
    from chexseg.analysis.study_analysis import analyse
    from chexseg.progress import reporter
    from chexseg.report import write
    from chexseg.store import marker
    from chexseg.store.store import Store

    marker.check_exists(Store(store))
    with reporter(quiet) as shown:
        shown.doing("reading the data set")
        resolved, opened, raw = read_studies(studies, data, store, overrides, apart=True)
        shown.doing("reading the results")
        plans = [resolve.planned(one, opened) for one in resolved]
        results = [load.study_results(plan, opened, raw.root) for plan in plans]
        shown.doing("computing intervals and tests")
        analyses = [analyse(one, shown if measures else None) for one in results]
        shown.doing("drawing figures")
        with naming(out):
            return analyses, write.write(analyses, out, progress=shown)
