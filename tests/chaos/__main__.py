"""Disturb a study for some minutes, round after round, and print a log and a table.

    python -m tests.chaos [--minutes N] [--seed N] [--events N] [--longest SECONDS]

One round runs if `--minutes` is 0. Exit code 1 if anything happened that shouldn't. Run it by
`unshare --mount` where it may not mount a file system on a folder of the machine.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.arena import Arena
from tests.chaos.rounds import disturbed_round, quiet_run


def write(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--events", type=int, default=12, help="disturbances of a round")
    parser.add_argument("--longest", type=float, default=30, help="seconds of one, at most")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="cxr-", dir="/tmp"))
    arena, rounds, began = Arena(root), [], time.monotonic()
    try:
        expected, megabytes, seconds = quiet_run(arena)
        write(f"the quiet run took {seconds:.0f} s; its store has {megabytes} MB")
        while not rounds or time.monotonic() - began < 60 * options.minutes:
            seed = options.seed + len(rounds)
            write(f"round {seed}")
            settings = options.events, options.longest, expected, megabytes, write
            rounds.append(disturbed_round(arena, seed, *settings))
            for fault in rounds[-1].faults:
                write(f"FAULT: {fault}")
    finally:
        arena.close()
        shutil.rmtree(root, ignore_errors=True)
    write("\n| round | seconds | disturbances | runs | exit codes | decisions | faults |")
    write("| --- | --- | --- | --- | --- | --- | --- |")
    for one in rounds:
        done = ", ".join(f"{count} {name}" for name, count in sorted(one.done.items()))
        ends = ", ".join(f"{count} of {code}" for code, count in sorted(one.ends.items()))
        write(
            f"| {one.seed} | {one.seconds:.0f} | {done} | {one.runs} | {ends} |"
            f" {len(one.decisions)} | {len(one.faults)} |"
        )
    return 1 if any(one.faults for one in rounds) else 0


if __name__ == "__main__":
    sys.exit(main())
