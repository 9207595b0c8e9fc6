"""Test a grid's finished cells in Optuna's storage, and the dashboard that shows them."""

from __future__ import annotations

import datetime
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

from chexseg.config import study_file
from chexseg.plan import planner
from chexseg.search import grid_export, journal
from chexseg.search.optuna_study import OptunaStudy
from chexseg.store.store import Store
from tests.search.searches import DATA, GRID, SEARCH, finish, finish_cells, grid, searched


def _record(root: str) -> None:
    grid_export.export(grid(), Store(Path(root)), set())


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
    trials = journal.read(store, grid_export.name_of(planned))
    assert {trial.user_attrs["key"]: trial.value for trial in trials} == values
    assert len(trials) == len(planned.cells) == 10
    previous: set[str] = set()
    assert grid_export.export(planned, store, previous) == 0
    assert previous == set(values)
    of_cell = {trial.user_attrs["cell"]: trial for trial in trials}
    for cell in planned.cells:  # optuna-dashboard shows when each fit ran, and how long
        manifest = store.find("fit", cell.fit).manifest
        ended = datetime.datetime.fromisoformat(manifest["finished"]).astimezone()
        trial = of_cell[cell.name]
        assert trial.datetime_complete == ended.replace(tzinfo=None)
        assert trial.duration == datetime.timedelta(seconds=manifest["seconds"])
        assert manifest["seconds"] > 0
    assert of_cell["irnet p=0.5 trial 1"].params == {
        "labels.weak": "irnet",
        "labels.p": 0.5,
        "trial": 1,
    }
    assert set(of_cell["irnet p=0.5 trial 1"].intermediate_values) == {0, 1, 2}
    space = of_cell["full trial 0"].distributions
    assert isinstance(space["labels.p"], optuna.distributions.FloatDistribution)
    assert space["labels.weak"].choices == ("cam", "irnet")


def test_cells_are_recorded_as_they_finish_and_only_those(tmp_path):
    store, planned = (
        Store(tmp_path),
        grid(GRID + "also:\n  - {distil.fraction: 0.25, fit.flips: true}\n"),
    )
    first, second, *_ = planned.cells
    for cell in (first, second):
        finish(store, planned, cell.fit, 0.5)
    finish(store, planned, first.score, None)
    name = grid_export.name_of(planned)
    with grid_export.exporting(planned, store, pytest.fail, interval=0.01):
        while not journal.read(store, name):
            pass
        finish(store, planned, second.score, None)
    assert [trial.user_attrs["key"] for trial in journal.read(store, name)] == [
        first.score,
        second.score,
    ]


def test_after_an_interrupt_the_next_run_records_the_cells(tmp_path):
    store, planned = Store(tmp_path), grid()
    finish_cells(store, planned)
    with (
        pytest.raises(KeyboardInterrupt),
        grid_export.exporting(planned, store, pytest.fail, interval=600),
    ):
        raise KeyboardInterrupt
    assert not journal.path_in(store).exists()


def test_a_record_that_cannot_be_written_is_told_and_stops_nothing(tmp_path):
    store, planned = Store(tmp_path), grid()
    finish_cells(store, planned)
    journal.path_in(store).mkdir(parents=True)
    lines: list[str] = []
    with grid_export.exporting(planned, store, lines.append):
        pass
    assert len(lines) == 1 and lines[0].startswith("finished cells are not written to")


def test_a_complete_grid_is_recorded_by_running_it_again(phantom_root, tmp_path):
    (tmp_path / "g.yaml").write_text(GRID)
    planned = planner.plan(study_file.parse(GRID, "g.yaml"), planner.fingerprints(phantom_root))
    store = Store(tmp_path / "store")
    values = finish_cells(store, planned)
    for _ in range(2):
        command = [
            "study",
            "run",
            tmp_path / "g.yaml",
            "--data",
            phantom_root,
            "--store",
            store.backend.local,
        ]
        done = subprocess.run(
            [sys.executable, "-m", "chexseg", *map(str, command)], capture_output=True, text=True
        )
        assert done.returncode == 0 and "0 stages computed" in done.stderr
        assert sorted(
            trial.value for trial in journal.read(store, grid_export.name_of(planned))
        ) == sorted(values.values())


def test_other_settings_or_data_are_another_optuna_study(tmp_path):
    names = {
        grid_export.name_of(grid()),
        grid_export.name_of(grid(GRID.replace("epochs: 3", "epochs: 2"))),
        grid_export.name_of(planner.plan(study_file.parse(GRID, "x.yaml"), {**DATA, "valid": "z"})),
        OptunaStudy(searched(), Store(tmp_path)).name,
        OptunaStudy(searched(SEARCH.replace("trials: 2", "trials: 1")), Store(tmp_path)).name,
    }
    assert len(names) == 5
    more = searched(SEARCH.replace("points: 6", "points: 60, pruner: asha, sampler: random"))
    assert OptunaStudy(more, Store(tmp_path)).name in names, (
        "more points of the same search go on with it"
    )


def test_optuna_dashboard_opens_the_journal_and_shows_a_grid_and_a_search(tmp_path):
    pytest.importorskip("optuna_dashboard")
    store, planned = Store(tmp_path), grid()
    values = finish_cells(store, planned)
    grid_export.export(planned, store, set())
    optuna_study = OptunaStudy(searched(), store)
    optuna_study.open()
    optuna_study.import_finished()
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
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/api/{path}", timeout=10
                ) as answer:
                    return json.load(answer)
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionRefusedError):
                    raise
                time.sleep(0.1)

    try:
        ids = {
            study["study_name"]: study["study_id"] for study in ask("studies")["study_summaries"]
        }
        assert set(ids) == {grid_export.name_of(planned), optuna_study.name}
        cells = ask(f"studies/{ids[grid_export.name_of(planned)]}?after=0")["trials"]
        assert sorted(trial["values"][0] for trial in cells) == pytest.approx(
            sorted(values.values())
        )
        assert len(ask(f"studies/{ids[optuna_study.name]}?after=0")["trials"]) == 5
    finally:
        dashboard.terminate()
        dashboard.wait()
