"""Searches without Ray: what a study file may say, what a point is, and Optuna's record of points and of grids."""

from __future__ import annotations

import json
import multiprocessing
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from chexseg.errors import UserError
from chexseg.study import grid_record, journal, plan, search_summary, spec
from chexseg.study.ledger import Ledger
from chexseg.study.search import Search
from chexseg.study.store import Store

DATA = {"train": "a", "valid": "b", "test": "c"}
IMAGES = {"train": 40, "valid": 20, "test": 20}
SEARCH = """
name: s
axes:
  labels.weak: [cam, irnet]
  labels.p: {low: 0, high: 1}
  fit.learning_rate: {low: 0.0001, high: 0.01, log: true}
settings: {fit: {epochs: 3}}
search: {points: 6, trials: 2}
"""
GRID = """
name: g
axes:
  labels.weak: [cam, irnet]
  labels.p: [0, 0.5, 1]
  trial: [0, 1]
settings: {fit: {epochs: 3, learning_rate: 0.001}}
"""


def searched(text: str = SEARCH) -> Search:
    return Search(spec.parse(text, "x.yaml"), DATA, {})


def grid(text: str = GRID) -> plan.Plan:
    return plan.plan(spec.parse(text, "x.yaml"), DATA)


def finish(store: Store, planned: plan.Plan, key: str, miou: float | None) -> None:
    """Put a result into the store as its stage would leave it: of a fit the figures, of a score nothing but the manifest."""
    node = planned.nodes[key]
    with store.working_on(node) as partial:
        partial.mkdir()
        curve = [miou and miou * (epoch + 1) / 3 for epoch in range(3)]
        store.commit(node, partial, {"selection_miou": miou, "selection_curve": curve}, 1.0)


def finish_cells(store: Store, planned: plan.Plan) -> dict[str, float]:
    """Finish every cell; score key -> its selection mIoU, all different."""
    values = {cell.score: (number + 1) / 100 for number, cell in enumerate(planned.cells)}
    for cell in planned.cells:
        finish(store, planned, cell.fit, values[cell.score])
        finish(store, planned, cell.score, None)
    return values


MISTAKES = {
    "labels.p: {low: 0, high: 2}\nsearch: {}": "x.yaml:3: axes.labels.p: found 2.0; allowed: at most 1",
    "labels.p: {low: 1,\n    high: 0}\nsearch: {}": "x.yaml:4: axes.labels.p.high: found 0; allowed: above low, 1",
    "labels.p: {low: 0}\nsearch: {}": "x.yaml:3: axes.labels.p.high: is missing; allowed: a number",
    "labels.p: {low: zero, high: 1}\nsearch: {}": "x.yaml:3: axes.labels.p.low: found 'zero'; allowed: a number",
    "labels.p: {low: 0, hihg: 1}\nsearch: {}": (
        "x.yaml:3: axes.labels.p.hihg: no such key (did you mean 'high'?); allowed: low, high, log, step"
    ),
    "label.p: {low: 0, high: 1}\nsearch: {}": "x.yaml:3: axes.label.p: no such setting (did you mean 'labels.p'?)",
    "labels: {low: 0, high: 1}\nsearch: {}": "x.yaml:3: axes.labels: found 0.0; allowed: a mapping",
    "labels.p: {low: 0, high: 1, log: true}\nsearch: {}": "axes.labels.p.log: found true; allowed: with low above 0",
    "fit.learning_rate: {low: 1, high: 2, log: true, step: 1}\nsearch: {}": "step: found 1; allowed: without log",
    "labels.p: {low: 0, high: 1}": "x.yaml:3: axes.labels.p: found a range; allowed: a list of values, or a section search",
    "labels.p: 1\nsearch: {}": "found 1; allowed: a list of values, or in a search a range: {low: .., high: ..}",
    "labels.weak: {low: 0, high: 1}\nsearch: {}": "axes.labels.weak: found 0.0; allowed: 'cam', 'cam++' or 'irnet'",
    "fit.flips: {low: 0, high: 1}\nsearch: {}": "found a range of what is no number; allowed: a list of values",
    "fit.epochs: {low: 1.5, high: 3}\nsearch: {}": "axes.fit.epochs: found 1.5; allowed: a whole number",
    "fit.epochs: {low: 1, high: 3, step: 0.5}\nsearch: {}": "step: found 0.5 for whole numbers; allowed: a whole one",
    "size: {low: 64, high: 96, step: 32}\nsearch: {}": "axes.size: cells can't differ in it; allowed: in settings, once",
    "trial: [0, 1]\nsearch: {}": "x.yaml:3: axes.trial: found in a search; allowed: search.trials, how many",
    "labels.p: [0]\nalso: [{trial: 1}]\nsearch: {}": "x.yaml:4: also: found in a search; allowed: axes alone",
    "labels.p: [0]\nsearch: {sampler: tpo}": (
        "x.yaml:4: search.sampler: found 'tpo' (did you mean 'tpe'?); allowed: 'tpe' or 'random'"
    ),
    "labels.p: [0]\nsearch: {smpler: tpe}": (
        "x.yaml:4: search.smpler: no such key (did you mean 'sampler'?); allowed: sampler, pruner, points, trials, seed"
    ),
    "labels.p: [0]\nsearch: {points: 0}": "x.yaml:4: search.points: found 0; allowed: at least 1",
    "labels.p: [0]\nsearch: {}\nresources: {workers: 2}": "x.yaml:5: resources.workers: found 2 in a search; allowed: 1",
    "labels.p: [0]\nsearch: {}\nsettings: {labels: {expert_split: {select: 0}}}": "select: found 0 in a search",
}


@pytest.mark.parametrize("text", MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_one_line_that_says_all(text):
    with pytest.raises(UserError) as caught:
        spec.parse(f"name: s\naxes:\n  {text}", "x.yaml")
    assert MISTAKES[text] in str(caught.value)
    assert str(caught.value).startswith("x.yaml:")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("axis", "stage"),
    [
        ("saliency.images: {low: 10, high: 90}", "saliency"),
        ("labels.expert_split.train: {low: 10, high: 90}", "saliency"),
        ("seed: {low: 0, high: 5}", "pretrain"),
        ("classify.learning_rate: {low: 0.001, high: 0.1}", "classify"),
        ("distil.fraction: {low: 0.1, high: 0.5}", "distil"),
    ],
)
def test_a_range_that_reaches_a_shared_stage_is_refused(axis, stage):
    search = searched(f"name: s\naxes:\n  {axis}\nsettings: {{labels: {{p: 0.5}}}}\nsearch: {{}}")
    with pytest.raises(UserError, match=f"found a range, and {stage} depends on it.*allowed: a list of values"):
        search.upstream()


def test_a_range_that_no_cell_depends_on_is_refused():
    with pytest.raises(UserError, match="axes.distil.temperature: found a range, and no cell of this study depends on it"):
        searched("name: s\naxes:\n  distil.temperature: {low: 1, high: 9}\nsearch: {}").check()
    searched("name: s\naxes:\n  labels.p: [1, 0.5]\n  labels.weak_images: {low: 1, high: 2}\nsearch: {}").check()


def test_shared_stages_are_those_of_every_choice_each_once_and_no_points():
    search = searched()
    upstream = search.upstream()
    stages = sorted(node.stage for node in upstream.nodes.values())
    assert stages == ["classify", "ingest", "ingest", "ingest", "irnet", "pretrain", "saliency"]
    assert upstream.cells == [] and upstream.needed([]) == list(upstream.nodes.values())
    assert upstream.needed(upstream.nodes) == []
    planned = search.plan([{"labels.weak": "irnet", "labels.p": 0.3, "fit.learning_rate": 0.002}])
    assert planned.nodes.keys() - upstream.nodes.keys() == {key for cell in planned.cells for key in (cell.fit, cell.score)}


def test_a_students_teacher_is_a_shared_stage():
    text = "name: s\naxes: {distil.fraction: [0.1, 0.2], distil.temperature: {low: 1, high: 20}}\nsearch: {trials: 2}"
    search = searched(text)
    upstream = search.upstream()
    assert (
        sorted(node.stage for node in upstream.nodes.values() if node.stage in ("fit", "distil"))
        == ["distil"] * 4 + ["fit"] * 2
    )
    planned = search.plan([{"distil.fraction": 0.2, "distil.temperature": 3.0}])
    assert all(set(planned.nodes[cell.fit].inputs.values()) <= upstream.nodes.keys() for cell in planned.cells)


def test_a_point_is_a_grids_cell_of_the_same_settings():
    cells = {cell.name: cell.fit for cell in grid().cells}
    points = searched().plan([{"labels.weak": "irnet", "labels.p": 0.5, "fit.learning_rate": 0.001}]).cells
    assert [cell.fit for cell in points] == [cells["irnet p=0.5 trial 0"], cells["irnet p=0.5 trial 1"]]


def test_no_point_reads_a_test_image_before_it_is_scored():
    search = searched()
    planned = search.plan([{"labels.weak": "irnet", "labels.p": 0.5, "fit.learning_rate": 0.001}])
    tests = {key for key, node in planned.nodes.items() if node.stage == "ingest" and node.config["split"] == "test"}
    reached, pending = set(), [cell.fit for cell in planned.cells]
    while pending:
        key = pending.pop()
        reached.add(key)
        pending += planned.nodes[key].inputs.values()
    assert len(tests) == 1 and not reached & tests


def test_points_that_are_drawn_lie_in_the_space_and_on_its_steps(tmp_path):
    text = """
name: s
axes:
  labels.p: {low: 0.1, high: 0.9, step: 0.1}
  fit.batch_size: {low: 2, high: 16, log: true}
  fit.clip_norm: [null, 1]
  labels.expert_split: [{train: 20, select: 4}, {train: 10, select: 4}]
search: {points: 12, sampler: random}
"""
    ledger = Ledger(searched(text), Store(tmp_path))
    ledger.open()
    points = [ledger.ask()[1] for _ in range(12)]
    assert {point["labels.p"] for point in points} <= {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
    assert all(isinstance(point["fit.batch_size"], int) and 2 <= point["fit.batch_size"] <= 16 for point in points)
    assert {point["fit.clip_norm"] for point in points} == {None, 1}
    assert {point["labels.expert_split"]["train"] for point in points} == {10, 20}
    assert len({json.dumps(point) for point in points}) == 12
    assert all(ledger.point(ledger.params(point)) == point for point in points)


def test_finished_cells_of_the_same_settings_are_told_once(tmp_path):
    store, planned = Store(tmp_path), grid()
    values = finish_cells(store, planned)
    other = grid(GRID.replace("epochs: 3", "epochs: 2"))  # would be another fit
    for cell in other.cells:
        finish(store, other, cell.fit, 0.9)
    lonely = grid(GRID.replace("[0, 0.5, 1]", "[0.7]").replace("[0, 1]", "[1]"))  # its trial 0 isn't there
    for cell in lonely.cells:
        finish(store, lonely, cell.fit, 0.9)
    ledger = Ledger(searched(), store)
    ledger.open()
    # p = 0 and 0.5 with either kind; p = 1 is one fit whatever the kind.
    assert ledger.tell_finished() == 5
    assert ledger.tell_finished() == 0
    means: dict[str, list[float]] = {}
    for cell in planned.cells:
        means.setdefault(cell.name.rpartition(" trial")[0], []).append(values[cell.score])
    told = ledger.study.get_trials()
    assert sorted(trial.value for trial in told) == pytest.approx(sorted(sum(pair) / 2 for pair in means.values()))
    assert all(set(trial.intermediate_values) == set(range(6)) for trial in told)
    standing = ledger.standing()
    assert (standing.done, standing.told, standing.was_told) == (0, 5, True)
    assert standing.value == pytest.approx(max(trial.value for trial in told))
    again = Ledger(searched(), store)
    again.open()
    assert again.tell_finished() == 0 and again.resume() == 6


def test_what_a_dead_driver_left_is_taken_up_once_and_nothing_is_lost(tmp_path):
    store = Store(tmp_path)

    def start() -> Ledger:
        ledger = Ledger(searched(), store)
        ledger.open()
        return ledger

    first = start()
    assert first.resume() == 6
    done, point = first.ask()
    planned = first.search.plan([point])
    fits = [cell.fit for cell in planned.cells]
    for key, miou in zip(fits, (0.2, 0.4), strict=True):
        finish(store, planned, key, miou)
    assert first.complete(done, fits, ()) == pytest.approx(0.3)
    pruned, _ = first.ask()
    pruned.report(0.1, 0)
    first.prune(pruned)
    failed, failing = first.ask()
    first.fail(failed, "no memory")
    _, orphan = first.ask()

    second = start()
    assert second.resume() == 4
    assert second.resume() == 4, "taken up once"
    assert [second.ask()[1] for _ in range(2)] == [failing, orphan]
    fresh = second.ask()[1]
    third = start()
    assert third.resume() == 4
    assert [third.ask()[1] for _ in range(3)] == [failing, orphan, fresh]
    states = [trial.state for trial in third.study.get_trials()]
    assert states.count(TrialState.RUNNING) == 3 and states.count(TrialState.COMPLETE) == states.count(TrialState.PRUNED) == 1
    standing = third.standing()
    assert (standing.done, standing.pruned, standing.failed, standing.told) == (1, 1, 0, 0)
    assert (standing.value, standing.point) == (pytest.approx(0.3), point)


def test_a_search_that_was_killed_asks_for_what_it_would_have_asked_for(tmp_path):
    def ask(store: Store, kill_before: int | None) -> list[dict]:
        points = []
        ledger = Ledger(searched(SEARCH.replace("trials: 2", "trials: 1")), store)
        ledger.open()
        for number in range(6):
            if number == kill_before:
                ledger.ask()
                ledger = Ledger(ledger.search, store)
                ledger.open()
                ledger.resume()
            trial, point = ledger.ask()
            planned = ledger.search.plan([point])
            finish(store, planned, planned.cells[0].fit, point["labels.p"])
            ledger.complete(trial, [planned.cells[0].fit], ())
            points.append(dict(point))
        return points

    whole = ask(Store(tmp_path / "a"), None)
    assert len({json.dumps(point) for point in whole}) == 6
    assert ask(Store(tmp_path / "b"), 4)[:5] == whole[:5]


def test_a_point_without_selection_fails_and_is_told_so(tmp_path):
    store = Store(tmp_path)
    ledger = Ledger(searched(), store)
    ledger.open()
    trial, point = ledger.ask()
    planned = ledger.search.plan([point])
    fits = [cell.fit for cell in planned.cells]
    for key in fits:
        finish(store, planned, key, None)
    assert ledger.complete(trial, fits, ()) is None
    ledger.fail(trial, "no selection mIoU")
    assert ledger.standing().failed == 1


def test_the_median_prunes_what_is_worse_at_the_same_epoch_and_none_doesnt(tmp_path):
    def pruned(pruner: str) -> list[bool]:
        store = Store(tmp_path / pruner)
        ledger = Ledger(searched(SEARCH.replace("trials: 2", f"trials: 1, pruner: {pruner}")), store)
        ledger.open()
        for _ in range(4):
            trial, point = ledger.ask()
            planned = ledger.search.plan([point])
            finish(store, planned, planned.cells[0].fit, 0.6)
            ledger.complete(trial, [planned.cells[0].fit], ())
        found = []
        for value in (0.1, 0.3):  # the others had 0.2 after their first epoch
            trial, _ = ledger.ask()
            trial.report(value, 0)
            found.append(trial.should_prune())
        return found

    assert pruned("median") == [True, False]
    assert pruned("none") == [False, False]


def _record(root: str) -> None:
    grid_record.record(grid(), Store(Path(root)), set())


def test_every_finished_cell_of_a_grid_is_recorded_once_by_however_many(tmp_path):
    store, planned = Store(tmp_path), grid()
    values = finish_cells(store, planned)
    spawn = multiprocessing.get_context("spawn")
    recorders = [spawn.Process(target=_record, args=(str(tmp_path),)) for _ in range(3)]
    for process in recorders:
        process.start()
    for process in recorders:
        process.join()
    assert [process.exitcode for process in recorders] == [0, 0, 0]
    trials = journal.read(store, grid_record.name_of(planned))
    assert {trial.user_attrs["key"]: trial.value for trial in trials} == values
    assert len(trials) == len(planned.cells) == 10
    known: set[str] = set()
    assert grid_record.record(planned, store, known) == 0
    assert known == set(values)
    of_cell = {trial.user_attrs["cell"]: trial for trial in trials}
    assert of_cell["irnet p=0.5 trial 1"].params == {"labels.weak": "irnet", "labels.p": 0.5, "trial": 1}
    assert set(of_cell["irnet p=0.5 trial 1"].intermediate_values) == {0, 1, 2}
    space = of_cell["full trial 0"].distributions
    assert isinstance(space["labels.p"], optuna.distributions.FloatDistribution)
    assert space["labels.weak"].choices == ("cam", "irnet")


def test_cells_are_recorded_as_they_finish_and_only_those(tmp_path):
    store, planned = Store(tmp_path), grid(GRID + "also:\n  - {distil.fraction: 0.25, fit.flips: true}\n")
    first, second, *_ = planned.cells
    for cell in (first, second):
        finish(store, planned, cell.fit, 0.5)
    finish(store, planned, first.score, None)
    name = grid_record.name_of(planned)
    with grid_record.recording(planned, store, pytest.fail, every=0.01):
        while not journal.read(store, name):
            pass
        finish(store, planned, second.score, None)
    assert [trial.user_attrs["key"] for trial in journal.read(store, name)] == [first.score, second.score]


def test_a_record_that_cannot_be_written_is_told_and_stops_nothing(tmp_path):
    store, planned = Store(tmp_path), grid()
    finish_cells(store, planned)
    journal.path_in(store).parent.mkdir()
    journal.path_in(store).write_text("no journal\nat all\n")
    said: list[str] = []
    with grid_record.recording(planned, store, said.append):
        pass
    assert len(said) == 1 and said[0].startswith("finished cells are not written to")


def test_a_complete_grid_is_recorded_by_running_it_again(phantom_root, tmp_path):
    (tmp_path / "g.yaml").write_text(GRID)
    planned = plan.plan(spec.parse(GRID, "g.yaml"), plan.fingerprints(phantom_root))
    store = Store(tmp_path / "store")
    values = finish_cells(store, planned)
    for _ in range(2):
        command = ["study", "run", tmp_path / "g.yaml", "--data", phantom_root, "--store", store.root]
        done = subprocess.run([sys.executable, "-m", "chexseg", *map(str, command)], capture_output=True, text=True)
        assert done.returncode == 0 and "0 stages computed" in done.stderr
        assert sorted(trial.value for trial in journal.read(store, grid_record.name_of(planned))) == sorted(values.values())


def test_other_settings_or_data_are_another_optuna_study(tmp_path):
    names = {
        grid_record.name_of(grid()),
        grid_record.name_of(grid(GRID.replace("epochs: 3", "epochs: 2"))),
        grid_record.name_of(plan.plan(spec.parse(GRID, "x.yaml"), {**DATA, "valid": "z"})),
        Ledger(searched(), Store(tmp_path)).name,
        Ledger(searched(SEARCH.replace("trials: 2", "trials: 1")), Store(tmp_path)).name,
    }
    assert len(names) == 5
    more = searched(SEARCH.replace("points: 6", "points: 60, pruner: asha, sampler: random"))
    assert Ledger(more, Store(tmp_path)).name in names, "more points of the same search go on with it"


def test_plan_and_status_of_a_search(tmp_path):
    store = Store(tmp_path / "store")
    found = search_summary.summarise(searched(), store, IMAGES)
    assert not store.root.exists(), "reading writes nothing"
    text = found.plan_text()
    assert "s: 6 points, each the mean of 2 trials; sampler tpe, pruner median" in text
    assert "0.0001 to 0.01, log" in text and "cam, irnet" in text and "at most 12 fits to come" in text
    assert "0 of 6 points tried" in found.status_text()
    ledger = Ledger(searched(), store)
    ledger.open()
    trial, point = ledger.ask()
    planned = ledger.search.plan([point])
    for cell in planned.cells:
        finish(store, planned, cell.fit, 0.25)
        finish(store, planned, cell.score, None)
    ledger.complete(trial, [cell.fit for cell in planned.cells], ())
    found = search_summary.summarise(searched(), store)
    assert "1 of 6 points tried" in found.status_text() and "best: mIoU 0.250" in found.status_text()
    status = found.status_dict()
    assert not status["complete"]
    assert [cell["key"] for cell in status["cells"]] == [cell.score for cell in planned.cells]
    assert status["search"]["best"] == {"selection_miou": 0.25, "point": point}
    planned = search_summary.summarise(searched(), store, IMAGES).plan_dict()
    assert json.loads(json.dumps(planned))["search"]["space"]["labels.p"]["high"] == 1


def test_optuna_dashboard_opens_the_journal_and_shows_a_grid_and_a_search(tmp_path):
    pytest.importorskip("optuna_dashboard")
    store, planned = Store(tmp_path), grid()
    values = finish_cells(store, planned)
    grid_record.record(planned, store, set())
    ledger = Ledger(searched(), store)
    ledger.open()
    ledger.tell_finished()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    command = [program, journal.path_in(store), "--host", "127.0.0.1", "--port", str(port)]
    dashboard = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(path: str) -> dict:
        while True:
            assert dashboard.poll() is None, "it ended by itself"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/{path}", timeout=10) as answer:
                    return json.load(answer)
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionRefusedError):
                    raise
                time.sleep(0.1)

    try:
        found = {study["study_name"]: study["study_id"] for study in ask("studies")["study_summaries"]}
        assert set(found) == {grid_record.name_of(planned), ledger.name}
        cells = ask(f"studies/{found[grid_record.name_of(planned)]}?after=0")["trials"]
        assert sorted(trial["values"][0] for trial in cells) == pytest.approx(sorted(values.values()))
        assert len(ask(f"studies/{found[ledger.name]}?after=0")["trials"]) == 5
    finally:
        dashboard.terminate()
        dashboard.wait()
