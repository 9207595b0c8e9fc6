"""Check that the tools of `execution.trackers` are installed and are configured by this user."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from chexseg.plan.checks.mistakes import Mistake
from chexseg.plan.graph import Plan
from chexseg.store import links
from chexseg.untrusted.shared_folders import filled_by_others

#: The end of a journal that names another one (https://www.sqlite.org/fileformat.html, section 3).
#: Databases that are written together have that; MLflow has one database.
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")
#: Folders of which W&B takes one, for its settings and files.
_WANDB_FOLDERS = ("wandb", ".wandb")


def mistakes(plan: Plan) -> Iterator[Mistake]:
    """Yield the tools that aren't installed, or that the current directory would steer."""
    for name in dict.fromkeys(plan.study.execution.trackers):
        module = PathFinder.find_spec(name)
        # A folder of this name in the working directory, such as W&B writes, has no origin.
        if module is None or module.origin is None:
            yield Mistake(
                "execution.trackers",
                f"found {name!r}, which isn't installed; hint: pip install 'chexseg[{name}]'",
            )
        elif fault := fault_here(name):
            yield Mistake("execution.trackers", fault)


def fault_here(name: str) -> str | None:
    """Return a line if the current directory has what would steer a tool, else None.

    Whoever has filled the directory must not choose where the tool writes, what it records or, for
    W&B, which server gets the user's API key. W&B can't be told to leave its files out: it reads
    them before any argument or variable.
    """
    if name == "mlflow":
        return _mlflow_here(os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db")
    for folder in _WANDB_FOLDERS:
        path = Path(folder, "settings")
        if os.path.lexists(path):
            return (
                f"found {path.absolute()}, whose server would get your API key; expected: W&B's"
                " settings in ~/.config/wandb/settings or in variables WANDB_...; hint: move the"
                " file, or run the command in another directory"
            )
    defaults = Path("config-defaults.yaml")
    if os.path.lexists(defaults):
        return (
            f"found {defaults.absolute()}, which W&B would add to the settings of each run; hint:"
            " move the file, or run the command in another directory"
        )
    place = Path(os.environ.get("WANDB_DIR") or ".")
    if not os.access(place, os.W_OK | os.X_OK):
        return (
            f"{place.absolute()} can't be written, and W&B would take a folder that others may"
            " have made; hint: set WANDB_DIR to a directory of yours"
        )
    # It reads its settings from the current directory also if WANDB_DIR is set.
    return (
        _link_here(_WANDB_FOLDERS, "W&B", "WANDB_DIR")
        or _filled_by_others((".",), "W&B reads settings", "")
        or _filled_by_others((place, *_WANDB_FOLDERS), "W&B writes files", "set WANDB_DIR, or ")
    )


def _mlflow_here(uri: str) -> str | None:
    """Return a line on the files of MLflow if these are relative, in the current directory."""
    path = Path(uri.removeprefix("sqlite:///").removeprefix("file:").partition("?")[0])
    if path.is_absolute() or "://" in str(path):  # the user's own choice, or a server
        return None
    names = (*path.parents[:-1], path, Path("mlruns"), *sorted(Path("mlruns").glob("*")))
    if fault := _link_here(names, "MLflow", "MLFLOW_TRACKING_URI") or _filled_by_others(
        (".", *names), "MLflow writes files", "set MLFLOW_TRACKING_URI, or "
    ):
        return fault
    journal = path.with_name(f"{path.name}-journal")
    try:
        with links.open_regular(journal) as file:
            file.seek(-len(_SUPER_JOURNAL), os.SEEK_END)
            names_a_file = file.read() == _SUPER_JOURNAL
    except FileNotFoundError:
        return None
    except OSError:  # it is shorter, no file, or can't be read
        names_a_file = not journal.is_file() or journal.stat().st_size >= len(_SUPER_JOURNAL)
    if not names_a_file:
        return None
    return (
        f"found {journal.absolute()}, which makes SQLite delete a file that it names; hint: move it"
        " away, or run the command in another directory"
    )


def _filled_by_others(places: Iterable[str | Path], use: str, advice: str) -> str | None:
    """Return a line on a folder in which others may put files at any time of the run, or None."""
    for folder in filter(Path.is_dir, map(Path, places)):
        if others := filled_by_others(os.path.realpath(folder)):
            return (
                f"{folder.absolute()}, where {use}: others may write to {others}; expected: a"
                f" directory that only you can write to; hint: {advice}run the command in another"
                " directory"
            )
    return None


def _link_here(names: Iterable[str | Path], tool: str, variable: str) -> str | None:
    for path in map(Path, names):
        if path.is_symlink():
            return (
                f"found the link {path.absolute()}, behind which {tool} would write; expected: no"
                f" link; hint: set {variable}, or run the command in another directory"
            )
    return None
