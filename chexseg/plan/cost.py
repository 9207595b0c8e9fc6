"""Estimate what a plan costs: seconds for each node. Needs no Ray.

A node's work is the number of pixels that pass through its network or decoder. Its rate is the
median over the store's results of the same stage, preferably with the same architecture,
precision and device; without such results it is a guess, which is marked.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chexseg.data.raw_split import RawData
from chexseg.data.sampling.splits import fraction_count
from chexseg.plan.graph import Plan
from chexseg.stages.registry import STAGES

#: Seconds per million pixels without measurements, on two CPU cores, a cell on one of them.
#: float32; DenseNet121 for classify and saliency, ResNet18 for the others. ingest, saliency, fit,
#: distil and score are close to the benchmarks (docs/explanation/performance.md); the others are
#: scaled from these by the computation of their networks.
GUESS = {
    "ingest": 0.02,
    "classify": 4.0,
    "pretrain": 2.0,
    "moco": 3.0,
    "imported": 0.0,
    "saliency": 1.2,
    "irnet": 6.0,
    "fit": 6.5,
    "distil": 0.8,
    "score": 2.5,
}
#: A manifest, or the fields of a node.
_Run = Mapping[str, Any]
_Rate = tuple[float, _Run]
#: Fields that a manifest needs to give a rate.
MEASURED = {"key", "stage", "config", "inputs", "seconds", "facts"}
#: Settings on which a rate depends, the most important first.
RATE_SETTINGS = ("architecture", "precision", "channels_last", "compile")


@dataclass(frozen=True)
class Cost:
    """Expected seconds. measured: from results in the store. gpu: share of a GPU in use."""

    seconds: float
    measured: bool
    gpu: float

    @property
    def gpu_hours(self) -> float:
        return self.seconds * self.gpu / 3600


def images(raw: RawData) -> dict[str, int]:
    """Return split -> images in its CSV file."""
    return {name: len(split.table) for name, split in raw.splits.items()}


def expected(
    plan: Plan, manifests: Iterable[Mapping[str, Any]], counts: Mapping[str, int]
) -> dict[str, Cost]:
    """Return key -> cost of each node.

    manifests: all manifests of a store. counts: split -> images (`images`).
    """
    finished = {
        manifest["key"]: manifest
        for manifest in manifests
        if manifest.keys() >= MEASURED and _is_usable(manifest)
    }
    # Stage -> (seconds per million pixels, manifest) of each result.
    rates: dict[str, list[_Rate]] = {}
    for manifest in finished.values():
        work = _work(manifest, finished.get, {})
        if work and manifest["seconds"] > 0:
            rates.setdefault(manifest["stage"], []).append((manifest["seconds"] / work, manifest))
    nodes = {key: vars(node) for key, node in plan.nodes.items()}
    costs = {}
    for key, node in plan.nodes.items():
        similar = _similar(rates.get(node.stage, []), node.config)
        on_gpu = any(result.get("device") not in (None, "cpu") for _, result in similar)
        share = 0.0
        if on_gpu:  # as `run` shares them
            gpu = plan.study.resources.gpu
            share = gpu if node.stage in ("fit", "score") and gpu != "auto" else 0.5
        rate = statistics.median(rate for rate, _ in similar) if similar else GUESS[node.stage]
        costs[key] = Cost(_work(nodes[key], nodes.get, counts) * rate, bool(similar), share)
    return costs


def _is_usable(manifest: Mapping[str, Any]) -> bool:
    """Return whether the config has the settings of today, and an ingest's count is a number.

    Settings that were added with the value of earlier versions may be missing. Others may not:
    earlier versions had other settings, and a manifest may be written by hand.
    """
    config, images = manifest["config"], manifest["facts"].get("images", 0)
    try:
        parsed = STAGES[manifest["stage"]].parse(config)
        current = parsed.model_dump().keys() == config.keys() | parsed.ADDED.keys()
    except (KeyError, ValueError):
        return False
    return current and (manifest["stage"] != "ingest" or (isinstance(images, int) and images >= 0))


def _similar(rates: list[_Rate], config: Mapping[str, Any]) -> list[_Rate]:
    """Return the rates of the configs most similar to this one."""
    for setting in RATE_SETTINGS:
        same = [rate for rate in rates if rate[1]["config"].get(setting) == config.get(setting)]
        rates = same or rates
    return rates


def _splits(
    run: _Run, look_up: Callable[[str], _Run | None], counts: Mapping[str, int]
) -> dict[str, tuple[float, int]]:
    """Return split -> (millions of pixels per image, images) of each ingest behind a run."""
    if run["stage"] == "ingest":
        config = run["config"]
        count = run.get("facts", {}).get("images", counts.get(config["split"], 0))
        return {config["split"]: (config["size"] ** 2 / 1e6, count)}
    splits: dict[str, tuple[float, int]] = {}
    for source in filter(None, map(look_up, run["inputs"].values())):
        splits |= _splits(source, look_up, counts)
    return splits


def _work(run: _Run, look_up: Callable[[str], _Run | None], counts: Mapping[str, int]) -> float:
    """Return the millions of pixels that a run processes; 0 if its data is unknown.

    look_up: key -> the run, if known. counts: split -> images, for an ingest that hasn't run.
    """
    stage, config, splits = run["stage"], run["config"], _splits(run, look_up, counts)
    if not splits:
        return 0
    pixels, images = splits.get("train") or next(iter(splits.values()))
    if stage == "fit":
        images_used = config["expert_train"] + (config["weak_images"] if config["p"] < 1 else 0)
        if config["supervision"] == "teacher":
            images_used = fraction_count(config["fraction"], images)
        images = config["samples_per_epoch"] or images_used
    elif stage in ("saliency", "irnet"):
        images = min(images, config["images"] or images)
    elif stage == "distil":
        images = fraction_count(config["fraction"], images)
    elif stage == "score":
        images = splits["test"][1] if "test" in splits else 0
    epochs: int = config.get("epochs", 1)
    return epochs * pixels * images
