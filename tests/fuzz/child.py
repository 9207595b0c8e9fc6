"""Run many cases in a child process with a bound on its memory, and on the time of each case."""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import select
import signal
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from chexseg.errors import ChexsegError
from tests.properties.documents import one_line

#: Seconds after which a case counts as hanging: hundreds of times what one takes.
HANGS = 30
#: Seconds after which all cases together count as hanging: twenty times what they take.
ALL = 1800
#: Linux's option of prctl: a signal when the parent ends.
PR_SET_PDEATHSIG = 1


class HangError(BaseException):
    """A case that doesn't end. No reader catches it."""


def check(run: Callable[[Any], object], cases: Iterable[Any], mebibytes: int) -> None:
    """Fail with the first three of the `failures`."""
    faults = failures(run, cases, mebibytes)
    assert not faults, "\n\n".join([f"{len(faults)} cases fail", *faults[:3]])


def failures(run: Callable[[Any], object], cases: Iterable[Any], mebibytes: int) -> list[str]:
    """Return what went wrong: a traceback, a message of several lines, a hang, or too much memory.

    run: reads one case, and may raise `ChexsegError`. mebibytes: that all cases together may add
    to the memory of this process, which is forked.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            result = _failures(run, cases, mebibytes)
        except BaseException:
            result = [traceback.format_exc()]
        with os.fdopen(writer, "wb") as file:
            pickle.dump(result, file)
        os._exit(0)  # the fixtures are the parent's
    os.close(writer)
    ends = bool(select.select([reader], [], [], ALL)[0])
    if not ends:
        os.kill(child, signal.SIGKILL)  # it waits for something that Python can't interrupt
    with os.fdopen(reader, "rb") as file:
        content = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not content:
        return [f"the process {f'died: {status}' if ends else 'hangs'}"]
    result: list[str] = pickle.loads(content)
    return result


def _failures(run: Callable[[Any], object], cases: Iterable[Any], mebibytes: int) -> list[str]:
    before = _bytes("VmSize")
    # Address space, of which libraries reserve more than they use; readers of sizes ask for it.
    resource.setrlimit(resource.RLIMIT_AS, (before + (mebibytes << 20) + 2**30,) * 2)
    resident, out = _bytes("VmRSS"), []
    # Not faulthandler's watchdog: after a fork it waits for that of the parent, if pytest has one.
    signal.signal(signal.SIGALRM, _hang)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # with pytest, if that is killed
    for number, case in enumerate(cases):
        signal.setitimer(signal.ITIMER_REAL, HANGS)
        signal.setitimer(signal.ITIMER_PROF, HANGS)  # CPU time, also of C code
        try:
            run(case)
        except ChexsegError as error:
            if not all(map(one_line, getattr(error, "lines", [error]))):
                out.append(f"case {number}: message {str(error)!r:.500}\n{case!r:.500}")
        except (Exception, HangError):
            out.append(f"case {number}: {traceback.format_exc()}\n{case!r:.500}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.setitimer(signal.ITIMER_PROF, 0)
        if (grown := _bytes("VmHWM") - resident) > mebibytes << 20:
            return [*out, f"case {number}: {grown >> 20} MiB more\n{case!r:.500}"]
    return out


def _hang(*ignored: object) -> None:
    raise HangError


def _bytes(field: str) -> int:
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith(f"{field}:"))
    return int(line.split()[1]) << 10
