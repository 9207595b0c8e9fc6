"""Listing and verifying a store, in a directory and on S3."""

from __future__ import annotations

import contextlib
import json
import os
import socket

import pytest
from typer.testing import CliRunner

from chexseg import cli
from chexseg.errors import UserError
from chexseg.plan import garbage
from chexseg.plan.graph import node_of
from chexseg.stages.configs import ImportedConfig, IngestConfig
from chexseg.store import contents, live_runs, manifest, marker
from chexseg.store.manifest import MANIFEST, UnreadableManifestError
from chexseg.store.store import Store
from tests.store.places import NODE, commit, name

OLD = node_of("ingest", IngestConfig(split="train", size=64), {}, "older data")
ENCODER = node_of(
    "imported", ImportedConfig(kind="imagenet", architecture="resnet18", sha256="0" * 64), {}
)


def silent(done: int, total: int, unit: str) -> None:
    pass


def test_the_contents_are_what_was_committed(store):
    commit(store)
    commit(store, ENCODER, b"x" * 2000)
    store.backend.write(f"{name(OLD)}/upload", b"of a run that was killed")
    first, *others = contents.contents(store)
    assert (first.name, first.key, first.seconds) == (name(ENCODER), ENCODER.key, 1.5)
    assert first.bytes == 2000 + store.backend.tree(name(ENCODER))[MANIFEST].size
    assert {content.name: content.key for content in others} == {
        name(OLD): None,
        name(NODE): NODE.key,
    }
    text = contents.table([first, *others])
    assert "3 artifacts" in text.splitlines()[-1]
    assert sum("no manifest" in line for line in text.splitlines()) == 1
    assert {content.row()["state"] for content in others} == {"no manifest", "finished"}


def test_a_whole_store_is_verified_and_every_damage_found(store):
    commit(store)
    commit(store, OLD)
    commit(store, ENCODER)
    told = []
    found = contents.verify(store, lambda *progress: told.append(progress))
    assert (found.artifacts, found.files, found.bytes, found.damaged, found.unfinished) == (
        3,
        3,
        30,
        [],
        [],
    )
    assert told[-1] == (30, 30, "bytes")
    store.backend.write(f"{name(NODE)}/sub/values.bin", b"9876543210")
    store.backend.delete(f"{name(OLD)}/sub/values.bin")
    store.backend.delete(f"{name(ENCODER)}/{MANIFEST}")
    with store.working_on(ENCODER) as partial:
        partial.mkdir()
    found = contents.verify(store, silent)
    assert sorted(found.damaged) == sorted(
        [
            f"{name(NODE)}/sub/values.bin: not what its manifest says",
            f"{name(OLD)}/sub/values.bin: gone",
        ]
    )
    assert found.unfinished == [name(ENCODER), str(partial)]
    assert "2 damaged" in found.text()


def test_a_manifest_in_anothers_place_is_damage(store):
    commit(store)
    for file in (MANIFEST, "sub/values.bin"):
        content = store.backend.read({f"{name(NODE)}/{file}": store.backend.tree(name(NODE))[file]})
        store.backend.write(f"{name(OLD)}/{file}", *content.values())
    assert contents.verify(store, silent).damaged == [
        f"{name(OLD)}: its manifest is of another key, {NODE.key[:20]}"
    ]


# ---- the commands


def run(*arguments: object, **options):
    return CliRunner().invoke(cli.app, list(map(str, arguments)), **options)


def test_the_commands_say_what_is_there_and_what_is_damaged(place, store):
    commit(store)
    listed = run("store", "list", "--store", place)
    assert listed.exit_code == 0
    assert f"ingest     {NODE.key[:20]}" in listed.output and listed.output.splitlines()[
        -1
    ].startswith("1 artifacts, ")
    (row,) = json.loads(run("store", "list", "--store", place, "--json").output)
    assert (row["stage"], row["key"], row["seconds"], row["state"]) == (
        "ingest",
        NODE.key,
        1.5,
        "finished",
    )
    assert run("store", "verify", "--store", place, "--quiet").exit_code == 0
    store.backend.write(f"{name(NODE)}/sub/values.bin", b"9876543210")
    verified = run("store", "verify", "--store", place, "--quiet")
    assert verified.exit_code == 1
    assert f"damaged: {name(NODE)}/sub/values.bin" in verified.output


def test_the_trash_is_neither_listed_nor_verified(store):
    marker.mark(store)
    commit(store)
    commit(store, OLD)
    (waste,) = [one for one in garbage.survey(store, []).waste if one.name == name(OLD)]
    folder, kept = garbage.collect(store, [waste], silent)
    assert kept == [] and f"{folder}/{name(OLD)}/sub/values.bin" in store.backend.tree("")
    assert [content.name for content in contents.contents(store)] == [name(NODE)]
    found = contents.verify(store, silent)
    assert (found.artifacts, found.damaged, found.unfinished) == (1, [], [])


# ---- stores that others have written to ----------------------------------------------------------


def special_files(store: Store, kind: str) -> None:
    """Put a pipe or a socket in place of a file, the marker, a manifest and a failure record."""
    values = f"{name(NODE)}/sub/values.bin"
    for file in (values, marker.MARKER, f"{name(OLD)}/{MANIFEST}", f".failed/{OLD.key[:20]}.json"):
        path = store.backend.local / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        else:
            with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):
                server.bind(path.name)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_nobody_waits_for_a_pipe_in_a_store(tmp_path, kind):
    store = Store(tmp_path)
    for node in (NODE, OLD):
        commit(store, node)
    special_files(store, kind)
    marker.mark(store)
    with pytest.raises(UserError, match="found another layout"):
        marker.check_marked(store)
    assert store.failures([OLD.key]) == {}
    assert store.cached([NODE, OLD]) == set()
    verification = contents.verify(store, silent)
    assert verification.damaged == [f"{name(NODE)}/sub/values.bin: not what its manifest says"]
    assert verification.unfinished == [name(OLD)]
    assert len(garbage.survey(store, []).waste) == 1
    for node in (NODE, OLD):
        commit(store, node)
    assert contents.verify(store, silent).damaged == []


def test_a_pipe_in_a_partial_directory_is_named(tmp_path):
    store = Store(tmp_path)
    with store.working_on(NODE) as partial:
        partial.mkdir(parents=True)
    os.mkfifo(partial / "part-00000.parquet")
    with (
        pytest.raises(UserError, match="part-00000.parquet: found a pipe, socket or device"),
        store.working_on(NODE),
    ):
        pytest.fail("the partial directory was handed out")


def test_text_of_a_store_controls_no_terminal(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.node", lambda: "host\x1b]0;title\x07\x1b[31m\r\n")
    store = Store(tmp_path)
    commit(store)
    store.record_failure(OLD, "ValueError: \x1b[31mred\x1b[0m\x07", "Traceback\n\tline\x1b[2J")
    (tmp_path / "fit" / "\x1b[31m").mkdir(parents=True)
    (tmp_path / "fit" / "\x1b[31m" / "file").write_text("")
    (tmp_path / ".partial" / "\x1b[31m").mkdir(parents=True)
    survey = garbage.survey(store, [])
    with live_runs.holding(store, "study", [NODE]):
        (run,) = live_runs.live_runs(store)
    failure = store.failures([OLD.key])[OLD.key]
    assert failure["error"] == "ValueError: red?" and failure["traceback"] == "Traceback\n\tline"
    listed = contents.contents(store)
    assert listed[0].host == "host?]0;title???"
    for text in (contents.table(listed), *survey.kept, run.title):
        assert text.replace("\n", "").isprintable()


def test_names_that_are_no_artifacts_stop_nobody(store):
    """An S3 key may have parts that are longer than any file name."""
    commit(store)
    long = f"fit/{'x' * 300}/{MANIFEST}"
    store.backend.write(f"fit/other/{MANIFEST}", b"{}")
    if not store.backend.shared:
        store.backend.write(long, b"{}")
        store.backend.write(f"{name(NODE)}/{'x' * 300}", b"{}")
    assert [content.name for content in contents.contents(store)] == [name(NODE)]
    assert contents.verify(store, silent).damaged == []
    assert store.imported() == {} and len(store.artifacts()) == 1


def test_an_import_without_the_fields_of_one_is_an_error_in_one_line(tmp_path):
    store = Store(tmp_path)
    commit(store, ENCODER)
    path = tmp_path / name(ENCODER) / MANIFEST
    document = json.loads(path.read_text()) | {"config": {}}
    path.write_text(json.dumps(manifest.seal(document)))
    with pytest.raises(UnreadableManifestError, match="config: found {}; expected"):
        store.imported()
