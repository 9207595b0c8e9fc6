"""Test where a study is said to deviate from the published procedure."""

from __future__ import annotations

from pathlib import Path

import pytest

from chexseg.config import study_file
from chexseg.config.canonical import canonical
from chexseg.plan import procedure
from chexseg.plan.procedure import VALUES, Deviation
from tests.reference.test_fidelity import ROWS, settings_of

PAPER = Path(__file__).resolve().parents[2] / "studies" / "paper"
PUBLISHED = study_file.load(PAPER / "semi_supervised.yaml").settings


def deviations(**overrides: object) -> list[Deviation]:
    """Return the deviations of the paper's first study with overrides, `__` for a dot."""
    values = PUBLISHED.model_dump(mode="json")
    for name, value in overrides.items():
        *sections, field = name.split("__")
        part = values
        for section in sections:
            part = part[section]
        part[field] = value
    return list(procedure.deviations([canonical(type(PUBLISHED).model_validate(values))]))


@pytest.mark.parametrize("path", sorted(PAPER.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_papers_study_files_deviate_nowhere(path):
    cells = [canonical(settings) for settings in study_file.load(path).cells()]
    assert procedure.deviations(cells) == ()


def test_the_published_values_are_those_of_the_page():
    """Appendix A.1's cutoff isn't used; an epoch at p = 0 is Table 1's only."""
    rows = [row for row in ROWS if row.count(" | ") == 3]
    named = {name: value for row in rows for name, value in settings_of(row).items()}
    for name, value in named.items():
        if name in ("saliency.cutoff", "fit.epoch_size"):
            continue
        rule = "published" if VALUES[name] == ("published",) else value
        assert rule in VALUES[name], name


def test_a_deviation_names_the_setting_the_published_values_and_ours():
    assert deviations(labels__p=0.5, irnet__foreground=0.4, labels__weak="irnet") == [
        Deviation("irnet.foreground", "0.3, 0.25", "0.4")
    ]
    assert deviations(labels__p=0.5, fit__learning_rate=0.01) == [
        Deviation("fit.learning_rate", "0.0001, 0.001", "0.01")
    ]


@pytest.mark.parametrize(
    ("p", "checkpoint", "deviates"),
    [
        (0.5, "published", False),
        (0.5, "best-threshold", False),
        (0.5, "best-threshold-all", True),
        (0, "best-threshold-all", False),
        (0, "best-threshold", True),
    ],
)
def test_a_rule_is_published_or_not_by_the_supervision_of_its_cell(p, checkpoint, deviates):
    named = deviations(labels__p=p, fit__checkpoint=checkpoint)
    assert [one.setting for one in named] == ["fit.checkpoint"] * deviates


def test_settings_that_matter_to_no_cell_are_not_named():
    assert not deviations(labels__p=1, saliency__threshold=0.5, labels__mixing="exact")
    assert not deviations(labels__p=0.5, irnet__momentum=0.9)  # CAMs
    assert not deviations(labels__p=0.5, distil__epochs=7)


def test_a_students_rate_is_its_teachers_unless_it_has_one():
    student = {"labels__p": 1, "distil__fraction": 0.1, "distil__epochs": 100}
    rules = {"distil__thresholds": "published"}
    assert not deviations(**student, **rules, distil__learning_rate=1e-4)
    named = deviations(**student, **rules, distil__learning_rate=None, fit__learning_rate=0.01)
    assert [one.setting for one in named] == ["fit.learning_rate", "distil.learning_rate"]
