"""`chexseg store`: list what is in one, verify it, and collect the garbage."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chexseg.cli.options import DEFAULT_STORE, AsJson, Overrides, QuietFlag, StoreRoot, read_studies
from chexseg.errors import UserError

if TYPE_CHECKING:
    from chexseg.store.store import Store

app = typer.Typer(
    help="Stores: what's in one, whether it's whole, what nothing needs.", no_args_is_help=True
)


@app.command("list")
def store_list(store: StoreRoot = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Every artifact: stage, key, size, how long it took, when and where."""
    from chexseg.store import contents
    from chexseg.store.store import Store

    there = contents.contents(Store(store))
    typer.echo(
        json.dumps([content.row() for content in there], indent=1)
        if as_json
        else contents.table(there)
    )


@app.command("verify")
def store_verify(store: StoreRoot = DEFAULT_STORE, quiet: QuietFlag = False) -> None:
    """Read every file again and compare it with its manifest; exit code 1 if any is damaged."""
    from chexseg.progress import reporter
    from chexseg.store import contents
    from chexseg.store.store import Store

    watch = reporter(quiet)
    try:
        found = contents.verify(
            Store(store), lambda done, total, unit: watch.update("verify", done, total, unit)
        )
    finally:
        watch.close()
    typer.echo(found.text())
    if found.damaged:
        raise typer.Exit(1)


@app.command("gc")
def store_gc(
    studies: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="STUDY.yaml ...", help="The studies whose results stay.", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="ROOT", help="The data that the results were made from."),
    ] = None,
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
    imported: Annotated[bool, typer.Option("--imported", help="Imported encoders too.")] = False,
    other_data: Annotated[
        bool,
        typer.Option(
            "--other-data", help="Also if no result in the store was made from the data in ROOT."
        ),
    ] = False,
    empty_trash: Annotated[
        bool, typer.Option("--empty-trash", help="Delete for good what was moved to the trash.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    quiet: QuietFlag = False,
) -> None:
    """Move what none of these studies needs to the trash, after asking. What runs need stays, and files of others."""
    from chexseg.store import marker
    from chexseg.store.store import Store

    marker.check_marked(Store(store))  # first: reading the data takes its time
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
    from chexseg.data import remote_path
    from chexseg.plan import garbage
    from chexseg.progress import reporter
    from chexseg.search.space_plan import Search
    from chexseg.store import contents

    meant, place = read_studies(studies, data, store, overrides)
    plans = [resolve.planned(one, place, all_points=True) for one in meant]
    survey = garbage.survey(place, plans, imported, any(isinstance(one, Search) for one in meant))
    for one in survey.waste:
        typer.echo(f"{one.name:<32} {contents.size(one.bytes):>8}  {one.why}")
    for line in survey.kept:
        typer.echo(f"kept: {line}")
    total = contents.size(sum(one.bytes for one in survey.waste))
    typer.echo(
        f"{len(survey.waste)} artifacts, {total}, are needed by none of {', '.join(map(str, studies))}"
    )
    if not survey.waste:
        return
    _ask(yes, f"Move them to the trash of {place}?", "move what is listed above to the trash")
    if survey.unrecorded and not other_data:
        splits = ", ".join(survey.unrecorded)
        warning = f"--data {remote_path.at(data)}: no result in {place} was made from its {splits} data as it is now"
        if not _on_terminal():
            raise UserError(f"store gc: {warning}; hint: is all of it mounted? If so, --other-data")
        typer.echo(f"warning: {warning}. Is all of it mounted?", err=True)
        typer.confirm("Move the results of other data to the trash?", abort=True)
    watch = reporter(quiet)
    try:
        folder, kept = garbage.collect(
            place, survey.waste, lambda done, total, unit: watch.update("gc", done, total, unit)
        )
    finally:
        watch.close()
    for line in kept:
        typer.echo(f"kept: {line}")
    typer.echo(
        f"{len(survey.waste) - len(kept)} artifacts moved to {place}/{folder};"
        " `chexseg store gc --empty-trash` with this store deletes them for good"
    )


def _empty_trash(place: Store, yes: bool) -> None:
    from chexseg.plan import garbage
    from chexseg.store import contents

    collections = garbage.collections(place)
    for folder, count in collections.items():
        typer.echo(f"{folder:<32} {contents.size(count):>8}")
    typer.echo(
        f"{len(collections)} collections, {contents.size(sum(collections.values()))}, are in the trash of {place}"
    )
    if collections:
        _ask(yes, "Delete them for good?", "delete what is listed above")
        garbage.empty_trash(place, collections)
        typer.echo(f"{len(collections)} collections deleted")


def _ask(yes: bool, question: str, consequence: str) -> None:
    if not yes:
        if not _on_terminal():
            raise UserError(f"store gc: there is nobody to ask; allowed: --yes, to {consequence}")
        typer.confirm(question, abort=True)


def _on_terminal() -> bool:
    return sys.stdin.isatty()
