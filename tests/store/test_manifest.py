"""Test what manifests may say, and that they notice damage: their own, and that of their files."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from chexseg.errors import DamagedArtifactError
from chexseg.store import manifest
from chexseg.store.manifest import UnreadableManifestError

CONTENT = b"0123456789"


def document(**parts) -> dict:
    """A manifest as every version has written it, of one file ``sub/values.bin``."""
    files = {
        "sub/values.bin": {"size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    }
    whole = {
        "key": "a" * 64,
        "stage": "fit",
        "version": 1,
        "config": {},
        "inputs": {"test": "b" * 64},
        "data": None,
        "files": files,
        "facts": {"selection_miou": 0.25},
        "seconds": 1.5,
        "finished": "2026-01-01T00:00:00+00:00",
        "host": "here",
    }
    return whole | parts


@pytest.fixture
def result(tmp_path):
    """The directory of a result."""
    directory = tmp_path / "fit" / "aaaa"
    (directory / "sub").mkdir(parents=True)
    (directory / "sub" / "values.bin").write_bytes(CONTENT)
    (directory / manifest.MANIFEST).write_text(json.dumps(manifest.seal(document())))
    return directory


def parse(whole: object) -> dict:
    return manifest.parse(json.dumps(whole).encode(), "STORE/fit/manifest.json")


def test_a_manifest_is_read_as_it_was_written_with_and_without_its_own_digest():
    sealed = manifest.seal(document())
    assert parse(sealed) == sealed
    assert parse(document()) == document(), "as earlier versions wrote it"


@pytest.mark.parametrize(
    "name",
    [
        ".",
        "../other",
        "a/../../other",
        "/etc/passwd",
        "a//b",
        "./a",
        "a/.",
        "",
        "..",
        "a\\..\\b",
        "a\nb",
        "manifest.json",
        ".inputs.json",
        "sub/.values.bin.sha256",
    ],
)
def test_names_that_lead_out_of_the_result_are_refused(name):
    entry = {"size": 1, "sha256": "0" * 64}
    with pytest.raises(
        UnreadableManifestError,
        match="STORE/fit/manifest.json: files: found .*; expected: a manifest",
    ):
        parse(document(files={name: entry}))


@pytest.mark.parametrize(
    "damaged",
    [
        [1],
        None,
        {},
        document(key="short"),
        document(key=3),
        document(files=[]),
        document(files={"a": {"size": "1", "sha256": "0" * 64}}),
        document(files={"a": {"size": 1, "sha256": "x"}}),
        document(files={"a": None}),
        document(inputs={"test": "../b"}),
        *(document(seconds=value) for value in (10**400, -1, float("inf"), float("nan"))),
        *(
            document(files={"a": {"size": size, "sha256": "0" * 64}})
            for size in (10**400, 2**63, -1)
        ),
        document(facts={"images": 10**400}),
        document(files={"x" * 256: {"size": 1, "sha256": "0" * 64}}),
        document(files={"a/" * 600 + "a": {"size": 1, "sha256": "0" * 64}}),
        {name: value for name, value in document().items() if name != "facts"},
        manifest.seal(document()) | {"facts": {"selection_miou": 0.75}},
    ],
)
def test_what_no_version_has_written_is_an_error_in_one_line(damaged):
    with pytest.raises(UnreadableManifestError) as caught:
        parse(damaged)
    assert str(caught.value).startswith("STORE/fit/manifest.json: ") and "\n" not in str(
        caught.value
    )


def test_every_bit_of_a_manifest_counts():
    """Each change of what it says is noticed; the same said in another way may pass."""
    sealed = manifest.seal(document())
    content = json.dumps(sealed).encode()
    silent = []
    for position in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            try:
                parsed = manifest.parse(bytes(flipped), "x")
            except UnreadableManifestError:
                continue
            if {name: parsed.get(name) for name in document()} != document():
                silent.append((position, bit))
    assert silent == []


def test_half_a_manifest_and_deep_json_are_errors():
    for content in (b"", b"{", json.dumps(document()).encode()[:80], b"\xff\xfe", b"[" * 100_000):
        with pytest.raises(UnreadableManifestError, match="not JSON"):
            manifest.parse(content, "x")


def test_a_file_passes_as_it_was_written_and_no_flipped_bit_does(result):
    path = result / "sub" / "values.bin"
    manifest.verify(path)
    for position in range(len(CONTENT)):
        flipped = bytearray(CONTENT)
        flipped[position] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(DamagedArtifactError, match="values.bin: not what its manifest says"):
            manifest.verify(path)
    path.write_bytes(CONTENT)
    manifest.verify(path)
    assert manifest.read_bytes(path) == CONTENT


def test_another_file_of_the_same_size_and_time_is_found_out(result):
    path = result / "sub" / "values.bin"
    manifest.verify(path)
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=times)
    with pytest.raises(DamagedArtifactError):
        manifest.verify(path)


def test_what_a_manifest_does_not_name_is_not_read(result):
    (result / "sub" / "more.bin").write_bytes(b"")
    with pytest.raises(DamagedArtifactError, match="more.bin: not in its manifest"):
        manifest.verify(result / "sub" / "more.bin")


def test_a_second_manifest_inside_a_result_does_not_count(tmp_path):
    directory = tmp_path / "fit" / ("a" * 20)
    (directory / "sub").mkdir(parents=True)
    (directory / manifest.MANIFEST).write_text(json.dumps(manifest.seal(document())))
    values = directory / "sub" / "values.bin"
    values.write_bytes(CONTENT[::-1])
    described = {"size": len(CONTENT), "sha256": hashlib.sha256(CONTENT[::-1]).hexdigest()}
    inner = manifest.seal(document(files={"values.bin": described}))
    (directory / "sub" / manifest.MANIFEST).write_text(json.dumps(inner))
    with pytest.raises(DamagedArtifactError, match="its SHA-256 differs"):
        manifest.verify(values)


def test_a_missing_file_is_damage_and_one_without_a_manifest_passes(result, tmp_path):
    (result / "sub" / "values.bin").unlink()
    with pytest.raises(DamagedArtifactError, match="cannot be read"):
        manifest.verify(result / "sub" / "values.bin")
    (tmp_path / "alone.bin").write_bytes(b"x")
    manifest.verify(tmp_path / "alone.bin")


def test_paths_may_be_relative_to_the_current_directory(result, tmp_path, monkeypatch):
    (tmp_path / "alone.bin").write_bytes(b"x")
    for directory, paths in (
        (tmp_path, ["alone.bin", "fit/aaaa/sub/values.bin"]),
        (result, ["sub/values.bin"]),
    ):
        monkeypatch.chdir(directory)
        for path in paths:
            manifest.verify(path)
    (result / "sub" / "values.bin").write_bytes(CONTENT[::-1])
    with pytest.raises(DamagedArtifactError):
        manifest.verify("sub/values.bin")


def test_a_file_is_hashed_once_a_process(result, monkeypatch):
    path = result / "sub" / "values.bin"
    manifest.verify(path)
    monkeypatch.setattr(manifest, "sha256", lambda file: pytest.fail("hashed again"))
    manifest.verify(path)


def test_a_manifest_of_another_program_above_a_file_is_not_ours(tmp_path):
    """A web application's, for one; but one of ours that is damaged is."""
    path = tmp_path / "model" / "segmenter.json"
    path.parent.mkdir()
    path.write_text("{}")
    (tmp_path / "manifest.json").write_text('{"name": "app", "icons": []}')
    manifest.verify(path)
    (tmp_path / "manifest.json").write_text('{"key": "a", "files": ')
    with pytest.raises(UnreadableManifestError):
        manifest.verify(path)


def test_a_named_pipe_is_damage_and_nobody_waits_for_it(result):
    path = result / "sub" / "values.bin"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DamagedArtifactError, match="values.bin: cannot be read"):
        manifest.verify(path)
    assert not manifest.is_noted(path)
    (result / manifest.MANIFEST).unlink()
    os.mkfifo(result / manifest.MANIFEST)
    with pytest.raises(UnreadableManifestError, match="cannot be read"):
        manifest.load(result)
