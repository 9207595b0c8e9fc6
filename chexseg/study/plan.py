"""From a study to the stages it needs, each once. No Ray here, and nothing is run.

A node is one run of one stage. Its key is the sha256 of everything that decides its result: stage, version, config, the
keys of its inputs and, for what reads raw data, the data's fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chexseg.data.mixture_rules import effective_probability
from chexseg.errors import UserError
from chexseg.pathologies import select
from chexseg.stages import classify, distil, fit, imported, ingest, irnet, moco, pretrain, saliency, score
from chexseg.stages.base import StageConfig
from chexseg.study.spec import OWN_ENCODERS, Settings, Study, collapse, value_of

#: Stage name -> module. The order is that in which data flows.
STAGES = {
    module.__name__.rpartition(".")[2]: module
    for module in (ingest, classify, pretrain, moco, imported, saliency, irnet, fit, distil, score)
}


@dataclass(frozen=True)
class Node:
    """One run of one stage. inputs: role -> key of the node that makes it; data: fingerprint of raw data, or None."""

    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    data: str | None
    key: str

    @property
    def label(self) -> str:
        """What tells it from the same stage's other runs, for people."""
        if self.stage == "ingest":
            return f"ingest {self.config['split']}"
        return self.stage


@dataclass(frozen=True)
class Cell:
    """One cell: its settings, its name for people, and the keys of its fit and its scores."""

    name: str
    settings: Settings
    fit: str
    score: str
    #: What the study varies beside trial and what tables know: "key=value" each.
    other: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """The settings that tables and figures select by (report.results.CELL_COLUMNS)."""
        s = self.settings
        student, p = s.distil.fraction > 0, effective_probability(s.labels.p, s.labels.mixing)
        method = "student" if student else "full" if p == 1 else "weak" if p == 0 else "mixed"
        return {
            "cell": self.score,
            "name": self.name,
            "method": method,
            "weak": None if p == 1 else s.labels.weak,
            "p": p,
            "trial": s.trial,
            "init": s.encoder.init,
            "weak_images": 0 if p == 1 else s.labels.weak_images,
            "fraction": s.distil.fraction if student else float("nan"),
            "epochs": s.fit.epochs,
            "other": " ".join(self.other),
        }


class NoEncoderError(UserError):
    """A study asks for an encoder that nobody has imported. The message ends in the command that would."""


def node_of(
    stage: str,
    config: StageConfig,
    inputs: Mapping[str, str],
    data: str | None = None,
    same_as: Mapping[str, str] | None = None,
) -> Node:
    """The run of a stage with its key.

    same_as: role -> key of another node whose result would serve as well, but for rounding; it stands in the identity.
    """
    values = config.model_dump(mode="json")
    identity = {
        "stage": stage,
        "version": STAGES[stage].VERSION,
        "config": values,
        "inputs": dict(sorted({**inputs, **(same_as or {})}.items())),
        "data": data,
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Node(stage, values, dict(inputs), data, key)


@dataclass
class Plan:
    """cells: distinct ones. nodes: key -> node, each after its inputs. collapsed: combinations that were another's cell.

    imported: (kind, architecture) -> sha256 of the encoders to be had (Store.imported). targets: keys of nodes that are
    wanted beside the cells' scores. data: split -> fingerprint.
    """

    study: Study
    imported: Mapping[tuple[str, str], str] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)
    targets: list[str] = field(default_factory=list)
    data: Mapping[str, str] = field(default_factory=dict)
    combinations: int = 0

    @property
    def collapsed(self) -> int:
        return self.combinations - len(self.cells)

    def needed(self, cached: Iterable[str]) -> list[Node]:
        """The nodes that must run given what's cached: every cell's scores, the targets, and what these need and lack,
        inputs first."""
        have, wanted = set(cached), set()
        pending = [*self.targets, *(cell.score for cell in self.cells)]
        while pending:
            key = pending.pop()
            if key not in have and key not in wanted:
                wanted.add(key)
                pending.extend(self.nodes[key].inputs.values())
        return [node for key, node in self.nodes.items() if key in wanted]

    def add(
        self,
        stage: str,
        config: StageConfig,
        inputs: Mapping[str, str],
        data: str | None = None,
        same_as: Mapping[str, str] | None = None,
    ) -> str:
        """The key of a node (`node_of`), which is made unless it's there already."""
        node = node_of(stage, config, inputs, data, same_as)
        self.nodes.setdefault(node.key, node)
        return node.key

    def add_encoder(self, init: str, architecture: str, setting: str) -> str:
        """The key of an imported encoder. Raises `NoEncoderError`, naming the study's setting, where there is none."""
        kind = next(kind for kind, name in imported.KINDS.items() if name == init)
        sha256 = self.imported.get((kind, architecture))
        if sha256 is None:
            raise NoEncoderError(
                f"{setting}: no {kind} encoder of {architecture} is in the store; import one first:"
                f" {imported.command(kind, architecture)}"
            )
        return self.add("imported", imported.Config(kind=kind, architecture=architecture, sha256=sha256), {})


def fingerprints(root: Path) -> dict[str, str]:
    """The fingerprint of each split's raw data. Raises `UserError` for a missing root, column or mask file."""
    return {split: ingest.fingerprint(root, split) for split in ("train", "valid", "test")}


def plan(study: Study, data: Mapping[str, str], imported: Mapping[tuple[str, str], str] | None = None) -> Plan:
    """Every distinct cell of a study and the stages it needs.

    data: split -> fingerprint. imported: (kind, architecture) -> sha256 of the encoders in the store (Store.imported).
    Raises `NoEncoderError` for a study that needs another.
    """
    out = Plan(study, imported or {}, data=data)
    seen: set[str] = set()
    varied = set(study.axes) | {key for entry in study.also for key in entry}
    combinations = [collapse(given) for _, given in study.cells()]
    out.combinations = len(combinations)
    fractions = _taught(out, combinations, data)
    for settings in combinations:
        fit_key, score_key = _cell(out, settings, data, fractions)
        if score_key in seen:  # what differs between the two doesn't reach this cell
            continue
        seen.add(score_key)
        other = _other(settings, varied)
        out.cells.append(
            Cell(" ".join([_kind(settings), *other, f"trial {settings.trial}"]), settings, fit_key, score_key, other)
        )
    return out


def _taught(out: Plan, combinations: Iterable[Settings], data: Mapping[str, str]) -> dict[str, float]:
    """Key of each teacher's fit -> the largest fraction that a student asks of it, which holds all smaller ones."""
    fractions: dict[str, float] = {}
    for s in combinations:
        if s.distil.fraction > 0:
            teacher, _ = _supervised(out, s, data)
            fractions[teacher] = max(s.distil.fraction, fractions.get(teacher, 0))
    return fractions


def _cell(out: Plan, s: Settings, data: Mapping[str, str], fractions: Mapping[str, float]) -> tuple[str, str]:
    """Adds a cell's stages; (key of its fit, key of its scores). `fractions` is what `_taught` found."""
    ingested = _ingested(out, s, data)
    fit_key, inputs = _supervised(out, s, data)
    if s.distil.fraction > 0:
        sources = {"train": ingested["train"], "teacher": fit_key}
        teacher = out.add("distil", distil.Config(fraction=fractions[fit_key], seed=s.seed), sources)
        # Whatever else the study asks of this teacher, the student is the same.
        own = node_of("distil", distil.Config(fraction=s.distil.fraction, seed=s.seed), sources).key
        config = fit.Config(
            **_fit_settings(s), supervision="teacher", fraction=s.distil.fraction, temperature=s.distil.temperature
        )
        taught = {**inputs, "train": ingested["train"], "teacher": teacher}
        fit_key = out.add("fit", config, taught, same_as={"teacher": own})
    # Own sizes are counted against the raw masks, so that these are part of the key.
    raw = data["test"] if s.score.resolution == "own" else None
    scored = {"test": ingested["test"], "segmenter": fit_key}
    return fit_key, out.add("score", score.Config(resolution=s.score.resolution), scored, raw)


def _supervised(out: Plan, s: Settings, data: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Adds the fit on masks of a cell, for a student its teacher's; (its key, those of its inputs that a student has too)."""
    ingested = _ingested(out, s, data)
    labelled = {name: ingested[name] for name in ("train", "valid")}
    inputs = {"valid": ingested["valid"]}
    shared = {"architecture": s.encoder.architecture, "seed": s.seed}
    own = None if s.encoder.imported else s.encoder.init
    if own == "chexpert":
        inputs["encoder"] = out.add("pretrain", pretrain.Config(**s.pretrain.model_dump(), **shared), labelled)
    elif own == "moco":
        config = moco.Config(**s.moco.model_dump(), **shared)
        inputs["encoder"] = out.add("moco", config, {"train": ingested["train"]})
    elif s.encoder.init != "random":
        setting = "encoder.imported: found true" if s.encoder.imported else f"encoder.init: found {s.encoder.init}"
        inputs["encoder"] = out.add_encoder(s.encoder.init, s.encoder.architecture, setting)
    if s.labels.p == 1:
        return out.add("fit", fit.Config(**_fit_settings(s)), inputs), inputs
    config = fit.Config(
        **_fit_settings(s),
        p=s.labels.p,
        mixing=s.labels.mixing,
        weak=s.labels.weak,
        weak_images=s.labels.weak_images,
        prefer_positives=s.labels.prefer_positives,
        negatives_empty=s.labels.negatives_empty,
    )
    weak = _weak_labels(out, s, labelled)
    return out.add("fit", config, {**inputs, "train": ingested["train"], "weak": weak}), inputs


def _ingested(out: Plan, s: Settings, data: Mapping[str, str]) -> dict[str, str]:
    """Adds the ingest of each split; split -> key."""
    return {name: out.add("ingest", ingest.Config(split=name, size=s.size), {}, data[name]) for name in data}


def _fit_settings(s: Settings) -> dict[str, Any]:
    """What a fit is told, whatever it learns from."""
    split = s.labels.expert_split
    return {
        "pathologies": select(s.pathologies),
        "architecture": s.encoder.architecture,
        "init": s.encoder.init,
        "expert_train": split.train,
        "expert_select": split.select,
        "split_seed": s.seed,
        "seed": s.seed + s.trial,
        **s.fit.model_dump(),
    }


def _weak_labels(out: Plan, s: Settings, labelled: Mapping[str, str]) -> str:
    """Adds the stages that make a cell's weak labels; the key of the last."""
    split = s.labels.expert_split
    classifier = out.add("classify", classify.Config(**s.classify.model_dump(), seed=s.seed), labelled)
    config = saliency.Config(
        **s.saliency.model_dump(),
        kind="cam++" if s.labels.weak == "cam++" else "cam",
        architecture=s.classify.architecture,
        expert_train=split.train,
        expert_select=split.select,
        negatives_empty=s.labels.negatives_empty,
        seed=s.seed,
    )
    maps = out.add("saliency", config, {**labelled, "classifier": classifier})
    if s.labels.weak != "irnet":
        return maps
    config = irnet.Config(**s.irnet.model_dump(), negatives_empty=s.labels.negatives_empty, seed=s.seed)
    backbone = {}
    if s.irnet.init != "random":
        backbone["encoder"] = out.add_encoder(s.irnet.init, s.irnet.architecture, f"irnet.init: found {s.irnet.init}")
    return out.add("irnet", config, {**labelled, "saliency": maps, **backbone})


def _kind(s: Settings) -> str:
    """What kind of cell it is, for people."""
    if s.distil.fraction > 0:
        return f"student {100 * s.distil.fraction:g}%"
    return "full" if s.labels.p == 1 else f"{s.labels.weak} p={s.labels.p:g}"


def _other(s: Settings, varied: set[str]) -> tuple[str, ...]:
    """``key=value`` of what the study varies, `_kind` doesn't tell and reaches the cell."""
    idle = [] if s.distil.fraction > 0 else ["distil."]
    idle += ["pretrain."] if s.encoder.init != "chexpert" or s.encoder.imported else []
    idle += ["moco."] if s.encoder.init != "moco" or s.encoder.imported else []
    idle += ["encoder.imported"] if s.encoder.init not in OWN_ENCODERS else []
    if s.labels.p == 1:
        idle += ["classify.", "saliency.", "irnet.", "labels.mixing", "labels.weak", "labels.prefer", "labels.negatives"]
    elif s.labels.weak != "irnet":
        idle += ["irnet."]
    words = []
    for key in sorted(varied - {"labels.weak", "labels.p", "distil.fraction", "trial"}):
        if key.startswith(tuple(idle)):
            continue
        words.append(f"{key.rpartition('.')[2]}={value_of(s, key)}")
    return tuple(words)
