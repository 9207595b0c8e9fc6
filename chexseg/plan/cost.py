"""What a plan will cost: seconds a node, from what the store has measured, else a guess that says so. No Ray here.

A node's work is counted in pixels that pass through its network or decoder. The rate is the median of the store's results of
the same stage, those of the same architecture, precision and device first.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chexseg.data import chexpert
from chexseg.data.remote_path import Location
from chexseg.data.sampling.splits import fraction_count
from chexseg.plan.graph import Plan
from chexseg.stages.registry import STAGES

#: Seconds per million pixels where nothing is measured, on two CPU cores, a cell on one of them; float32, DenseNet121 for
#: classify and saliency, ResNet18 for the others. ingest, saliency, fit, distil and score are about what benchmarks took
#: (docs/performance.md); the others are set beside these by what their networks have to compute.
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
#: What a manifest must say to be of use here.
MEASURED = {"key", "stage", "config", "inputs", "seconds", "facts"}
#: What a rate depends on beside the stage, the most telling first.
ALIKE = ("architecture", "precision", "channels_last", "compile")


@dataclass(frozen=True)
class Cost:
    """seconds: expected. measured: whether they come from results in the store. gpu: the share of a GPU held meanwhile."""

    seconds: float
    measured: bool
    gpu: float

    @property
    def gpu_hours(self) -> float:
        return self.seconds * self.gpu / 3600


def images(root: Location) -> dict[str, int]:
    """Split -> images in its CSV file, which `plan.fingerprints` has read without finding a fault."""
    return {split: chexpert.count(root, split) for split in ("train", "valid", "test")}


def expected(
    plan: Plan, manifests: Iterable[Mapping[str, Any]], counts: Mapping[str, int]
) -> dict[str, Cost]:
    """Key of each node -> what it costs to run. manifests: all of a store. counts: split -> images (`images`)."""
    made = {
        about["key"]: about for about in manifests if about.keys() >= MEASURED and _is_usable(about)
    }
    rates: dict[str, list[_Rate]] = {}
    for about in made.values():
        known = _Known(lambda key: made.get(key), {})
        work = _work(about["stage"], about["config"], known.splits(about))
        if work and about["seconds"] > 0:
            rates.setdefault(about["stage"], []).append(
                _Rate(about["seconds"] / work, about.get("device"), about["config"])
            )
    known = _Known(lambda key: vars(plan.nodes[key]), counts)
    found = {}
    for key, node in plan.nodes.items():
        work = _work(node.stage, node.config, known.splits(vars(node))) or 0
        alike = _alike(rates.get(node.stage, []), node.config)
        on_gpu = any(rate.device not in (None, "cpu") for rate in alike)
        share = (
            (plan.study.resources.gpu if node.stage in ("fit", "score") else 0.5) if on_gpu else 0
        )  # as `run` shares them
        rate = statistics.median(rate.seconds for rate in alike) if alike else GUESS[node.stage]
        found[key] = Cost(work * rate, bool(alike), share)
    return found


def _is_usable(manifest: Mapping[str, Any]) -> bool:
    """Return whether the stage exists and accepts the config, and an ingest's count is a number."""
    try:
        STAGES[manifest["stage"]].parse(manifest["config"])
    except (KeyError, ValueError):  # another version's, or written by hand
        return False
    images = manifest["facts"].get("images", 0)
    return manifest["stage"] != "ingest" or (isinstance(images, int) and images >= 0)


@dataclass(frozen=True)
class _Rate:
    """seconds: a million pixels, of one result."""

    seconds: float
    device: str | None
    config: Mapping[str, Any]


def _alike(rates: Sequence[_Rate], config: Mapping[str, Any]) -> list[_Rate]:
    """Of the rates those of the settings most like these."""
    for setting in ALIKE:
        same = [rate for rate in rates if rate.config.get(setting) == config.get(setting)]
        rates = same or rates
    return list(rates)


@dataclass
class _Known:
    """What is known of the data behind a node: through its inputs, back to where images were read."""

    look_up: Callable[[str], Mapping[str, Any] | None]
    counts: Mapping[str, int]

    def splits(self, about: Mapping[str, Any]) -> dict[str, tuple[float, int]]:
        """Split -> (millions of pixels of an image, images) of every ingest behind a node."""
        if about["stage"] == "ingest":
            config = about["config"]
            count = about.get("facts", {}).get("images", self.counts.get(config["split"], 0))
            return {config["split"]: (config["size"] ** 2 / 1e6, count)}
        found: dict[str, tuple[float, int]] = {}
        for key in about["inputs"].values():
            origin = self.look_up(key)
            found |= self.splits(origin) if origin else {}
        return found


def _work(stage: str, config: Mapping[str, Any], splits: Mapping[str, tuple[float, int]]) -> float:
    """Millions of pixels that a node works on; 0 where the data behind it isn't known."""
    if not splits:
        return 0
    pixels, images = splits.get("train") or next(iter(splits.values()))
    if stage == "fit":
        own = config["expert_train"] + (config["weak_images"] if config["p"] < 1 else 0)
        if config["supervision"] == "teacher":
            own = fraction_count(config["fraction"], images)
        return config["epochs"] * pixels * (config["samples_per_epoch"] or own)
    if stage in ("saliency", "irnet"):
        images = min(images, config["images"] or images)
    elif stage == "distil":
        images = fraction_count(config["fraction"], images)
    elif stage == "score":
        images = splits["test"][1] if "test" in splits else 0
    return config.get("epochs", 1) * pixels * images
