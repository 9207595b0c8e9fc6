"""`chexseg study watch`: the page of a study, while it runs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chexseg.cli.options import (
    DEFAULT_STORE,
    DataRoot,
    Overrides,
    StoreRoot,
    StudyFile,
    read_studies,
)
from chexseg.cli.streams import echo

if TYPE_CHECKING:
    from chexseg.data.raw_split import RawData
    from chexseg.plan.graph import Plan
    from chexseg.search.space_plan import Search
    from chexseg.store.store import Store


def watch(
    study: StudyFile,
    data: DataRoot,
    store: StoreRoot = DEFAULT_STORE,
    overrides: Overrides = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on loopback. 0: a free one.")
    ] = 0,
    interval: Annotated[
        float, typer.Option("--interval", min=1, help="Seconds between two looks at the store.")
    ] = 30,
) -> None:
    """Serve a study's page on loopback, and write it again when results come; Ctrl-C ends it."""
    from chexseg.report import live_server

    resolved, opened, raw = read_studies([study], data, store, overrides, apart=True)
    write = page_writer(resolved, opened, raw)
    with tempfile.TemporaryDirectory(prefix="chexseg-watch-") as directory:
        echo(write(Path(directory)), err=True)
        with live_server.serving(Path(directory), interval, port) as address:
            echo(address)
            try:
                while True:
                    time.sleep(interval)
                    if line := write(Path(directory)):
                        echo(line, err=True)
            except KeyboardInterrupt:
                echo("ended", err=True)


def page_writer(
    studies: list[Plan | Search], store: Store, raw: RawData
) -> Callable[[Path], str | None]:
    """Return a function that writes the page of studies into a directory if results have changed.

    It returns a line with the counts of cells, or None if nothing has changed.
    """
    from chexseg import resolve
    from chexseg.analysis import load
    from chexseg.analysis.study_analysis import analyse
    from chexseg.report import write

    #: Key -> what tells one result from another: a damaged one is computed again.
    shown: dict[str, str] | None = None

    def write_if_changed(directory: Path) -> str | None:
        nonlocal shown
        plans = [resolve.planned(one, store) for one in studies]
        done = {
            key: artifact.manifest.get("sha256", artifact.manifest["finished"])
            for plan in plans
            for key, artifact in store.find_all(plan.nodes.values()).items()
        }
        if done == shown:
            return None
        results = [load.study_results(plan, store, raw.root) for plan in plans]
        write.write([analyse(one) for one in results], directory, images=False)
        shown = done
        counts = [
            f"{one.name}: {len(one.cells)} of {len(one.cells) + len(one.missing)} cells finished"
            for one in results
        ]
        return f"{time.strftime('%H:%M:%S')} {', '.join(counts)}"

    return write_if_changed
