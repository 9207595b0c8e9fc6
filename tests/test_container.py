"""Test what the Dockerfile does with files of the repository. Docker itself isn't needed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
FILTER = re.compile(r"grep -vE .* requirements\.lock \| sed -E '.*' > pins\.txt")


def pins(command: str, directory: Path) -> set[tuple[str, str]]:
    """Return (name, specifier) of each requirement that a command writes to pins.txt."""
    (directory / "requirements.lock").write_text((ROOT / "requirements.lock").read_text())
    subprocess.run(command, shell=True, cwd=directory, check=True)
    lines = (directory / "pins.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and line.strip()[0] != "#"]
    return {(requirement.name, str(requirement.specifier)) for requirement in requirements}


def test_the_cpu_build_is_pinned_to_the_lock_file_without_cuda(tmp_path):
    (command,) = FILTER.findall(DOCKERFILE)
    lock = (ROOT / "requirements.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9.-]+)(==\S+)", lock, re.MULTILINE))
    cuda = {pin for pin in locked if re.match("nvidia-|cuda-|triton", pin[0])}
    assert cuda and pins(command, tmp_path) == locked - cuda


def test_the_page_has_the_same_command(tmp_path):
    page = (ROOT / "docs/how-to/run-in-a-container.md").read_text()
    assert FILTER.findall(page) == FILTER.findall(DOCKERFILE)


def test_what_is_copied_exists_and_nothing_else_is_sent_to_docker():
    lines = re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE)
    copied = {name for line in lines for name in line.split()}
    assert all((ROOT / name).exists() for name in copied)
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    everything, *others = [rule for rule in rules if not rule.startswith("#")]
    assert everything == "*" and {rule[1:] for rule in others if rule[0] == "!"} == copied


def test_the_image_has_a_python_that_the_package_supports():
    version = re.search(r"^FROM python:3\.(\d+)", DOCKERFILE, re.MULTILINE)
    assert version and int(version[1]) >= 11
