"""Find all that the study, the raw data and the store's disk show to be wrong before a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chexseg import parallel
from chexseg.data.raw_split import RawData
from chexseg.plan import preflight
from chexseg.plan.checks import counts, disk, split_facts, trackers
from chexseg.plan.checks.mistakes import Mistake, lines
from chexseg.plan.graph import Node, Plan
from chexseg.store.store import Store


def mistakes(
    plan: Plan, nodes: Sequence[Node], raw: RawData, store: Store, planning: bool = False
) -> list[str]:
    """Return a line for each mistake that would end or spoil a run of these nodes.

    planning: a data set without any image of a split is no mistake, because tables are enough to
    plan. Raises `UserError` for a table or mask file that can't be read.
    """
    if not nodes:  # nothing is read
        return []
    facts = split_facts.facts(raw)
    of_all = [
        *counts.mistakes(nodes, plan, facts),
        *counts.shared_batches(nodes, plan.study.resources),
        *(Mistake("", line) for line in _file_faults(nodes, facts, planning)),
        *_networks(nodes),
        *trackers.mistakes(plan),
        *disk.mistakes(nodes, plan, facts, store),
    ]
    return lines(plan, of_all)


def _file_faults(nodes: Sequence[Node], facts: counts.Facts, planning: bool) -> Iterator[str]:
    """Yield the faults of the files that the nodes read themselves."""
    ingested = {node.config["split"] for node in nodes if node.stage == "ingest"}
    scored = {"test" for node in nodes if node.stage == "score" and node.data}
    for split, of_split in facts.items():
        if split in ingested | scored:
            yield from of_split.mask_faults()
        if split in ingested:
            yield from of_split.image_faults(may_be_elsewhere=planning)


def _networks(nodes: Sequence[Node]) -> Iterator[Mistake]:
    """Yield the networks that can't be built, one for each architecture and setting.

    A process of its own imports PyTorch, and only for an architecture that isn't well known.
    """
    unknown = preflight.to_check(nodes, preflight.Workers())
    if unknown:
        for mistakes_of_all in parallel.ordered(preflight.mistakes, [unknown], processes=2):
            yield from mistakes_of_all
