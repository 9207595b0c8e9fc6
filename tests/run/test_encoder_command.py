"""Test `chexseg encoder import`: its output, its error lines, and the caches of weights it uses."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision
from typer.testing import CliRunner

from chexseg import cli
from chexseg.errors import UserError
from chexseg.models import encoders
from chexseg.run import encoder_import
from chexseg.store.store import Store


def run_command(*arguments: str | Path):
    return CliRunner().invoke(cli.app, list(map(str, arguments)))


def test_the_command_says_what_it_did_and_what_to_type_next(files, phantom_root, tmp_path):
    study, root = tmp_path / "study.yaml", tmp_path / "a store"
    study.write_text(
        "name: s\nsettings: {encoder: {init: imagenet}, labels: {expert_split: {train: 8, select: 4}}}"
    )
    arguments = ("study", "plan", study, "--data", phantom_root, "--store", root)
    missing = run_command(*arguments)
    assert str(missing.exception) == (
        f"{study}:2: settings.encoder.init: found imagenet: no imagenet encoder of resnet18 is in"
        " the store; import one first: chexseg encoder import [FILE] --kind imagenet"
        f" --architecture resnet18 --store '{root}'"
    )
    assert not root.exists()
    made = run_command(
        "encoder", "import", files["imagenet"], "--kind", "imagenet", "--store", root
    )
    assert made.exit_code == 0
    first, second, third = made.output.splitlines()
    assert (
        first == f"{files['imagenet']}: 120 tensors of a resnet18; 2 ignored (fc.weight, fc.bias)"
    )
    assert second.endswith(": written")
    assert "encoder.init: imagenet" in third
    assert ["imported", "1", "1", "0"] in [
        line.split() for line in run_command(*arguments).output.splitlines()
    ]
    imported = run_command(
        "encoder", "import", files["moco-cxr"], "--kind", "moco-cxr", "--store", root
    )
    assert "resnet18 and encoder.init: moco, encoder.imported: true." in imported.output
    again = run_command(
        "encoder", "import", files["imagenet"], "--kind", "imagenet", "--store", root
    )
    assert "already in the store" in again.output
    assert "moco.init: imagenet, irnet.init: imagenet." in again.output
    run_command("encoder", "import", files["other"], "--kind", "imagenet", "--store", root)
    older = run_command(
        "encoder", "import", files["imagenet"], "--kind", "imagenet", "--store", root
    )
    assert "note: studies use the latest imported imagenet encoder of resnet18" in older.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--kind", "moco"),
            "--kind: found 'moco' (did you mean 'moco-cxr'?); allowed: moco-cxr, chexpert, "
            "imagenet",
        ),
        (
            ("--kind", "imagenet", "--architecture", "resnt18"),
            "--architecture: found 'resnt18' (did you mean 'resnet18'?)",
        ),
        (
            ("--kind", "imagenet", "--architecture", "densenet121"),
            "604 tensors of a densenet121 are missing",
        ),
    ],
)
def test_a_mistake_is_one_line(arguments, message, files, tmp_path, monkeypatch, capsys):
    command = [
        "chexseg",
        "encoder",
        "import",
        str(files["imagenet"]),
        *arguments,
        "--store",
        str(tmp_path / "store"),
    ]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "store").exists()


def test_without_a_file_imagenets_weights_come_from_torchvisions_cache(
    files, tmp_path, monkeypatch
):
    digest = hashlib.sha256(files["imagenet"].read_bytes()).hexdigest()
    url = f"a/resnet18-{digest[:8]}.pth"
    weights = {"IMAGENET1K_V1": SimpleNamespace(url=url)}
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda _: weights)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "checkpoints" / Path(url).name
    cached.parent.mkdir(parents=True)
    assert encoders.torchvision_cache("resnet18") is None
    cached.symlink_to(files["imagenet"])
    done = run_command("encoder", "import", "--kind", "imagenet", "--store", tmp_path / "store")
    assert done.exit_code == 0, done.output
    assert list(Store(tmp_path / "store").imported()) == [("imagenet", "resnet18")]


def test_a_cached_file_that_is_not_the_published_one_is_refused(files, tmp_path, monkeypatch):
    """Try torchvision's cache, with digits of the digest in the name, and Hugging Face's links."""
    import huggingface_hub

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    cached.symlink_to(files["imagenet"])
    refusal = r"SHA-256: found [0-9a-f]+; expected f37072fd.* as in its name"
    with pytest.raises(UserError, match=refusal):
        encoder_import.published("imagenet", "resnet18")
    cached.unlink()
    content = files["imagenet"].read_bytes()
    blob = tmp_path / hashlib.sha256(content).hexdigest()
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(link))
    blob.write_bytes(content)
    assert encoder_import.published("imagenet", "resnet18") == link
    blob.write_bytes(content[:-1] + b"x")
    with pytest.raises(UserError, match=f"SHA-256: found .*; expected {blob.name}"):
        encoder_import.published("imagenet", "resnet18")


def test_without_a_file_imagenets_weights_come_from_hugging_faces_cache(
    files, tmp_path, monkeypatch
):
    import huggingface_hub

    asked = []

    def download(repo_id, filename, revision):
        asked.append((repo_id, filename, revision))
        return str(files["imagenet"])

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert encoder_import.published("imagenet", "resnet18") == files["imagenet"]
    settings = encoders.published_settings("resnet18")
    assert asked == [(settings["repo_id"], "model.safetensors", settings["revision"])]


@pytest.mark.parametrize(
    ("kind", "architecture", "message"),
    [
        ("imagenet", "resnet18", "in no cache of this machine, and can't be downloaded"),
        (
            "imagenet",
            "dpn92",
            "lists no ImageNet weights; hint: pass the file: chexseg encoder import [",
        ),
        (
            "moco-cxr",
            "resnet18",
            "these weights can't be downloaded by name; hint: pass the file",
        ),
        ("imagenets", "resnet18", "did you mean 'imagenet'"),
        ("imagenet", "resnet", "did you mean"),
    ],
)
def test_without_a_file_and_without_a_source_the_file_is_asked_for(
    kind, architecture, message, tmp_path, monkeypatch
):
    from huggingface_hub import constants

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        encoder_import.published(kind, architecture)
    assert "\n" not in str(caught.value)
