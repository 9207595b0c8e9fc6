"""Options and helpers shared by several commands."""

from __future__ import annotations

import shlex
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chexseg.errors import UserError, naming

if TYPE_CHECKING:
    from chexseg.data.raw_split import RawData
    from chexseg.plan.graph import Plan
    from chexseg.search.space_plan import Search
    from chexseg.store.store import Store

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="A study file.")]
DataRoot = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="ROOT",
        envvar="CHEXSEG_DATA",
        help="CheXpert and CheXlocalize: a directory, or a URI such as s3://bucket/prefix.",
    ),
]
StoreRoot = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="DIR_OR_URI",
        envvar="CHEXSEG_STORE",
        help="Where results are stored: a directory, or a URI such as s3://bucket/prefix.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Replace a setting or a resource of the study file."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
QuietFlag = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]

DEFAULT_STORE = "chexseg-store"


def read_studies(
    studies: list[Path],
    data: str | Path,
    store: str,
    overrides: list[str] | None,
    apart: bool = False,
    check: bool = False,
    warn: Callable[[str], None] | None = None,
) -> tuple[list[Plan | Search], Store, RawData]:
    """Return the plan or search of each study file, the store, and the raw data.

    apart: return the studies that a file includes instead of the file's own. check, warn: as for
    `resolve.read`.
    """
    from chexseg import resolve
    from chexseg.data import remote_path
    from chexseg.data.raw_split import RawData
    from chexseg.store.store import Store

    opened = Store(store)  # before the data, whose reading takes time
    # str(opened) hides the credentials that a URI may contain.
    option = "" if store == DEFAULT_STORE else f" --store {shlex.quote(str(opened))}"
    raw = RawData(remote_path.at(data))
    plans = resolve.read(studies, raw, opened, overrides or (), apart, option, check, warn)
    return plans, opened, raw


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """Yield a path to create and fill. Rename it to `out` at the end; delete it on failure.

    Its parent is a fresh directory beside `out`, so runs with equal `out` don't interfere.
    Raises `UserError` if `out` isn't new or empty, at the start or at the end.
    """
    with naming(out):
        target = out.resolve()  # if `out` is a link, fill what it points to
        _check_new(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{target.name[:50]}."
        try:
            with tempfile.TemporaryDirectory(
                prefix=prefix, dir=target.parent, ignore_cleanup_errors=True
            ) as parent:
                new = Path(parent, "new")
                yield new
                _check_new(out)
                if target.exists():  # the user may have made it private
                    new.chmod(stat.S_IMODE(target.stat().st_mode))
                new.replace(target)
        except OSError as error:  # the user knows no temporary names
            name, begin = str(error.filename), f"{target.parent / prefix}"
            if name.startswith(begin):
                error.filename = f"{out}{name.removeprefix(begin).partition('/new')[2]}"
            raise


def _check_new(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: already exists; expected: a new or empty directory")
