"""The commands, one file per group. Slow imports wait until a command runs."""

from __future__ import annotations

import sys

import typer

from chexseg.cli import data, demo, encoder, predict, results, store, streams, study
from chexseg.cli.command import Command, explain
from chexseg.errors import ChexsegError, Mistakes

app = typer.Typer(
    help="Run studies of semi-supervised chest X-ray segmentation on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo.demo, results.report, results.compare, results.evaluate, predict.predict):
    app.command(cls=Command)(command)
for name, group in {"data": data, "study": study, "encoder": encoder, "store": store}.items():
    for registered in group.app.registered_commands:
        registered.cls = Command
    app.add_typer(group.app, name=name)


def main() -> None:
    """Run the command line. Each error of chexseg is one line; the exit code is 2."""
    streams.prepare()
    try:
        app()
    except ChexsegError as error:
        for line in error.lines if isinstance(error, Mistakes) else (error,):
            streams.echo(f"chexseg: {line}", err=True)
        sys.exit(2)
    except OSError as error:  # of the command line's help; `Command` explains those of commands
        if (message := explain(error, ())) is None:
            raise
        streams.echo(f"chexseg: {message}", err=True)
        sys.exit(2)
