"""Run the demo study at its smallest size on a local Ray: stopped, damaged, resumed, reported."""

from __future__ import annotations

import re
import shutil
import threading
import time
from pathlib import Path

import pytest
import ray
import yaml

from chexseg.analysis import load
from chexseg.config import study_file
from chexseg.data import shards
from chexseg.plan import planner, status
from chexseg.progress import Quiet
from chexseg.run import scheduler, tune_trials
from chexseg.store.store import Store
from tests.report.rendered import publish
from tests.store.places import name, result_path

DEMO = Path(__file__).resolve().parents[2] / "studies" / "demo.yaml"
SMALLEST = {
    "size": 64,
    "labels.weak_images": 8,
    "labels.expert_split": {"train": 8, "select": 4},
    "encoder.architecture": "resnet18",
    "classify.architecture": "resnet18",
    "classify.epochs": 1,
    "pretrain.epochs": 1,
    "saliency.images": 24,
    "irnet.architecture": "resnet18",
    "irnet.epochs": 1,
    "fit.epochs": 1,
    "fit.samples_per_epoch": 8,
}


class Notebook(Quiet):
    """Keep the lines that a run writes."""

    def __init__(self) -> None:
        self.finished: dict[str, str] = {}

    def finish(self, name: str, text: str) -> None:
        self.finished[name] = text


@pytest.fixture(scope="module")
def finished(ray_session, phantom_root, tmp_path_factory):
    planned = planner.plan(study_file.load(DEMO, SMALLEST), planner.fingerprints(phantom_root))
    store, notebook = Store(tmp_path_factory.mktemp("run") / "store"), Notebook()
    outcome = scheduler.run(planned, store, phantom_root, notebook)
    return planned, store, outcome, notebook


def test_every_stage_of_the_demo_ran_once(finished):
    planned, store, outcome, notebook = finished
    assert outcome.failed == {}
    assert set(outcome.computed) == set(planned.nodes)
    assert len(planned.cells) == 16
    assert status.summarise(planned, store).complete
    assert notebook.finished["classify"].startswith("done in")
    assert sum("trial" in name and "score" in name for name in notebook.finished) == 16
    assert not list((store.backend.local / ".partial").iterdir())


def test_a_second_run_computes_nothing(finished, phantom_root):
    planned, store, _, _ = finished
    again = scheduler.run(planned, store, phantom_root, Quiet())
    assert again.computed == {}
    assert again.cached == len(planned.nodes)


def test_what_is_damaged_is_made_again_to_the_same_result_and_nothing_else(
    finished, phantom_root, tmp_path
):
    planned, store, _, _ = finished
    copy = Store(tmp_path / "store")
    shutil.copytree(store.backend.local, copy.backend.local)
    victim = planned.cells[0]
    counts = result_path(copy, "score", victim.score) / "counts.parquet"
    before = counts.read_bytes()
    counts.write_bytes(before[:-10])
    shutil.rmtree(result_path(copy, "fit", victim.fit))
    again = scheduler.run(planned, copy, phantom_root, Quiet())
    assert set(again.computed) == {victim.fit, victim.score}
    assert counts.read_bytes() == before


def test_a_truncated_shard_in_the_store_is_found_and_it_alone_is_made_again(
    finished, phantom_root, tmp_path
):
    planned, store, _, _ = finished
    copy = Store(tmp_path / "store")
    shutil.copytree(store.backend.local, copy.backend.local)
    victim = next(cell for cell in planned.cells if cell.name.startswith("cam p=0 "))
    weak = planned.nodes[planned.nodes[victim.fit].inputs["weak"]]
    shutil.rmtree(result_path(copy, "fit", victim.fit))
    shutil.rmtree(result_path(copy, "score", victim.score))
    path = result_path(copy, "saliency", weak.key)
    shard, other = (path / split / shards.part_name(0) for split in ("train", "valid"))
    before, kept = shard.read_bytes(), other.stat().st_mtime_ns
    shard.write_bytes(before[:-100])
    again = scheduler.run(planned, copy, phantom_root, Quiet())
    assert set(again.computed) == {weak.key, victim.fit, victim.score}
    assert shard.read_bytes() == before
    assert other.stat().st_mtime_ns == kept


def test_scores_need_no_more_than_the_fit_they_are_of(finished, phantom_root, tmp_path):
    planned, store, _, _ = finished
    copy = Store(tmp_path / "store")
    shutil.copytree(store.backend.local, copy.backend.local)
    victim = planned.cells[0]
    shutil.rmtree(result_path(copy, "score", victim.score))
    for stage in ("classify", "pretrain", "saliency"):
        shutil.rmtree(copy.backend.local / stage)
    again = scheduler.run(planned, copy, phantom_root, Quiet())
    assert set(again.computed) == {victim.score}


def test_cells_that_are_run_in_several_goes_run_once_each(
    finished, phantom_root, tmp_path, monkeypatch
):
    planned, store, _, _ = finished
    copy = Store(tmp_path / "store")
    shutil.copytree(store.backend.local, copy.backend.local)
    victims = {cell.score for cell in planned.cells[:3]}
    for key in victims:
        shutil.rmtree(result_path(copy, "score", key))
    goes, whole_run = [], tune_trials.run_cells
    monkeypatch.setattr(tune_trials, "CELLS_PER_TUNER", 2)
    monkeypatch.setattr(tune_trials, "CELLS_PER_CHUNK", 2)
    monkeypatch.setattr(
        tune_trials, "run_cells", lambda *given: goes.append(given[1]) or whole_run(*given)
    )
    again = scheduler.run(planned, copy, phantom_root, Quiet())
    assert len(again.computed) == 3 and set(again.computed) == victims
    assert len(goes) == 2
    # What a worker reads doesn't grow with the study: some cells' fits, scores and their inputs.
    chunks = [ray.get(chunk) for chunk in goes[0].references]
    assert [len(victims & nodes.keys()) for nodes in chunks] == [2, 1]
    assert all(len(nodes) < len(planned.nodes) / 2 for nodes in chunks)


@pytest.mark.slow
def test_cells_of_a_short_branch_are_done_before_a_long_stage_ends(
    ray_session, phantom_root, tmp_path
):
    """MoCo waits for its lock until the cells that don't start from its encoder are done."""
    text = (
        "name: branches\naxes: {encoder.init: [random, moco], trial: [0, 1]}\n"
        "settings: {size: 32, labels: {p: 1}, fit: {epochs: 1, samples_per_epoch: 8},"
        " moco: {epochs: 1, batch_size: 8}}\n"
    )
    overrides = {name: SMALLEST[name] for name in ("encoder.architecture", "labels.expert_split")}
    planned = planner.plan(
        study_file.parse(text, "branches.yaml", overrides), planner.fingerprints(phantom_root)
    )
    store = Store(tmp_path / "store")
    (moco,) = (node for node in planned.nodes.values() if node.stage == "moco")
    random = [cell for cell in planned.cells if cell.settings.encoder.init == "random"]
    assert len(random) == 2
    waiting = threading.Event()

    def hold() -> None:
        deadline = time.monotonic() + 600
        with store.backend.exclusive(name(moco)):
            waiting.set()
            while time.monotonic() < deadline and not all(
                store.find("score", cell.score) for cell in random
            ):
                time.sleep(0.2)

    holder = threading.Thread(target=hold)
    holder.start()
    assert waiting.wait(60)
    assert scheduler.run(planned, store, phantom_root, Quiet()).failed == {}
    holder.join()
    finished = {
        key: store.find(node.stage, key).manifest["finished"] for key, node in planned.nodes.items()
    }
    assert all(finished[cell.score] < finished[moco.key] for cell in random)


def test_the_report_of_it_stands(finished, tmp_path):
    planned, store, _, _ = finished
    files = sorted(path for path in store.backend.local.rglob("*"))
    results = load.study_results(planned, store)
    assert len(results.cells) == 16
    assert results.missing.empty
    assert set(results.cells["method"]) == {"weak", "mixed", "full", "student", "untrained"}
    written = publish([results], tmp_path)
    text = written.page.read_text()
    assert "16 of 16 cells" in " ".join(re.sub(r"<[^>]*>", "", text).split())
    assert all(cell.score[:12] in text for cell in planned.cells)
    assert sorted(path for path in store.backend.local.rglob("*")) == files, (
        "a report must not write to the store"
    )
    pixels, masks = results.image(results.image_ids[0])
    assert pixels.shape == masks.shape[1:] == results.predictions(0, results.image_ids[0]).shape[1:]


def test_both_resolutions_are_scored_of_one_fit_and_reported(finished, phantom_root, tmp_path):
    _, store, _, _ = finished
    document = yaml.safe_load(DEMO.read_text())
    document |= {"axes": {"labels.p": [0, 1], "score.resolution": ["training", "own"]}, "also": []}
    both = planner.plan(
        study_file.parse(yaml.safe_dump(document), "both.yaml", SMALLEST),
        planner.fingerprints(phantom_root),
    )
    copy = Store(tmp_path / "store")
    shutil.copytree(store.backend.local, copy.backend.local)
    outcome = scheduler.run(both, copy, phantom_root, Quiet())
    native = [cell.score for cell in both.cells if cell.settings.score.resolution == "own"]
    assert set(outcome.computed) == set(native) and len(native) == 2
    results = load.study_results(both, copy)
    training_I, own_I, *_ = (counts_IK3[:, :, 2].sum(axis=1) for counts_IK3 in results.counts_CIK3)
    assert (own_I[training_I > 0] > 0).all() and (own_I != training_I).any()
    text = publish([results], tmp_path / "report").page.read_text()
    assert "4 of 4 cells" in " ".join(re.sub(r"<[^>]*>", "", text).split())
    assert "resolution=own" in text
    assert results.predictions(1, results.image_ids[0]).shape[1:] == (64, 64)


@pytest.mark.slow
def test_a_failure_is_recorded_and_the_others_go_on(finished, phantom_root, tmp_path):
    """Damage a shard of weak labels after it was stored: only the cell that reads it fails."""
    _, store, _, _ = finished
    copy = Store(tmp_path / "store")
    shutil.copytree(store.backend.local, copy.backend.local)
    document = yaml.safe_load(DEMO.read_text()) | {
        "axes": {"labels.weak": ["cam", "irnet"]},
        "also": [],
    }
    document["settings"]["labels"]["p"] = 0
    study = study_file.parse(
        yaml.safe_dump(document),
        "two.yaml",
        SMALLEST | {"fit.learning_rate": 0.01, "resources.cpu": 2},
    )
    two = planner.plan(study, planner.fingerprints(phantom_root))
    (weak,) = [node for node in two.nodes.values() if node.stage == "irnet"]
    shard = next((result_path(copy, "irnet", weak.key) / "train").glob("*.parquet"))
    size = shard.stat().st_size
    shard.write_bytes(b"x" * size)  # the size still fits, the contents don't
    healthy, broken = two.cells
    outcome = scheduler.run(two, copy, phantom_root, Quiet())
    assert set(outcome.computed) == {healthy.fit, healthy.score} and set(outcome.failed) == {
        broken.fit
    }
    summary = status.summarise(two, copy)
    assert not summary.complete
    (failed,) = [cell for cell in summary.status_dict()["cells"] if cell["state"] == "failed"]
    assert failed["error"]
    assert "Traceback" in copy.failures([broken.fit])[broken.fit]["traceback"]
    # The damage was detected, so the next run makes the labels again and finishes what had failed.
    assert set(scheduler.run(two, copy, phantom_root, Quiet()).computed) == {
        weak.key,
        broken.fit,
        broken.score,
    }
    assert status.summarise(two, copy).complete


@pytest.mark.slow
def test_a_cell_on_two_workers_and_one_whose_loss_is_nan_beside_it(
    finished, phantom_root, tmp_path
):
    """Train one cell with a NaN loss and one on two workers.

    The first ends at once, with its step and images; two workers of Ray Train train the other,
    which is scored.
    """
    _, store, _, _ = finished
    copy = Store(tmp_path / "store")
    shutil.copytree(store.backend.local, copy.backend.local)
    text = "name: two\naxes: {fit.learning_rate: [0.01, 1.0e+30]}\nresources: {workers: 2}\n"
    study = study_file.parse(
        text, "two.yaml", {"encoder.init": "random", **SMALLEST, "fit.samples_per_epoch": 24}
    )
    planned = planner.plan(study, planner.fingerprints(phantom_root))
    outcome = scheduler.run(planned, copy, phantom_root, Quiet())
    healthy, broken = planned.cells
    assert set(outcome.computed) == {healthy.fit, healthy.score}
    assert set(outcome.failed) == {broken.fit}
    failure = copy.failures([broken.fit])[broken.fit]
    assert re.search(
        r"the loss is nan in step \d, learning rate 1e\+30; images patient\d+", failure["traceback"]
    )
    assert "nan in step" in outcome.failed[broken.fit]


def test_no_progress_actor_outlives_its_run(finished, phantom_root):
    import ray

    planned, store, _, _ = finished
    scheduler.run(planned, store, phantom_root, Quiet())

    def progress_actors() -> list[str]:
        actors = ray._private.state.actors().values()
        return [
            actor["ActorClassName"]
            for actor in actors
            if actor["State"] == "ALIVE" and "ProgressActor" in actor["ActorClassName"]
        ]

    assert progress_actors() == []
