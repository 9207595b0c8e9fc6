"""`chexseg store`: what's in one, whether it's whole, what nothing needs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from chexseg.cli.options import DEFAULT_STORE, AsJson, DataRoot, Overrides, QuietFlag, StoreRoot, read_studies
from chexseg.errors import UserError

app = typer.Typer(help="Stores: what's in one, whether it's whole, what nothing needs.", no_args_is_help=True)


@app.command("list")
def store_list(store: StoreRoot = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Every artifact: stage, key, size, how long it took, when and where."""
    from chexseg.study import housekeeping
    from chexseg.study.store import Store

    there = housekeeping.contents(Store(store))
    typer.echo(json.dumps([content.row() for content in there], indent=1) if as_json else housekeeping.table(there))


@app.command("verify")
def store_verify(store: StoreRoot = DEFAULT_STORE, quiet: QuietFlag = False) -> None:
    """Read every file again and compare it with its manifest; exit code 1 if any is damaged."""
    from chexseg.progress import reporter
    from chexseg.study import housekeeping
    from chexseg.study.store import Store

    watch = reporter(quiet)
    try:
        found = housekeeping.verify(Store(store), lambda done, total, unit: watch.update("verify", done, total, unit))
    finally:
        watch.close()
    typer.echo(found.text())
    if found.damaged:
        raise typer.Exit(1)


@app.command("gc")
def store_gc(
    studies: Annotated[list[Path], typer.Argument(metavar="STUDY.yaml ...", help="The studies whose results stay.")],
    data: DataRoot,
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
    imported: Annotated[bool, typer.Option("--imported", help="Imported encoders too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    quiet: QuietFlag = False,
) -> None:
    """Delete what none of these studies needs, after asking. What is being worked on stays."""
    from chexseg.progress import reporter
    from chexseg.study import housekeeping, meaning

    meant, place = read_studies(studies, data, store, overrides)
    rubbish = housekeeping.waste(place, [meaning.planned(one, place, every=True) for one in meant], imported)
    for one in rubbish:
        typer.echo(f"{one.name:<32} {housekeeping.size(one.bytes):>8}  {one.why}")
    total = housekeeping.size(sum(one.bytes for one in rubbish))
    typer.echo(f"{len(rubbish)} artifacts, {total}, are needed by none of {', '.join(map(str, studies))}")
    if not rubbish:
        return
    if not yes:
        if not _on_terminal():
            raise UserError("store gc: there is nobody to ask; allowed: --yes, to delete what is listed above")
        typer.confirm(f"Delete them from {place}?", abort=True)
    watch = reporter(quiet)
    try:
        kept = housekeeping.remove(place, rubbish, lambda done, total, unit: watch.update("gc", done, total, unit))
    finally:
        watch.close()
    for one in kept:
        typer.echo(f"kept: {one.name}, on which someone works")
    typer.echo(f"{len(rubbish) - len(kept)} artifacts deleted")


def _on_terminal() -> bool:
    return sys.stdin.isatty()
