"""Test that a tool of `execution.trackers` must be installed, and configured by its user."""

from __future__ import annotations

import os
from importlib.machinery import PathFinder
from types import SimpleNamespace

import pytest

from chexseg.config import study_file
from chexseg.data.raw_split import RawData
from chexseg.plan import planner
from chexseg.plan.checks import before_run, trackers
from chexseg.store.store import Store

STUDY = """
name: full
settings: {size: 64, encoder: {init: random}, labels: {expert_split: {train: 6, select: 4}}}
"""


@pytest.fixture
def lines(phantom_root, tmp_path):
    """Return a function: the lines about the study with some trackers."""

    def of(*trackers):
        raw = RawData(phantom_root)
        study = study_file.parse(STUDY, "x.yaml", {"execution.trackers": list(trackers)})
        plan = planner.plan(study, raw.fingerprints)
        return before_run.mistakes(plan, plan.needed(()), raw, Store(tmp_path / "store"))

    return of


def test_a_missing_one_is_named_with_its_extra(lines, monkeypatch):
    missing = SimpleNamespace(find_spec=lambda name: None)
    monkeypatch.setattr(trackers, "PathFinder", missing)
    assert lines("mlflow", "wandb", "mlflow") == [
        f"--set execution.trackers: found {name!r}, which isn't installed;"
        f" hint: pip install 'chexseg[{name}]'"
        for name in ("mlflow", "wandb")
    ]
    assert lines() == []


def test_a_folder_of_its_name_is_no_package(lines, tmp_path, monkeypatch):
    """W&B writes its files to `wandb` in the working directory."""
    (tmp_path / "here" / "wandb").mkdir(parents=True)
    monkeypatch.setattr("sys.path", [str(tmp_path / "here")])
    assert PathFinder.find_spec("wandb") is not None
    (line,) = lines("wandb")
    assert "'wandb', which isn't installed" in line


@pytest.mark.parametrize("folder", ["wandb", ".wandb"])
def test_settings_of_wandb_in_the_current_directory_are_refused(
    lines, folder, tmp_path, monkeypatch
):
    """Their server would get the API key."""
    installed = SimpleNamespace(find_spec=lambda name: SimpleNamespace(origin="/site"))
    monkeypatch.setattr(trackers, "PathFinder", installed)
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir()
    assert lines("wandb") == []
    (tmp_path / folder / "settings").write_text("[default]\nbase_url = http://127.0.0.1:9\n")
    (line,) = lines("wandb", "mlflow")
    assert line == (
        f"--set execution.trackers: found {tmp_path / folder / 'settings'}, whose server would get"
        " your API key; expected: W&B's settings in ~/.config/wandb/settings or in variables"
        " WANDB_...; hint: move the file, or run the command in another directory"
    )
    assert lines("mlflow") == []


@pytest.mark.parametrize(
    ("name", "link", "variable"),
    [
        ("mlflow", "mlflow.db", "MLFLOW_TRACKING_URI"),
        ("mlflow", "mlruns", "MLFLOW_TRACKING_URI"),
        ("mlflow", "mlruns/1", "MLFLOW_TRACKING_URI"),
        ("wandb", "wandb", "WANDB_DIR"),
        ("wandb", ".wandb", "WANDB_DIR"),
    ],
)
def test_a_link_in_the_current_directory_is_refused(
    lines, name, link, variable, tmp_path, monkeypatch
):
    """The tools would write behind it; W&B deletes files there."""
    installed = SimpleNamespace(find_spec=lambda name: SimpleNamespace(origin="/site"))
    monkeypatch.setattr(trackers, "PathFinder", installed)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / "elsewhere")
    (line,) = lines(name)
    assert f"found the link {tmp_path / link}, behind which" in line and f"set {variable}" in line
    other = {"mlflow": "wandb", "wandb": "mlflow"}[name]
    assert lines(other) == []


def test_a_directory_that_others_may_fill_is_refused(lines, tmp_path, monkeypatch):
    """Another user could add a journal after the check: SQLite looks at each transaction."""
    installed = SimpleNamespace(find_spec=lambda name: SimpleNamespace(origin="/site"))
    monkeypatch.setattr(trackers, "PathFinder", installed)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    here, own = tmp_path / "here", tmp_path / "own"
    here.mkdir()
    own.mkdir()
    monkeypatch.chdir(here)
    assert lines("mlflow", "wandb") == []
    here.chmod(0o1777)
    for name, hint in (("mlflow", "set MLFLOW_TRACKING_URI, or run the"), ("wandb", "run the")):
        (line,) = lines(name)
        assert f"others may write to {here}; expected: a directory that only you" in line
        assert line.endswith(f"; hint: {hint} command in another directory")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{own}/mlflow.db")
    monkeypatch.setenv("WANDB_DIR", str(own))
    assert lines("mlflow") == []
    assert len(lines("wandb")) == 1  # it reads settings in the current directory all the same
    here.chmod(0o755)
    own.chmod(0o1777)
    assert f"others may write to {own}" in lines("wandb")[0]
    (here / "wandb").mkdir(mode=0o700)
    own.chmod(0o755)
    assert lines("wandb") == []
    (here / "wandb").chmod(0o777)
    assert f"others may write to {here / 'wandb'}" in lines("wandb")[0]


def test_a_journal_that_names_a_file_is_refused(lines, tmp_path, monkeypatch):
    """SQLite deletes the file that the journal of a database calls its super-journal."""
    installed = SimpleNamespace(find_spec=lambda name: SimpleNamespace(origin="/site"))
    monkeypatch.setattr(trackers, "PathFinder", installed)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    magic, journal = bytes.fromhex("d9d505f920a163d7"), tmp_path / "mlflow.db-journal"
    journal.write_bytes(magic.ljust(512, b"\0"))  # of a process that writes, or was killed
    assert lines("mlflow") == []
    name = str(tmp_path / "victim").encode()
    numbers = len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big")
    journal.write_bytes(magic.ljust(512, b"\0") + bytes(4) + name + numbers + magic)
    (line,) = lines("mlflow")
    assert f"found {journal}, which makes SQLite delete a file" in line
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert lines("mlflow") == [line]
    for other in ("http://127.0.0.1:9", f"sqlite:///{tmp_path}/other.db", "sqlite:///other.db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
        assert lines("mlflow") == []
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with journal.open("r+b") as file:  # more than is read of any file
        file.truncate(3 * 2**30)
        file.seek(0, os.SEEK_END)
        file.write(magic)
    assert lines("mlflow") == [line]


def test_wandb_takes_no_folder_of_the_temporary_directory(lines, tmp_path, monkeypatch):
    installed = SimpleNamespace(find_spec=lambda name: SimpleNamespace(origin="/site"))
    monkeypatch.setattr(trackers, "PathFinder", installed)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "none"))
    (line,) = lines("wandb")
    assert f"{tmp_path / 'none'} can't be written" in line and "set WANDB_DIR" in line


def test_settings_that_wandb_would_add_are_refused(lines, tmp_path, monkeypatch):
    """As a link it may be any YAML file of the user, which W&B would upload."""
    installed = SimpleNamespace(find_spec=lambda name: SimpleNamespace(origin="/site"))
    monkeypatch.setattr(trackers, "PathFinder", installed)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config-defaults.yaml").symlink_to(tmp_path / "secret.yaml")
    (line,) = lines("wandb")
    assert f"found {tmp_path / 'config-defaults.yaml'}, which W&B would add" in line
    assert lines("mlflow") == []


def test_trackers_are_in_no_key(phantom_root):
    prints = RawData(phantom_root).fingerprints
    plans = [
        planner.plan(study_file.parse(STUDY, "x.yaml", {"execution.trackers": names}), prints)
        for names in ([], ["mlflow", "wandb"])
    ]
    assert plans[0].nodes.keys() == plans[1].nodes.keys()
