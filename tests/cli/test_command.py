"""Test what ends a command: one line with the path, the fault and the option, or a traceback."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from chexseg.cli.command import explain
from chexseg.store.store import Store
from tests.store.places import NODE, commit

STUDY = "name: s\nsettings: {size: 64, labels: {expert_split: {train: 8, select: 4}}}\n"


def os_error(number: int, path: Path | None = None) -> OSError:
    return OSError(number, os.strerror(number), None if path is None else str(path))


@pytest.fixture
def study(tmp_path) -> Path:
    (tmp_path / "s.yaml").write_text(STUDY)
    return tmp_path / "s.yaml"


def test_every_command_explains_errors_of_files():
    from typer.main import get_command

    from chexseg.cli import app
    from chexseg.cli.command import Command
    from chexseg.cli.examples import EXAMPLES

    tops = get_command(app).commands.values()
    commands = [below for top in tops for below in getattr(top, "commands", {"": top}).values()]
    assert len(commands) == len(EXAMPLES)
    assert all(isinstance(command, Command) for command in commands)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG])
@pytest.mark.parametrize("below", ["", "/.partial/fit-1.lock"])
def test_the_line_names_the_option_whose_path_is_nearest(number, below, tmp_path):
    places = [("--data", str(tmp_path)), ("--store", str(tmp_path / "store")), ("--out", "out")]
    path = Path(f"{tmp_path}/store{below}")
    line = explain(os_error(number, path), places)
    assert line.startswith(f"{path}: can't be used ({os.strerror(number)}); expected: ")
    assert line.endswith("; hint: choose another --store")


def test_a_folder_above_an_option_is_that_of_the_option(tmp_path):
    line = explain(os_error(errno.EACCES, tmp_path), [("--store", str(tmp_path / "a" / "b"))])
    assert line.endswith("; hint: choose another --store")


def test_a_place_that_no_option_names_is_that_of_an_environment_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("CHEXSEG_CACHE", str(tmp_path / "cache"))
    line = explain(os_error(errno.ENOSPC, tmp_path / "cache" / "x"), [("--store", "/elsewhere")])
    assert line.endswith("expected: free space; hint: choose another CHEXSEG_CACHE")


@pytest.mark.parametrize(
    "error",
    [
        OSError("no error number"),
        os_error(errno.ENOENT, Path(__file__)),  # no option's file: perhaps a missing template
        os_error(errno.EBADF),
        ConnectionResetError(errno.ECONNRESET, "reset"),
    ],
)
def test_what_a_mistake_in_the_code_causes_keeps_its_traceback(
    error, chexseg, monkeypatch, tmp_path
):
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("chexseg.store.contents.contents", fail)
    with pytest.raises(OSError) as caught:
        chexseg("store", "list", "--store", tmp_path)
    assert caught.value is error


@pytest.mark.parametrize("command", ["list", "plan", "import"])
@pytest.mark.parametrize("kind", ["long", "deep", "below a file", "not UTF-8"])
def test_a_store_that_cannot_exist(command, kind, tmp_path, study, phantom_root, chexseg):
    (tmp_path / "file").touch()
    (tmp_path / "weights.pt").touch()
    names = {
        "long": 300 * "x",
        "deep": "/".join(30 * [200 * "y"]),
        "below a file": "file/store",
        "not UTF-8": os.fsdecode(b"x\xe9"),
    }
    arguments = {
        "list": ("store", "list"),
        "plan": ("study", "plan", study, "--data", phantom_root),
        "import": ("encoder", "import", tmp_path / "weights.pt", "--kind", "imagenet"),
    }[command]
    before = sorted(os.listdir(tmp_path))
    code, out, err = chexseg(*arguments, "--store", tmp_path / names[kind])
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--store" in err and ("can't be used (" in err or "isn't UTF-8" in err)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("option", ["--data", "--out", "--store", "STUDY.yaml"])
def test_a_path_that_is_not_utf8_is_refused_before_the_work(option, tmp_path, study, chexseg):
    paths = {"STUDY.yaml": study, "--data": tmp_path, "--out": tmp_path / "out", "--store": "s"}
    paths[option] = tmp_path / os.fsdecode(b"x\xe9")
    first = paths.pop("STUDY.yaml")
    code, out, err = chexseg("report", first, *(word for pair in paths.items() for word in pair))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"chexseg: {option}") and r"x\udce9', which isn't UTF-8" in err


def test_a_full_disk_while_a_store_is_written_leaves_it_whole(
    tmp_path, monkeypatch, chexseg, study, phantom_root
):
    store = Store(tmp_path / "store")
    commit(store)
    before = store.backend.tree("")
    real = os.fsync

    def full(descriptor: int) -> None:
        if str(tmp_path / "store") in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise os_error(errno.ENOSPC)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:
        store.record_failure(NODE, "ValueError: no", "Traceback ...")
    line = explain(caught.value, [("--store", str(tmp_path / "store"))])
    assert line.startswith(f"{tmp_path}/store/.failed/") and line.endswith("another --store")
    assert store.backend.tree("") == before


def test_a_store_on_a_file_system_without_locks_can_be_read_and_is_not_written(
    tmp_path, monkeypatch
):
    store = Store(tmp_path / "store")
    commit(store)
    (tmp_path / "store" / ".partial" / "fit-0.lock").touch()

    def no_locks(descriptor: int, operation: int) -> None:
        raise os_error(errno.ENOLCK)

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert store.find(NODE.stage, NODE.key) and store.backend.in_progress() == set()
    with pytest.raises(OSError) as caught, store.working_on(NODE):
        pytest.fail("the lock was taken")
    line = explain(caught.value, [("--store", str(tmp_path / "store"))])
    assert line.endswith("expected: a file system with locks (flock); hint: choose another --store")


def test_a_lock_file_that_this_user_may_not_open_counts_as_held(tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    (tmp_path / "store" / ".partial").mkdir(parents=True)
    (tmp_path / "store" / ".partial" / "fit-0.lock").touch()
    real = os.open

    def refuse(path: str, *arguments: object, **options: object) -> int:
        if str(path).endswith(".lock"):
            raise os_error(errno.EACCES, Path(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert store.backend.in_progress() == {"fit-0"}


def test_a_current_directory_that_is_gone_or_not_utf8(tmp_path, monkeypatch, chexseg):
    for name in ("gone", os.fsdecode(b"x\xe9")):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        (tmp_path / name).rmdir() if name == "gone" else None
        code, out, err = chexseg("store", "list")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("chexseg: the current directory: ")


def test_an_unreadable_file_is_one_line(monkeypatch, chexseg, study, tmp_path):
    monkeypatch.setattr(os, "access", lambda *arguments, **options: False)
    code, _, err = chexseg("study", "plan", study, "--data", tmp_path / "none")
    assert (code, err) == (
        2,
        f"chexseg: data root {tmp_path}/none: no such directory; expected a directory or prefix"
        " that contains CheXpert and CheXlocalize\n",
    )


@pytest.mark.parametrize("form", ["--store=~/x", "--store ~/x"])
def test_the_tilde_is_the_home_directory(form, tmp_path, monkeypatch, chexseg):
    monkeypatch.setenv("HOME", str(tmp_path))
    commit(Store(tmp_path / "x"))
    code, out, _ = chexseg("store", "list", *form.split(" "))
    assert code == 0 and out.splitlines()[-1].startswith("1 artifacts")


def test_the_tilde_of_a_user_without_a_home_directory_is_refused(monkeypatch, chexseg, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    code, _, err = chexseg("store", "list", "--store=~/x")
    assert code == 2 and err == (
        "chexseg: --store: found ~/x, and this user has no home directory;"
        " expected: a path; hint: set HOME\n"
    )
