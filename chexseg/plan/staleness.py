"""Explain how a missing result differs from the most similar result in the store."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from chexseg.plan.graph import Node
from chexseg.stages.registry import STAGES
from chexseg.store.store import Store

#: Results that differ in more settings are unrelated, not older versions.
FEW = 3


@dataclass(frozen=True)
class _Identity:
    """The parts of a result's key, comparable: inputs as (role, key), settings as (name, JSON)."""

    version: Any
    data: Any
    inputs: frozenset[tuple[str, str]]
    settings: frozenset[tuple[str, str]]
    roles: frozenset[str]
    finished: str


def reasons(nodes: Mapping[str, Node], missing: Collection[str], store: Store) -> dict[str, str]:
    """Return key -> difference from an older result, for each missing node with a similar one.

    Examples: "version 1, now 2", "fit.clip_norm: null then, 1.0 now", "other data", "other weak".

    A similar result has the same input roles and at most `FEW` different settings. Excluded are
    results that the plan uses itself. So are those that differ in a setting that varies within the
    plan: they belong to another cell. If only the inputs differ, report it only when one of them
    is cached or itself stale; otherwise the node is simply new.
    """
    used, varied, missing = {key[:20] for key in nodes}, _varied(nodes), set(missing)
    older: dict[str, list[_Identity]] = {}
    out: dict[str, str] = {}
    for key, node in nodes.items():
        if key not in missing:
            continue
        if node.stage not in older:
            older[node.stage] = _results(node.stage, used, store)
        now = _identity(vars(node))
        then = _nearest(now, older[node.stage], varied[node.stage])
        if then is None:
            continue
        others = [node.inputs[role] for role, _ in now.inputs - then.inputs]
        same = (then.version, then.settings, then.data) == (now.version, now.settings, now.data)
        if not same or any(other in out or other not in missing for other in others):
            out[key] = _difference(node.stage, then, now)
    return out


def _varied(nodes: Mapping[str, Node]) -> dict[str, set[str]]:
    """Return stage -> seeds, and settings with several values in the plan."""
    values: dict[str, dict[str, set[str]]] = {}
    for node in nodes.values():
        of_stage = values.setdefault(node.stage, {})
        for name, value in node.config.items():
            of_stage.setdefault(name, set()).add(str(value))
    return {
        stage: {name for name, texts in of_stage.items() if len(texts) > 1 or "seed" in name}
        for stage, of_stage in values.items()
    }


def _results(stage: str, used: Collection[str], store: Store) -> list[_Identity]:
    results = []
    for name, (_, manifest) in store.scan(stage).items():
        if name.rpartition("/")[2] in used or not isinstance(manifest, dict):
            continue
        with suppress(KeyError, TypeError, AttributeError):  # not one of ours
            results.append(_identity(manifest))
    return results


def _identity(run: Mapping[str, Any]) -> _Identity:
    """Return the parts of a manifest's key, or of a node's.

    A result from before a setting was added has the value that reproduces it.
    """
    config = {**STAGES[run["stage"]].config.ADDED, **run["config"]}
    settings = frozenset(
        (name, json.dumps(value, sort_keys=True)) for name, value in config.items()
    )
    inputs = frozenset(run["inputs"].items())
    roles = frozenset(run["inputs"])
    return _Identity(run["version"], run["data"], inputs, settings, roles, run.get("finished", ""))


def _nearest(
    now: _Identity, older: Collection[_Identity], varied: Collection[str]
) -> _Identity | None:
    """Return the most similar older result, of equally similar ones the latest."""
    similar = [
        (then, len(changed))
        for then in older
        if then.roles == now.roles
        and len(then.settings ^ now.settings) <= 2 * FEW  # has a changed setting twice
        and len(changed := _changed(then, now)) <= FEW
        and changed.isdisjoint(varied)
    ]

    def distance(candidate: tuple[_Identity, int]) -> tuple[int, int, bool]:
        then, settings = candidate
        other_version = then.version != now.version
        return settings + other_version, len(then.inputs - now.inputs), then.data != now.data

    latest_first = sorted(similar, key=lambda candidate: candidate[0].finished, reverse=True)
    nearest, _ = min(latest_first, key=distance, default=(None, 0))
    return nearest


def _changed(then: _Identity, now: _Identity) -> set[str]:
    """Return the settings that differ between two results, or that one of them lacks."""
    return {name for name, _ in then.settings ^ now.settings}


def _difference(stage: str, then: _Identity, now: _Identity) -> str:
    before, after = dict(then.settings), dict(now.settings)
    parts = [
        *[f"version {then.version}, now {now.version}"] * (then.version != now.version),
        *(
            f"{stage}.{name}: {before.get(name, 'absent')} then, {after.get(name, 'absent')} now"
            for name in sorted(_changed(then, now))
        ),
        *["other data"] * (then.data != now.data),
        *(f"other {role}" for role, _ in sorted(now.inputs - then.inputs)),
    ]
    return "; ".join(parts)
