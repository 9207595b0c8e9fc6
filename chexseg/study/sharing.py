"""What the studies that a plan is made of share, and how many runs that saves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from chexseg.stages.registry import STAGES
from chexseg.study.plan import Plan


def sharing(plan: Plan) -> dict[str, Any]:
    """For ``study plan --json``. members: name of each study -> its cells; shared: stage -> runs that several of them need;
    runs_saved: so many more there would be if each ran with a store of its own."""
    uses = Counter(key for scores in plan.members.values() for key in _behind(plan, scores))
    shared = Counter(plan.nodes[key].stage for key, times in uses.items() if times > 1)
    return {
        "members": {name: len(scores) for name, scores in plan.members.items()},
        "shared": {stage: shared[stage] for stage in STAGES if stage in shared},
        "runs_saved": uses.total() - len(uses),
    }


def sharing_text(plan: Plan) -> list[str]:
    """The same in lines for people; none for a study by itself."""
    found = sharing(plan)
    if len(found["members"]) < 2:
        return []
    studies = ", ".join(f"{name} {cells}" for name, cells in found["members"].items())
    stages = ", ".join(f"{runs} {stage}" for stage, runs in found["shared"].items())
    saved = f"{found['runs_saved']} runs saved against the {len(found['members'])} studies run apart"
    return [f"cells of each study: {studies}", f"shared: {stages or 'nothing'}; {saved}"]


def _behind(plan: Plan, keys: Iterable[str]) -> set[str]:
    """These nodes and all that they need."""
    found, pending = set(), list(keys)
    while pending:
        key = pending.pop()
        if key not in found:
            found.add(key)
            pending.extend(plan.nodes[key].inputs.values())
    return found
