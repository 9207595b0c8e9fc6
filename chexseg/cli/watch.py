"""`chexseg study watch`: the page of a study, while it runs."""

from __future__ import annotations

import signal
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
from chexseg.errors import UserError

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

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the page is deleted

    resolved, opened, raw = read_studies([study], data, store, overrides, apart=True)
    write = page_writer(resolved, opened, raw)
    try:
        with tempfile.TemporaryDirectory(prefix="chexseg-watch-") as directory:
            echo(write(Path(directory)), err=True)
            with live_server.serving(Path(directory), interval, port) as address:
                echo(address)
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

    It returns a line with the counts of cells, or None if nothing has changed. The browser of all
    test images is left out while a run goes on: each new best cell would change all its files.
    """
    from chexseg import resolve
    from chexseg.analysis import load
    from chexseg.analysis.study_analysis import analyse
    from chexseg.report import write

    #: Key -> what tells one result from another, because a damaged one is computed again; and
    #: whether a run goes on.
    shown: tuple[dict[str, str], bool] | None = None

    def write_if_changed(directory: Path) -> str | None:
        nonlocal shown
        plans = [resolve.planned(one, store) for one in studies]
        done = {
            key: artifact.manifest.get("sha256", artifact.manifest["finished"])
            for plan in plans
            for key, artifact in store.find_all(plan.nodes.values()).items()
        }
        state = done, any(_is_running(plan, store) for plan in plans)
        if state == shown:
            return None
        results = [load.study_results(plan, store, raw.root) for plan in plans]
        analyses = [analyse(one) for one in results]
        write.write(analyses, directory, images=False, browse=not state[1])
        shown = state
        counts = [
            f"{one.name}: {len(one.cells)} of {len(one.cells) + len(one.missing)} cells finished"
            for one in results
        ]
        return f"{time.strftime('%H:%M:%S')} {', '.join(counts)}"

    return write_if_changed


def _is_running(plan: Plan, store: Store) -> bool:
    """Return whether a run on any host needs a result of the plan."""
    from chexseg.store import live_runs

    names = {f"{node.stage}/{node.key[:20]}" for node in plan.nodes.values()}
    try:
        return any(names & run.names for run in live_runs.live_runs(store))
    except UserError:  # a run that is just starting or ending
        return True
