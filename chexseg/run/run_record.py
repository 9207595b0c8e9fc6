"""What a run was told and where it ran, kept in the store: editing the study file later changes nothing that this says."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import chexseg
from chexseg.config import yaml_source
from chexseg.config.study import Study
from chexseg.data.remote_path import Location
from chexseg.plan.cells import Cell
from chexseg.store.provenance import PACKAGES
from chexseg.store.store import Store

#: Packages beside those that every manifest names: what plans, searches and reads.
MORE_PACKAGES = ("optuna", "pandas", "pydantic", "pyyaml", "timm")


@contextmanager
def recorded(
    store: Store,
    study: Study,
    cells: Sequence[Cell],
    study_file: Path | None,
    overrides: Sequence[str],
    data: Location,
) -> Iterator[dict[str, Any]]:
    """Write ``.runs/STUDY/TIME-HOST-PROCESS.json`` into the store, and again when the run has ended, however it did.

    What the context puts into the mapping it yields is added then. A record without "ended" is of a run that was killed.
    """
    started = datetime.datetime.now(datetime.UTC)
    name = f".runs/{study.name}/{started:%Y%m%dT%H%M%S}-{platform.node()}-{os.getpid()}.json"
    about = describe(study, cells, study_file, overrides, data) | {
        "started": started.isoformat(timespec="seconds")
    }
    store.write(name, about)
    more: dict[str, Any] = {}
    try:
        yield more
    except BaseException as error:
        more["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        ended = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        store.write(name, about | more | {"ended": ended})


def describe(
    study: Study,
    cells: Sequence[Cell],
    study_file: Path | None,
    overrides: Sequence[str],
    data: Location,
) -> dict[str, Any]:
    """Everything that a run is to do, as JSON can hold it.

    files: path -> text of the study file and of those it includes, as they are now. resolved: settings with every default.
    cells: name -> keys of fit and scores.
    """
    return {
        "study": study.name,
        "files": {} if study_file is None else _texts(study_file),
        "overrides": list(overrides),
        "data": str(data.absolute()),
        "resolved": study.model_dump(mode="json"),
        "cells": {cell.name: {"fit": cell.fit, "score": cell.score} for cell in cells},
        "git": git_commit(Path(chexseg.__file__).parent),
        "python": sys.version.split()[0],
        "packages": {
            "chexseg": chexseg.__version__,
            **{name: metadata.version(name) for name in (*PACKAGES, *MORE_PACKAGES)},
        },
        "host": platform.node(),
    }


def _texts(path: Path) -> dict[str, str]:
    text = path.read_text()
    found = {str(path.absolute()): text}
    for name in yaml_source.read(text, str(path)).content.get("studies", []):
        found |= _texts(path.parent / name)
    return found


def git_commit(directory: Path) -> str | None:
    """The commit of a checkout, with "+" after it where tracked files differ from it; None outside one."""
    try:
        commit = _git(directory, "rev-parse", "HEAD")
        return commit + (
            "+" if _git(directory, "status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(directory: Path, *arguments: str) -> str:
    answer = subprocess.run(
        ["git", "-C", str(directory), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return answer.stdout.strip()
