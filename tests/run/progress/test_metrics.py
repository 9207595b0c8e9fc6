"""Test Ray's Prometheus endpoint while stages run, and the Grafana dashboard of its metrics."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from chexseg.config import study_file
from chexseg.plan import planner
from chexseg.progress import Quiet
from chexseg.run import scheduler
from chexseg.run.progress.actor import ProgressActor, ProgressWriter
from chexseg.run.progress.counts import RunCounts, StageProgress
from chexseg.run.progress.metrics import CELLS, FIGURES, STAGES_A_PROCESS, WINDOW, Rate
from chexseg.store.store import Store

DASHBOARD = Path(__file__).resolve().parents[3] / "monitoring" / "grafana-chexseg.json"
FIGURE = {name: figure for figure, (name, _) in FIGURES.items()}


@pytest.fixture
def scrape(ray_session) -> Callable[[str], list[Any]]:
    """Return ``scrape(study)``: the samples that Prometheus would read now.

    Each has a name, labels and a value.
    """
    parser = pytest.importorskip(
        "prometheus_client.parser", reason="needs ray[default], of the extra dashboard"
    )
    import ray

    (port,) = {node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]}

    def scraped(study: str) -> list[Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
            families = list(parser.text_string_to_metric_families(page.read().decode()))
        return [
            sample
            for family in families
            for sample in family.samples
            if sample.labels.get("study") == study
        ]

    return scraped


def states(samples: list[Any]) -> dict[str, float]:
    return {
        sample.labels["state"]: sample.value for sample in samples if sample.name == f"ray_{CELLS}"
    }


def stages(samples: list[Any]) -> dict[tuple[str, str], dict[str, float]]:
    """Return (cell, stage) -> figure -> value."""
    figures: dict[tuple[str, str], dict[str, float]] = {}
    for sample in samples:
        if "stage" in sample.labels:
            tags = sample.labels["cell"], sample.labels["stage"]
            figures.setdefault(tags, {})[FIGURE[sample.name.removeprefix("ray_")]] = sample.value
    return figures


def processes(samples: list[Any]) -> set[str]:
    """Return the processes that export the stages' gauges."""
    return {sample.labels["WorkerId"] for sample in samples if "stage" in sample.labels}


def until(true: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.2)
    return true()


@pytest.mark.slow  # it waits until Ray has exported the metrics
def test_running_stages_are_exported_and_ended_ones_are_not(scrape):
    import ray

    study = "metrics-of-a-board"
    progress_actor = ProgressActor.remote(RunCounts(5, done=1, study=study))
    progress_actor.begin_cell.remote("full trial 0")
    progress_writer = ProgressWriter(
        progress_actor, "full trial 0, fit", "key", "full trial 0", "fit"
    )
    sent = {
        "epoch": 2,
        "loss": 0.5,
        "step s": 0.25,
        "data wait s": 0.125,
        "selection mIoU": 0.375,
    }
    progress_writer(8, 80, "samples", sent | {"unknown": 1})
    time.sleep(0.6)
    progress_writer(16, 80, "samples")
    ray.get(progress_actor.read.remote())
    assert until(
        lambda: stages(scrape(study)) and states(scrape(study))
    )  # they belong to two processes
    samples = scrape(study)
    assert states(samples) == {"done": 1, "running": 1, "failed": 0, "waiting": 3}
    figures = stages(samples)["full trial 0", "fit"]
    assert figures.pop("images/s") > 0 and figures == sent
    (before,) = processes(samples)

    ray.get(progress_actor.finish.remote(progress_writer.name, "done"))
    assert until(lambda: not stages(scrape(study))), "it has ended"
    assert states(scrape(study)), "the run has not"

    for number in range(STAGES_A_PROCESS):
        progress_actor.update.remote(
            "ended",
            "key",
            {"cell": f"cell {number}", "stage": "score"},
            1,
            2,
            "images",
            {"loss": 1.0},
        )
        progress_actor.finish.remote("ended", "done")
    ProgressWriter(progress_actor, "full trial 1, fit", "key", "full trial 1", "fit")(
        1, 2, "samples", {"epoch": 1}
    )

    def only_what_runs() -> bool:
        ray.get(progress_actor.read.remote())
        samples = scrape(study)
        return stages(samples) == {
            ("full trial 1", "fit"): {"epoch": 1}
        } and before not in processes(samples)

    assert until(only_what_runs), "the process that kept the gauges of so many is replaced"


@pytest.mark.slow  # it waits until Ray has exported the metrics
def test_a_study_is_seen_while_it_runs(scrape, phantom_root, tmp_path):
    text = "name: seen\naxes: {trial: [0, 1]}\nsettings: {size: 64, encoder: {init: random}}\n"
    small = {
        "encoder.architecture": "mobilenet_v2",
        "labels.p": 1,
        "labels.expert_split": {"train": 8, "select": 4},
        "fit.epochs": 4,
        "fit.samples_per_epoch": 40,
    }
    planned = planner.plan(
        study_file.parse(text, "seen.yaml", small), planner.fingerprints(phantom_root)
    )
    over, seen = threading.Event(), []

    def watch() -> None:
        while not over.wait(0.3):
            with suppress(OSError):  # a busy machine may delay the exporter
                seen.append(scrape("seen"))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        assert scheduler.run(planned, Store(tmp_path / "store"), phantom_root, Quiet()).failed == {}
    finally:
        over.set()
        watching.join()
    counts = [states(samples) for samples in seen]
    assert any(count.get("running") for count in counts)
    # Ray exports a process's gauges one after another, so two scrapes may differ in one cell.
    assert all(sum(count.values()) in (1, 2, 3) for count in counts if len(count) == 4)
    names = {cell.name for cell in planned.cells}
    reported = {tags: figures for samples in seen for tags, figures in stages(samples).items()}
    assert {cell for cell, stage in reported if stage == "fit"} <= names
    assert {cell for cell, stage in reported if stage == "ingest"} <= {
        key[:12] for key in planned.nodes
    }
    fits = [
        figures
        for samples in seen
        for (_, stage), figures in stages(samples).items()
        if stage == "fit"
    ]
    fits = [figures for figures in fits if len(figures) == len(FIGURES)]
    assert fits, "no fit was seen with all its figures"
    for figures in fits:
        assert 0 < figures["data wait s"] < figures["step s"]
        assert figures["epoch"] in range(1, 5) and 0 <= figures["selection mIoU"] <= 1
        assert figures["loss"] > 0
    assert any(
        figures["images/s"] > 0 for figures in fits
    )  # 0 while an epoch is scored for ten seconds


def test_rates_are_over_the_last_seconds_and_begin_anew():
    rate = Rate()
    assert rate.value() is None
    rate.add(0.0, 5)
    assert rate.value() is None
    rate.add(WINDOW, 25)
    assert rate.value() == 20 / WINDOW
    rate.add(2 * WINDOW, 125)
    assert rate.value() == 100 / WINDOW, "what was before has left the window"
    rate.add(2 * WINDOW + 1, 3)
    assert rate.value() is None, "its worker died, and it began again"


def test_files_are_no_images():
    rate = Rate()
    rate.add(0.0, 0)
    rate.add(1.0, 7)
    assert StageProgress("key", {}, 1.0, 7, 9, "images", {}, rate).figures() == {"images/s": 7}
    assert StageProgress(
        "key", {}, 1.0, 7, 9, "files", {"accuracy": 0.5, "loss": 2.0}, rate
    ).figures() == {"loss": 2.0}


def test_the_grafana_dashboard_shows_every_metric_and_no_other():
    dashboard = json.loads(DASHBOARD.read_text())
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = set(re.findall(r"\bray_\w+", " ".join(expressions)))
    assert names == {f"ray_{name}" for name in (CELLS, *FIGURE)}
    queried = [
        variable["query"]["query"] for variable in variables.values() if variable["type"] == "query"
    ]
    assert len(queried) == 2 and set(re.findall(r"\bray_\w+", " ".join(queried))) <= names

    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard["panels"]) + " ".join(queried)))
    assert used == set(variables) == {"datasource", "study", "cell"}
    for expression in expressions:
        assert expression.count("{") == expression.count("}") and expression.count(
            "("
        ) == expression.count(")")
        tags = set(re.findall(r"(\w+)=~", expression)) | set(
            re.search(r"by \(([^)]*)\)", expression)[1].split(", ")
        )
        assert tags <= {"study", "cell", "stage", "state"}
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in (place["y"],)
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24, (
        "panels lie beside each other"
    )
