"""Read what trainings recorded in the store: their curves, and the scores of classifiers."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from chexseg.analysis.results import CURVE_COLUMNS, Classifier
from chexseg.errors import ChexsegError
from chexseg.plan.graph import Node, Plan
from chexseg.stages.artifacts import HISTORY, ROC
from chexseg.stages.configuration.irnet import OF_BOUNDARIES
from chexseg.store import manifest
from chexseg.store.store import Artifact, Store
from chexseg.untrusted import bounded_json

#: Stages that train a classifier of the observations.
CLASSIFIERS = ("classify", "pretrain")
#: Stage with training curves -> names in its history of the count and the score, and the fact that
#: has the count of the weights that were kept.
RECORDED = {
    "fit": ("epoch", "selection_miou", "best_epoch"),
    **dict.fromkeys(CLASSIFIERS, ("step", "mean_auroc", "step")),
    "moco": ("step", "accuracy", "steps"),
    "irnet": ("step", None, "steps"),
}
#: Curves of more fits would say nothing, and take a file each to read.
MOST_FITS = 400
#: Errors of a record that is damaged, or of another version.
_DAMAGE = (ChexsegError, LookupError, TypeError, ValueError, ArithmeticError)


def curves(plan: Plan, artifacts: Mapping[str, Artifact], notes: list[str]) -> pd.DataFrame:
    """Return one row per entry in the history of each finished training (`RECORDED`).

    notes: gets a line for each training whose record is damaged.

    Columns: `CURVE_COLUMNS`. Empty for studies of more than `MOST_FITS` fits. Earlier versions
    recorded only fits. The score of IRNet is missing.
    """
    names = {cell.fit: cell.name for cell in plan.cells}
    trained = [
        node for node in plan.nodes.values() if node.stage in RECORDED and node.key in artifacts
    ]
    rows: list[dict[str, Any]] = []
    for node in trained if len(names) <= MOST_FITS else ():
        try:
            rows += _points(node, artifacts[node.key], names.get(node.key, node.label))
        except _DAMAGE as error:
            notes.append(_left_out(artifacts[node.key], HISTORY, error))
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))


def _points(node: Node, artifact: Artifact, name: str) -> list[dict[str, Any]]:
    """Return the rows of one training in `curves`. Raises `_DAMAGE`."""
    fields = {"key": node.key, "stage": node.stage, "name": name}
    count, score, best = RECORDED[node.stage]
    return [
        fields
        | {
            "step": entry[count],
            "loss": entry["loss"],
            "score": entry[score] if score else math.nan,
            "learning rate": _rate(node, artifact.facts, entry[count]),
            "kept": entry[count] == artifact.facts[best],
        }
        for entry in _document(artifact, HISTORY, [])
    ]


def _left_out(artifact: Artifact, name: str, error: Exception) -> str:
    """Return the note on a file that can't be shown. No score depends on it."""
    if isinstance(error, ChexsegError):
        return f"{error}; its curve is left out"
    return f"{artifact.place}/{name}: found values of another version; its curve is left out"


def dashboards(store: Store, study: str) -> tuple[tuple[str, str], ...]:
    """Return name and command of the programs for which a local store has files of a study."""
    if "://" in store.uri:
        return ()
    journal, runs = Path(store.uri, "optuna", "journal.log"), Path(store.uri, ".runs", study)
    commands = []
    if journal.is_file():
        commands.append(("optuna-dashboard", f"optuna-dashboard {shlex.quote(str(journal))}"))
    if any(runs.glob("*/tensorboard")):
        commands.append(("TensorBoard", f"tensorboard --logdir {shlex.quote(str(runs))}"))
    return tuple(commands)


def _rate(node: Node, facts: Mapping[str, Any], step: int) -> float:
    """Return the learning rate of a step, or of the last step of a fit's epoch."""
    config = node.config
    rate = float(facts.get("learning_rate") or config["learning_rate"])
    if node.stage == "moco":
        return rate * (1 + math.cos(math.pi * (step - 1) / facts["steps"])) / 2
    if config.get("schedule") == "polynomial":  # IRNet's
        return float(rate * (1 - (step - 1) / facts["steps"]) ** 0.9)
    if config.get("schedule") != "cosine":
        return rate
    per_epoch = max(1, facts["samples"] // config["epochs"] // config["batch_size"])
    done = (step * per_epoch - 1) / (config["epochs"] * per_epoch)
    return rate * (1 + math.cos(math.pi * done)) / 2


def _document(artifact: Artifact, name: str, default: Any) -> Any:
    """Return a JSON file of a result; `default` if an earlier version wrote none."""
    if name not in artifact.manifest["files"]:
        return default
    return bounded_json.loads(manifest.read_bytes(artifact.path / name))


def settings(plan: Plan, node: Node) -> dict[str, Any]:
    """Return "stage.field" -> value of all settings that a result depends on, without splits.

    Several inputs of one stage with different values give these as text, "pad and short-side".
    """
    values: dict[str, list[Any]] = {}
    for one in upstream(plan, node):
        ignored = {"split"} if one.config.get("boundaries", True) else {"split", *OF_BOUNDARIES}
        for name, value in one.config.items():
            if name not in ignored:
                distinct = values.setdefault(f"{one.stage}.{name}", [])
                distinct += [value] * (value not in distinct)
    return {
        name: distinct[0] if len(distinct) == 1 else " and ".join(map(str, distinct))
        for name, distinct in values.items()
    }


def upstream(plan: Plan, node: Node) -> list[Node]:
    """Return a node after all that it depends on, each once."""
    nodes = {
        one.key: one for key in node.inputs.values() for one in upstream(plan, plan.nodes[key])
    }
    return [*nodes.values(), node]


def classifiers(
    plan: Plan, artifacts: Mapping[str, Artifact], notes: list[str]
) -> tuple[Classifier, ...]:
    """Return the finished classifiers of the observations, first those used for CAMs.

    notes: gets a line for each whose ROC curves are damaged.
    """
    stored = ("auroc", "mean_auroc", "step", "steps", "images")
    return tuple(
        Classifier(
            key=node.key,
            stage=stage,
            settings=settings(plan, node),
            roc=_roc(artifacts[node.key], notes),
            **{name: artifacts[node.key].facts[name] for name in stored},
        )
        for stage in CLASSIFIERS
        for node in plan.nodes.values()
        if node.stage == stage and node.key in artifacts
    )


def _roc(artifact: Artifact, notes: list[str]) -> Any:
    try:
        curves = dict(_document(artifact, ROC, {}))
        missing = curves.keys() - artifact.facts["auroc"].keys()
        if missing:  # each curve is shown with its AUROC
            raise ValueError(f"no AUROC of {', '.join(sorted(missing))}")
        return curves
    except _DAMAGE as error:
        notes.append(_left_out(artifact, ROC, error))
        return {}
