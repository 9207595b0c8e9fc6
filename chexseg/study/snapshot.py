"""What a run was told and where it ran, kept in the store: editing the study file later changes nothing that this says."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import chexseg
from chexseg.study.plan import Plan
from chexseg.study.store import PACKAGES

#: Packages beside those that every manifest names: what plans, searches and reads.
MORE_PACKAGES = ("optuna", "pandas", "pydantic", "pyyaml", "timm")


def describe(plan: Plan, study_file: Path, overrides: Mapping[str, Any], data: Path) -> dict[str, Any]:
    """Everything that a run is to do, as JSON can hold it.

    study_file: path and text as they are now. settings: with every default. cells: name -> keys of fit and scores.
    """
    return {
        "study": plan.study.name,
        "file": {"path": str(study_file.absolute()), "text": study_file.read_text()},
        "overrides": dict(overrides),
        "data": str(data.absolute()),
        "resolved": plan.study.model_dump(mode="json"),
        "cells": {cell.name: {"fit": cell.fit, "score": cell.score} for cell in plan.cells},
        "git": git_commit(Path(chexseg.__file__).parent),
        "python": sys.version.split()[0],
        "packages": {"chexseg": chexseg.__version__, **{name: metadata.version(name) for name in (*PACKAGES, *MORE_PACKAGES)}},
        "host": platform.node(),
    }


def git_commit(directory: Path) -> str | None:
    """The commit of a checkout, with "+" after it where tracked files differ from it; None outside one."""
    try:
        commit = _git(directory, "rev-parse", "HEAD")
        return commit + ("+" if _git(directory, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(directory: Path, *arguments: str) -> str:
    answer = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=True, timeout=30)
    return answer.stdout.strip()
