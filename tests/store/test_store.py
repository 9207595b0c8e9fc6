"""Test the store, in a directory and on S3: complete results have a manifest and its files."""

from __future__ import annotations

import json
import threading

import pytest

from chexseg.config import study_file
from chexseg.errors import UserError
from chexseg.plan import planner
from chexseg.store import manifest
from chexseg.store.manifest import MANIFEST, UnreadableManifestError
from chexseg.store.store import Store
from tests.store.places import (
    DATA,
    INPUTS,
    NODE,
    VALUES,
    another_host,
    commit,
    name,
)


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
