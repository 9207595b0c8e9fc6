"""The commands, one file per group. Slow imports wait until a command runs."""

from __future__ import annotations

import re
import sys

import typer

from chexseg.cli import data, demo, encoder, predict, results, store, study
from chexseg.errors import ChexsegError, Mistakes, reason

#: Texts of torch's RuntimeErrors without memory, on the CPU and on a GPU.
_NO_MEMORY = re.compile("can't allocate memory|out of memory")

app = typer.Typer(
    help="Run studies of semi-supervised chest X-ray segmentation on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo.demo, results.report, results.compare, results.evaluate, predict.predict):
    app.command()(command)
for name, group in {"data": data, "study": study, "encoder": encoder, "store": store}.items():
    app.add_typer(group.app, name=name)


def main() -> None:
    """Run the command line. Each error of chexseg is one line; the exit code is 2."""
    try:
        app()
    except ChexsegError as error:
        for line in error.lines if isinstance(error, Mistakes) else (error,):
            typer.echo(f"chexseg: {line}", err=True)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        typer.echo(
            f"chexseg: not enough memory ({reason(error)});"
            " hint: end other programs, or use a machine with more",
            err=True,
        )
        sys.exit(2)
