"""What a run did."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class RunResult:
    """What a run did: nodes computed, with their seconds; nodes that failed, with the error; the rest was in the store."""

    computed: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    cached: int = 0
    seconds: float = 0.0
