"""`chexseg study new` and `settings`: help with writing a study file."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from chexseg.cli.streams import echo
from chexseg.errors import UserError, nearest

#: What `study new` writes; name: of the study.
TEMPLATE = """\
# A study: every combination of the axes below is a cell, a segmenter that is trained and scored.
#   chexseg study plan {file} --data ROOT      what would run, and how long it takes
#   chexseg study run {file} --data ROOT       run it; the same command resumes it
#   chexseg report {file} --data ROOT --out report
# A setting that isn't named has the paper's value: chexseg study settings lists all of them.
name: {name}
title: Do weak masks help beside expert masks?

axes:
  # Probability that a training sample is an expert image. 1: no weak masks, 0: no expert masks.
  labels.p: [0, 0.9, 1]
  # Repetitions with different seeds. A test of a difference needs at least three.
  trial: [0, 1, 2]

# Further cells, each with the settings that differ.
# also:
#   - {{distil.fraction: 0.25, labels.p: 1}}

settings:
  # Side of the square images in pixels.
  size: 320
  # Start of the segmenter's encoder. imagenet, chexpert and moco are better starts; the first
  # needs a file (chexseg encoder import).
  encoder: {{init: random}}
  labels:
    weak: irnet
    # Validation images with expert masks: for training, and for the choice of the epoch.
    expert_split: {{train: 147, select: 40}}

# What each cell takes, on a machine or a cluster: chexseg study settings resources
# resources: {{cpu: 4, gpu: 0.5}}
"""


def new(
    file: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="A file that doesn't exist.")],
) -> None:
    """Write a study file with comments, to be changed."""
    name = re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower()).lstrip("._-") or "study"
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(TEMPLATE.format(name=name, file=file))
    except FileExistsError:
        raise UserError(f"{file}: already exists; expected: a new file") from None
    echo(f"{file}: change it, then: chexseg study plan {file} --data ROOT")


def settings(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="KEY", help="A setting such as fit.loss, a section, or part of a name."
        ),
    ] = None,
) -> None:
    """Explain the settings that a study file can have: type, default and meaning."""
    from chexseg.config import reference

    *of_study, _a_range = reference.study_sections()
    sections = (*of_study, *reference.settings_sections())
    entries = [entry for section in sections for entry in section.entries]
    if key is None:
        width = max(len(entry.name) for entry in entries)
        for entry in entries:
            default = "required" if entry.default is None else entry.default.strip("`")
            echo(f"{entry.name:<{width}}  {default}")
        return
    shown = [entry for entry in entries if entry.name == key or entry.name.startswith(f"{key}.")]
    shown = shown or [entry for entry in entries if key in entry.name]
    if not shown and (key.endswith((".yaml", ".yml")) or "/" in key):
        raise UserError(
            f"study settings: found the path {key}; expected: a setting such as fit.loss; hint:"
            f" what a study would run: chexseg study plan {shlex.quote(key)} --data ROOT"
        )
    if not shown:
        names = [entry.name for entry in entries]
        raise UserError(
            f"{key}: no such setting{nearest(key, names)};"
            " expected: a name or its beginning; `chexseg study settings` lists them"
        )
    for entry in shown:
        echo(f"{entry.name}: {entry.title}".replace("`", ""))
        echo(textwrap.fill(entry.meaning, 96, initial_indent="  ", subsequent_indent="  "))
