"""Test that `store gc` takes only what no study needs, no run holds and a manifest names."""

from __future__ import annotations

import json
import shutil
import time

import pytest

from chexseg.config import study_file
from chexseg.errors import UserError
from chexseg.plan import garbage, planner
from chexseg.plan.graph import node_of
from chexseg.search import journal, status
from chexseg.search.optuna_study import OptunaStudy
from chexseg.stages.configs import ImportedConfig, IngestConfig
from chexseg.store import live_runs
from chexseg.store import manifest as manifests
from chexseg.store.store import Store
from tests.search.searches import SEARCH, finish, searched
from tests.store.places import DATA, NODE, another_host, commit, name, result_path

OLD = node_of("ingest", IngestConfig(split="train", size=64), {}, "older data")
ENCODER = node_of(
    "imported", ImportedConfig(kind="imagenet", architecture="resnet18", sha256="0" * 64), {}
)
STUDY = planner.plan(study_file.parse("name: s", "x.yaml"), DATA)


def silent(done: int, total: int, unit: str) -> None:
    pass


def test_only_what_no_study_needs_is_waste_and_it_goes_with_all_that_belongs_to_it(store):
    for node in (NODE, OLD, ENCODER):
        commit(store, node)
    store.record_failure(OLD, "ValueError: no", "Traceback ...")
    store.backend.write("notes.txt", b"somebody's own")
    with store.working_on(OLD) as partial:
        partial.mkdir()
        (partial / "half").write_bytes(b"x" * 100)
    found = garbage.survey(store, [STUDY])
    (one,) = found.waste
    assert (one.name, found.kept) == (name(OLD), [])
    assert one.bytes == sum(entry.size for entry in store.backend.tree(name(OLD)).values()) + 100
    assert {waste.name for waste in garbage.survey(store, [STUDY], imported=True).waste} == {
        name(OLD),
        name(ENCODER),
    }
    _, kept = garbage.collect(store, [one], silent)
    assert kept == []
    assert store.find("ingest", OLD.key) is None and store.failures([OLD.key]) == {}
    assert store.backend.tree(name(OLD)) == {} and store.backend.partials() == {}
    assert store.cached([NODE, ENCODER]) == {NODE.key, ENCODER.key}
    assert "notes.txt" in store.backend.tree("")
    assert garbage.survey(store, [STUDY]).waste == []


def test_what_is_moved_back_is_a_result_again_and_the_trash_can_be_emptied(store):
    commit(store, OLD)
    with store.working_on(OLD) as partial:
        partial.mkdir()
        (partial / "half").write_bytes(b"x" * 100)
    folder, _ = garbage.collect(store, garbage.survey(store, [STUDY]).waste, silent)
    trashed = store.backend.tree(f"{folder}/{name(OLD)}")
    assert garbage.collections(store) == {
        folder: sum(entry.size for entry in trashed.values()) + 100
    }
    files = store.backend.read(
        {f"{folder}/{name(OLD)}/{file}": entry for file, entry in trashed.items()}
    )
    for file, content in files.items():  # as `mv` or `aws s3 mv` does
        store.backend.write(file.removeprefix(f"{folder}/"), content)
    assert (
        store.find("ingest", OLD.key).path.joinpath("sub", "values.bin").read_bytes()
        == b"0123456789"
    )
    store.backend.write(".trash/mine/kept", b"somebody's own")
    garbage.empty_trash(store, garbage.collections(store))
    assert garbage.collections(store) == {} and list(store.backend.tree(".trash")) == ["mine/kept"]
    assert not (store.backend.local / folder).exists()
    assert store.find("ingest", OLD.key) is not None


def test_two_may_collect_the_same_garbage(store):
    commit(store, OLD)
    waste = garbage.survey(store, [STUDY]).waste
    assert (
        garbage.collect(store, waste, silent)[1] == garbage.collect(store, waste, silent)[1] == []
    )
    assert len(garbage.collections(store)) == 1


def test_files_that_no_manifest_names_stay_and_are_named(store):
    commit(store, OLD)
    store.backend.write(f"{name(OLD)}/sub/notes.txt", b"somebody's own")
    store.backend.write("fit/thesis/chapter1.tex", b"\\chapter{One}")
    store.backend.write("fit/other/manifest.json", b'{"files": {"a": 1}}')
    found = garbage.survey(store, [STUDY])
    assert sorted(found.kept) == [
        "fit/other: manifest.json, which no manifest of chexseg names",
        "fit/thesis: chapter1.tex, which no manifest of chexseg names",
        f"{name(OLD)}: sub/notes.txt, which no manifest of chexseg names",
    ]
    assert [one.name for one in found.waste] == [name(OLD)]
    garbage.collect(store, found.waste, silent)
    assert list(store.backend.tree(name(OLD))) == ["sub/notes.txt"]
    assert store.backend.tree("fit").keys() == {"other/manifest.json", "thesis/chapter1.tex"}


@pytest.mark.parametrize(
    "file", ["../../notes.txt", "/etc/hostname", "sub/../../../notes.txt", "./sub/values.bin"]
)
def test_a_manifest_cannot_name_files_elsewhere(tmp_path, file):
    store = Store(tmp_path / "store")
    commit(store, OLD)
    store.backend.write("notes.txt", b"somebody's own")
    path = result_path(store, "ingest", OLD.key) / "manifest.json"
    manifest = json.loads(path.read_text())
    entry = {"size": 1, "sha256": "0" * 64}
    path.write_text(json.dumps(manifests.seal(manifest | {"files": {file: entry}})))
    found = garbage.survey(store, [STUDY])
    assert found.waste == []
    assert found.kept == [
        f"{name(OLD)}: manifest.json, sub/values.bin, which no manifest of chexseg names"
    ]


def test_nothing_is_moved_through_a_link(tmp_path):
    store, outside = Store(tmp_path / "store"), tmp_path / "outside"
    commit(store, OLD)
    shutil.move(result_path(store, "ingest", OLD.key) / "sub", outside)
    (result_path(store, "ingest", OLD.key) / "sub").symlink_to(outside)
    (one,) = garbage.survey(store, [STUDY]).waste
    assert one.files == ("manifest.json",)
    garbage.collect(store, [one], silent)
    assert (outside / "values.bin").read_bytes() == b"0123456789"
    assert (result_path(store, "ingest", OLD.key) / "sub").is_symlink()
    shutil.rmtree(store.backend.local / ".trash")
    (store.backend.local / ".trash").symlink_to(outside)
    with pytest.raises(UserError, match="found a symbolic link"):
        garbage.empty_trash(store, [".trash/20260101T000000"])


def test_partial_directories_of_others_stay(tmp_path):
    store = Store(tmp_path)
    for folder in ("fit-thesis", "backup", f"backup-{'0' * 20}"):
        (tmp_path / ".partial" / folder).mkdir(parents=True)
    found = garbage.survey(store, [STUDY])
    assert found.waste == [] and len(found.kept) == 3


def test_a_partial_directory_that_is_a_link_is_not_walked(tmp_path):
    store, outside = Store(tmp_path / "store"), tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    partials = store.backend.local / ".partial"
    (partials / f"fit-{'0' * 20}").mkdir(parents=True)
    (partials / f"fit-{'0' * 20}" / "link").symlink_to(outside / "precious")
    (partials / f"fit-{'1' * 20}").symlink_to(outside)
    survey = garbage.survey(store, [STUDY])
    assert [item.name for item in survey.waste] == [f"fit/{'0' * 20}"] and survey.kept == []
    assert garbage.collect(store, survey.waste, silent)[1] == []
    assert (outside / "precious").read_text() == "precious"
    (partials / f"fit-{'1' * 20}").unlink()
    partials.rmdir()
    partials.symlink_to(outside)
    with pytest.raises(UserError, match="found a symbolic link"):
        garbage.survey(store, [STUDY])


HOLD = """
import sys, time
from tests.store.places import open_store
from tests.plan.test_garbage import OLD
with open_store(sys.argv[1]).working_on(OLD):
    print("entered", flush=True)
    time.sleep(60)
"""


def test_what_another_process_works_on_stays(place, store, tmp_path):
    commit(store, OLD)
    (one,) = garbage.survey(store, [STUDY]).waste
    other = another_host(HOLD, place, tmp_path / "other")
    try:
        assert other.stdout.readline() == "entered\n"
        _, kept = garbage.collect(store, [one], silent)
        assert kept == [f"{one.name}, which a process is computing"]
        assert store.find("ingest", OLD.key) is not None
    finally:
        other.kill()
        other.wait()


RUN = """
import sys, time
from chexseg.store import live_runs
from tests.store.places import open_store
from tests.plan.test_garbage import OLD
with live_runs.holding(open_store(sys.argv[1]), "another", [OLD]):
    print("entered", flush=True)
    time.sleep(60)
"""


def test_what_a_run_holds_stays_until_the_run_is_dead(place, store, tmp_path):
    """Also of a run that started after the survey, and on another host of an object store."""
    commit(store, OLD)
    waste = garbage.survey(store, [STUDY]).waste
    other = another_host(RUN, place, tmp_path / "other")
    try:
        assert other.stdout.readline() == "entered\n"
        found = garbage.survey(store, [STUDY])
        assert found.waste == [] and f"{name(OLD)}, which the run of another on" in found.kept[0]
        assert len(garbage.collect(store, waste, silent)[1]) == 1
        assert store.find("ingest", OLD.key) is not None
        assert len(store.backend.tree(".live")) == 1
    finally:
        other.kill()
        other.wait()
    if not store.backend.shared:
        time.sleep(store.backend.timing.expiry + 1)  # a claim lives on for so long
    assert garbage.collect(store, waste, silent)[1] == []
    assert store.find("ingest", OLD.key) is None
    assert store.backend.tree(".live") == {}, "the dead run's record is forgotten"


# ---- searches


def _searched_store(tmp_path) -> tuple[Store, set[str]]:
    """A store in which a search has finished one fit of two points, and the keys of these fits."""
    store = Store(tmp_path / "store")
    ledger = OptunaStudy(searched(), store)
    ledger.open()
    fits = set()
    for _ in range(2):
        trial, point = ledger.ask()
        planned = ledger.search.plan([point])
        finish(store, planned, planned.cells[0].fit, 0.5)
        fits.add(planned.cells[0].fit)
    return store, fits


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_the_fits_of_a_search_stay_although_its_journal_is_lost(tmp_path, damage):
    store, fits = _searched_store(tmp_path)
    path = journal.path_in(store)
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))
    partial = store.backend.local / ".partial" / f"fit-{'a' * 20}"
    partial.mkdir(parents=True)
    search = searched()
    found = garbage.survey(store, [status.planned(search, store, all_points=True)], searched=True)
    assert found.waste == []
    assert found.kept == [f".partial/{partial.name}, which may be a point of a search"]
    assert [fit.manifest["key"] for fit in store.artifacts("fit")] == sorted(fits)


def test_a_running_search_holds_all_that_is_made_of_what_its_points_share(tmp_path):
    store, fits = _searched_store(tmp_path)
    commit(store, OLD)
    other = node_of("fit", {**store.artifacts("fit")[0].manifest["config"]}, {"valid": OLD.key})
    commit(store, other)
    (store.backend.local / ".partial" / f"fit-{'a' * 20}").mkdir(parents=True)
    study = planner.plan(
        study_file.parse("name: s", "x.yaml"), {split: f"other {split}" for split in DATA}
    )
    with live_runs.holding(store, "s", searched(SEARCH).upstream().nodes.values(), searches=True):
        found = garbage.survey(store, [study])
        assert {one.name for one in found.waste} == {name(OLD), name(other)}
    assert len(garbage.survey(store, [study]).waste) == 2 + len(fits) + 1
