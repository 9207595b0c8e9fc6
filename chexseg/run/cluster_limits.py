"""Parse `--max-resources`, a cluster's largest size, which Ray's autoscalers don't report."""

from __future__ import annotations

from dataclasses import dataclass

from chexseg.errors import UserError, nearest

OPTION = "--max-resources"
EXPECTED = "expected CPU=N, GPU=N or both, such as GPU=8,CPU=64: whole numbers for all nodes"


@dataclass(frozen=True)
class ClusterLimits:
    """CPUs and GPUs of the whole cluster at its largest; 0 means its current size."""

    cpus: int = 0
    gpus: int = 0

    @classmethod
    def parse(cls, text: str | None) -> ClusterLimits:
        """Return the limits in text such as ``GPU=8,CPU=64``; None means the current size.

        Raises `UserError`.
        """
        if text is None:
            return cls()
        counts: dict[str, int] = {}
        for part in text.split(","):
            name, _, value = (word.strip() for word in part.partition("="))
            if name not in ("CPU", "GPU"):
                raise UserError(
                    f"{OPTION}: found {part.strip()!r};"
                    f" {EXPECTED}{nearest(name.upper(), ['CPU', 'GPU'])}"
                )
            if name in counts:
                raise UserError(f"{OPTION}: found {name} twice in {text!r}; {EXPECTED}")
            if not value.isdecimal():
                raise UserError(f"{OPTION}: found {part.strip()!r}; {EXPECTED}")
            counts[name] = int(value)
        return cls(counts.get("CPU", 0), counts.get("GPU", 0))


CURRENT_SIZE = ClusterLimits()
