"""The graph of a study: stage runs, their keys and their inputs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chexseg.config.study import Study
from chexseg.errors import UserError
from chexseg.plan.cells import Cell
from chexseg.stages import configs
from chexseg.stages.configs import ENCODER_KINDS, StageConfig, import_command
from chexseg.stages.registry import STAGES
from chexseg.store.provenance import StageRun

#: Serializes an identity before it is hashed.
_IDENTITY = json.JSONEncoder(sort_keys=True, check_circular=False)


class Node(StageRun):
    """A stage run of a plan."""

    @property
    def label(self) -> str:
        """Return the stage's name for messages; of an ingest, also the split."""
        return f"ingest {self.config['split']}" if self.stage == "ingest" else self.stage


class NoEncoderError(UserError):
    """A study needs an encoder that is not in the store. The message ends in the import command."""


def node_of(
    stage: str,
    config: StageConfig | dict[str, Any],
    inputs: Mapping[str, str],
    data: str | None = None,
    same_as: Mapping[str, str] | None = None,
) -> Node:
    """Return the run of a stage, with its key.

    config: a dictionary must be complete and valid, with values as in JSON.
    same_as: role -> key of a node that produces the same result up to rounding; its key is hashed
    in place of the actual input's.
    """
    values = config if isinstance(config, dict) else config.model_dump(mode="json")
    version, added = STAGES[stage].version, STAGES[stage].config.ADDED
    hashed = {
        name: value for name, value in values.items() if name not in added or value != added[name]
    }
    identity = {
        "stage": stage,
        "version": version,
        "config": hashed,
        "inputs": {**inputs, **(same_as or {})},
        "data": data,
    }
    key = hashlib.sha256(_IDENTITY.encode(identity).encode()).hexdigest()
    return Node(stage, values, inputs, data, key, version)


@dataclass
class Plan:
    """The distinct cells of a study and the nodes that they need."""

    study: Study
    #: (kind, architecture) -> SHA-256 of the encoders in the store (`Store.imported`).
    imported: Mapping[tuple[str, str], str] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    #: Key -> node, each after its inputs.
    nodes: dict[str, Node] = field(default_factory=dict)
    #: Keys of nodes to run besides the cells' scores.
    targets: list[str] = field(default_factory=list)
    #: Split -> fingerprint.
    data: Mapping[str, str] = field(default_factory=dict)
    #: Name of each included study, or of this one -> keys of its cells' scores.
    members: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: Number of combinations that are the same cell as another one.
    merged_combinations: int = 0

    @property
    def combinations(self) -> int:
        """Return the number of cells plus merged combinations; a shared cell counts once."""
        return len(self.cells) + self.merged_combinations

    def needed(self, cached: Iterable[str]) -> list[Node]:
        """Return the nodes that must run for the cells' scores and the targets, inputs first.

        cached: keys of nodes with a result.
        """
        wanted = self.behind([*self.targets, *(cell.score for cell in self.cells)], cached)
        return [node for key, node in self.nodes.items() if key in wanted]

    def behind(self, keys: Iterable[str], cached: Iterable[str] = ()) -> set[str]:
        """Return these keys and those of all nodes that they need, without the cached ones."""
        available, pending = set(cached), list(keys)
        wanted: set[str] = set()
        while pending:
            key = pending.pop()
            if key not in available and key not in wanted:
                wanted.add(key)
                pending.extend(self.nodes[key].inputs.values())
        return wanted

    def add(
        self,
        stage: str,
        config: StageConfig | dict[str, Any],
        inputs: Mapping[str, str],
        data: str | None = None,
        same_as: Mapping[str, str] | None = None,
    ) -> str:
        """Add a node (`node_of`), unless the plan has it; return its key."""
        node = node_of(stage, config, inputs, data, same_as)
        self.nodes.setdefault(node.key, node)
        return node.key

    def add_encoder(self, init: str, architecture: str, setting: str) -> str:
        """Add an imported encoder; return its key.

        setting: the study's setting, for the message. Raises `NoEncoderError` if it's missing.
        """
        kind = next(kind for kind, name in ENCODER_KINDS.items() if name == init)
        sha256 = self.imported.get((kind, architecture))
        if sha256 is None:
            raise NoEncoderError(
                f"{setting}: no {kind} encoder of {architecture} is in the store; import one first:"
                f" {import_command(kind, architecture)}"
            )
        return self.add(
            "imported",
            configs.ImportedConfig(kind=kind, architecture=architecture, sha256=sha256),
            {},
        )


def blocked(nodes: Mapping[str, Node], failed: Mapping[str, str]) -> set[str]:
    """Return the keys that have failed in this run, and of all nodes that depend on them.

    nodes: each after its inputs.
    """
    lost: set[str] = set(failed)
    for key, node in nodes.items():
        if lost.intersection(node.inputs.values()):
            lost.add(key)
    return lost
