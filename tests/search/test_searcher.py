"""Test searches on a local Ray: to the end, pruned, with failing points, after SIGKILL."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import optuna
import pytest
import ray
from optuna.trial import TrialState

from chexseg.analysis import load
from chexseg.config import study_file
from chexseg.errors import UserError
from chexseg.plan import planner
from chexseg.progress import Quiet
from chexseg.search import journal, searcher, status
from chexseg.search.optuna_study import OptunaStudy
from chexseg.search.space_plan import Search
from chexseg.store.store import Store
from tests.report.rendered import publish

TEXT = """
name: small
axes:
  fit.learning_rate: {low: 0.0001, high: 0.01, log: true}
  fit.clip_norm: [null, 1.0]
settings:
  size: 32
  encoder: {architecture: mobilenet_v2, init: random}
  labels: {expert_split: {train: 8, select: 4}}
  fit: {epochs: 2, samples_per_epoch: 8}
search: {points: 3, trials: 2, pruner: none}
"""
#: Each worker imports PyTorch, which takes longer than a small training.
ONE_AT_A_TIME = "resources: {cpu: 2}\n"


def searched(root, text: str = TEXT) -> Search:
    return Search(study_file.parse(text, "small.yaml"), planner.fingerprints(root), {})


class Named(Quiet):
    """Keep the settings of all that reports progress."""

    def __init__(self) -> None:
        self.settings: dict[str, dict] = {}

    def update(self, name, done, total, unit, note=None) -> None:
        self.settings[name] = dict(self.settings_of(name))


@pytest.fixture(scope="module")
def reported():
    return Named()


@pytest.fixture(scope="module")
def finished(ray_session, phantom_root, tmp_path_factory, reported):
    search, store = searched(phantom_root), Store(tmp_path_factory.mktemp("search") / "store")
    return search, store, searcher.run_search(search, store, phantom_root, reported)


def test_a_search_finishes_its_points_and_scores_the_best(finished):
    search, store, outcome = finished
    assert outcome.failed == {}
    stages = [key for key in outcome.computed]
    summary = status.summarise(search, store)
    assert summary.complete and summary.trial_counts.done == 3
    # three splits; two fits per point; two scores of the best point
    assert len(stages) == 3 + 6 + 2
    trials = journal.read(store, OptunaStudy(search, store).name)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    for trial in trials:
        mious = [store.find("fit", key).facts["selection_miou"] for key in trial.user_attrs["fits"]]
        assert trial.value == pytest.approx(sum(mious) / 2), (
            "the images held back, and nothing else"
        )
        assert len(trial.intermediate_values) == 4
    assert summary.trial_counts.value == max(trial.value for trial in trials)
    assert not list((store.backend.local / ".partial").iterdir())


def test_trackers_get_the_settings_of_a_point(finished, reported):
    points = {name: one for name, one in reported.settings.items() if name.startswith("point ")}
    assert points
    for name, settings in points.items():
        rate = re.search(r"learning_rate=([\de.-]+)", name)[1]
        assert settings["fit.learning_rate"] == pytest.approx(float(rate), rel=0.1)
        assert settings["encoder.architecture"] == "mobilenet_v2" and "trial" not in settings


def test_the_same_command_does_nothing_more_and_more_points_go_on(finished, phantom_root):
    search, store, _ = finished
    again = searcher.run_search(search, store, phantom_root, Quiet())
    assert again.computed == {} and again.failed == {}
    more = searched(phantom_root, TEXT.replace("points: 3", "points: 4"))
    assert not status.summarise(more, store).complete
    outcome = searcher.run_search(more, store, phantom_root, Quiet())
    assert len(outcome.computed) in (2, 4), "two fits, and their scores if they are the best now"
    assert status.summarise(more, store).trial_counts.done == 4


def test_a_report_shows_the_best_point(finished, tmp_path):
    search, store, _ = finished
    results = load.study_results(status.planned(search, store), store)
    text = " ".join(re.sub(r"<[^>]*>", "", publish([results], tmp_path).page.read_text()).split())
    assert "2 of 2 cells" in text and "learning_rate=" in text


def test_one_process_at_a_time(finished, phantom_root):
    search, store, _ = finished
    with (
        journal.acquire(store, OptunaStudy(search, store).name, wait=True),
        pytest.raises(UserError, match="another process runs it"),
    ):
        searcher.run_search(search, store, phantom_root, Quiet())


@pytest.mark.slow
def test_a_pruned_point_frees_its_worker_and_keeps_what_it_has(finished, phantom_root, tmp_path):
    """Import four points that this network can't reach: all others are pruned at epoch one."""
    text = TEXT.replace("epochs: 2", "epochs: 40").replace("trials: 2, pruner: none", "trials: 1")
    text += ONE_AT_A_TIME
    search, store = searched(phantom_root, text), Store(tmp_path / "store")
    optuna_study = OptunaStudy(search, store)
    optuna_study.open()
    for number in range(4):
        params = {"fit.learning_rate": 0.001 * (number + 1), "fit.clip_norm": None}
        fits = [cell.fit for cell in search.plan([optuna_study.point(params)]).cells]
        trial = optuna.create_trial(
            value=0.99,
            params=params,
            distributions=optuna_study.space,
            intermediate_values=dict.fromkeys(range(40), 0.99),
            user_attrs={"told": True, "fits": fits},
        )
        optuna_study.study.add_trial(trial)
    best = search.plan([optuna_study.trial_counts().point]).cells
    outcome = searcher.run_search(search, store, phantom_root, Quiet())
    assert outcome.failed == {}
    asked = [
        trial for trial in journal.read(store, optuna_study.name) if "told" not in trial.user_attrs
    ]
    assert [trial.state for trial in asked] == [TrialState.PRUNED] * 3
    assert [set(trial.intermediate_values) for trial in asked] == [{0}] * 3
    left = {path.name for path in (store.backend.local / ".partial").iterdir()}
    fits = {search.plan([optuna_study.point(trial.params)]).cells[0].fit for trial in asked}
    assert left == {f"fit-{key[:20]}" for key in fits}, "the partial directories, and no lock"
    # The best imported point was never trained; now it is, so that there is something to show.
    assert [path.name for path in (store.backend.local / "fit").iterdir()] == [
        cell.fit[:20] for cell in best
    ]


@pytest.mark.slow
def test_a_point_that_fails_is_told_so_the_others_go_on_and_the_next_start_tries_it_again(
    finished, phantom_root, tmp_path
):
    text = TEXT.replace("[null, 1.0]", "[null]").replace(
        "{low: 0.0001, high: 0.01, log: true}", "[0.001, 1.0e+30]"
    )
    text = text.replace("points: 3, trials: 2", "points: 4, trials: 1, sampler: random")
    text += ONE_AT_A_TIME
    search, store = searched(phantom_root, text), Store(tmp_path / "store")
    outcome = searcher.run_search(search, store, phantom_root, Quiet())
    optuna_study = OptunaStudy(search, store)
    (broken,) = {
        cell.fit for cell in search.plan([{"fit.learning_rate": 1e30, "fit.clip_norm": None}]).cells
    }
    assert set(outcome.failed) == {broken}
    trials = journal.read(store, optuna_study.name)
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert failed and all("nan" in trial.user_attrs["error"] for trial in failed)
    assert {trial.params["fit.learning_rate"] for trial in failed} == {1e30}
    assert optuna_study.trial_counts().failed == len(
        failed
    ) and optuna_study.trial_counts().done == 4 - len(failed)
    searcher.run_search(search, store, phantom_root, Quiet())
    again = journal.read(store, optuna_study.name)[len(trials) :]
    assert len(again) == len(failed) and {trial.params["fit.learning_rate"] for trial in again} == {
        1e30
    }


@pytest.mark.slow
def test_after_sigkill_of_the_driver_no_point_is_lost_or_repeated(
    ray_session, phantom_root, tmp_path
):
    text = TEXT.replace("points: 3, trials: 2", "points: 5, trials: 1").replace(
        "samples_per_epoch: 8", "samples_per_epoch: 48"
    )
    (tmp_path / "small.yaml").write_text(text)
    search, store = searched(phantom_root, text), Store(tmp_path / "store")
    name = OptunaStudy(search, store).name
    command = [
        sys.executable,
        "-m",
        "chexseg",
        "study",
        "run",
        tmp_path / "small.yaml",
        "--data",
        phantom_root,
    ]
    command += ["--store", store.backend.local, "--address", ray.get_runtime_context().gcs_address]
    driver = subprocess.Popen(
        list(map(str, command)),
        # A Ray on loopback; Ray would look for it at another address of this machine.
        env=os.environ | {"TMPDIR": str(tmp_path), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        while True:
            states = [trial.state for trial in journal.read(store, name)]
            if TrialState.COMPLETE in states and TrialState.RUNNING in states:
                break
            assert driver.poll() is None, driver.stderr.read().decode()
            time.sleep(0.2)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.communicate()
    before = journal.read(store, name)
    made = {
        path: path.stat().st_mtime_ns for path in store.backend.local.glob("fit/*/manifest.json")
    }
    assert TrialState.RUNNING in [trial.state for trial in before]

    searcher.run_search(search, store, phantom_root, Quiet())
    trials = journal.read(store, name)
    complete = [trial.params for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == 5 and len({repr(sorted(params.items())) for params in complete}) == 5
    assert all(trial.params in complete for trial in before if len(trial.params) == 2), (
        "none is lost"
    )
    orphans = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert len(orphans) == sum(trial.state == TrialState.RUNNING for trial in before)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.FAIL}
    assert all(path.stat().st_mtime_ns == written for path, written in made.items()), (
        "none is repeated"
    )
    assert len(list(store.backend.local.glob("fit/*/manifest.json"))) == 5
