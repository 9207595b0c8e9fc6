"""The rows of the table, the tasks that measure them, and the Markdown they are written as."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

HEADER = ("part", "what", "setting", "ms", "rate", "unit", "more", "goal")


@dataclass(frozen=True)
class Row:
    """One measurement. ms: of a step or call. rate: in `unit`, as images/s. goal: of issue 20."""

    what: str
    setting: str = ""
    ms: float | None = None
    rate: float | None = None
    unit: str = ""
    more: str = ""
    goal: str = ""

    def cells(self, part: str) -> list[str]:
        """Return the row's texts in the order of `HEADER`."""
        numbers = ["" if value is None else f"{value:,.5g}" for value in (self.ms, self.rate)]
        texts = [part, self.what, self.setting, *numbers, self.unit, self.more, self.goal]
        return [text.replace("|", "/").replace("\n", " ") for text in texts]

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Task:
    """Describe a task that measures one row or a few; its name is unique in a part.

    seconds: its expected time; it is skipped where less time is left. limit: seconds after which
    the driver ends it; by default three times as many, at least 40.
    """

    name: str
    run: Callable[[], Iterable[Row]]
    seconds: float = 5
    limit: float = field(default=0)

    @property
    def most_seconds(self) -> float:
        """Return the seconds after which the task is ended."""
        return self.limit or max(40, 3 * self.seconds)


def line(texts: Sequence[str]) -> str:
    """Return one line of a Markdown table."""
    return "| " + " | ".join(texts) + " |"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return the whole table."""
    return "\n".join([line(HEADER), line(["---"] * len(HEADER)), *map(line, lines)]) + "\n"
