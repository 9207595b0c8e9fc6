"""Options and steps that several commands share."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from chexseg.errors import UserError

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="A study file.")]
DataRoot = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="ROOT",
        help="CheXpert and CheXlocalize: a directory, or such as s3://bucket/prefix.",
    ),
]
StoreRoot = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="DIR_OR_URI",
        help="Where results are kept and found again, such as s3://bucket/prefix.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Lay a setting or a resource over the study file's."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", help="No progress.")]

DEFAULT_STORE = "chexseg-store"


def read_studies(
    studies: list[Path],
    data: str | Path,
    store: str,
    overrides: list[str] | None,
    apart: bool = False,
) -> tuple[list[Any], Any]:
    """(what the study files mean, the store)."""
    from chexseg import resolve
    from chexseg.data import remote_path
    from chexseg.store.store import Store

    place = Store(store)  # first: reading the data takes its time
    option = (
        "" if store == DEFAULT_STORE else f" --store {shlex.quote(str(place))}"
    )  # without what credentials a URI may hold
    return resolve.read(studies, remote_path.at(data), place, overrides or (), apart, option), place


@contextmanager
def whole_or_none(root: Path) -> Iterator[Path]:
    """A place beside the directory `root` to fill, moved there at the end; nothing is left of it after a failure."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root}: is there already; allowed: a new or empty directory")
    making = root.absolute().with_name(f".{root.name}.partial")
    shutil.rmtree(making, ignore_errors=True)
    try:
        yield making
        making.replace(root.absolute())
    finally:
        shutil.rmtree(making, ignore_errors=True)
