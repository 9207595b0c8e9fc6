"""Test processes: they import nothing from the current directory, and their end is one line."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from chexseg import parallel
from chexseg.errors import ChexsegError

ROOT = Path(__file__).resolve().parents[1]
#: The console script, with two processes for any data set.
SCRIPT = """
import sys
from chexseg import parallel
from chexseg.cli import main
from chexseg.phantom import dataset

parallel.cores = lambda: 2
dataset.PIXELS_A_PROCESS = 1
if __name__ == "__main__":
    parallel.multiprocessing.log_to_stderr("INFO")
    sys.exit(main())
"""
#: Modules that multiprocessing's own processes import before they have our path.
BAIT = ("struct", "multiprocessing", "signal", "threading", "pickle")


def test_processes_import_nothing_from_the_current_directory(tmp_path):
    """Check without -P, which the tests' own processes inherit if they are run with it."""
    script, evil = tmp_path / "bin" / "chexseg", tmp_path / "evil"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    evil.mkdir()
    for name in BAIT:
        (evil / f"{name}.py").write_text(
            f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r} + chr(10))\n"
        )
    environment = {"PYTHONPATH": str(ROOT)} | os.environ
    environment.pop("PYTHONSAFEPATH", None)
    sizes = ["--train", "3", "--valid", "3", "--test", "3", "--size", "64"]
    done = subprocess.run(
        [sys.executable, script, "data", "phantom", tmp_path / "phantom", *sizes],
        cwd=evil,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    imported = tmp_path / "imported"
    assert not imported.exists(), imported.read_text()
    assert done.returncode == 0, done.stderr
    assert "child process calling self.run()" in done.stderr  # otherwise nothing was tested


@pytest.mark.parametrize("before", [None, "", "1"])
def test_the_variable_is_as_before(before, monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONSAFEPATH", before)
    for _ in parallel.ordered(abs, range(20), 2):
        assert os.environ.get("PYTHONSAFEPATH") == before
    with pytest.raises(ZeroDivisionError), parallel.safe_path():
        assert os.environ["PYTHONSAFEPATH"] == "1"
        _ = 1 / 0
    assert os.environ.get("PYTHONSAFEPATH") == before


def test_a_process_that_is_killed_is_one_line():
    with pytest.raises(ChexsegError, match=r"^a process ended before its work[^\n]*$"):
        list(parallel.ordered(partial(kill_a_child, os.getpid()), range(20), 2))
    assert multiprocessing.active_children() == []


def kill_a_child(parent: int, number: int) -> int:
    if number == 9 and os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return number
