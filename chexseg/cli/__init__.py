"""The commands, one file per group. Slow imports wait until a command runs."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

import chexseg
from chexseg.cli import data, demo, encoder, predict, results, store, streams, study
from chexseg.cli.command import Command, explain
from chexseg.cli.examples import epilog
from chexseg.errors import ChexsegError, Mistakes, RayLostError, reason
from chexseg.library_search import load_careless_libraries

#: Texts of torch's RuntimeErrors without memory, on the CPU and on a GPU.
_NO_MEMORY = re.compile("can't allocate memory|out of memory")

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for command in (demo.demo, results.report, results.compare, results.evaluate, predict.predict):
    app.command(cls=Command, epilog=epilog(command.__name__))(command)
for name, group in {"data": data, "study": study, "encoder": encoder, "store": store}.items():
    for registered in group.app.registered_commands:
        registered.cls, registered.epilog = Command, epilog(f"{name} {registered.name}")
    app.add_typer(group.app, name=name)


def _show_version(wanted: bool) -> None:
    if wanted:
        streams.echo(f"chexseg {chexseg.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Run studies of semi-supervised chest X-ray segmentation on Ray."""


def main() -> None:
    """Run the command line. Each error of chexseg is one line; the exit code is 2.

    It is 1 if Ray has ended while a study ran.
    """
    load_careless_libraries()
    streams.prepare()
    try:
        app()
    except ChexsegError as error:
        for line in error.lines if isinstance(error, Mistakes) else (error,):
            streams.echo(f"chexseg: {line}", err=True)
        sys.exit(1 if isinstance(error, RayLostError) else 2)
    except OSError as error:  # of the command line's help; `Command` explains those of commands
        if (message := explain(error, ())) is None:
            raise
        streams.echo(f"chexseg: {message}", err=True)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _NO_MEMORY.search(str(error)):
            raise
        streams.echo(
            f"chexseg: not enough memory ({reason(error)});"
            " hint: end other programs, or use a machine with more",
            err=True,
        )
        sys.exit(2)
