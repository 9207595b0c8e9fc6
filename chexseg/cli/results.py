"""`chexseg report`, `compare` and `evaluate`: what only reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from chexseg.cli.options import DEFAULT_STORE, AsJson, DataRoot, Overrides, StoreRoot, read_studies


def report(
    studies: Annotated[list[Path], typer.Argument(metavar="STUDY.yaml ...", help="Study files.")],
    data: DataRoot,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="Where index.html, tables/ and figures/ go."),
    ],
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
) -> None:
    """Make the tables, the figures and one page of what a store holds of some studies."""
    from chexseg.analysis.tables import table2

    results, written = write_report(studies, data, store, out, overrides)
    for result in results:
        typer.echo(
            f"{result.name}: {len(result.cells)} of {len(result.cells) + len(result.missing)} cells finished"
        )
        if result.radiologists_note:
            typer.echo(f"note: {result.radiologists_note}", err=True)
        if len(result.cells):
            typer.echo(table2.terminal(result))
        for note in result.notes:
            typer.echo(f"note: {note}", err=True)
    for note in written.notes:
        typer.echo(note, err=True)
    typer.echo(str(written.page))


def compare(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="STUDY.yaml, one cell or arm of it, STUDY.yaml#CELL, or a CheXlocalize file, MASKS.json.",
        ),
    ],
    second: Annotated[
        str, typer.Argument(metavar="B", help="The same; what is shown is A minus B.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where compare.csv and compare.html go.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="ROOT",
            help="CheXpert and CheXlocalize, a directory or a URI; for studies.",
        ),
    ] = None,
    gt: Annotated[
        str | None,
        typer.Option(
            "--gt",
            metavar="GT.json",
            help="Ground truth of MASKS.json; without, the test masks below ROOT.",
        ),
    ] = None,
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Two studies, cells or mask files side by side: paired differences with intervals, and the settings that differ."""
    from chexseg.analysis import comparison, comparison_sides
    from chexseg.analysis.tables.text import to_terminal
    from chexseg.data import remote_path
    from chexseg.report import compare_page
    from chexseg.store.store import Store

    root, truth = (None if place is None else remote_path.at(place) for place in (data, gt))
    found = comparison.compare(
        *comparison_sides.read((first, second), root, Store(store), overrides or (), truth)
    )
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    written = compare_page.write(found, out)
    if as_json:
        typer.echo(
            json.dumps(
                found.as_dict() | {"sentence": comparison.sentence(found), "page": str(written)},
                indent=1,
            )
        )
        return
    for setting in found.settings.itertuples():
        typer.echo(f"{setting.setting}: A {setting.A}, B {setting.B}")
    typer.echo(to_terminal(comparison.short(found)))
    typer.echo(comparison.sentence(found))
    typer.echo(str(written))


def evaluate(
    gt: Annotated[
        str,
        typer.Option(
            "--gt", metavar="GT.json", help="Ground truth, a CheXlocalize mask file or its URI."
        ),
    ],
    pred: Annotated[
        Path,
        typer.Option(
            "--pred",
            metavar="PRED",
            help="Predictions in the same format; for hit-rate a JSON file of points or a directory of heat maps.",
        ),
    ],
    metric: Annotated[
        str,
        typer.Option(
            help="pooled (the paper's IoU), per-image (CheXlocalize's) or hit-rate (CheXlocalize's)."
        ),
    ] = "pooled",
    true_pos_only: Annotated[
        bool,
        typer.Option(
            "--true-pos-only/--all",
            help="per-image: where both files have pixels, or where either has.",
        ),
    ] = True,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of CheXlocalize's bootstrap samples.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Where the table and CheXlocalize's three CSV files go."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Predictions against the ground truth, CheXlocalize files in, CSV out."""
    from chexseg.data import remote_path
    from chexseg.evaluation import evaluate

    found = evaluate.evaluate(remote_path.at(gt), pred, metric, true_pos_only, seed)
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for name, table in {
            f"{found.table.columns[2]}.csv": found.table,
            **found.published,
        }.items():
            table.to_csv(out / name, index=False)
    typer.echo(
        json.dumps(found.as_dict(), indent=1)
        if as_json
        else found.table.to_csv(index=False).rstrip()
    )


def write_report(
    studies: list[Path], data: str | Path, store: str, out: Path, overrides: list[str] | None
) -> Any:
    """Write the report of studies: (the results of each, `page.WrittenReport`)."""
    from chexseg import resolve
    from chexseg.analysis import load
    from chexseg.data import remote_path
    from chexseg.report.page import page

    meant, place = read_studies(studies, data, store, overrides, apart=True)
    root = remote_path.at(data)
    results = [load.study_results(resolve.planned(one, place), place, root) for one in meant]
    return results, page.publish(results, out)
