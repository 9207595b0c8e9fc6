"""Test how SIGINT and SIGTERM end a command: in processes of their own, without Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from chexseg.cli import signals

#: Says when it waits, and when it cleans up.
PROGRAM = """
import signal, time, typer
from chexseg.cli import signals
def command():
    {setup}
    with signals.handled():
        try:
            print("waiting", flush=True)
            time.sleep(60)
        finally:
            print("cleaning", flush=True)
            {clean}
            print("clean", flush=True)
typer.run(command)
"""
LINES = {
    signal.SIGINT: "chexseg: interrupted; hint: the same command resumes the run\n",
    signal.SIGTERM: "chexseg: terminated; hint: the same command resumes the run\n",
}
both = pytest.mark.parametrize("number", LINES)


#: Runs a command in which no signal is ignored, as the background job of a shell ignores SIGINT.
#: Not by `preexec_fn`: Python code between fork and exec can wait for a lock of another thread.
ACCEPTING = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def start(clean: str = "pass", setup: str = "pass") -> subprocess.Popen:
    """Start the program and wait until it waits."""
    command = [sys.executable, "-c", PROGRAM.format(clean=clean, setup=setup)]
    program = subprocess.Popen(
        [sys.executable, "-c", ACCEPTING, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout.readline() == "waiting\n"
    return program


@both
def test_a_signal_ends_a_command_cleanly_with_one_line(number):
    program = start()
    program.send_signal(number)
    assert program.communicate(timeout=60) == ("cleaning\nclean\n", LINES[number])
    assert program.returncode == 128 + number


@both
def test_a_second_signal_ends_it_at_once(number):
    program = start(clean="time.sleep(600)")
    program.send_signal(number)
    assert program.stdout.readline() == "cleaning\n"
    time.sleep(2 * signals.AT_ONCE)
    program.send_signal(number)
    assert program.communicate(timeout=60) == ("", LINES[number])
    assert program.returncode == 128 + number


def test_two_signals_at_once_are_one():
    program = start(clean="time.sleep(1)", setup="signals.AT_ONCE = 60")
    program.send_signal(signal.SIGTERM)
    assert program.stdout.readline() == "cleaning\n"
    program.send_signal(signal.SIGTERM)
    assert program.communicate(timeout=60) == ("clean\n", LINES[signal.SIGTERM])
    assert program.returncode == 143


def test_cleaning_up_that_hangs_is_ended():
    program = start(clean="time.sleep(600)", setup="signals.PATIENCE = 1")
    program.send_signal(signal.SIGTERM)
    assert program.communicate(timeout=60) == ("cleaning\n", LINES[signal.SIGTERM])
    assert program.returncode == 143


def test_an_error_that_a_signal_causes_is_not_shown():
    program = start(clean="raise RuntimeError('Ray has ended')")
    program.send_signal(signal.SIGTERM)
    assert program.communicate(timeout=60) == ("cleaning\n", LINES[signal.SIGTERM])
    assert program.returncode == 143


def test_a_signal_that_is_ignored_stays_ignored():
    program = start(setup="signal.signal(signal.SIGINT, signal.SIG_IGN)")
    program.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert program.poll() is None
    program.send_signal(signal.SIGTERM)
    assert program.communicate(timeout=60) == ("cleaning\nclean\n", LINES[signal.SIGTERM])


def test_handlers_are_restored_and_other_errors_pass():
    before = [signal.getsignal(number) for number in LINES]
    with pytest.raises(ValueError, match="mistake"), signals.handled():
        assert [signal.getsignal(number) for number in LINES] != before
        raise ValueError("mistake")
    assert [signal.getsignal(number) for number in LINES] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_off_the_main_thread_no_handler_is_installed():
    before, seen = [signal.getsignal(number) for number in LINES], []

    def body() -> None:
        with signals.handled():
            seen.extend(signal.getsignal(number) for number in LINES)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == before


def test_other_signals_don_t_count():
    done = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: done.append(number))
    try:
        with signals.handled():
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert done
