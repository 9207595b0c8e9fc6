"""Test a search's record in Optuna's storage: imported points, resuming, pruning, failures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from optuna.trial import TrialState

from chexseg.errors import UserError
from chexseg.search.optuna_study import OptunaStudy
from chexseg.store.store import Store
from tests.search.searches import GRID, SEARCH, finish, finish_cells, grid, searched


def test_finished_cells_of_the_same_settings_are_told_once(tmp_path):
    store, planned = Store(tmp_path), grid()
    values = finish_cells(store, planned)
    other = grid(GRID.replace("epochs: 3", "epochs: 2"))  # would be another fit
    for cell in other.cells:
        finish(store, other, cell.fit, 0.9)
    lonely = grid(
        GRID.replace("[0, 0.5, 1]", "[0.7]").replace("[0, 1]", "[1]")
    )  # its trial 0 isn't stored
    for cell in lonely.cells:
        finish(store, lonely, cell.fit, 0.9)
    optuna_study = OptunaStudy(searched(), store)
    optuna_study.open()
    # p = 0 and 0.5 with either kind; p = 1 is one fit whatever the kind.
    assert optuna_study.import_finished() == 5
    assert optuna_study.import_finished() == 0
    means: dict[str, list[float]] = {}
    for cell in planned.cells:
        means.setdefault(cell.name.rpartition(" trial")[0], []).append(values[cell.score])
    imported = optuna_study.study.get_trials()
    assert sorted(trial.value for trial in imported) == pytest.approx(
        sorted(sum(pair) / 2 for pair in means.values())
    )
    assert all(set(trial.intermediate_values) == set(range(6)) for trial in imported)
    trial_counts = optuna_study.trial_counts()
    assert (trial_counts.done, trial_counts.imported, trial_counts.best_imported) == (0, 5, True)
    assert trial_counts.value == pytest.approx(max(trial.value for trial in imported))
    again = OptunaStudy(searched(), store)
    again.open()
    assert again.import_finished() == 0 and again.resume() == 6


def imported(tmp_path) -> tuple[OptunaStudy, Path]:
    """Return a search with imported finished points, and its journal."""
    store = Store(tmp_path)
    finish_cells(store, grid())
    optuna_study = OptunaStudy(searched(), store)
    optuna_study.open()
    optuna_study.import_finished()
    return optuna_study, tmp_path / "optuna" / "journal.log"


def test_the_best_point_is_that_of_the_fits_whatever_a_damaged_journal_says(tmp_path):
    """Check a journal with flipped bits: without checksums another point would win."""
    optuna_study, path = imported(tmp_path)
    right, text = optuna_study.trial_counts(), path.read_text()
    values = sorted(trial.value for trial in optuna_study.study.get_trials())
    for value, other in ((values[0], 0.999), (values[-1], 0.001)):
        assert text.count(f'"value":{value},') == 1
        path.write_text(text.replace(f'"value":{value},', f'"value":{other},'))
        trial_counts = OptunaStudy(searched(), Store(tmp_path)).trial_counts()
        assert (trial_counts.value, trial_counts.point, trial_counts.note) == (
            right.value,
            right.point,
            None,
        )


def test_settings_that_are_not_those_of_the_fits_are_not_the_best(tmp_path):
    optuna_study, path = imported(tmp_path)
    best = max(optuna_study.study.get_trials(), key=lambda trial: trial.value)
    lines = path.read_text().splitlines(keepends=True)
    (number,) = [n for n, line in enumerate(lines) if f'"value":{best.value},' in line]
    other = "0.25" if best.params["labels.p"] != 0.25 else "0.75"
    changed = re.sub(r'("labels\.p":)[0-9.]+', rf"\g<1>{other}", lines[number], count=1)
    assert changed != lines[number]
    path.write_text("".join([*lines[:number], changed, *lines[number + 1 :]]))
    trial_counts = OptunaStudy(searched(), Store(tmp_path)).trial_counts()
    assert trial_counts.value < best.value
    assert trial_counts.note.endswith("1 trial left out, whose settings aren't those of their fits")


def test_a_record_that_optuna_cannot_apply_is_one_line(tmp_path):
    _, path = imported(tmp_path)
    path.write_text(path.read_text().replace('"datetime_complete":"2', '"datetime_complete":"x', 1))
    with pytest.raises(
        UserError, match="journal.log: found a record that Optuna can't apply"
    ) as caught:
        OptunaStudy(searched(), Store(tmp_path)).trial_counts()
    assert "\n" not in str(caught.value)


def test_what_a_dead_driver_left_is_taken_up_once_and_nothing_is_lost(tmp_path):
    store = Store(tmp_path)

    def start() -> OptunaStudy:
        optuna_study = OptunaStudy(searched(), store)
        optuna_study.open()
        return optuna_study

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
    assert (
        states.count(TrialState.RUNNING) == 3
        and states.count(TrialState.COMPLETE) == states.count(TrialState.PRUNED) == 1
    )
    trial_counts = third.trial_counts()
    assert (trial_counts.done, trial_counts.pruned, trial_counts.failed, trial_counts.imported) == (
        1,
        1,
        0,
        0,
    )
    assert (trial_counts.value, trial_counts.point) == (pytest.approx(0.3), point)


@pytest.mark.parametrize(
    "text", [SEARCH, SEARCH.replace("high: 1}", "high: 1, step: 0.1}")], ids=["any p", "steps of p"]
)
def test_points_that_a_dead_drivers_workers_finish_count_once(tmp_path, text):
    store = Store(tmp_path)
    first = OptunaStudy(searched(text), store)
    first.open()
    points = [first.ask()[1] for _ in range(4)]
    for planned in (first.search.plan([point]) for point in points):
        for cell in planned.cells:
            finish(store, planned, cell.fit, 0.5)
    second = OptunaStudy(first.search, store)
    second.open()
    assert second.import_finished() == 0 and second.resume() == 6
    for point in points:
        trial, again = second.ask()
        assert again == point
        second.complete(trial, [cell.fit for cell in second.search.plan([point]).cells], ())
    assert second.import_finished() == 0
    assert (second.trial_counts().done, second.trial_counts().imported) == (4, 0)


def test_a_search_that_was_killed_asks_for_what_it_would_have_asked_for(tmp_path):
    def ask(store: Store, kill_before: int | None) -> list[dict]:
        points = []
        optuna_study = OptunaStudy(searched(SEARCH.replace("trials: 2", "trials: 1")), store)
        optuna_study.open()
        for number in range(6):
            if number == kill_before:
                optuna_study.ask()
                optuna_study = OptunaStudy(optuna_study.search, store)
                optuna_study.open()
                optuna_study.resume()
            trial, point = optuna_study.ask()
            planned = optuna_study.search.plan([point])
            finish(store, planned, planned.cells[0].fit, point["labels.p"])
            optuna_study.complete(trial, [planned.cells[0].fit], ())
            points.append(dict(point))
        return points

    whole = ask(Store(tmp_path / "a"), None)
    assert len({json.dumps(point) for point in whole}) == 6
    assert ask(Store(tmp_path / "b"), 4)[:5] == whole[:5]


def test_a_point_without_selection_fails_and_is_told_so(tmp_path):
    store = Store(tmp_path)
    optuna_study = OptunaStudy(searched(), store)
    optuna_study.open()
    trial, point = optuna_study.ask()
    planned = optuna_study.search.plan([point])
    fits = [cell.fit for cell in planned.cells]
    for key in fits:
        finish(store, planned, key, None)
    assert optuna_study.complete(trial, fits, ()) is None
    optuna_study.fail(trial, "no selection mIoU")
    assert optuna_study.trial_counts().failed == 1


def test_the_median_prunes_what_is_worse_at_the_same_epoch_and_none_doesnt(tmp_path):
    def pruned(pruner: str) -> list[bool]:
        store = Store(tmp_path / pruner)
        optuna_study = OptunaStudy(
            searched(SEARCH.replace("trials: 2", f"trials: 1, pruner: {pruner}")), store
        )
        optuna_study.open()
        for _ in range(4):
            trial, point = optuna_study.ask()
            planned = optuna_study.search.plan([point])
            finish(store, planned, planned.cells[0].fit, 0.6)
            optuna_study.complete(trial, [planned.cells[0].fit], ())
        pruned = []
        for value in (0.1, 0.3):  # the others had 0.2 after their first epoch
            trial, _ = optuna_study.ask()
            trial.report(value, 0)
            pruned.append(trial.should_prune())
        return pruned

    assert pruned("median") == [True, False]
    assert pruned("none") == [False, False]
