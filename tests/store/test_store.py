"""The store, in a directory and on S3: complete means the manifest is there and its files are as it says."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from chexseg.config import study_file
from chexseg.errors import DamagedArtifactError, LeaseLostError, UserError
from chexseg.plan import planner
from chexseg.store import backend, links, local_backend, manifest
from chexseg.store.backend import Entry
from chexseg.store.lease import Timing
from chexseg.store.links import open_regular
from chexseg.store.manifest import MANIFEST, UnreadableManifestError
from chexseg.store.store import Store
from tests.store.places import (
    DATA,
    FAST,
    INPUTS,
    NODE,
    another_host,
    commit,
    name,
    open_store,
    result_path,
)

VALUES = f"{name()}/sub/values.bin"


def damage_manifest(store: Store, change) -> None:
    path = f"{name()}/{MANIFEST}"
    content = store.backend.read({path: store.backend.tree(name())[MANIFEST]})[path]
    store.backend.write(path, change(content))


def test_a_committed_result_is_found_with_its_facts(store):
    assert store.find(NODE.stage, NODE.key) is None
    made = commit(store)
    found = store.find(NODE.stage, NODE.key)
    assert found is not None
    assert found.facts["images"] == 3
    assert found.manifest == made.manifest
    assert found.manifest["config"] == dict(NODE.config)
    assert set(found.manifest["files"]) == {"sub/values.bin"}
    assert (found.path / "sub" / "values.bin").read_bytes() == b"0123456789"
    assert store.cached([NODE]) == {NODE.key}
    assert store.backend.partials() == {}


@pytest.mark.parametrize("damage", ["no manifest", "file gone", "file cut", "another key"])
def test_an_incomplete_artifact_is_never_a_result_and_is_replaced(store, damage):
    commit(store)
    if damage == "no manifest":
        store.backend.delete(f"{name()}/{MANIFEST}")
    elif damage == "file gone":
        store.backend.delete(VALUES)
    elif damage == "file cut":
        store.backend.write(VALUES, b"01234")
    else:
        damage_manifest(
            store,
            lambda content: json.dumps(
                manifest.seal(json.loads(content) | {"key": "0" * 64})
            ).encode(),
        )
    assert store.find(NODE.stage, NODE.key) is None
    assert store.cached([NODE]) == set()
    commit(store)
    assert store.find(NODE.stage, NODE.key) is not None


@pytest.mark.parametrize(
    "change", [lambda content: content[:80], lambda content: b"", lambda content: b"[1]"]
)
def test_an_unreadable_manifest_is_an_error_and_not_a_result_to_be_computed_anew(store, change):
    commit(store)
    damage_manifest(store, change)
    for ask in (
        lambda: store.find(NODE.stage, NODE.key),
        lambda: store.cached([NODE]),
        lambda: store.artifacts(),
    ):
        with pytest.raises(
            UnreadableManifestError, match=f"{name()}/{MANIFEST}: .*expected: a manifest"
        ):
            ask()
    with store.working_on(NODE) as partial, pytest.raises(UnreadableManifestError):
        store.recover(NODE, partial, INPUTS)
    assert isinstance(store.scan()[name()][1], UnreadableManifestError), (
        "it is listed, with why it can't be read"
    )
    store.backend.delete(f"{name()}/{MANIFEST}")
    commit(store)
    assert store.find(NODE.stage, NODE.key) is not None


def test_reading_creates_nothing(place, store, tmp_path):
    store.find(NODE.stage, NODE.key)
    store.failures([NODE.key])
    store.cached([NODE])
    store.imported()
    store.scan()
    if "://" not in place:
        assert list(tmp_path.iterdir()) == []
    assert store.backend.tree("") == {}


def test_what_failed_is_remembered_until_it_succeeds(store):
    assert store.failures([NODE.key]) == {}
    store.record_failure(NODE, "ValueError: no", "Traceback ...")
    failure = store.failures([NODE.key])[NODE.key]
    assert failure["error"] == "ValueError: no"
    store.record_failure(NODE, "ValueError: another", "Traceback ...")
    assert store.failures(["0" * 64, NODE.key])[NODE.key]["error"] == "ValueError: another"
    commit(store)
    assert store.failures([NODE.key]) == {}


def test_many_are_looked_up_as_one_is(store):
    nodes = [
        *planner.plan(
            study_file.parse("name: s\naxes: {labels.p: [0, 0.5, 1]}", "x.yaml"), DATA
        ).nodes.values()
    ]
    ingests = [node for node in nodes if node.stage == "ingest"]
    assert len(ingests) == 3 and len(nodes) > 6
    for node in ingests[:2]:
        commit(store, node, node.key.encode())
    store.backend.write(f"{name(ingests[1])}/sub/values.bin", b"cut")
    found = store.find_all(nodes)
    assert set(found) == store.cached(nodes) == {ingests[0].key}
    assert found[ingests[0].key].manifest == store.find("ingest", ingests[0].key).manifest


HOLD = """
import sys, time
from tests.store.places import NODE, open_store
with open_store(sys.argv[1]).working_on(NODE):
    print("entered", flush=True)
    time.sleep(60)
"""


def test_one_process_at_a_time_and_a_dead_one_keeps_nobody_waiting(place, tmp_path):
    first = another_host(HOLD, place, tmp_path / "first")
    try:
        assert first.stdout.readline() == "entered\n"
        second = another_host(HOLD, place, tmp_path / "second")
        try:
            entered = threading.Thread(target=second.stdout.readline)
            entered.start()
            entered.join(6)  # longer than a claim lives that nobody keeps
            assert entered.is_alive()
            first.kill()
            entered.join(40)
            assert not entered.is_alive()
            assert second.poll() is None
        finally:
            second.kill()
            second.wait()
    finally:
        first.kill()
        first.wait()


CONTEND = """
import sys, time
from pathlib import Path
from tests.store.places import NODE, commit, open_store
from chexseg.plan.graph import node_of
from chexseg.stages.configs import IngestConfig
store = open_store(sys.argv[1])
for size in (64, 128):
    inside = Path(f"{sys.argv[2]}-{size}")
    node = node_of("ingest", IngestConfig(split="train", size=size), {}, "x")
    with store.working_on(node) as partial:
        inside.open("x").close()  # fails if another process is inside too
        if store.find(node.stage, node.key) is None:
            partial.mkdir(parents=True)
            (partial / "values").write_text("x" * 1000)
            time.sleep(0.3)
            store.commit(node, partial, {}, 1.0)
            print(size, flush=True)
        inside.unlink()
"""


def test_contending_processes_compute_each_result_once_and_one_at_a_time(place, tmp_path):
    contenders = [
        another_host(CONTEND, place, tmp_path / str(n), str(tmp_path / "inside")) for n in range(4)
    ]
    try:
        said = [contender.communicate(timeout=120)[0].split() for contender in contenders]
    finally:
        for contender in contenders:
            contender.kill()
    assert [contender.returncode for contender in contenders] == [0] * 4
    assert sorted(size for sizes in said for size in sizes) == ["128", "64"]


def test_what_a_killed_writer_left_is_no_part_of_the_result(store):
    with store.working_on(NODE) as partial:
        partial.mkdir(parents=True)
        for file in (MANIFEST, ".part-00000.parquet.123", "resume.writing"):
            (partial / file).write_text("old")
    assert list(store.backend.partials()) == [f"{NODE.stage}-{NODE.key[:20]}"]
    store.backend.write(f"{name()}/from-before", b"of an upload that was killed")
    commit(store)
    assert store.find(NODE.stage, NODE.key) is not None
    assert set(store.backend.tree(name())) == {MANIFEST, "sub/values.bin"}


def test_a_store_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="found a file; expected: a directory"):
        Store(tmp_path / "file")
    with pytest.raises(
        UserError,
        match="--store ftp://host/x: .*; expected: a directory, or a URI such as s3://bucket/prefix",
    ):
        Store("ftp://host/x")
    with pytest.raises(UserError, match="--store s3://: found no bucket"):
        Store("s3://any:secret@")


def test_a_file_uri_is_a_directory(tmp_path):
    commit(Store(tmp_path / "a store"))
    found = Store(f"file://{tmp_path}/a%20store").find(NODE.stage, NODE.key)
    assert found is not None and found.path.is_relative_to(tmp_path / "a store")


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
    found = store.find(NODE.stage, NODE.key)
    assert found is not None
    store.drop_damaged(found)
    assert store.find(NODE.stage, NODE.key) is None


def test_names_and_links_that_lead_out_of_a_store_are_not_followed(tmp_path):
    """What a manifest of others names, what their links lead to: none of it is read, written or deleted."""
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


def test_no_message_holds_the_credentials(s3):
    store = Store(s3("prefix"))
    assert str(store) == "s3://bucket/prefix"
    with pytest.raises(UserError) as caught:
        Store("s3://any:secret@bucket/prefix?endpoint_override=127.0.0.1%3A9&scheme=http").find(
            NODE.stage, NODE.key
        )
    assert str(caught.value).startswith("--store s3://bucket/prefix: ")
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


# ---- what only an object store has to do ---------------------------------------------------------------------------------


@pytest.fixture
def remote(s3, tmp_path) -> str:
    return s3(f"remote/{tmp_path.name}")


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """`open_store` on another host: one with copies of its own."""

    def open_there(place: str, timing: Timing = FAST) -> Store:
        monkeypatch.setenv("CHEXSEG_CACHE", str(tmp_path / "elsewhere"))
        return open_store(place, timing)

    return open_there


def test_another_host_fetches_the_files_once_and_only_when_they_are_read(s3, remote, elsewhere):
    commit(open_store(remote))
    there = elsewhere(remote)
    s3.requests()
    found = there.find(NODE.stage, NODE.key)
    assert not any("values.bin" in line for line in s3.requests())
    assert (found.path / "sub" / "values.bin").read_bytes() == b"0123456789"
    assert any("values.bin" in line for line in s3.requests())
    assert there.find(NODE.stage, NODE.key).path == found.path
    requests = s3.requests()
    assert len(requests) == 1, "the manifest is kept, and so is what was fetched"


def test_a_copy_that_is_damaged_is_fetched_again_and_another_result_is_another_copy(
    remote, elsewhere
):
    here = open_store(remote)
    commit(here)
    there = elsewhere(remote)
    path = there.find(NODE.stage, NODE.key).path
    (path / "sub" / "values.bin").write_bytes(b"01")
    assert (
        there.find(NODE.stage, NODE.key).path / "sub" / "values.bin"
    ).read_bytes() == b"0123456789"
    (path / "sub" / "values.bin").write_bytes(b"of its size")
    there.drop_damaged(there.find(NODE.stage, NODE.key))
    assert (
        there.find(NODE.stage, NODE.key).path / "sub" / "values.bin"
    ).read_bytes() == b"0123456789"
    time.sleep(1.1)  # the manifest's time is what tells the two apart
    commit(here, content=b"another result")
    assert (
        there.find(NODE.stage, NODE.key).path / "sub" / "values.bin"
    ).read_bytes() == b"another result"


def test_damaged_manifests_of_this_hosts_copies_are_fetched_again(remote, elsewhere):
    """The store is whole, so nobody should be told to delete anything there."""
    commit(open_store(remote))
    there = elsewhere(remote)
    path = there.find(NODE.stage, NODE.key).path
    (kept,) = there.backend.cache.glob(f"documents/*/*/{MANIFEST}")
    times = kept.stat().st_atime_ns, kept.stat().st_mtime_ns
    for damaged in (path / MANIFEST, kept):
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
    os.utime(kept, ns=times)
    again = there.find(NODE.stage, NODE.key)
    manifest.verify(again.path / "sub" / "values.bin")
    assert manifest.load(again.path) == again.manifest


def test_what_was_damaged_on_the_store_is_found_when_it_is_fetched(remote, elsewhere):
    commit(open_store(remote))
    there = elsewhere(remote)
    there.backend.write(VALUES, b"damaged!!!")
    with pytest.raises(DamagedArtifactError, match="values.bin: damaged since it was written"):
        assert there.find(NODE.stage, NODE.key).path
    there.drop_damaged(there.find(NODE.stage, NODE.key))
    assert there.find(NODE.stage, NODE.key) is None


def test_a_process_that_was_taken_for_dead_keeps_its_hands_off_anothers_result(remote, elsewhere):
    paused = open_store(remote, Timing(settle=1.1, heartbeat=1000, expiry=3, poll=0.5))
    there = elsewhere(remote, Timing(settle=1.1, heartbeat=0.5, expiry=3, poll=0.5))
    with paused.working_on(NODE) as partial:
        partial.mkdir(parents=True)
        (partial / "values").write_text("the first's")
        with there.working_on(NODE) as theirs:
            with pytest.raises(LeaseLostError, match="another has taken the work over"):
                paused.commit(NODE, partial, {}, 1.0)
            assert there.find(NODE.stage, NODE.key) is None
            theirs.mkdir(parents=True)
            (theirs / "values").write_text("the second's")
            there.commit(NODE, theirs, {}, 1.0)
        assert (paused.commit(NODE, partial, {}, 1.0).path / "values").read_text() == "the second's"
    assert open_store(remote).backend.tree(".claims") == {}


def test_waiting_asks_little_and_leaves_nothing(s3, remote, elsewhere):
    here, there = (
        open_store(remote),
        elsewhere(remote, Timing(settle=1.1, heartbeat=2, expiry=30, poll=2)),
    )
    over = threading.Event()

    def wait() -> None:
        with there.working_on(NODE):
            over.set()

    waiting = threading.Thread(target=wait)
    with here.working_on(NODE):
        waiting.start()
        time.sleep(3)
        s3.requests()
        time.sleep(6)
        owners = {owner for owner in here.backend.tree(".claims") if not owner.endswith(".beat")}
        other = next(owner for owner in owners if owner != here.backend.leases[name()].name)
        lines = s3.requests()
        assert not over.is_set()
    waiting.join(30)
    assert over.is_set()
    beats = sum(f"{other}.beat" in line for line in lines)
    assert 2 <= beats <= 4
    assert here.backend.tree(".claims") == {}


def test_a_plan_of_45_cells_is_looked_up_with_few_requests(s3, remote):
    text = (
        Path(__file__).resolve().parents[2] / "studies" / "improved" / "semi_supervised.yaml"
    ).read_text()
    planned = planner.plan(study_file.parse(text, "x.yaml"), DATA)
    store = open_store(remote)
    s3.requests()
    assert store.cached(planned.nodes.values()) == set()
    stages = {node.stage for node in planned.nodes.values()}
    assert len(s3.requests()) <= 2 * len(stages)
