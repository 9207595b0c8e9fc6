"""Damage to a store's files, and files that lead out of it: what is kept, dropped or refused."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from chexseg.config import study_file
from chexseg.errors import DamagedArtifactError, UserError
from chexseg.plan import planner
from chexseg.store import backend, links, local_backend, manifest
from chexseg.store.backend import Entry
from chexseg.store.links import open_regular
from chexseg.store.manifest import MANIFEST, UnreadableManifestError
from chexseg.store.store import Store
from tests.store.places import (
    DATA,
    INPUTS,
    NODE,
    VALUES,
    commit,
    name,
    open_store,
    result_path,
)


def test_the_whole_files_of_a_damaged_result_are_kept_for_the_next_run(store):
    with store.working_on(NODE) as partial:
        partial.mkdir(parents=True)
        for file in ("a", "b", "c"):
            (partial / file).write_text(file * 10)
        store.commit(NODE, partial, {}, 1.0, {"inputs_sha256": INPUTS})
    store.backend.write(f"{name()}/a", b"a" * 5)
    store.backend.write(f"{name()}/b", b"x" * 10)
    with store.working_on(NODE) as partial:
        assert store.recover(NODE, partial, INPUTS) == {"c": manifest.sha256_of(partial / "c")}
        assert [file.name for file in partial.glob("[!.]*")] == ["c"]
        assert (partial / "c").read_text() == "c" * 10
        assert MANIFEST not in store.backend.tree(name())


def test_nothing_is_recovered_over_newer_work_or_from_a_whole_result(store):
    commit(store)
    with store.working_on(NODE) as partial:
        store.recover(NODE, partial, INPUTS)
        assert not partial.exists() and store.find(NODE.stage, NODE.key)
        store.backend.write(VALUES, b"cut")
        partial.mkdir()
        (partial / "newer").write_text("")
        store.recover(NODE, partial, INPUTS)
        assert [file.name for file in partial.iterdir()] == ["newer"]


def test_files_of_a_result_that_are_damaged_are_dropped_and_it_is_found_no_more(store):
    commit(store)
    store.backend.write(VALUES, b"damaged!!!")  # of the right size
    artifact = store.find(NODE.stage, NODE.key)
    assert artifact is not None
    store.drop_damaged(artifact)
    assert store.find(NODE.stage, NODE.key) is None


def test_names_and_links_that_lead_out_of_a_store_are_not_followed(tmp_path):
    """Nothing is read, written or deleted that a manifest or a link of others leads to."""
    outside = tmp_path / "outside"
    outside.mkdir()
    precious = outside / "precious.txt"
    precious.write_text("precious")
    store = Store(tmp_path / "store")
    commit(store)
    path = result_path(store, NODE.stage, NODE.key)

    named = json.loads((path / MANIFEST).read_text())
    named["files"]["../../../outside/precious.txt"] = {"size": 8, "sha256": "0" * 64}
    (path / MANIFEST).write_text(json.dumps(manifest.seal(named)))
    with pytest.raises(UnreadableManifestError, match="no path inside the result"):
        store.find(NODE.stage, NODE.key)
    for name_outside in (
        "../outside/precious.txt",
        str(precious),
        "fit/../../outside/precious.txt",
    ):
        for ask in (store.backend.sha256, store.backend.delete, store.backend.tree):
            with pytest.raises(UserError, match="expected: a path inside the store"):
                ask(name_outside)
        with pytest.raises(UserError, match="expected: a path inside the store"):
            store.backend.write(name_outside, b"")

    shutil.rmtree(path)
    commit(store)
    values = path / "sub" / "values.bin"
    (outside / "values.bin").write_bytes(values.read_bytes())
    values.unlink()
    values.symlink_to(outside / "values.bin")
    assert store.find(NODE.stage, NODE.key) is None, "a link is no file of the store"
    shutil.rmtree(path)
    path.symlink_to(outside)
    for ask in (lambda: store.find(NODE.stage, NODE.key), lambda: commit(store)):
        with pytest.raises(
            UserError, match="found a symbolic link; expected: a plain file or folder"
        ):
            ask()
    assert precious.read_text() == "precious" and sorted(p.name for p in outside.iterdir()) == [
        "precious.txt",
        "values.bin",
    ]


def test_what_cannot_be_read_is_an_error_and_not_missing(tmp_path, monkeypatch):
    """As on a disk with a fault, or where another user's umask was strict."""
    store = Store(tmp_path)
    commit(store)
    path = result_path(store, NODE.stage, NODE.key) / MANIFEST

    def fail(file):
        if file == path:
            raise PermissionError(13, "Permission denied", str(file))
        return links.read_regular(file)

    monkeypatch.setattr(local_backend, "read_regular", fail)
    with pytest.raises(UserError, match="manifest.json: cannot be read"):
        store.find(NODE.stage, NODE.key)


def test_what_this_user_may_not_read_or_not_now_is_not_deleted(tmp_path, monkeypatch):
    """A colleague's file, or one more than a process may open: it may be whole."""
    store = Store(tmp_path)
    made = commit(store)
    values = result_path(store, NODE.stage, NODE.key) / "sub" / "values.bin"

    def fail(file):
        if file == values:
            raise OSError(24, "Too many open files", str(file))
        return open_regular(file)

    for module in (local_backend, manifest):
        monkeypatch.setattr(module, "open_regular", fail)
    for read in (lambda: store.drop_damaged(made), lambda: manifest.verify(values)):
        with pytest.raises(
            UserError, match="values.bin: cannot be read .Too many open files"
        ) as caught:
            read()
        assert not isinstance(caught.value, DamagedArtifactError)
    monkeypatch.undo()
    assert values.read_bytes() == b"0123456789"


def test_a_result_that_was_made_again_is_not_compared_with_the_older_manifest(tmp_path):
    store = Store(tmp_path)
    older = commit(store)
    shutil.rmtree(result_path(store, NODE.stage, NODE.key))
    commit(store, content=b"last bits.")
    assert store.drop_damaged(older) == []
    assert store.find(NODE.stage, NODE.key) is not None


def test_notes_of_finished_files_outlast_a_commit_that_fails(tmp_path, monkeypatch):
    store = Store(tmp_path)
    with store.working_on(NODE) as partial:
        partial.mkdir(parents=True)
        (partial / "a").write_text("a")
        manifest.note_digest(partial / "a")
        with monkeypatch.context() as patch:
            patch.setattr(
                store.backend, "publish", lambda *_: (_ for _ in ()).throw(OSError("No space left"))
            )
            with pytest.raises(OSError, match="No space left"):
                store.commit(NODE, partial, {}, 1.0)
        assert manifest.is_noted(partial / "a")
        made = store.commit(NODE, partial, {}, 1.0)
    assert [path.name for path in sorted(made.path.iterdir())] == ["a", MANIFEST]


def test_folders_of_others_at_the_root_of_a_store_keep_nobody_from_listing_it(
    tmp_path, monkeypatch
):
    """Such as lost+found, where a disk is mounted."""
    store = Store(tmp_path)
    commit(store)
    (tmp_path / "lost+found").mkdir()
    scan = os.scandir

    def refuse(path):
        if "lost+found" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list(store.scan()) == [name()]


def test_a_folder_in_place_of_a_file_is_damage_that_a_run_mends(tmp_path):
    store = Store(tmp_path)
    made = commit(store)
    values = result_path(store, NODE.stage, NODE.key) / "sub" / "values.bin"
    values.unlink()
    values.mkdir()
    store.drop_damaged(made)
    with store.working_on(NODE) as partial:
        store.recover(NODE, partial, INPUTS)
        (partial / ".ipynb_checkpoints").mkdir(parents=True, exist_ok=True)
        (partial / "sub").mkdir(exist_ok=True)
        (partial / "sub" / "values.bin").write_bytes(b"0123456789")
        again = store.commit(NODE, partial, {}, 1.0)
    assert set(again.manifest["files"]) == {"sub/values.bin"}


def test_files_that_a_damaged_result_does_not_name_come_into_no_result_and_are_kept(tmp_path):
    store = Store(tmp_path)
    commit(store)
    stray = result_path(store, NODE.stage, NODE.key) / "sub" / "notes.txt"
    stray.write_text("somebody's own")
    store.backend.write(VALUES, b"damaged!!!")
    with store.working_on(NODE) as partial:
        store.recover(NODE, partial, INPUTS)
        assert store.find(NODE.stage, NODE.key) is not None, "its size is right"
        store.drop_damaged(store.find(NODE.stage, NODE.key))
        store.recover(NODE, partial, INPUTS)
        partial_files = {file.name for file in partial.rglob("*") if file.is_file()}
        assert partial_files == set()
        (partial / "sub").mkdir(parents=True, exist_ok=True)
        (partial / "sub" / "values.bin").write_bytes(b"0123456789")
        again = store.commit(NODE, partial, {}, 1.0)
    assert set(again.manifest["files"]) == {"sub/values.bin"}
    (kept,) = (tmp_path / ".trash").rglob("notes.txt")
    assert kept.read_text() == "somebody's own"


def test_nothing_in_the_trash_is_deleted_or_replaced_by_a_second_result_of_the_same_second(
    store, monkeypatch
):
    times = iter(["20260101T000000"] * 2 + ["20260101T000001"])
    monkeypatch.setattr(backend, "now", lambda: next(times))
    for text in ("first", "second"):
        commit(store)
        store.backend.write(f"{name()}/notes.txt", text.encode())
        store.backend.delete(VALUES)
    commit(store)
    for second, text in (("20260101T000000", b"first"), ("20260101T000001", b"second")):
        file = f".trash/{second}/{name()}/notes.txt"
        assert store.backend.read({file: Entry(0, 0)}) == {file: text}


def test_files_beside_a_damaged_result_of_an_object_store_are_kept_too(remote):
    store = open_store(remote)
    commit(store)
    store.backend.write(f"{name()}/notes.txt", b"somebody's own")
    store.backend.delete(VALUES)
    commit(store)
    assert set(store.backend.tree(name())) == {"sub/values.bin", MANIFEST}
    assert [file for file in store.backend.tree(".trash") if file.endswith(f"{name()}/notes.txt")]


def test_records_of_failures_that_are_none_are_left_out(store):
    for content in (b"{}", b"[1]", b"[" * 100_000, b'{"error": 1, "traceback": ""}'):
        store.backend.write(f".failed/{NODE.key[:20]}.json", content)
        assert store.failures([NODE.key]) == {}


def test_scores_that_were_damaged_are_dropped_before_a_run(tmp_path):
    """Nothing in a run reads them, so that they would stay."""
    planned = planner.plan(study_file.parse("name: s", "x.yaml"), DATA)
    nodes = list(planned.nodes.values())
    (score,) = [node for node in nodes if node.stage == "score"]
    store = Store(tmp_path)
    for node in (NODE, score):
        commit(store, node)
    assert store.drop_damaged_scores(nodes) == []
    for node in (NODE, score):
        store.backend.write(f"{name(node)}/sub/values.bin", b"0123456780")
    assert store.drop_damaged_scores(nodes) == [f"{name(score)}/sub/values.bin"]
    assert store.cached(nodes) == {NODE.key}, "inputs are checked by the stages that read them"
