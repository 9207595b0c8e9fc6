"""`chexseg study`: plan a study, run it, show its status."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from chexseg import code_version
from chexseg.cli import signals, study_files, watch
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
from chexseg.cli.streams import echo
from chexseg.errors import Mistakes, UserError, counted

app = typer.Typer(help="Write a study, plan it, run it, show its status.", no_args_is_help=True)
app.command("new")(study_files.new)
app.command("settings")(study_files.settings)
app.command("watch")(watch.watch)


@app.command("plan")
def study_plan(
    study: StudyFile,
    data: DataRoot,
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show the cells of a study, the stages they need, which are cached, and all mistakes."""
    from chexseg import resolve

    (plan,), opened, raw = read_studies([study], data, store, overrides, check=True, warn=_warn)
    summary = resolve.summarise(plan, opened, raw)
    echo(json.dumps(summary.plan_dict(), indent=1) if as_json else summary.plan_text())
    if lines := resolve.mistakes(plan, opened, raw, planning=True):
        raise Mistakes(lines)


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
            help="Address of a Ray cluster, or auto. Default: start a local Ray.",
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
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="CELL", help="Run this cell only; * stands for any text."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Run at most N of the missing cells."),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    quiet: QuietFlag = False,
) -> None:
    """Run the stages of a study that are not cached. Exit code 1 if a stage fails."""
    with signals.handled():
        outcome = run_study(
            study, data, store, address, overrides, quiet, max_resources, only or (), limit
        )
    from chexseg.store.store import Store

    echo(
        f"{counted(len(outcome.computed), 'stage')} computed in {outcome.seconds:.0f} s,"
        f" {outcome.cached} cached in {Store(store)}, {len(outcome.failed)} failed",
        err=True,
    )
    if as_json:
        echo(json.dumps(outcome.as_dict(), indent=1))
    elif not quiet:
        following = next_command(study, data, store, overrides, bool(outcome.failed))
        echo(f"next: {following}", err=True)
    if outcome.failed:
        raise typer.Exit(1)


def next_command(
    study: Path, data: str, store: str, overrides: list[str] | None, failed: bool
) -> str:
    """Return the command that shows the results of a run, or its failures."""
    from chexseg.data import remote_path
    from chexseg.store.store import Store

    # As text, a location hides the credentials that a URI may contain.
    words = ["chexseg", *(("study", "status") if failed else ("report",)), str(study)]
    words += ["--data", str(remote_path.at(data))]
    words += [] if store == DEFAULT_STORE else ["--store", str(Store(store))]
    # Resources and execution make no other result.
    kept = [one for one in overrides or () if not one.startswith(("resources.", "execution."))]
    words += [word for override in kept for word in ("--set", override)]
    return shlex.join([*words, *([] if failed else ["--out", "report"])])


@app.command("status")
def study_status(
    study: StudyFile,
    data: DataRoot,
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show which cells are done, running, missing, stale or failed."""
    from chexseg import resolve
    from chexseg.store import marker
    from chexseg.store.store import Store

    marker.check_exists(Store(store))
    (plan,), opened, _ = read_studies([study], data, store, overrides)
    summary = resolve.summarise(plan, opened)
    echo(json.dumps(summary.status_dict(), indent=1) if as_json else summary.status_text())


def run_study(
    study: Path,
    data: str | Path,
    store: str,
    address: str | None,
    overrides: list[str] | None,
    quiet: bool,
    max_resources: str | None = None,
    only: Sequence[str] = (),
    limit: int | None = None,
) -> Any:
    """Run a study with progress; return its `RunResult`."""
    # First of all: what is imported later decides keys, and sources may be edited at any time.
    code_version.running()

    from chexseg import launch
    from chexseg.progress import reporter
    from chexseg.run.cluster_limits import CURRENT_SIZE, ClusterLimits

    limits = ClusterLimits.parse(max_resources)
    if limits != CURRENT_SIZE and not address:
        raise UserError(
            "--max-resources: found without --address; a local Ray doesn't grow;"
            " expected: --address ADDR"
        )
    with reporter(quiet) as shown:
        shown.doing("reading the data set and planning")
        (plan,), opened, raw = read_studies([study], data, store, overrides, check=True, warn=_warn)
        return launch.launch(
            plan, opened, raw, shown, address, study, overrides or (), limits, only, limit
        )


def _warn(line: str) -> None:
    echo(f"warning: {line}", err=True)
