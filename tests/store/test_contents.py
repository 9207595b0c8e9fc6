"""Listing and verifying a store, in a directory and on S3."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from chexseg import cli
from chexseg.plan import garbage
from chexseg.plan.graph import node_of
from chexseg.stages.configs import ImportedConfig, IngestConfig
from chexseg.store import contents, marker
from chexseg.store.manifest import MANIFEST
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


# ---- the commands --------------------------------------------------------------------------------------------------------


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
