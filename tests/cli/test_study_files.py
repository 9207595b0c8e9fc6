"""Test the commands that help to write a study file."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from chexseg.cli import app
from chexseg.config import reference, study_file
from chexseg.config.settings import setting_names
from chexseg.errors import UserError


def chexseg(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("file", "name"),
    [("losses.yaml", "losses"), ("My Study.yaml", "my-study"), ("_.yaml", "study")],
)
def test_a_new_file_is_a_study_with_comments(tmp_path, file, name):
    path = tmp_path / file
    assert f"chexseg study plan {path}" in chexseg("study", "new", path)
    study = study_file.load(path)
    assert study.name == name
    assert study.axes == {"labels.p": (0, 0.9, 1), "trial": (0, 1, 2)}
    assert path.read_text().count("\n  #") >= 4


def test_the_commented_lines_of_a_new_file_are_valid_too(tmp_path):
    path = tmp_path / "s.yaml"
    chexseg("study", "new", path)
    text = path.read_text()
    assert "# also:\n#   - {" in text and "# resources: {" in text
    for line in ("# also:", "#   - {", "# resources: {"):
        text = text.replace(line, line.removeprefix("# ").removeprefix("#"))
    path.write_text(text)
    study = study_file.load(path)
    assert len(list(study.cells())) == 3 * 3 + 1 and study.resources.cpu == 4


def test_a_file_that_exists_stays_as_it_is(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("mine")
    with pytest.raises(UserError, match="already exists; expected: a new file"):
        chexseg("study", "new", path)
    assert path.read_text() == "mine"


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no/s.yaml: can't be used"):
        chexseg("study", "new", tmp_path / "no" / "s.yaml")


def test_all_settings_are_listed():
    listed = {line.split()[0] for line in chexseg("study", "settings").splitlines()}
    assert set(setting_names()) <= listed
    assert {"name", "axes", "resources.gpu", "execution.graphs", "search.points"} <= listed
    assert "low" not in listed, "a key of a range is no setting"


def test_a_setting_is_shown_with_type_default_and_meaning():
    lines = chexseg("study", "settings", "fit.batch_size").splitlines()
    assert lines[0] == "fit.batch_size: integer, at least 2; default 8."
    assert lines[1].startswith("  ") and "Paper" in " ".join(lines)


def test_a_section_or_a_part_of_a_name_shows_several():
    assert chexseg("study", "settings", "labels.expert_split").count("labels.expert_split.") == 3
    assert "encoder.init:" in chexseg("study", "settings", "init")
    with pytest.raises(UserError, match="no such setting .did you mean 'fit.loss'"):
        chexseg("study", "settings", "fit.los.s")


def test_every_setting_has_a_meaning():
    for section in (*reference.study_sections(), *reference.settings_sections()):
        assert all(entry.meaning.endswith((".", ":")) for entry in section.entries), section.name


@pytest.mark.parametrize("path", ["losses.yaml", "studies/losses"])
def test_a_path_in_place_of_a_setting_gets_the_command_for_a_study(path):
    with pytest.raises(UserError) as caught:
        chexseg("study", "settings", path)
    assert str(caught.value) == (
        f"study settings: found the path {path}; expected: a setting such as fit.loss; hint: what"
        f" a study would run: chexseg study plan {path} --data ROOT"
    )
