"""Record runs: the result of each stage and run, and the JSON that the store keeps of a run.

The stored record is a copy, so a later edit of the study file doesn't change it.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypedDict

import chexseg
from chexseg.config import yaml_source
from chexseg.config.study import Study
from chexseg.config.study_file import included_path
from chexseg.data.remote_path import Location
from chexseg.plan.cells import Cell
from chexseg.store import links
from chexseg.store.provenance import PACKAGES
from chexseg.store.store import Store

#: Packages that plan, search and read, in addition to those that every manifest names.
MORE_PACKAGES = ("optuna", "pandas", "pydantic", "pyyaml", "timm")


class StageResult(TypedDict, total=False):
    """The result of one stage in a worker. key and state are always set.

    state: "mistake" is a `UserError`. error: of "failed" and "mistake". seconds: of "computed".
    miou: selection mIoU of a stored fit, None for other stages.
    """

    key: str
    state: Literal["cached", "computed", "failed", "mistake"]
    error: str
    seconds: float
    miou: float | None


@dataclass
class RunResult:
    """The result of a run. computed: key -> seconds. failed: key -> error. cached: other nodes."""

    computed: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    cached: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the object of ``study run --json``."""
        return {
            "computed": self.computed,
            "failed": self.failed,
            "cached": self.cached,
            "seconds": round(self.seconds, 1),
        }

    def add(self, result: StageResult) -> None:
        """Add a stage that was computed or failed."""
        if result["state"] == "failed":
            self.failed[result["key"]] = result["error"]
        elif result["state"] == "computed":
            self.computed[result["key"]] = result["seconds"]


def record_name(study: Study) -> str:
    """Return the name of this process's next run of a study in a store, without an ending."""
    now = datetime.datetime.now(datetime.UTC)
    return f".runs/{study.name}/{now:%Y%m%dT%H%M%S}-{platform.node()}-{os.getpid()}"


@contextmanager
def recorded(
    store: Store,
    name: str,
    study: Study,
    cells: Sequence[Cell],
    study_file: Path | None,
    overrides: Sequence[str],
    data: Location,
) -> Iterator[dict[str, Any]]:
    """Write ``.runs/STUDY/TIME-HOST-PROCESS.json`` at the start, and again at the end of a run.

    name: of the file, without its ending (`record_name`). Yields a mapping whose entries are added
    at the end. A record without "ended" belongs to a run that was killed.
    """
    started = datetime.datetime.now(datetime.UTC)
    record = describe(study, cells, study_file, overrides, data)
    record["started"] = started.isoformat(timespec="seconds")
    store.write(f"{name}.json", record)
    more: dict[str, Any] = {}
    try:
        yield more
    except BaseException as error:
        more["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        ended = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        store.write(f"{name}.json", record | more | {"ended": ended})


def describe(
    study: Study,
    cells: Sequence[Cell],
    study_file: Path | None,
    overrides: Sequence[str],
    data: Location,
) -> dict[str, Any]:
    """Return what a run is going to do, as JSON.

    files: path -> text of the study file and of the files it includes. resolved: settings with all
    defaults. cells: name -> keys of fit and score.
    """
    return {
        "study": study.name,
        "files": {} if study_file is None else _texts(study_file),
        "overrides": list(overrides),
        "data": str(data.absolute()),
        "resolved": study.model_dump(mode="json"),
        "cells": {cell.name: {"fit": cell.fit, "score": cell.score} for cell in cells},
        "git": git_commit(Path(chexseg.__file__).parent.parent),
        "python": sys.version.split()[0],
        "packages": {
            "chexseg": chexseg.__version__,
            **{name: metadata.version(name) for name in (*PACKAGES, *MORE_PACKAGES)},
        },
        "host": platform.node(),
    }


def _texts(path: Path) -> dict[str, str]:
    text = links.read_text(path)
    texts = {str(path.absolute()): text}
    for name in yaml_source.read(text, str(path)).content.get("studies", []):
        texts |= _texts(included_path(path, name))
    return texts


def git_commit(directory: Path) -> str | None:
    """Return the commit of the checkout in a directory, with "+" if tracked files were changed.

    None if the directory itself has no `.git`: one of a folder above may be anybody's, and Git runs
    programs that its configuration names.
    """
    if not (directory / ".git").exists():
        return None
    try:
        commit = _git(directory, "rev-parse", "HEAD")
        changed = _git(directory, "status", "--porcelain", "--untracked-files=no")
        return f"{commit}+" if changed else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(directory: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(directory), *arguments],
        # If `.git` isn't a repository, Git looks no further.
        env=os.environ | {"GIT_CEILING_DIRECTORIES": str(directory.resolve().parent)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout.strip()
