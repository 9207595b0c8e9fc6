"""`chexseg store`: list a store's artifacts, verify them, and collect garbage."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from chexseg.cli.options import DEFAULT_STORE, AsJson, Overrides, QuietFlag, StoreRoot, read_studies
from chexseg.cli.streams import echo
from chexseg.errors import UserError, counted

if TYPE_CHECKING:
    from chexseg.store.store import Store

app = typer.Typer(
    help="List a store's artifacts, verify them, collect garbage.", no_args_is_help=True
)


@app.command("list")
def store_list(store: StoreRoot = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """List every artifact: stage, key, size, duration, time and host."""
    from chexseg.store import contents, marker
    from chexseg.store.store import Store

    opened = Store(store)
    marker.check_exists(opened)
    artifacts = contents.contents(opened)
    echo(
        json.dumps([artifact.row() for artifact in artifacts], indent=1)
        if as_json
        else contents.table(artifacts)
    )


@app.command("verify")
def store_verify(store: StoreRoot = DEFAULT_STORE, quiet: QuietFlag = False) -> None:
    """Compare every file with its manifest. Exit code 1 if any is damaged."""
    from chexseg.progress import reporter
    from chexseg.store import contents, marker
    from chexseg.store.store import Store

    opened = Store(store)
    marker.check_exists(opened)
    with reporter(quiet) as watch:
        verified = contents.verify(
            opened, lambda done, total, unit: watch.update("verify", done, total, unit)
        )
    echo(verified.text())
    if verified.damaged:
        raise typer.Exit(1)


@app.command("gc")
def store_gc(
    studies: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="STUDY.yaml ...", help="Studies whose results to keep.", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="ROOT", help="The data that the results were made from."),
    ] = None,
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
    imported: Annotated[
        bool, typer.Option("--imported", help="Also collect imported encoders.")
    ] = False,
    other_data: Annotated[
        bool,
        typer.Option(
            "--other-data", help="Continue even if no result was made from the data in ROOT."
        ),
    ] = False,
    empty_trash: Annotated[
        bool, typer.Option("--empty-trash", help="Delete the trash permanently.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask for confirmation.")] = False,
    quiet: QuietFlag = False,
) -> None:
    """Move artifacts that none of these studies needs to the trash, after confirmation.

    Artifacts needed by active runs stay, and so do files that chexseg didn't write.
    """
    from chexseg.store import marker
    from chexseg.store.store import Store

    marker.check_marked(Store(store))  # before the data, whose reading takes time
    if empty_trash:
        if studies or data:
            raise UserError("store gc --empty-trash: found studies or --data; expected: neither")
        _empty_trash(Store(store), yes)
    elif not studies or not data:
        raise UserError("store gc: expected: STUDY.yaml ... and --data ROOT, or --empty-trash")
    else:
        _collect(store, studies, data, overrides, imported, other_data, yes, quiet)


def _collect(
    store: str,
    studies: list[Path],
    data: str,
    overrides: list[str] | None,
    imported: bool,
    other_data: bool,
    yes: bool,
    quiet: bool,
) -> None:
    from chexseg import resolve
    from chexseg.plan import garbage
    from chexseg.progress import reporter
    from chexseg.search.space_plan import Search

    resolved, opened, raw = read_studies(studies, data, store, overrides)
    plans = [resolve.planned(one, opened, all_points=True) for one in resolved]
    searches = any(isinstance(one, Search) for one in resolved)
    survey = garbage.survey(opened, plans, imported, searches)
    for one in survey.waste:
        echo(f"{one.name:<32} {decimal(one.bytes):>10}  {one.why}")
    for line in survey.kept:
        echo(f"kept: {line}")
    total = decimal(sum(one.bytes for one in survey.waste))
    echo(
        f"{counted(len(survey.waste), 'artifact')}, {total}, needed by none of"
        f" {', '.join(map(str, studies))}"
    )
    if not survey.waste:
        return
    _ask(yes, f"Move them to the trash of {opened}?", "move what is listed above to the trash")
    if survey.unrecorded and not other_data:
        splits = ", ".join(survey.unrecorded)
        warning = (
            f"--data {raw.root}: no result in {opened} was made from its current {splits} data"
        )
        if not _on_terminal():
            raise UserError(f"store gc: {warning}; hint: if all of it is mounted, --other-data")
        echo(f"warning: {warning}. Is all of it mounted?", err=True)
        typer.confirm("Move the results of other data to the trash?", abort=True)
    with reporter(quiet) as watch:
        folder, kept = garbage.collect(
            opened, survey.waste, lambda done, total, unit: watch.update("gc", done, total, unit)
        )
    for line in kept:
        echo(f"kept: {line}")
    echo(
        f"{counted(len(survey.waste) - len(kept), 'artifact')} moved to {opened}/{folder};"
        " `chexseg store gc --empty-trash` with this store deletes them permanently"
    )


def _empty_trash(opened: Store, yes: bool) -> None:
    from chexseg.plan import garbage

    collections = garbage.collections(opened)
    for folder, count in collections.items():
        echo(f"{folder:<32} {decimal(count):>10}")
    echo(
        f"{counted(len(collections), 'collection')}, {decimal(sum(collections.values()))},"
        f" in the trash of {opened}"
    )
    if collections:
        _ask(yes, "Delete them permanently?", "delete what is listed above")
        garbage.empty_trash(opened, collections)
        echo(f"{counted(len(collections), 'collection')} deleted")


def _ask(yes: bool, question: str, consequence: str) -> None:
    if not yes:
        if not _on_terminal():
            raise UserError(f"store gc: can't ask for confirmation; hint: --yes, to {consequence}")
        typer.confirm(question, abort=True)


def _on_terminal() -> bool:
    return sys.stdin.isatty()
