"""What a cluster may grow to: Ray's autoscalers tell nobody their limits, so `--grow-to` does."""

from __future__ import annotations

from dataclasses import dataclass

from chexseg.errors import UserError, nearest

ALLOWED = "such as GPU=8,CPU=64, whole numbers of what head and workers have together at most"


@dataclass(frozen=True)
class ClusterLimits:
    """CPUs and GPUs of the whole cluster at its largest; 0 where it has what it has."""

    cpus: int = 0
    gpus: int = 0

    @classmethod
    def parse(cls, text: str | None) -> ClusterLimits:
        """From ``GPU=8,CPU=64``, either of them or both; None is no growth. Raises `UserError`."""
        if text is None:
            return cls()
        found: dict[str, int] = {}
        for part in text.split(","):
            name, _, value = (word.strip() for word in part.partition("="))
            if name not in ("CPU", "GPU"):
                raise UserError(
                    f"--grow-to: found {part.strip()!r}{nearest(name.upper(), ['CPU', 'GPU'])}; allowed: {ALLOWED}"
                )
            if name in found:
                raise UserError(f"--grow-to: found {name} twice in {text!r}; allowed: {ALLOWED}")
            if not value.isdecimal():
                raise UserError(f"--grow-to: found {part.strip()!r}; allowed: {ALLOWED}")
            found[name] = int(value)
        return cls(found.get("CPU", 0), found.get("GPU", 0))


CURRENT_SIZE = ClusterLimits()
