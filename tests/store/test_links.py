"""Locks and writes of a store in a directory follow no symbolic link."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from chexseg.errors import UserError
from chexseg.store.file_lock import is_locked, locked
from chexseg.store.links import replacing
from chexseg.store.manifest import MANIFEST
from chexseg.store.store import Store
from tests.store.places import NODE, commit, name


def test_a_lock_that_is_a_link_does_not_empty_its_target(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    store = Store(tmp_path / "store")
    (store.backend.local / ".partial").mkdir(parents=True)
    (store.backend.local / ".partial" / f"{NODE.stage}-{NODE.key[:20]}.lock").symlink_to(victim)
    with pytest.raises(UserError, match="found a symbolic link"), store.working_on(NODE):
        pytest.fail("the lock was taken")
    with pytest.raises(UserError, match="found a symbolic link"):
        store.in_progress([NODE])
    assert victim.read_text() == "precious"


def test_a_file_in_the_place_of_a_lock_keeps_its_content_while_it_is_held(tmp_path):
    path = tmp_path / "lock"
    path.write_text("precious")
    with locked(path) as acquired:
        assert acquired and path.read_text() == "precious" and is_locked(path)
        with locked(path, wait=False) as second:
            assert not second
    assert not is_locked(path)


def test_asking_about_a_named_pipe_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    asked = threading.Thread(target=is_locked, args=(tmp_path / "pipe",), daemon=True)
    asked.start()
    asked.join(60)
    assert not asked.is_alive()


@pytest.mark.parametrize(
    "link", [".failed", "ingest", ".partial", name(), f".partial/{name().replace('/', '-')}"]
)
def test_no_folder_of_a_store_may_be_a_link(tmp_path, link):
    store, outside = Store(tmp_path / "store"), tmp_path / "outside"
    outside.mkdir()
    (store.backend.local / link).parent.mkdir(parents=True)
    (store.backend.local / link).symlink_to(outside)
    with pytest.raises(UserError, match="found a symbolic link"):
        if link == ".failed":
            store.record_failure(NODE, "ValueError: no", "Traceback ...")
        else:
            commit(store)
    assert list(outside.iterdir()) == []


def test_a_link_left_in_a_partial_directory_is_found_before_a_stage_writes_through_it(tmp_path):
    store, victim = Store(tmp_path / "store"), tmp_path / "victim"
    victim.write_text("precious")
    with store.working_on(NODE) as partial:
        (partial / "sub").mkdir(parents=True)
        (partial / "sub" / "values.bin").symlink_to(victim)
    with (
        pytest.raises(UserError, match="values.bin: found a symbolic link"),
        store.working_on(NODE),
    ):
        pytest.fail("the partial directory was handed out")
    assert victim.read_text() == "precious"


def test_a_lock_that_this_user_cannot_open_counts_as_held(tmp_path, monkeypatch):
    """Only its owner can tell; taken for free, what a run needs would be collected."""

    def deny(path, flags, *arguments, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", deny)
    assert is_locked(tmp_path / "lock")
    with pytest.raises(UserError, match="cannot be locked .Permission denied.; expected: a file"):
        locked(tmp_path / "lock").__enter__()


def test_a_folder_in_the_place_of_a_lock_is_refused(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(UserError, match="lock: cannot be locked .Is a directory."):
        locked(tmp_path / "lock").__enter__()


def test_a_link_that_is_made_while_the_lock_is_waited_for_is_found(tmp_path):
    store, victim = Store(tmp_path / "store"), tmp_path / "victim"
    victim.mkdir()
    folder = store.backend.local / ".partial"
    planted, waiting = folder / f"{NODE.stage}-{NODE.key[:20]}", threading.Event()
    failures: list[Exception] = []

    def work() -> None:
        waiting.set()
        try:
            with store.working_on(NODE):
                pass
        except UserError as error:
            failures.append(error)

    with locked(planted.with_name(f"{planted.name}.lock")):
        worker = threading.Thread(target=work)
        worker.start()
        waiting.wait(60)
        planted.mkdir()
        (planted / "images").symlink_to(victim)
    worker.join(60)
    assert ["found a symbolic link" in str(error) for error in failures] == [True]


def test_a_result_with_a_link_is_not_published(tmp_path):
    store = Store(tmp_path / "store")
    with store.working_on(NODE) as partial:
        partial.mkdir(parents=True)
        (partial / "images").symlink_to(tmp_path)
        with pytest.raises(UserError, match="found a symbolic link"):
            store.commit(NODE, partial, {}, 1.0)
    assert store.find(NODE.stage, NODE.key) is None


def test_a_file_with_a_second_name_is_found_before_a_stage_writes_to_it(tmp_path):
    store, victim = Store(tmp_path / "store"), tmp_path / "victim"
    victim.write_text("precious")
    with store.working_on(NODE) as partial:
        partial.mkdir(parents=True)
        (partial / "thresholds.json").hardlink_to(victim)
    with pytest.raises(UserError, match="second name"), store.working_on(NODE):
        pytest.fail("the partial directory was handed out")


def test_a_file_of_a_damaged_result_with_a_second_name_is_not_gone_on_with(tmp_path):
    """Its stage would write to it in place."""
    store = Store(tmp_path / "store")
    commit(store)
    result = store.backend.local / name(NODE)
    file = next(path for path in result.rglob("*") if path.is_file() and path.name != MANIFEST)
    (tmp_path / "outside").hardlink_to(file)
    partial = tmp_path / "store" / ".partial" / "reopened"
    partial.mkdir(parents=True)
    with pytest.raises(UserError, match="second name"):
        store.backend.reopen(name(NODE), partial, [file.relative_to(result).as_posix()])


def test_a_store_may_itself_be_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "real")
    commit(Store(tmp_path / "store"))
    assert Store(tmp_path / "real").find(NODE.stage, NODE.key) is not None


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    path = tmp_path / "document"
    path.write_text("before")
    with pytest.raises(OSError, match="no space"), replacing(path) as file:
        file.write(b"half")
        raise OSError("no space")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    with replacing(path) as file:
        file.write(b"after")
    assert path.read_text() == "after" and list(tmp_path.iterdir()) == [path]


def test_a_temporary_file_cannot_be_a_link_that_was_there_first(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    monkeypatch.setattr("uuid.uuid4", lambda: type("Id", (), {"hex": "0" * 32}))
    Path(tmp_path, f".document.{os.getpid()}-{'0' * 8}").symlink_to(victim)
    with pytest.raises(FileExistsError), replacing(tmp_path / "document") as file:
        file.write(b"x")
    assert victim.read_text() == "precious"


def test_locks_are_not_looked_up_through_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "fit-aaaa.lock").touch()
    store = Store(tmp_path / "store")
    store.backend.local.mkdir()
    (store.backend.local / ".partial").symlink_to(outside)
    with pytest.raises(UserError, match="symbolic link"):
        store.in_progress([NODE])
