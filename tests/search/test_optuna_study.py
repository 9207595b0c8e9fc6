"""A search's record in Optuna's storage: what is told first, taken up again, pruned, failed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from optuna.trial import TrialState

from chexseg.errors import UserError
from chexseg.search.optuna_study import Ledger
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
    )  # its trial 0 isn't there
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
    assert sorted(trial.value for trial in told) == pytest.approx(
        sorted(sum(pair) / 2 for pair in means.values())
    )
    assert all(set(trial.intermediate_values) == set(range(6)) for trial in told)
    standing = ledger.standing()
    assert (standing.done, standing.told, standing.was_told) == (0, 5, True)
    assert standing.value == pytest.approx(max(trial.value for trial in told))
    again = Ledger(searched(), store)
    again.open()
    assert again.tell_finished() == 0 and again.resume() == 6


def told(tmp_path) -> tuple[Ledger, Path]:
    """A search that was told finished points, and its journal."""
    store = Store(tmp_path)
    finish_cells(store, grid())
    ledger = Ledger(searched(), store)
    ledger.open()
    ledger.tell_finished()
    return ledger, tmp_path / "optuna" / "journal.log"


def test_the_best_point_is_that_of_the_fits_whatever_a_damaged_journal_says(tmp_path):
    """It has no checksums: one flipped bit would make another point win, or hide the best."""
    ledger, path = told(tmp_path)
    right, text = ledger.standing(), path.read_text()
    values = sorted(trial.value for trial in ledger.study.get_trials())
    for value, other in ((values[0], 0.999), (values[-1], 0.001)):
        assert text.count(f'"value":{value},') == 1
        path.write_text(text.replace(f'"value":{value},', f'"value":{other},'))
        standing = Ledger(searched(), Store(tmp_path)).standing()
        assert (standing.value, standing.point, standing.note) == (right.value, right.point, None)


def test_settings_that_are_not_those_of_the_fits_are_not_the_best(tmp_path):
    ledger, path = told(tmp_path)
    best = max(ledger.study.get_trials(), key=lambda trial: trial.value)
    lines = path.read_text().splitlines(keepends=True)
    (number,) = [n for n, line in enumerate(lines) if f'"value":{best.value},' in line]
    other = "0.25" if best.params["labels.p"] != 0.25 else "0.75"
    changed = re.sub(r'("labels\.p":)[0-9.]+', rf"\g<1>{other}", lines[number], count=1)
    assert changed != lines[number]
    path.write_text("".join([*lines[:number], changed, *lines[number + 1 :]]))
    standing = Ledger(searched(), Store(tmp_path)).standing()
    assert standing.value < best.value
    assert standing.note.endswith("1 trials left out, whose settings aren't those of their fits")


def test_a_record_that_optuna_cannot_apply_is_one_line(tmp_path):
    _, path = told(tmp_path)
    path.write_text(path.read_text().replace('"datetime_complete":"2', '"datetime_complete":"x', 1))
    with pytest.raises(
        UserError, match="journal.log: found a record that Optuna can't apply"
    ) as caught:
        Ledger(searched(), Store(tmp_path)).standing()
    assert "\n" not in str(caught.value)


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
    assert (
        states.count(TrialState.RUNNING) == 3
        and states.count(TrialState.COMPLETE) == states.count(TrialState.PRUNED) == 1
    )
    standing = third.standing()
    assert (standing.done, standing.pruned, standing.failed, standing.told) == (1, 1, 0, 0)
    assert (standing.value, standing.point) == (pytest.approx(0.3), point)


@pytest.mark.parametrize(
    "text", [SEARCH, SEARCH.replace("high: 1}", "high: 1, step: 0.1}")], ids=["any p", "steps of p"]
)
def test_points_that_a_dead_drivers_workers_finish_count_once(tmp_path, text):
    store = Store(tmp_path)
    first = Ledger(searched(text), store)
    first.open()
    points = [first.ask()[1] for _ in range(4)]
    for planned in (first.search.plan([point]) for point in points):
        for cell in planned.cells:
            finish(store, planned, cell.fit, 0.5)
    second = Ledger(first.search, store)
    second.open()
    assert second.tell_finished() == 0 and second.resume() == 6
    for point in points:
        trial, again = second.ask()
        assert again == point
        second.complete(trial, [cell.fit for cell in second.search.plan([point]).cells], ())
    assert second.tell_finished() == 0
    assert (second.standing().done, second.standing().told) == (4, 0)


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
        ledger = Ledger(
            searched(SEARCH.replace("trials: 2", f"trials: 1, pruner: {pruner}")), store
        )
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
