"""Run commands in this process, as `chexseg` runs them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chexseg import cli

#: What a command returns: exit code, standard output, standard error.
Answer = tuple[int, str, str]


@pytest.fixture
def chexseg(monkeypatch, capsys) -> Callable[..., Answer]:
    """Return ``chexseg(*arguments)``; a traceback is raised."""

    def run(*arguments: str | Path) -> Answer:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            for name in ("stdout", "stderr"):  # `main` replaces them
                patch.setattr(sys, name, getattr(sys, name))
            patch.setattr(sys, "argv", ["chexseg", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                cli.main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    return run
