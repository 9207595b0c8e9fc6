"""Why a result has to be computed although the store has one like it: what the nearest one was made with."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from chexseg.plan.graph import Node
from chexseg.stages.registry import STAGES
from chexseg.store.store import Store

#: A result that differs in more settings than that is another one, not an older one.
FEW = 3


@dataclass(frozen=True)
class _Made:
    """What decides a result: version, data, inputs (role, key) and settings (name, JSON), as they can be compared."""

    version: Any
    data: Any
    inputs: frozenset[tuple[str, str]]
    settings: frozenset[tuple[str, str]]
    roles: frozenset[str]
    finished: str


def reasons(nodes: Mapping[str, Node], missing: Collection[str], store: Store) -> dict[str, str]:
    """Key -> how the nearest result in the store differs, for those of the missing nodes of a plan that have one near.

    Near has the same input roles and at most `FEW` other settings. Left out are results that the plan uses itself, and those
    that differ in a setting by which its own runs of the stage differ: that makes another cell, not an older one. Such as
    "version 1, now 2", "fit.clip_norm: null then, 1.0 now", "other data", "other weak". Other inputs alone are told where one
    of them is there or has a reason itself: what is made of something new is new too.
    """
    used, apart, missing = {key[:20] for key in nodes}, _apart(nodes), set(missing)
    older: dict[str, list[_Made]] = {}
    out: dict[str, str] = {}
    for key, node in nodes.items():
        if key not in missing:
            continue
        if node.stage not in older:
            older[node.stage] = _results(node.stage, used, store)
        then, now = _nearest(node, older[node.stage], apart[node.stage])
        if then is None:
            continue
        others = [node.inputs[role] for role, _ in now.inputs - then.inputs]
        same = (then.version, then.settings, then.data) == (now.version, now.settings, now.data)
        if not same or any(other in out or other not in missing for other in others):
            out[key] = _told(node.stage, then, now)
    return out


def _apart(nodes: Mapping[str, Node]) -> dict[str, set[str]]:
    """Stage -> settings of which the plan has several values, and seeds."""
    values: dict[str, dict[str, set[str]]] = {}
    for node in nodes.values():
        of_stage = values.setdefault(node.stage, {})
        for name, value in node.config.items():
            of_stage.setdefault(name, set()).add(str(value))
    return {
        stage: {name for name, found in of_stage.items() if len(found) > 1 or "seed" in name}
        for stage, of_stage in values.items()
    }


def _results(stage: str, used: Collection[str], store: Store) -> list[_Made]:
    found = []
    for name, (_, about) in store.scan(stage).items():
        if name.rpartition("/")[2] in used:
            continue
        try:
            made = _made(
                about["version"], about["data"], about["inputs"], about["config"], about["finished"]
            )
        except (KeyError, TypeError, AttributeError):  # no manifest, or none of ours
            continue
        found.append(made)
    return found


def _made(
    version: Any,
    data: Any,
    inputs: Mapping[str, str],
    config: Mapping[str, Any],
    finished: str = "",
) -> _Made:
    settings = frozenset(
        (name, json.dumps(value, sort_keys=True)) for name, value in config.items()
    )
    return _Made(version, data, frozenset(inputs.items()), settings, frozenset(inputs), finished)


def _nearest(
    node: Node, older: Collection[_Made], apart: Collection[str]
) -> tuple[_Made | None, _Made]:
    """(the nearest of the older results, the node as it is now)."""
    now = _made(STAGES[node.stage].version, node.data, node.inputs, node.config)
    best: tuple[int, int, bool] | None = None
    nearest: _Made | None = None
    for then in older:
        if then.roles != now.roles:
            continue
        changed = (
            then.settings ^ now.settings
        )  # a changed setting stands there twice, a new or a gone one once
        if len(changed) > 2 * FEW or any(name in apart for name, _ in changed):
            continue
        settings = len({name for name, _ in changed})
        if settings > FEW:
            continue
        inputs = len(then.inputs - now.inputs)
        distance = (settings + (then.version != now.version), inputs, then.data != now.data)
        if (
            best is None
            or distance < best
            or (distance == best and then.finished > nearest.finished)
        ):
            best, nearest = distance, then
    return nearest, now


def _told(stage: str, then: _Made, now: _Made) -> str:
    parts = [f"version {then.version}, now {now.version}"] if then.version != now.version else []
    before, after = dict(then.settings), dict(now.settings)
    for name in sorted({name for name, _ in then.settings ^ now.settings}):
        parts.append(
            f"{stage}.{name}: {before.get(name, 'not there')} then, {after.get(name, 'not there')} now"
        )
    if then.data != now.data:
        parts.append("other data")
    parts += [f"other {role}" for role, _ in sorted(now.inputs - then.inputs)]
    return "; ".join(parts)
