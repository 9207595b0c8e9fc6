"""Test the record of a run: its arguments and place, whatever happens to the study file later."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from chexseg.config import study_file
from chexseg.plan import planner
from chexseg.run import run_record
from chexseg.store.store import Store
from tests.store.places import DATA

INNER = "name: inner\naxes: {labels.p: [0.5, 1]}\nsettings: {fit: {epochs: 3}}\n"
OUTER = "name: outer\nstudies: [inner.yaml]\n"


@pytest.fixture
def study(tmp_path) -> Path:
    (tmp_path / "inner.yaml").write_text(INNER)
    (tmp_path / "outer.yaml").write_text(OUTER)
    return tmp_path / "outer.yaml"


def records(store: Store) -> list[dict]:
    return [
        json.loads(path.read_text())
        for path in sorted((store.backend.local / ".runs").glob("*/*.json"))
    ]


def test_a_record_has_the_files_every_setting_and_the_keys(study, tmp_path):
    planned = planner.plan(study_file.load(study, {"fit.batch_size": 4}), DATA)
    store = Store(tmp_path / "store")
    with run_record.recorded(
        store,
        run_record.record_name(planned.study),
        planned.study,
        planned.cells,
        study,
        ["fit.batch_size=4"],
        tmp_path,
    ) as more:
        (before,) = records(store)
        assert "ended" not in before, "a run that is killed now leaves this"
        study.write_text("name: other\n")
        more["failed"] = {}
    (record,) = records(store)
    assert record["files"] == {str(study): OUTER, str(tmp_path / "inner.yaml"): INNER}
    assert record["overrides"] == ["fit.batch_size=4"]
    (member,) = record["resolved"]["members"]
    assert (
        member["settings"]["fit"] | {"epochs": 3, "batch_size": 4, "clip_norm": None}
        == member["settings"]["fit"]
    )
    assert {cell["fit"] for cell in record["cells"].values()} == {
        cell.fit for cell in planned.cells
    }
    assert {"torch", "optuna", "chexseg"} <= record["packages"].keys()
    assert record["started"] <= record["ended"] and record["failed"] == {}
    assert record | before == record


def test_a_run_that_ends_in_an_error_says_so(study, tmp_path):
    planned, store = planner.plan(study_file.load(study), DATA), Store(tmp_path / "store")
    with (
        pytest.raises(KeyboardInterrupt),
        run_record.recorded(store, ".runs/a/b", planned.study, planned.cells, study, [], tmp_path),
    ):
        raise KeyboardInterrupt
    (record,) = records(store)
    assert record["error"] == "KeyboardInterrupt: " and record["ended"]


def test_the_commit_of_a_checkout_and_whether_files_differ_from_it(tmp_path):
    assert run_record.git_commit(tmp_path) is None

    def git(*arguments: str) -> str:
        command = [
            "git",
            "-C",
            tmp_path,
            "-c",
            "user.name=n",
            "-c",
            "user.email=e@example.org",
            *arguments,
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "--quiet", "-m", "first")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "untracked").write_text("")
    assert run_record.git_commit(tmp_path) == commit
    (tmp_path / "file").write_text("2")
    assert run_record.git_commit(tmp_path) == f"{commit}+"


def test_no_repository_of_a_folder_above_is_asked(tmp_path):
    """Git runs programs that the configuration of a repository names."""
    for command in (["init", "--quiet"], ["config", "core.fsmonitor", f"touch {tmp_path}/ran;"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    below = tmp_path / "site-packages"
    below.mkdir()
    assert run_record.git_commit(below) is None
    (below / ".git").mkdir()  # no repository, so Git would look above
    assert run_record.git_commit(below) is None
    assert not (tmp_path / "ran").exists()
    subprocess.run(["git", "-C", below, "status"], capture_output=True)
    assert (tmp_path / "ran").exists()
