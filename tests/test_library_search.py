"""Test that libraries of the current directory aren't loaded with PyTorch's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import chexseg.cli
from chexseg import library_search, parallel

ROOT = Path(__file__).resolve().parents[1]
#: Print the current directory, and which files called libcuda.so.1 the process has mapped.
SCRIPT = """
import ctypes, os, sys
from chexseg.library_search import load_careless_libraries
if sys.argv[1] == "first":
    load_careless_libraries()
ctypes.CDLL(sys.argv[2])
print(os.getcwd(), *{line.split()[-1] for line in open("/proc/self/maps") if "libcuda.so" in line})
"""


@pytest.fixture
def cusparselt() -> Path:
    site = Path(find_spec("torch").origin).parents[1]
    libraries = list(site.glob("nvidia/cusparselt/lib/libcusparseLt.so.*"))
    if not libraries:
        pytest.skip("PyTorch for CPUs is installed, without NVIDIA's libraries")
    return libraries[0]


def test_a_library_of_the_current_directory_is_not_loaded(cusparselt, tmp_path):
    shutil.copy(find_spec("markupsafe._speedups").origin, tmp_path / "libcuda.so.1")  # any library

    def mapped(order: str) -> list[str]:
        command = [sys.executable, "-P", "-c", SCRIPT, order, cusparselt]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.split()

    directory, *libraries = mapped("first")
    assert directory == str(tmp_path) and str(tmp_path / "libcuda.so.1") not in libraries
    # What PyTorch's import does without it; if this fails, NVIDIA has mended its library.
    assert str(tmp_path / "libcuda.so.1") in mapped("never")


def has_loaded(library: Path) -> bool:
    return str(library.resolve()) in Path("/proc/self/maps").read_text()


def test_each_process_of_a_pool_is_protected(cusparselt):
    assert list(parallel.ordered(has_loaded, [cusparselt], 2)) == [True]


def test_each_command_is_protected(monkeypatch):
    monkeypatch.setattr(chexseg.cli, "app", lambda: pytest.fail("a command began"))
    monkeypatch.setattr(chexseg.cli, "load_careless_libraries", lambda: sys.exit(7))
    with pytest.raises(SystemExit, match="7"):
        chexseg.cli.main()


def test_a_directory_that_cannot_be_entered_stays_the_current_one(monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(os, "chdir", lambda path: pytest.fail("it was left"))
    library_search.load_careless_libraries()
