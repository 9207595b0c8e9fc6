"""The graph of a study: stage runs, their keys and what each needs."""

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

#: How an identity is written to be hashed.
_IDENTITY = json.JSONEncoder(sort_keys=True, check_circular=False)


@dataclass(frozen=True)
class Node:
    """One run of one stage. inputs: role -> key of the node that makes it; data: fingerprint of raw data, or None."""

    stage: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    data: str | None
    key: str

    @property
    def version(self) -> int:
        """The version of the stage that makes this result."""
        return STAGES[self.stage].version

    @property
    def label(self) -> str:
        """What tells it from the same stage's other runs, for people."""
        if self.stage == "ingest":
            return f"ingest {self.config['split']}"
        return self.stage


class NoEncoderError(UserError):
    """A study asks for an encoder that nobody has imported. The message ends in the command that would."""


def node_of(
    stage: str,
    config: StageConfig | dict[str, Any],
    inputs: Mapping[str, str],
    data: str | None = None,
    same_as: Mapping[str, str] | None = None,
) -> Node:
    """The run of a stage with its key.

    config: a dictionary is a whole and valid one, as JSON has it.
    same_as: role -> key of another node whose result would serve as well, but for rounding; it stands in the identity.
    """
    values = config if isinstance(config, dict) else config.model_dump(mode="json")
    identity = {
        "stage": stage,
        "version": STAGES[stage].version,
        "config": values,
        "inputs": {**inputs, **(same_as or {})},
        "data": data,
    }
    key = hashlib.sha256(_IDENTITY.encode(identity).encode()).hexdigest()
    return Node(stage, values, inputs, data, key)


@dataclass
class Plan:
    """cells: distinct ones. nodes: key -> node, each after its inputs. collapsed: combinations that were another's cell.

    members: name -> keys of the scores of its cells, of each study that this one includes, or of itself.
    imported: (kind, architecture) -> sha256 of the encoders to be had (Store.imported). targets: keys of nodes that are
    wanted beside the cells' scores. data: split -> fingerprint.
    """

    study: Study
    imported: Mapping[tuple[str, str], str] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)
    targets: list[str] = field(default_factory=list)
    data: Mapping[str, str] = field(default_factory=dict)
    members: dict[str, tuple[str, ...]] = field(default_factory=dict)
    merged_combinations: int = 0

    @property
    def combinations(self) -> int:
        """Cells, and combinations that were another's; a cell that members share counts once."""
        return len(self.cells) + self.merged_combinations

    def needed(self, cached: Iterable[str]) -> list[Node]:
        """The nodes that must run given what's cached: every cell's scores, the targets, and what these need and
        lack, inputs first."""
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
        config: StageConfig | dict[str, Any],
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
