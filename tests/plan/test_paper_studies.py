"""Test that the studies in studies/paper plan, and make every published choice of fidelity.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from chexseg.config import study_file
from tests.reference.test_fidelity import ROWS, settings_of

FILES = sorted((Path(__file__).resolve().parents[2] / "studies" / "paper").glob("*.yaml"))
#: Where the paper's text and its code differ, the files take the text; the cutoff isn't used.
OF_THE_TEXT = {"fit.learning_rate", "irnet.learning_rate", "saliency.cutoff"}
#: Settings of some studies only: samples at p = 0 of Table 1, and students.
OF_SOME = {"fit.epoch_size": "semi", "distil": "distillation"}


def published(study: str) -> dict[str, object]:
    rows = [row for row in ROWS if row.count(" | ") == 3]
    settings = {name: value for row in rows for name, value in settings_of(row).items()}
    return {
        name: value
        for name, value in settings.items()
        if name not in OF_THE_TEXT
        and all(word in study for part, word in OF_SOME.items() if name.startswith(part))
    }


def get(settings: object, name: str) -> object:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.stem != "all"], ids=lambda p: p.stem
)
def test_a_study_makes_every_published_choice(path):
    for settings in study_file.load(path).cells():
        for name, value in published(path.stem).items():
            assert get(settings, name) == value, name


def test_one_file_includes_the_others():
    included = study_file.load(next(path for path in FILES if path.stem == "all")).members
    assert len(included) == len(FILES) - 1
