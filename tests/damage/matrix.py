"""Damage the file of each kind in each way, and judge what each command makes of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.damage import in_process
from tests.damage.commands import Answer, Hung, ask, stored
from tests.damage.damages import DAMAGES, damage, modes_respected
from tests.damage.kinds import COMMANDS, KINDS, Kind
from tests.damage.place import Place

#: Outcome -> meaning. Everything else is a fault.
OUTCOMES = {
    "same": "the output is that of the undamaged files",
    "rebuilt": "`run` computes the file again, bit for bit",
    "fails once": "a stage fails with one line, and the next `run` computes the file again",
    "fails": "a stage fails with one line each time: the file fits its manifest",
    "refused later": "a stage fails with one line, and the next `run` is refused",
    "refused": "one line that names the file, and exit code 2",
    "shown": "the output says what is missing or damaged",
    "other data": "`run` computes results of other data, beside the old ones",
}
#: Commands that write nothing but their output.
READING = ("status", "report", "compare", "verify", "predict")


#: What lines say of results that are missing.
STATES = ("cells finished", " missing", " stale", " running", "no manifest of chexseg names")


class Fault(Exception):
    """An outcome that must not be."""


@dataclass
class Matrix:
    """The outcomes of damage to the files of a place."""

    place: Place
    _undamaged: dict[object, Answer] = field(default_factory=dict)
    _groups: dict[object, str] = field(default_factory=dict)

    def outcomes(self, kind: Kind) -> dict[str, dict[str, str]]:
        """Return damage -> command -> outcome for the file of a kind."""
        return {
            how: {command: self.outcome(kind, how, command) for command in COMMANDS}
            for how in DAMAGES
        }

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
                named = _names([*map(str, paths)], [kind.words for kind in kinds])
                return self._judged(paths, how, command, study, undamaged, named)
        except (Fault, Hung) as fault:
            return f"FAULT: {', '.join(kind.name for kind in kinds)}, {how}, {command}: {fault}"
        finally:
            self.place.restore()

    def _answer_undamaged(self, kinds: Sequence[Kind], command: str) -> Answer:
        together = len(kinds) > 1
        case = (
            command,
            *(
                (kind.study, kind.setup, kind.missing if command == "run" and not together else ())
                for kind in kinds
            ),
        )
        if case not in self._undamaged:
            with self._prepared(kinds, command) as study:
                answer = ask(self.place, command, study)
            self.place.restore()
            # Without scores there is nothing to compare, and without a fit nothing to predict with.
            expected = (0, 2) if kinds[0].setup and command in ("compare", "predict") else (0,)
            assert answer.code in expected, answer
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
        self,
        paths: Sequence[Path],
        how: str,
        command: str,
        study: str,
        undamaged: Answer,
        named: Callable[[str], bool],
    ) -> str:
        damaged, before = _contents(paths), self.place.entries()
        results = stored(self.place)
        answer = ask(self.place, command, study)
        after = self.place.entries()
        written = {name for name in {*before, *after} if before.get(name) != after.get(name)}
        if answer.fault:
            raise Fault(answer.fault)
        if command in READING and written:
            raise Fault(f"wrote {', '.join(sorted(written))}")
        if lost := (results.keys() & undamaged.stored.keys()) - answer.stored.keys():
            raise Fault(f"lost {', '.join(lost)}")
        if answer == undamaged and command != "run":
            return "same"
        if answer.code == 2:
            if not any(map(named, answer.lines)):
                raise Fault(f"no line names the file: {answer.errors}")
            return "refused"
        if command != "run":
            added = set(answer.lines).difference(undamaged.lines)
            if not any(named(line) or any(map(line.__contains__, STATES)) for line in added):
                raise Fault(f"the output differs, and no line says why: {added}")
            return "shown"
        outcome = ""
        if answer.code == 1:
            self._check_failures(named)
            outcome = "fails once"
            answer = ask(self.place, command, study)
            if answer.fault:
                raise Fault(answer.fault)
            if answer.code == 1:
                self._check_failures(named)
                if how != "older schema":
                    raise Fault("the next run fails too")
                return "fails"
            if answer.code == 2:
                if not any(map(named, answer.lines)):
                    raise Fault(f"no line names the file: {answer.errors}")
                return "refused later"
        outcome = outcome or ("same" if _contents(paths) == damaged else "rebuilt")
        expected = undamaged.stored
        if outcome == "same":  # no stage needs a result that is gone
            expected = {
                name: files for name, files in expected.items() if results.get(name) == files
            }
        if how == "older schema":
            expected = {
                name: files
                for name, files in expected.items()
                if not any(name in str(path) for path in paths)
            }
        others = [
            name
            for name, files in expected.items()
            if _comparable(answer.stored.get(name), how) != _comparable(files, how)
        ]
        if others:
            raise Fault(f"other results: {', '.join(others)}")
        return "other data" if answer.stored.keys() - undamaged.stored.keys() else outcome

    def _check_failures(self, named: Callable[[str], bool]) -> None:
        failures = self.place.store.failures(self.place.plan.nodes).values()
        errors = [failure["error"] for failure in failures]
        if not any(map(named, errors)):
            raise Fault(f"no failure names the file: {errors}")


def place_in(folder: Path) -> Place:
    """Return a place below an empty folder, with the studies run. Needs `without_ray`."""

    def run(place: Place, study: str) -> None:
        answer = ask(place, "run", study)
        assert answer.code == 0, answer

    (folder / "place").mkdir()
    return Place(folder / "place", run)


def _comparable(files: Mapping[str, str] | None, how: str) -> Any:
    """Return a result's digests. The record of a training names the inputs, older ones too."""
    if files is None or how != "older schema":
        return files
    return {name: digest for name, digest in files.items() if name != "training.json"}


def _contents(paths: Sequence[Path]) -> list[bytes | None]:
    return [
        path.read_bytes() if path.is_file() and path.stat().st_mode & 0o400 else None
        for path in paths
    ]


def _names(paths: Sequence[str], words: Sequence[str]) -> Callable[[str], bool]:
    """Return whether a line names one of the files, or the folder of its result."""
    parts = {part for path in paths for part in path.split("/")[-3:] if part not in USUAL}
    return lambda line: any(part in line for part in (*parts, *words))


#: Parts of paths that don't say which result a file belongs to.
USUAL = {"fit", "score", "ingest", "saliency", "classify", "imported", "images", "masks", "train"}
