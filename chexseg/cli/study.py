"""`chexseg study`: plan, run, look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from chexseg.cli.options import (
    DEFAULT_STORE,
    AsJson,
    DataRoot,
    Overrides,
    QuietFlag,
    StoreRoot,
    StudyFile,
    read_studies,
)
from chexseg.errors import UserError

app = typer.Typer(help="Studies: plan, run, look.", no_args_is_help=True)


@app.command("plan")
def study_plan(
    study: StudyFile,
    data: DataRoot,
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show the cells of a study, the stages they need, and what of it is in the store already."""
    from chexseg import resolve
    from chexseg.data import remote_path

    (meant,), place = read_studies([study], data, store, overrides)
    found = resolve.summarise(meant, place, remote_path.at(data))
    typer.echo(json.dumps(found.plan_dict(), indent=1) if as_json else found.plan_text())


@app.command("run")
def study_run(
    study: StudyFile,
    data: DataRoot,
    store: StoreRoot = DEFAULT_STORE,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDR",
            envvar="RAY_ADDRESS",
            help="A Ray cluster, such as auto; none: a local one.",
        ),
    ] = None,
    max_resources: Annotated[
        str | None,
        typer.Option(
            "--max-resources",
            "--grow-to",  # the former name
            metavar="GPU=N,CPU=N",
            help="Largest size of an autoscaling cluster.",
        ),
    ] = None,
    overrides: Overrides = None,
    quiet: QuietFlag = False,
) -> None:
    """Run whatever of a study is not in the store yet; exit code 1 if a cell is still missing after."""
    from chexseg.store.store import Store

    outcome = run_study(study, data, store, address, overrides, quiet, max_resources)
    typer.echo(
        f"{len(outcome.computed)} stages computed in {outcome.seconds:.0f} s, {outcome.cached} found in {Store(store)},"
        f" {len(outcome.failed)} failed",
        err=True,
    )
    if outcome.failed:
        raise typer.Exit(1)


@app.command("status")
def study_status(
    study: StudyFile,
    data: DataRoot,
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show which cells are done, missing or failed."""
    from chexseg import resolve

    (meant,), place = read_studies([study], data, store, overrides)
    found = resolve.summarise(meant, place)
    typer.echo(json.dumps(found.status_dict(), indent=1) if as_json else found.status_text())


def run_study(
    study: Path,
    data: str | Path,
    store: str,
    address: str | None,
    overrides: list[str] | None,
    quiet: bool,
    max_resources: str | None = None,
) -> Any:
    """Run a study, with progress; what the run did (`run.run_record.RunResult`). An interrupt ends the command with code 130."""
    from chexseg import launch
    from chexseg.data import remote_path
    from chexseg.progress import reporter
    from chexseg.run.cluster_limits import CURRENT_SIZE, ClusterLimits

    limits = ClusterLimits.parse(max_resources)
    if limits != CURRENT_SIZE and not address:
        raise UserError(
            "--max-resources: found without --address, and a local Ray can't grow;"
            " expected --address ADDR with it"
        )
    (meant,), results = read_studies([study], data, store, overrides)
    watch = reporter(quiet)
    try:
        return launch.launch(
            meant, results, remote_path.at(data), watch, address, study, overrides or (), limits
        )
    except KeyboardInterrupt:
        typer.echo("chexseg: interrupted; the same command goes on from here", err=True)
        raise typer.Exit(130) from None
    finally:
        watch.close()
