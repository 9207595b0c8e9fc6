"""Damage the file of each kind in each way, and judge what each command makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
import shutil
from typing import Any

from tests.damage import in_process
from tests.damage.commands import Answer, Hung, ask
from tests.damage.damages import damage, modes_respected
from tests.damage.kinds import KINDS, Kind
from tests.damage.place import Place

#: Outcome -> meaning. Everything else is a fault.
OUTCOMES = {
    "same": "the output is that of the undamaged files",
    "rebuilt": "`run` computes the file again, bit for bit",
    "fails once": "a stage fails with one line, and the next `run` computes the file again",
    "fails": "a stage fails with one line each time: the file fits its manifest",
    "refused": "one line that names the file, and exit code 2",
    "shown": "the output says what is missing or damaged",
    "other data": "`run` computes results of other data, beside the old ones",
}
#: Commands that write nothing but their output.
READING = ("status", "report", "compare", "verify", "predict")


class Fault(Exception):
    """An outcome that must not be."""


@dataclass
class Matrix:
    """The outcomes of damage to the files of a place."""

    place: Place
    _undamaged: dict[object, Answer] = field(default_factory=dict)
    _groups: dict[object, str] = field(default_factory=dict)

    def outcome(self, kind: Kind, how: str, command: str) -> str:
        """Return an outcome, or a line that begins with FAULT.

        Files that a command must not notice are damaged all at once, and judged as one.
        """
        if command in kind.noticed:
            return self._tried([kind], how, command)
        group = (how, command, kind.setup is not None)
        if group not in self._groups:
            kinds = [
                one
                for one in KINDS
                if command not in one.noticed and (one.setup is not None) == group[2]
            ]
            outcome = self._tried(kinds, how, command)
            if outcome != "same" and not outcome.startswith("FAULT"):
                names = ", ".join(one.name for one in kinds)
                outcome = f"FAULT: {how}, {command}: {outcome} because of one of: {names}"
            self._groups[group] = outcome
        return self._groups[group]

    def _tried(self, kinds: Sequence[Kind], how: str, command: str) -> str:
        undamaged = self._answer_undamaged(kinds, command)
        try:
            with self._prepared(kinds, command, how) as study:
                paths = damage(self.place, kinds, how)
                return self._judged(paths, how, command, study, undamaged)
        except (Fault, Hung) as fault:
            return f"FAULT: {', '.join(kind.name for kind in kinds)}, {how}, {command}: {fault}"
        finally:
            self.place.restore()

    def _answer_undamaged(self, kinds: Sequence[Kind], command: str) -> Answer:
        together = len(kinds) > 1
        case = command, *(
            (kind.study, kind.setup, kind.missing if command == "run" and not together else ())
            for kind in kinds
        )
        if case not in self._undamaged:
            with self._prepared(kinds, command) as study:
                answer = ask(self.place, command, study)
            self.place.restore()
            assert answer.code == (1 if kinds[0].setup and command == "compare" else 0), (command, answer.errors)
            self._undamaged[case] = answer
        return self._undamaged[case]

    @contextmanager
    def _prepared(self, kinds: Sequence[Kind], command: str, how: str = ""):
        """Set up the files of these kinds, and yield the name of the study file."""
        together = len(kinds) > 1
        with ExitStack() as stack:
            for setup in {kind.setup: None for kind in kinds if kind.setup}:
                stack.enter_context(setup(self.place))
            if command == "run" and not together:
                for stage in kinds[0].missing:
                    shutil.rmtree(self.place.result(stage))
            if how == "unreadable":
                stack.enter_context(modes_respected())
            with in_process.only_ingest(kinds[0].ingests and not together):
                yield "study.yaml" if together else kinds[0].study

    def _judged(
        self, paths: Sequence[Path], how: str, command: str, study: str, undamaged: Answer
    ) -> str:
        damaged, before = _contents(paths), self.place.entries()
        answer = ask(self.place, command, study)
        after = self.place.entries()
        if answer.fault:
            raise Fault(answer.fault)
        if command in READING or answer.code == 2:
            written = {n for n in before.keys() | after.keys() if before.get(n) != after.get(n)}
            if command in READING and written:
                raise Fault(f"wrote {', '.join(sorted(written))}")
        if answer.code == 2:
            if not any(map(_names(paths), answer.errors.splitlines())):
                raise Fault(f"no line names the file: {answer.errors}")
            return "refused"
        if command == "run":
            return self._of_run(paths, how, study, undamaged, answer, damaged)
        return _of_output(command, paths, undamaged, answer)

    def _of_run(self, paths, how, study, undamaged, answer, damaged) -> str:
        if answer.code == 1:
            failures = self.place.store.failures(self.place.plan.nodes).values()
            if not any(_names(paths)(failure["error"]) for failure in failures):
                raise Fault(f"no failure names the file: {[f['error'] for f in failures]}")
            again = ask(self.place, "run", study)
            if again.fault:
                raise Fault(again.fault)
            if again.code == 1 and how == "older schema":
                return "fails"
            if again.code:
                raise Fault(f"the next run: {again.code} {again.errors} {[f['error'] for f in self.place.store.failures(self.place.plan.nodes).values()]}")
            answer = again
            outcome = "fails once"
        else:
            outcome = "same" if _contents(paths) == damaged else "rebuilt"
        kept = {name for name in undamaged.stored if how != "older schema" or not any(name in str(path) for path in paths)}
        if others := sorted(name for name in kept if answer.stored.get(name) != undamaged.stored[name]):
            raise Fault(f"other results: {', '.join(others)}")
        if answer.stored.keys() - undamaged.stored.keys():
            return "other data"
        return outcome


def _contents(paths: Sequence[Path]) -> list[bytes | None]:
    return [path.read_bytes() if path.is_file() and path.stat().st_mode & 0o400 else None for path in paths]


def _names(paths: Sequence[Path]):
    """Return whether a line names one of the files, or the folder of its result."""
    parts = {part for path in paths for part in (path.name, path.parent.name, path.parent.parent.name)}
    return lambda line: any(part in line for part in parts)


def _of_output(command: str, paths, undamaged: Answer, answer: Answer) -> str:
    if (answer.code, answer.out, answer.errors, answer.files) == (undamaged.code, undamaged.out, undamaged.errors, undamaged.files):
        return "same"
    added = [line for line in answer.lines if line not in undamaged.lines]
    if not added:
        raise Fault("the output differs, and no line says why")
    return "shown\n" + "\n".join(added)
