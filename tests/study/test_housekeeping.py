"""What a store holds, whether it's whole and what of it nothing needs: in a directory and on S3."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from chexseg import cli
from chexseg.manifest import MANIFEST
from chexseg.stages import imported, ingest
from chexseg.study import housekeeping, plan, spec
from tests.study.places import DATA, NODE, another_host, commit, name

OLD = plan.node_of("ingest", ingest.Config(split="train", size=64), {}, "older data")
ENCODER = plan.node_of("imported", imported.Config(kind="imagenet", architecture="resnet18", sha256="0" * 64), {})
STUDY = plan.plan(spec.parse("name: s", "x.yaml"), DATA)


def silent(done: int, total: int, unit: str) -> None:
    pass


def test_the_contents_are_what_was_committed(store):
    commit(store)
    commit(store, ENCODER, b"x" * 2000)
    store.backend.write(f"{name(OLD)}/upload", b"of a run that was killed")
    first, *others = housekeeping.contents(store)
    assert (first.name, first.key, first.seconds) == (name(ENCODER), ENCODER.key, 1.5)
    assert first.bytes == 2000 + store.backend.tree(name(ENCODER))[MANIFEST].size
    assert {content.name: content.key for content in others} == {name(OLD): None, name(NODE): NODE.key}
    text = housekeeping.table([first, *others])
    assert "3 artifacts" in text.splitlines()[-1]
    assert sum("no manifest" in line for line in text.splitlines()) == 1
    assert {content.row()["state"] for content in others} == {"no manifest", "finished"}


def test_a_whole_store_is_verified_and_every_damage_found(store):
    commit(store)
    commit(store, OLD)
    commit(store, ENCODER)
    told = []
    found = housekeeping.verify(store, lambda *progress: told.append(progress))
    assert (found.artifacts, found.files, found.bytes, found.damaged, found.unfinished) == (3, 3, 30, [], [])
    assert told[-1] == (30, 30, "bytes")
    store.backend.write(f"{name(NODE)}/sub/values.bin", b"9876543210")
    store.backend.delete(f"{name(OLD)}/sub/values.bin")
    store.backend.delete(f"{name(ENCODER)}/{MANIFEST}")
    with store.working_on(ENCODER) as partial:
        partial.mkdir()
    found = housekeeping.verify(store, silent)
    assert sorted(found.damaged) == sorted(
        [f"{name(NODE)}/sub/values.bin: not what its manifest says", f"{name(OLD)}/sub/values.bin: gone"]
    )
    assert found.unfinished == [name(ENCODER), str(partial)]
    assert "2 damaged" in found.text()


def test_a_manifest_in_anothers_place_is_damage(store):
    commit(store)
    for file in (MANIFEST, "sub/values.bin"):
        content = store.backend.read({f"{name(NODE)}/{file}": store.backend.tree(name(NODE))[file]})
        store.backend.write(f"{name(OLD)}/{file}", *content.values())
    assert housekeeping.verify(store, silent).damaged == [f"{name(OLD)}: its manifest is of another key, {NODE.key[:20]}"]


def test_only_what_no_study_needs_is_waste_and_it_goes_with_all_that_belongs_to_it(store):
    for node in (NODE, OLD, ENCODER):
        commit(store, node)
    store.record_failure(OLD, "ValueError: no", "Traceback ...")
    store.backend.write("notes.txt", b"somebody's own")
    with store.working_on(OLD) as partial:
        partial.mkdir()
        (partial / "half").write_bytes(b"x" * 100)
    (one,) = housekeeping.waste(store, [STUDY])
    assert one.name == name(OLD)
    assert one.bytes == sum(entry.size for entry in store.backend.tree(name(OLD)).values()) + 100
    assert {waste.name for waste in housekeeping.waste(store, [STUDY], imported=True)} == {name(OLD), name(ENCODER)}
    assert housekeeping.remove(store, [one], silent) == []
    assert store.find("ingest", OLD.key) is None and store.failure(OLD.key) is None
    assert store.backend.tree(name(OLD)) == {} and store.backend.partials() == {}
    assert store.cached([NODE, ENCODER]) == {NODE.key, ENCODER.key}
    assert "notes.txt" in store.backend.tree("")
    assert housekeeping.waste(store, [STUDY]) == []


HOLD = """
import sys, time
from tests.study.places import open_store
from tests.study.test_housekeeping import OLD
with open_store(sys.argv[1]).working_on(OLD):
    print("entered", flush=True)
    time.sleep(60)
"""


def test_what_another_process_works_on_stays(place, store, tmp_path):
    commit(store, OLD)
    (one,) = housekeeping.waste(store, [STUDY])
    other = another_host(HOLD, place, tmp_path / "other")
    try:
        assert other.stdout.readline() == "entered\n"
        assert housekeeping.remove(store, [one], silent) == [one]
        assert store.find("ingest", OLD.key) is not None
    finally:
        other.kill()
        other.wait()


# ---- the commands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("name: s")
    return path


def run(*arguments: object, **options):
    return CliRunner().invoke(cli.app, list(map(str, arguments)), **options)


def test_the_commands_say_what_is_there_and_what_is_damaged(place, store):
    commit(store)
    listed = run("store", "list", "--store", place)
    assert listed.exit_code == 0
    assert f"ingest     {NODE.key[:20]}" in listed.output and listed.output.splitlines()[-1].startswith("1 artifacts, ")
    (row,) = json.loads(run("store", "list", "--store", place, "--json").output)
    assert (row["stage"], row["key"], row["seconds"], row["state"]) == ("ingest", NODE.key, 1.5, "finished")
    assert run("store", "verify", "--store", place, "--quiet").exit_code == 0
    store.backend.write(f"{name(NODE)}/sub/values.bin", b"9876543210")
    verified = run("store", "verify", "--store", place, "--quiet")
    assert verified.exit_code == 1
    assert f"damaged: {name(NODE)}/sub/values.bin" in verified.output


def test_gc_shows_asks_and_deletes(place, store, study, phantom_root):
    commit(store, OLD)
    arguments = ("store", "gc", study, "--data", phantom_root, "--store", place)
    refused = run(*arguments)
    assert "there is nobody to ask; allowed: --yes" in str(refused.exception)
    assert f"{name(OLD)}" in refused.output and "1 artifacts, " in refused.output
    assert store.find("ingest", OLD.key) is not None
    done = run(*arguments, "--yes", "--quiet")
    assert done.exit_code == 0 and "1 artifacts deleted" in done.output
    assert store.find("ingest", OLD.key) is None
    assert "0 artifacts" in run(*arguments).output


@pytest.mark.parametrize(("answer", "stays"), [("n\n", True), ("y\n", False)])
def test_gc_on_a_terminal_does_as_it_is_told(tmp_path, study, phantom_root, monkeypatch, answer, stays):
    from chexseg.study.store import Store

    store = Store(tmp_path / "store")
    commit(store, OLD)
    monkeypatch.setattr(cli.store, "_on_terminal", lambda: True)
    done = run("store", "gc", study, "--data", phantom_root, "--store", store.root, "--quiet", input=answer)
    assert done.exit_code == (1 if stays else 0)
    assert (store.find("ingest", OLD.key) is not None) == stays
