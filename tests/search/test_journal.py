"""Test Optuna's journal: torn lines, leftover locks, a full disk, and several hosts on S3."""

from __future__ import annotations

import json
import os
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from typer.testing import CliRunner

from chexseg import cli
from chexseg.errors import UserError
from chexseg.search import grid_export, journal, journal_lines
from chexseg.search.optuna_study import OptunaStudy
from chexseg.store.store import Store
from tests.conftest import SHARED
from tests.search.searches import finish, finish_cells, grid, searched
from tests.store.places import open_store

CASE = SHARED / "cases" / "journal"


def record(number: int) -> dict:
    return {
        "op_code": 2,
        "worker_id": "w",
        "study_id": 0,
        "user_attr": {"number": number, "text": 'a {"op_code" in it\n'},
    }


def started(store: Store) -> OptunaStudy:
    optuna_study = OptunaStudy(searched(), store)
    optuna_study.open()
    return optuna_study


def complete_a_point(optuna_study: OptunaStudy) -> None:
    trial, point = optuna_study.ask()
    planned = optuna_study.search.plan([point])
    for cell in planned.cells:
        finish(optuna_study.store, planned, cell.fit, 0.5)
    assert optuna_study.complete(trial, [cell.fit for cell in planned.cells], ()) == 0.5


# ---- torn lines


@pytest.mark.parametrize("where", ["end", "line of its own", "line of the next"])
def test_a_line_torn_anywhere_hides_no_other(where):
    first, torn, last = (journal_lines.encode_records([record(number)]) for number in range(3))
    between = b"\n" if where == "line of its own" else b""
    for length in range(1, len(torn) - 1):
        content = first + torn[:length] + (b"" if where == "end" else between + last)
        records, pieces = journal_lines.parse(content)
        assert [entry["user_attr"]["number"] for entry in records] == (
            [0] if where == "end" else [0, 2]
        )
        assert "".join(pieces) == torn[:length].decode()


def test_records_that_lost_the_end_of_a_line_between_them_both_count():
    content = b"".join(
        journal_lines.encode_records([record(number)]).rstrip() for number in range(3)
    )
    records, torn = journal_lines.parse(content)
    assert [entry["user_attr"]["number"] for entry in records] == [0, 1, 2] and torn == []


@pytest.mark.parametrize(
    "line",
    [
        "5",
        "[]",
        "{}",
        '{"op_code": 99, "worker_id": "w"}',
        '{"op_code": 1}',
        "no journal",
        "\0" * 9,
        '{"op_code":' + "[" * 200_000,
    ],
)
def test_what_is_no_record_is_torn(line):
    records, torn = journal_lines.parse(
        f"{line}\n".encode() + journal_lines.encode_records([record(0)])
    )
    assert len(records) == 1 and torn == [line]


def test_records_keep_their_numbers_while_lines_are_torn_and_set_aside(tmp_path):
    writer, reader = (journal_lines.FileLines(tmp_path, tmp_path / "journal.log") for _ in range(2))
    assert reader.read_logs(0) == []
    writer.append_logs([record(0)])
    with writer.path.open("ab") as file:
        file.write(b'{"op_code":2,"wor')
    assert reader.read_logs(0) == [record(0)] and reader.torn == 0, (
        "another process may still be writing it"
    )
    writer.append_logs([record(1)])
    assert reader.read_logs(1) == [record(1)] and reader.torn == 1
    assert "1 torn line; every complete line counts" in writer.set_torn_aside()
    assert writer.set_torn_aside() is None
    writer.append_logs([record(2)])
    assert reader.read_logs(2) == [record(2)] and writer.read_logs(0) == [
        record(0),
        record(1),
        record(2),
    ]
    assert (tmp_path / "journal.torn.log").read_text() == '{"op_code":2,"wor\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal.log", "journal.torn.log"]


def test_a_search_goes_on_with_a_torn_journal_and_optunas_own_tools_open_it_then(tmp_path):
    store = Store(tmp_path)
    complete_a_point(started(store))
    path = journal.path_in(store)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:20] + b"".join(lines[2:]) + lines[-1][:30])
    optuna_study = OptunaStudy(searched(), store)
    assert optuna_study.trial_counts().done == 1
    assert "1 torn line left out" in optuna_study.trial_counts().note, (
        "the last line may not be complete yet"
    )
    assert "2 torn lines; every complete line counts" in optuna_study.open()
    complete_a_point(optuna_study)
    assert (optuna_study.trial_counts().done, optuna_study.trial_counts().note) == (2, None)
    theirs = optuna.load_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(path))),
        study_name=optuna_study.name,
    )
    assert len(theirs.get_trials()) == 2


def test_a_grid_is_recorded_in_a_torn_journal_and_says_so(tmp_path):
    store, planned = Store(tmp_path), grid()
    journal.path_in(store).parent.mkdir()
    journal.path_in(store).write_text("no journal\nat all\n")
    values, notes = finish_cells(store, planned), []
    assert grid_export.export(planned, store, set(), notes.append) == len(values)
    assert len(notes) == 1 and "2 torn lines" in notes[0]
    assert len(journal.read(store, grid_export.name_of(planned))) == len(values)


def test_the_case_of_a_disk_that_ran_full(tmp_path, phantom_root):
    if not CASE.is_dir():
        pytest.skip("../shared/cases is not beside this checkout")
    store = Store(tmp_path)
    journal.path_in(store).parent.mkdir()
    journal.path_in(store).write_bytes((CASE / "journal_torn.log").read_bytes())
    trials = journal.read(store, "srch-5e876f2d")
    assert [trial.value for trial in trials[:3]] == pytest.approx(
        [0.006321, 0.029114, 0.006267], abs=1e-6
    )
    assert [trial.state for trial in trials[3:]] == [optuna.trial.TrialState.RUNNING], (
        "it was started after the torn line"
    )
    arguments = [
        "study",
        "status",
        str(CASE / "srch6.yaml"),
        "--data",
        str(phantom_root),
        "--store",
        str(tmp_path),
    ]
    status = CliRunner().invoke(cli.app, arguments)
    assert status.exit_code == 0 and "note: " in status.output and "torn line" in status.output
    note = json.loads(CliRunner().invoke(cli.app, [*arguments, "--json"]).output)["search"]["note"]
    assert "every complete line counts" in note


# ---- full disks and locks


def test_a_full_disk_tears_nothing(tmp_path, monkeypatch):
    lines = journal_lines.FileLines(tmp_path, tmp_path / "journal.log")
    lines.append_logs([record(0)])
    before, write = lines.path.read_bytes(), os.write

    def fill(descriptor: int, content: bytes) -> int:
        if len(content) < 30:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[:20])

    monkeypatch.setattr(journal_lines.os, "write", fill)
    with pytest.raises(
        UserError, match="journal.log: can't be written .No space left on device.; hint: make room"
    ):
        lines.append_logs([record(1)])
    monkeypatch.undo()
    assert lines.path.read_bytes() == before
    lines.append_logs([record(2)])
    assert lines.read_logs(0) == [record(0), record(2)]


@pytest.mark.parametrize(
    "target", ["journal.log", "/gone/store/optuna/journal.log"], ids=["here", "moved"]
)
def test_a_lock_that_optuna_left_keeps_nobody_waiting(tmp_path, target):
    store = Store(tmp_path)
    complete_a_point(started(store))
    lock = journal.path_in(store).with_name("journal.log.lock")
    lock.symlink_to(target)
    complete_a_point(started(store))
    assert OptunaStudy(searched(), store).trial_counts().done == 2
    assert lock.is_symlink() == (target == "journal.log"), (
        "one that points nowhere is of a dead process"
    )


def test_a_journal_that_is_a_link_is_refused(tmp_path):
    store, victim = Store(tmp_path / "store"), tmp_path / "victim"
    victim.write_text("precious\n")
    journal.path_in(store).parent.mkdir(parents=True)
    journal.path_in(store).symlink_to(victim)
    with pytest.raises((UserError, OSError), match="symbolic link"):
        started(store)
    assert victim.read_text() == "precious\n"


def test_a_journal_that_is_a_pipe_is_refused_at_once(tmp_path):
    store = Store(tmp_path / "store")
    journal.path_in(store).parent.mkdir(parents=True)
    os.mkfifo(journal.path_in(store))
    with pytest.raises(UserError, match=r"journal.log: can't be opened .not a regular file"):
        started(store)


def test_a_journal_with_a_second_name_is_not_written_to(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "optuna" / "journal.log"
    victim.write_text("precious")
    path.parent.mkdir()
    path.hardlink_to(victim)
    with pytest.raises(UserError, match="second name"):
        journal_lines.FileLines(tmp_path, path).append_logs([record(0)])
    assert victim.read_text() == "precious"


def test_the_lock_of_a_search_is_not_taken_through_a_link(tmp_path):
    store, outside = Store(tmp_path / "store"), tmp_path / "outside"
    outside.mkdir()
    (outside / "s.lock").write_text("precious")
    store.backend.local.mkdir()
    (store.backend.local / "optuna").symlink_to(outside)
    with (
        pytest.raises(UserError, match="optuna: found a symbolic link"),
        journal.acquire(store, "s", wait=True),
    ):
        pytest.fail("the lock was taken")
    assert (outside / "s.lock").read_text() == "precious"


def test_no_lock_is_removed_through_a_link(tmp_path):
    store, outside = tmp_path / "store", tmp_path / "outside"
    outside.mkdir()
    store.mkdir()
    (outside / "journal.log.lock").symlink_to("/gone")
    (store / "optuna").symlink_to(outside)
    with pytest.raises(UserError, match="optuna: found a symbolic link"):
        journal_lines.FileLines(store, store / "optuna" / "journal.log").set_torn_aside()
    assert (outside / "journal.log.lock").is_symlink()


# ---- on S3


@pytest.fixture
def hosts(s3, tmp_path, monkeypatch):
    """Return ``hosts(name)``: the same store on S3, as seen by a host of that name."""

    def on(host: str) -> Store:
        monkeypatch.setenv("CHEXSEG_CACHE", str(tmp_path / host))
        return open_store(s3(f"journals/{tmp_path.name}"))

    return on


def test_another_host_sees_a_searchs_points_and_goes_on_with_them(hosts):
    first = started(hosts("first"))
    complete_a_point(first)
    assert OptunaStudy(searched(), hosts("second")).trial_counts().done == 0
    first.flush()
    second = OptunaStudy(searched(), hosts("second"))
    assert second.trial_counts().done == 1
    second.open()
    assert second.resume() == 5
    complete_a_point(second)
    second.flush()
    assert OptunaStudy(searched(), hosts("first")).trial_counts().done == 2
    complete_a_point(first)
    with pytest.raises(UserError, match="another host has changed it"):
        first.flush()
    assert OptunaStudy(searched(), hosts("third")).trial_counts().done == 2


def test_a_journal_that_is_listed_and_not_there_is_not_begun_anew(hosts, monkeypatch):
    first = started(hosts("first"))
    complete_a_point(first)
    first.flush()
    second = hosts("second")
    monkeypatch.setattr(type(second.backend), "read", lambda self, files: {})
    with pytest.raises(UserError, match="in the store's list, but not to be read"):
        OptunaStudy(searched(), second).trial_counts()


def test_a_damaged_copy_of_a_journal_is_not_put(hosts, tmp_path):
    first = started(hosts("first"))
    complete_a_point(first)
    first.flush()
    same = hosts("first")
    assert OptunaStudy(searched(), same).trial_counts().done == 1  # makes the copy
    (copy,) = (tmp_path / "first").glob("*/documents/optuna/*.log")
    status, content = copy.stat(), copy.read_bytes()
    copy.write_bytes(content.replace(b'"values":', b'"valves":'))
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert copy.read_bytes() != content
    assert OptunaStudy(searched(), same).trial_counts().done == 1


def test_a_change_is_put_without_being_asked_to(hosts):
    lines = journal_lines.ObjectLines(hosts("first").backend, "optuna/x.log", delay=0.01)
    lines.append_logs([record(0)])
    while not hosts("second").backend.tree("optuna"):
        pass
    lines.flush()
    assert journal_lines.ObjectLines(hosts("second").backend, "optuna/x.log").read_logs(0) == [
        record(0)
    ]


@pytest.mark.parametrize(
    "kept", ["by an earlier version on this host", "in a directory that was copied"]
)
def test_a_journal_of_a_file_is_taken_over(hosts, tmp_path, kept):
    store = hosts("first")
    local = Store(Path(store.backend.local) if "host" in kept else tmp_path / "store")
    complete_a_point(started(local))
    if "copied" in kept:
        store.backend.write("optuna/journal.log", journal.path_in(local).read_bytes())
    optuna_study = OptunaStudy(searched(), store)
    assert optuna_study.trial_counts().done == 1
    optuna_study.open()
    optuna_study.flush()
    assert OptunaStudy(searched(), hosts("second")).trial_counts().done == 1


def test_one_host_at_a_time_runs_a_search(hosts):
    first, second = hosts("first"), hosts("second")
    with journal.acquire(first, "s", wait=False) as acquired:
        assert acquired
        with journal.acquire(second, "s", wait=False) as both:
            assert not both
    with journal.acquire(second, "s", wait=False) as acquired:
        assert acquired


def test_a_grids_cells_are_recorded_once_by_two_hosts(hosts):
    planned = grid()
    planned.cells = planned.cells[:3]
    values = finish_cells(hosts("first"), planned)
    assert grid_export.export(planned, hosts("first"), set()) == 3
    assert grid_export.export(planned, hosts("second"), set()) == 0
    trials = journal.read(hosts("third"), grid_export.name_of(planned))
    assert {trial.user_attrs["key"]: trial.value for trial in trials} == values
