"""Test what `store gc` shows, asks and moves, and what a run holds meanwhile."""

from __future__ import annotations

import contextlib
import shutil

import pytest
from typer.testing import CliRunner

from chexseg import cli, resolve
from chexseg.config import study_file
from chexseg.errors import UserError
from chexseg.plan import garbage, planner
from chexseg.plan.graph import Node
from chexseg.store import marker
from chexseg.store.store import Store
from tests.plan.test_garbage import OLD
from tests.search.searches import SEARCH
from tests.store.places import DATA, commit, name


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("name: s")
    return path


def run(*arguments: object, **options):
    return CliRunner().invoke(cli.app, list(map(str, arguments)), **options)


def commit_ingests(store: Store, data) -> list[Node]:
    """Finish the ingests of a study, so that the store knows its data."""
    nodes = planner.plan(
        study_file.parse("name: s", "x.yaml"), planner.fingerprints(data)
    ).nodes.values()
    ingests = [node for node in nodes if node.stage == "ingest"]
    for node in ingests:
        commit(store, node)
    return ingests


def test_gc_shows_asks_and_moves_to_the_trash_which_can_be_emptied(
    place, store, study, phantom_root
):
    ingests = commit_ingests(store, phantom_root)
    commit(store, OLD)
    marker.mark(store)
    arguments = ("store", "gc", study, "--data", phantom_root, "--store", place)
    refused = run(*arguments)
    assert "can't ask for confirmation; hint: --yes" in str(refused.exception)
    assert f"{name(OLD)}" in refused.output and "1 artifact, " in refused.output
    assert store.find("ingest", OLD.key) is not None
    done = run(*arguments, "--yes", "--quiet")
    assert done.exit_code == 0 and "1 artifact moved to " in done.output
    assert store.find("ingest", OLD.key) is None
    assert "0 artifacts" in run(*arguments).output
    refused = run("store", "gc", "--empty-trash", "--store", place)
    assert (
        "can't ask for confirmation; hint: --yes" in str(refused.exception)
        and "1 collection, " in refused.output
    )
    emptied = run("store", "gc", "--empty-trash", "--store", place, "--yes")
    assert emptied.exit_code == 0 and "1 collection deleted" in emptied.output
    assert store.backend.tree(".trash") == {}
    assert store.cached(ingests) == {node.key for node in ingests}


@pytest.mark.parametrize(("answer", "stays"), [("n\n", True), ("y\n", False)])
def test_gc_on_a_terminal_does_as_it_is_told(
    tmp_path, study, phantom_root, monkeypatch, answer, stays
):
    store = Store(tmp_path / "store")
    commit_ingests(store, phantom_root)
    commit(store, OLD)
    marker.mark(store)
    monkeypatch.setattr(cli.store, "_on_terminal", lambda: True)
    done = run(
        "store",
        "gc",
        study,
        "--data",
        phantom_root,
        "--store",
        store.backend.local,
        "--quiet",
        input=answer,
    )
    assert done.exit_code == (1 if stays else 0)
    assert (store.find("ingest", OLD.key) is not None) == stays


def test_gc_does_nothing_where_no_marker_is(tmp_path, study, phantom_root):
    (tmp_path / "fit" / "thesis").mkdir(parents=True)
    chapter = tmp_path / "fit" / "thesis" / "chapter1.tex"
    chapter.write_text("\\chapter{One}")
    for arguments in ((study, "--data", phantom_root), ("--empty-trash",)):
        refused = run("store", "gc", *arguments, "--store", tmp_path, "--yes")
        assert isinstance(refused.exception, UserError)
        assert "found no chexseg-store.json" in str(refused.exception) and "study run" in str(
            refused.exception
        )
    (tmp_path / "chexseg-store.json").write_text('{"layout": 2}')
    refused = run("store", "gc", study, "--data", phantom_root, "--store", tmp_path, "--yes")
    assert "found another layout; expected: layout 1" in str(refused.exception)
    assert chapter.exists()


@pytest.mark.parametrize("damage", ["not mounted", "one image gone"])
def test_gc_asks_twice_where_the_data_is_not_what_the_results_were_made_from(
    tmp_path, study, phantom_root, monkeypatch, damage
):
    store, data = Store(tmp_path / "store"), tmp_path / "data"
    shutil.copytree(phantom_root, data)
    ingests = commit_ingests(store, data)
    marker.mark(store)
    (images,) = data.glob("CheXpert-v1.0*/train")
    if damage == "not mounted":
        shutil.rmtree(images)
    else:
        next(images.rglob("*.jpg")).unlink()
    arguments = ("store", "gc", study, "--data", data, "--store", store.backend.local, "--quiet")
    refused = run(*arguments, "--yes")
    assert isinstance(refused.exception, UserError), refused.output
    assert "was made from its current train data" in str(
        refused.exception
    ) and "--other-data" in str(refused.exception)
    monkeypatch.setattr(cli.store, "_on_terminal", lambda: True)
    assert run(*arguments, input="y\nn\n").exit_code == 1
    assert store.cached(ingests) == {node.key for node in ingests}
    done = run(*arguments, "--yes", "--other-data")
    assert done.exit_code == 0 and "1 artifact moved" in done.output


def test_gc_says_what_it_needs(tmp_path, study):
    store = Store(tmp_path / "store")
    marker.mark(store)
    for arguments in ((), (study,), ("--data", tmp_path)):
        assert "expected: STUDY.yaml" in str(
            run("store", "gc", *arguments, "--store", store.backend.local).exception
        )
    assert "expected: neither" in str(
        run("store", "gc", study, "--empty-trash", "--store", store.backend.local).exception
    )


def test_marking_keeps_a_marker_and_a_store_that_can_only_be_read(tmp_path, monkeypatch):
    store = Store(tmp_path / "store")

    def refuse(name: str, content: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store.backend, "write", refuse)
    marker.mark(store)
    monkeypatch.undo()
    with pytest.raises(UserError, match="found no chexseg-store.json"):
        marker.check_marked(store)
    marker.mark(store)
    marker.check_marked(store)
    written = (store.backend.local / marker.MARKER).stat().st_mtime_ns
    marker.mark(store)
    assert (store.backend.local / marker.MARKER).stat().st_mtime_ns == written


@pytest.mark.heavy
@pytest.mark.parametrize(
    "text", ["name: s\nsettings: {labels: {p: 1}}", SEARCH], ids=["grid", "search"]
)
def test_a_run_holds_what_its_plan_needs_until_it_ends(phantom_root, tmp_path, monkeypatch, text):
    """With stand-ins for Ray and for what it would compute."""
    from chexseg import launch
    from chexseg.data import remote_path
    from chexseg.progress import Quiet
    from chexseg.run import cluster, scheduler, start_checks
    from chexseg.run.run_record import RunResult
    from chexseg.search import searcher

    path = tmp_path / "s.yaml"
    path.write_text(text)
    store, data = Store(tmp_path / "store"), remote_path.at(phantom_root)
    ingests = commit_ingests(store, phantom_root)
    counts = ["labels.weak_images=4", "labels.expert_split={train: 6, select: 4}"]
    (meant,) = resolve.read([path], data, store, counts)
    another = planner.plan(study_file.parse("name: t", "t.yaml"), DATA)
    surveys = []

    def look(*arguments: object) -> RunResult:
        surveys.append(garbage.survey(store, [another]))
        return RunResult()

    monkeypatch.setattr(cluster, "cluster", lambda address: contextlib.nullcontext())
    monkeypatch.setattr(cluster, "describe", list)
    monkeypatch.setattr(start_checks, "check_nodes", lambda: None)
    capacity = cluster.Capacity(cpus=2, gpus=0, node_cpus=2, node_gpus=0)
    monkeypatch.setattr(cluster.Capacity, "of_cluster", lambda limits: capacity)
    monkeypatch.setattr(scheduler, "run", look)
    monkeypatch.setattr(searcher, "run_search", look)
    launch.launch(meant, store, data, Quiet())
    (found,) = surveys
    assert found.waste == [] and len(found.kept) == 1
    assert found.kept[0].count("ingest/") == 3 and "which the run of s on" in found.kept[0]
    assert len(garbage.survey(store, [another]).waste) == len(ingests)
    assert store.backend.tree(".live") == {}


def test_running_a_complete_study_marks_its_store(phantom_root, tmp_path):
    from chexseg import launch
    from chexseg.data import remote_path
    from chexseg.progress import Quiet

    path = tmp_path / "s.yaml"
    path.write_text("name: s\nsettings: {labels: {p: 1}}")
    store, data = Store(tmp_path / "store"), remote_path.at(phantom_root)
    (planned,) = resolve.read([path], data, store)
    for node in planned.needed(()):
        commit(store, node, facts={"selection_miou": None})
    assert launch.launch(planned, store, data, Quiet()).computed == {}
    marker.check_marked(store)
