"""Check that the tools of `execution.trackers` are installed and are configured by this user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from chexseg.plan.checks.mistakes import Mistake
from chexseg.plan.graph import Plan


def mistakes(plan: Plan) -> Iterator[Mistake]:
    """Yield the tools that aren't installed, and settings of W&B in the current directory."""
    names = tuple(dict.fromkeys(plan.study.execution.trackers))
    for name in names:
        module = PathFinder.find_spec(name)
        # A folder of this name in the working directory, such as W&B writes, has no origin.
        if module is None or module.origin is None:
            yield Mistake(
                "execution.trackers",
                f"found {name!r}, which isn't installed; hint: pip install 'chexseg[{name}]'",
            )
    if "wandb" in names and (fault := wandb_settings_here()):
        yield Mistake("execution.trackers", fault)


def wandb_settings_here() -> str | None:
    """Return a line if the current directory has settings of W&B, else None.

    W&B takes its server from them, before the user's own ones, and sends it the user's API key.
    Whoever has filled the directory must not choose that server. W&B can't be told to leave them
    out: it reads them before any argument or variable.
    """
    for folder in ("wandb", ".wandb"):
        path = Path(folder, "settings")
        if os.path.lexists(path):
            return (
                f"found {path.absolute()}, whose server would get your API key; expected: W&B's"
                " settings in ~/.config/wandb/settings or in variables WANDB_...; hint: move the"
                " file, or run the command in another directory"
            )
    return None
