"""`chexseg data`: make a synthetic data set, or check a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from chexseg.cli.options import AsJson, QuietFlag, new_directory
from chexseg.cli.streams import echo

app = typer.Typer(help="Make a synthetic data set, or check a data set.", no_args_is_help=True)


@app.command("phantom")
def data_phantom(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty directory.")],
    train: Annotated[int, typer.Option(min=1, help="Training images.")] = 320,
    valid: Annotated[int, typer.Option(min=1, help="Validation images.")] = 90,
    test: Annotated[int, typer.Option(min=1, help="Test images.")] = 80,
    seed: Annotated[int, typer.Option(help="Seed of the random images.")] = 0,
    size: Annotated[int, typer.Option(help="Pixels of the short side.")] = 320,
    prevalence: Annotated[
        float | None,
        typer.Option(
            help="Prevalence of every finding, independent of each other. Default: as in CheXpert."
        ),
    ] = None,
    quiet: QuietFlag = False,
) -> None:
    """Write synthetic radiographs with all ten pathologies in the published layout."""
    write_phantom(
        root,
        train=train,
        valid=valid,
        test=test,
        seed=seed,
        size=size,
        prevalence=prevalence,
        quiet=quiet,
    )
    echo(f"{root}: {train} training, {valid} validation and {test} test images")


@app.command("check")
def data_check(
    root: Annotated[
        str, typer.Argument(metavar="ROOT", help="CheXpert and CheXlocalize: a directory or a URI.")
    ],
    as_json: AsJson = False,
    quiet: QuietFlag = False,
) -> None:
    """List faults of a data set, and labels that acquisition predicts. Exit code 1 if faulty."""
    from chexseg.data import remote_path
    from chexseg.data.audit import validation
    from chexseg.progress import reporter

    with reporter(quiet) as watch:
        faults = validation.check(
            remote_path.at(root), lambda done, total: watch.update("check", done, total, "images")
        )
    echo(json.dumps(faults.as_dict(), indent=1) if as_json else faults.text())
    if faults.fatal:
        raise typer.Exit(1)


def write_phantom(root: Path, quiet: bool, **settings: Any) -> None:
    """Write a synthetic data set, with progress. settings: fields of `phantom.dataset.Config`."""
    from chexseg.phantom import dataset
    from chexseg.progress import reporter

    config = dataset.Config(**settings)
    with new_directory(root) as directory, reporter(quiet) as watch:
        dataset.write(
            directory, config, lambda done, total: watch.update("phantom", done, total, "images")
        )
