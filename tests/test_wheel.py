"""Build the wheel, and run what is in it from an empty directory; build an editable install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("chexseg", "studies", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Return a directory into which the wheel is unpacked."""
    scratch = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, copy = ROOT / name, scratch / "checkout" / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, copy, symlinks=True, ignore=ignored)
        else:
            shutil.copy(source, copy)
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    built = subprocess.run(
        [*command, "--no-index", "-w", scratch], cwd=scratch / "checkout", capture_output=True
    )
    assert built.returncode == 0, built.stderr.decode()
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch / "site")
    return scratch / "site"


def chexseg(installed: Path, directory: Path, *arguments: str) -> str:
    """Return what a command of the wheel prints in a directory."""
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "chexseg", *arguments],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.heavy  # it builds the package, and imports it in other processes
def test_the_wheel_has_all_files_of_the_package(installed):
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "chexseg").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } | {f"chexseg/{path.relative_to(ROOT)}" for path in (ROOT / "studies").rglob("*.yaml")}
    packed = {path.relative_to(installed).as_posix() for path in installed.rglob("*.*")}
    assert expected <= packed


@pytest.mark.heavy
def test_an_editable_install_imports_nothing_from_the_current_directory(installed):
    """setuptools' finder adds a relative path to sys.path, where `sitecustomize` is looked for."""
    build = "import sys; from setuptools import build_meta; build_meta.build_editable(sys.argv[1])"
    checkout, wheels = installed.parent / "checkout", installed.parent / "editable"
    wheels.mkdir()
    built = subprocess.run(
        [sys.executable, "-P", "-c", build, wheels], cwd=checkout, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        lines = [
            line
            for name in archive.namelist()
            if name.endswith(".pth")
            for line in archive.read(name).decode().splitlines()
        ]
    assert lines == [str(checkout)]


@pytest.mark.heavy
def test_the_demo_of_the_wheel_can_be_planned_in_an_empty_directory(installed, tmp_path):
    data = ("--train", "320", "--valid", "80", "--test", "8", "--size", "64")
    chexseg(installed, tmp_path, "data", "phantom", "data", *data, "--quiet")
    study = installed / "chexseg" / "studies" / "demo.yaml"
    planned = chexseg(installed, tmp_path, "study", "plan", str(study), "--data", "data")
    assert planned.startswith("demo: ")
