"""Test docs/writing-a-study.md: its studies plan, and its commands give the output it quotes.

Its yaml blocks begin with their file's name. A diff block is a mistake made in the previous file,
and the next block quotes the resulting error line.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from chexseg.config import study_file
from chexseg.errors import UserError
from chexseg.plan import planner
from chexseg.plan.graph import Plan
from chexseg.plan.status import sharing_text

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "writing-a-study.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
DATA = {"train": "a", "valid": "b", "test": "c"}


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """Return a directory for studies, which is where the page's commands are run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str) -> Path:
    path = Path(re.match(r"# (\S+\.yaml)\n", text)[1])
    path.write_text(text)
    return path


def planned(path: str | Path, overrides: list[str]) -> Plan:
    pairs = (override.partition("=") for override in overrides)
    return planner.plan(
        study_file.load(Path(path), {key: yaml.safe_load(value) for key, _, value in pairs}), DATA
    )


def test_every_study_of_the_page_plans(files):
    studies = [text for kind, text in BLOCKS if kind == "yaml"]
    assert len(studies) >= 5
    for text in studies:
        assert planned(write(text), []).cells


def test_every_mistake_of_the_page_is_told_as_it_says(files):
    checked = 0
    for number, (kind, text) in enumerate(BLOCKS):
        if kind == "yaml":
            path = write(text)
        if kind != "diff":
            continue
        right = path.read_text()
        old, new = (
            "".join(line[1:] + "\n" for line in text.splitlines() if line[0] == sign)
            for sign in "-+"
        )
        assert right.count(old) == 1
        path.write_text(right.replace(old, new))
        with pytest.raises(UserError) as caught:
            planned(path, [])
        assert f"chexseg: {caught.value}\n" == BLOCKS[number + 1][1]
        path.write_text(right)
        checked += 1
    assert checked >= 3


def test_every_plan_of_the_page_has_the_cells_that_it_shows(files):
    shown = 0
    for kind, text in BLOCKS:
        if kind == "yaml":
            write(text)
        command = re.match(r"\$ chexseg study plan (.*)\n", text)
        if kind != "console" or not command:
            continue
        path, *options = shlex.split(command[1])
        overrides = [
            value for option, value in zip(options, options[1:], strict=False) if option == "--set"
        ]
        answer = text[command.end() :]
        try:
            study_plan = planned(path, overrides)
        except UserError as error:
            assert answer == f"chexseg: {error}\n"
        else:
            assert answer.splitlines()[0].startswith(
                f"{study_plan.study.name}: {len(study_plan.cells)} distinct cell"
            )
            for line in sharing_text(study_plan):
                assert line in answer.splitlines()
            cells = [
                re.match(r"  (\S.*?)  +(done|missing|stale: .*)$", line)
                for line in answer.splitlines()
            ]
            assert [match[1] for match in cells if match] in (
                [cell.name for cell in study_plan.cells],
                [],
            )
        shown += 1
    assert shown >= 4
