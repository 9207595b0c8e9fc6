"""Damage the file of each kind in each way, and judge what each command makes of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests import in_process
from tests.damage.commands import Answer, Hung, ask, stored
from tests.damage.damages import DAMAGES, OLDER, damage, modes_respected
from tests.damage.kinds import COMMANDS, KINDS, Kind
from tests.damage.place import Place

#: Outcome -> meaning. Everything else is a fault.
OUTCOMES = {
    "same": "the output is that of the undamaged files, and `run` leaves the file as it is",
    "rebuilt": "`run` replaces or deletes the file, and all results are those of before, bit for bit",
    "fails once": "a stage fails with one line, and the next `run` computes the file again",
    "fails": "a stage fails with one line each time, because the file fits its manifest",
    "refused": "one line that names the file, and exit code 2",
    "refused later": "a stage fails with one line, and the next `run` is refused",
    "shown": "the output says what is missing, stale or damaged",
    "more": "`run` computes more results: of other data, or further points of a search",
    "unchecked": "the file is valid with other content, or optional, and the results are others",
}
#: Commands that write nothing but their output.
READING = ("status", "report", "compare", "verify", "predict")
#: What lines say of results that are missing.
STATES = ("cells finished", "points tried", " missing", " stale", " running", "no manifest")
#: Parts of paths that don't say which result a file belongs to.
FOLDERS = {"fit", "score", "ingest", "saliency", "classify", "imported", "images", "masks", "train"}


class Fault(Exception):
    """An outcome that must not be."""


@dataclass(frozen=True)
class Case:
    """Files of these kinds, damaged at once, and a command. damage: empty for none."""

    kinds: tuple[Kind, ...]
    damage: str
    command: str

    @property
    def study(self) -> str:
        return self.kinds[0].study if len(self.kinds) == 1 else "study.yaml"

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the stages without results."""
        return self.kinds[0].missing if len(self.kinds) == 1 and self.command == "run" else ()

    def names(self, line: str) -> bool:
        """Return whether a line names one of the files, or what stands for it."""
        return any(word in line for kind in self.kinds for word in kind.words)

    @contextmanager
    def prepared(self, place: Place) -> Iterator[None]:
        """Add and delete the files that the kinds need, and let the file's modes hold."""
        with ExitStack() as stack:
            for setup in dict.fromkeys(kind.setup for kind in self.kinds if kind.setup):
                stack.enter_context(setup(place))
            for stage in self.missing:
                shutil.rmtree(place.result(*stage.split()))
            if self.damage == "unreadable":
                stack.enter_context(modes_respected())
            with in_process.only_ingest(len(self.kinds) == 1 and self.kinds[0].ingests):
                yield


@dataclass
class Matrix:
    """The outcomes of damage to the files of a place."""

    place: Place
    _undamaged: dict[object, Answer] = field(default_factory=dict)
    _groups: dict[Case, str] = field(default_factory=dict)

    def outcomes(self, kind: Kind) -> dict[str, dict[str, str]]:
        """Return damage -> command -> outcome for the file of a kind."""
        return {
            how: {command: self.outcome(kind, how, command) for command in COMMANDS}
            for how in DAMAGES
        }

    def outcome(self, kind: Kind, how: str, command: str) -> str:
        """Return an outcome, or a text that begins with FAULT.

        Files that a command must not notice are damaged all at once, and judged as one.
        """
        if command in kind.noticed:
            return self._tried(Case((kind,), how, command))
        has_setup = kind.setup is not None
        alike = [one for one in KINDS if (one.setup is not None) == has_setup]
        case = Case(tuple(one for one in alike if command not in one.noticed), how, command)
        if case not in self._groups:
            outcome = self._tried(case)
            if outcome != "same" and not outcome.startswith("FAULT"):
                outcome = f"FAULT: {_title(case)}: {outcome}, but `noticed` of none says so"
            self._groups[case] = outcome
        return self._groups[case]

    def _tried(self, case: Case) -> str:
        try:
            return self._judged(case, self._answer_undamaged(case))
        except (Fault, Hung) as fault:
            return f"FAULT: {_title(case)}: {fault}"
        finally:
            self.place.restore()

    def _answer_undamaged(self, case: Case) -> Answer:
        setups = tuple(kind.setup for kind in case.kinds)
        same = case.command, case.study, setups, case.missing
        if same not in self._undamaged:
            with Case(case.kinds, "", case.command).prepared(self.place):
                answer = ask(self.place, case.command, case.study)
            self.place.restore()
            # Without scores there is nothing to compare, and without a fit nothing to predict with.
            lacking = any(setups) and case.command in ("compare", "predict")
            assert answer.code == 0 or lacking, answer
            self._undamaged[same] = answer
        return self._undamaged[same]

    def _judged(self, case: Case, undamaged: Answer) -> str:
        place = self.place
        with case.prepared(place):
            paths = damage(place, case.kinds, case.damage)
            contents, before, results = _contents(paths), place.entries(), stored(place)
            answer = ask(place, case.command, case.study)
            after = place.entries()
            if case.command in READING and before != after:
                raise Fault(f"wrote {sorted(before.items() ^ after.items())}")
            if lost := (results.keys() & undamaged.stored.keys()) - answer.stored.keys():
                raise Fault(f"lost {', '.join(sorted(lost))}")
            if case.command != "run":
                return _of_output(case, paths, undamaged, answer)
            outcome = _of_code(case, paths, answer, self._failures())
            if outcome == "fails":
                answer = ask(place, case.command, case.study)
                outcome = _of_code(case, paths, answer, self._failures())
                if outcome == "fails" and case.damage != OLDER:
                    raise Fault("the next run fails too")
                outcome = {"": "fails once", "refused": "refused later"}.get(outcome, outcome)
            if outcome not in ("", "fails once"):
                return outcome
            kept = outcome == "" and _contents(paths) == contents
            # If the run left the file, no stage needs its result, which may be gone.
            ignored = paths if kept or case.damage == OLDER else ()
            expected = {
                name: files
                for name, files in undamaged.stored.items()
                if not any(name in str(path) for path in ignored)
            }
            if others := _others(case, expected, answer.stored):
                if case.damage in case.kinds[0].unchecked:
                    return "unchecked"
                raise Fault(f"other results: {', '.join(others)}")
            if answer.stored.keys() - undamaged.stored.keys():
                return "more"
            return outcome or ("same" if kept else "rebuilt")

    def _failures(self) -> list[str]:
        failures = self.place.store.failures(self.place.plan.nodes)
        return [failure["error"] for failure in failures.values()]


def place_in(folder: Path) -> Place:
    """Return a place below an empty folder, with the studies run. Needs `without_ray`."""

    def run(place: Place, study: str) -> None:
        answer = ask(place, "run", study)
        assert answer.code == 0, answer

    (folder / "place").mkdir()
    return Place(folder / "place", run)


def _title(case: Case) -> str:
    return f"{', '.join(kind.name for kind in case.kinds)}; {case.damage}; {case.command}"


def _contents(paths: Sequence[Path]) -> list[bytes | None]:
    readable = [path.is_file() and path.stat().st_mode & 0o400 for path in paths]
    return [path.read_bytes() if ok else None for path, ok in zip(paths, readable, strict=True)]


def _named(case: Case, paths: Sequence[Path], lines: Sequence[str]) -> bool:
    """Return whether a line names one of the files, the folder of its result, or `Kind.words`."""
    parts = {part for path in paths for part in path.parts[-3:]} - FOLDERS
    return any(case.names(line) or any(part in line for part in parts) for line in lines)


def _of_code(case: Case, paths: Sequence[Path], answer: Answer, failures: Sequence[str]) -> str:
    """Return "refused", "fails" or, for a run that succeeds, nothing."""
    if answer.fault:
        raise Fault(answer.fault)
    lines = failures if answer.code == 1 else answer.lines
    if answer.code and not _named(case, paths, lines):
        raise Fault(f"no line names the file: {lines}")
    return {0: "", 1: "fails", 2: "refused"}[answer.code]


def _of_output(case: Case, paths: Sequence[Path], undamaged: Answer, answer: Answer) -> str:
    if answer == undamaged:
        return "same"
    if case.command != "verify" and _of_code(case, paths, answer, ()):
        return "refused"
    if answer.fault:
        raise Fault(answer.fault)
    added = sorted(set(answer.lines).difference(undamaged.lines))
    shown = any(state in line for line in added for state in STATES)
    if not shown and not _named(case, paths, added):
        if case.damage in case.kinds[0].unchecked:
            return "unchecked"
        raise Fault(f"the output differs, and no line says why: {added}")
    return "refused" if answer.code == 2 else "shown"


def _others(
    case: Case,
    expected: Mapping[str, Mapping[str, str]],
    results: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """Return the results that aren't as expected.

    What is made from an older file has another record of its training, which names its inputs.
    """
    ignored = {"training.json"} if case.damage == OLDER else set()

    def compared(files: Mapping[str, str]) -> dict[str, str]:
        return {file: digest for file, digest in files.items() if file not in ignored}

    return [
        name
        for name, files in expected.items()
        if name not in results or compared(files) != compared(results[name])
    ]
