"""`chexseg demo`: run a small study on synthetic radiographs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

import chexseg
from chexseg import code_version
from chexseg.cli import signals
from chexseg.cli.data import write_phantom
from chexseg.cli.options import QuietFlag
from chexseg.cli.results import write_report
from chexseg.cli.streams import echo
from chexseg.cli.study import run_study

#: The demo's data set: images of train, valid and test, and their short side.
DEMO_DATA = {"train": 320, "valid": 80, "test": 48, "size": 128}


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="Directory of the data, the store and the report."
        ),
    ] = Path("demo"),
    store: Annotated[
        str | None, typer.Option("--store", metavar="DIR_OR_URI", help="Default: OUT/store.")
    ] = None,
    quiet: QuietFlag = False,
) -> None:
    """Run a small study on synthetic radiographs: data, all stages, report."""
    code_version.running()  # before keys are imported, as in `run_study`

    from chexseg.analysis.tables.text import study_result

    started = time.monotonic()
    study_path = (Path(chexseg.__file__).parent / "studies" / "demo.yaml").resolve()
    data, store = out / "data", store or str(out / "store")
    with signals.handled():
        if not data.exists():
            write_phantom(data, quiet=quiet, **DEMO_DATA)
        outcome = run_study(study_path, data, store, None, None, quiet)
        analyses, written = write_report(
            [study_path], data, store, out / "report", None, quiet=quiet
        )
        echo("\n".join([study_result(analyses[0]), "", *_timings(analyses[0].results, outcome)]))
        echo(f"\nThe page: {written.page}\nTotal time: {time.monotonic() - started:.0f} s.")
    if outcome.failed:
        raise typer.Exit(1)


def _timings(results: Any, outcome: Any) -> list[str]:
    """Return a table: runs, runs in this command and total seconds of each stage."""
    header = f"{'stage':<10} {'runs':>4} {'now':>4} {'seconds':>8}"
    return [header] + [
        f"{stage:<10} {len(group):>4} {group['key'].isin(list(outcome.computed)).sum():>4}"
        f" {group['seconds'].sum():>8.1f}"
        for stage, group in results.stages.groupby("stage", sort=False)
    ]
